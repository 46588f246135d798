"""The checks every loader ends in: what comes out is a sound graph, of one node type or several, or one clear error.

Axes: N nodes, F features, E directed edges, M edges of a relation. Rows are counted from 0 in every message.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.ids import check_ids
from ops.data.types.graph import AttributedGraph
from ops.data.types.hetero import (
    REVERSE,
    Edges,
    HeteroGraph,
    Nodes,
    Relation,
    check_type_name,
    merge_repeats,
    relation_name,
    relation_of,
)
from ops.errors import DataError, SettingsError

MOST = "; that is most of them"  # ends what is said of nodes without an edge, and makes a warning of it
LARGEST = 1e15  # the squares of larger values, summed over rows and columns, are beyond single precision


def make_graph(
    name: str,
    x: NDArray[Any],
    edge_index: NDArray[Any],
    *,
    ids: NDArray[Any] | None = None,
    feature_names: Sequence[str] | None = None,
    origin: str = "",
    weight: NDArray[Any] | None = None,
) -> AttributedGraph:
    """Check features and edges, make the edges undirected and unique, and count what was changed or met.

    `x` is numeric [N, F]; `edge_index` numeric [2, E] with whole ids in [0, N), one direction of an edge is enough.
    `weight` [E] is finite and not negative: those of repeated edges are added, of two directions the mean is taken, and
    an edge of weight 0 is none. `origin` (a file or name) opens every message. Raises DataError for: N or F of 0,
    values that are not finite numbers, edges that are not whole ids in range, no edges, `ids` missing, repeated or of
    another length.
    """
    where = origin or name
    features = check_features(x, feature_names=feature_names, origin=where)
    n = features.shape[0]
    if feature_names is not None and len(feature_names) != features.shape[1]:
        raise DataError(f"{where}: {len(feature_names)} feature names for {features.shape[1]} features")
    edge_index = check_edges(edge_index, n, origin=where)
    absent = 0
    if weight is not None:
        weight = _check_weights(weight, edge_index.shape[1], where)
        is_edge = weight > 0
        absent = int((~is_edge).sum())
        edge_index, weight = check_edges(edge_index[:, is_edge], n, origin=where), weight[is_edge]
    keys = None if ids is None else check_ids(ids, n, origin=where)
    edges, notes = _undirected(edge_index, n, keys)
    notes += [f"{count(absent, 'edge')} of weight 0 left out"] if absent else []
    weight = None if weight is None else _undirected_weights(edge_index, weight, edges, n)
    if weight is not None:
        notes.append(f"edge weights: {weight.min():g} to {weight.max():g}")
    zero = int(np.count_nonzero(~features.any(axis=1)))
    notes += [f"{count(zero, 'all-zero feature row')}"] if zero else []
    names = tuple(feature_names) if feature_names else None
    return AttributedGraph(name, features, edges, keys, names, tuple(notes), weight=weight)


def make_hetero(
    name: str, nodes: dict[str, Nodes], edges: dict[Relation, Edges], notes: Sequence[str] = (), *, origin: str = ""
) -> HeteroGraph:
    """A sound HeteroGraph of arrays: everything checked, duplicate edges merged, what was changed counted in notes.

    `edges` hold row numbers. Types and relations come in the order of their names, whatever they were read from.
    Raises DataError: no nodes or edges, features that do not fit the ids or are not finite, rows out of range, names
    that cannot be those of types and relations, a relation of a type that has no nodes.
    """
    where, said = origin or name, list(notes)
    if not nodes or not edges:
        raise DataError(f"{where}: empty graph: {len(nodes)} node types, {len(edges)} relations; at least one of each")
    checked = {kind: _nodes(where, kind, nodes[kind]) for kind in sorted(nodes)}
    linked = {kind: np.zeros(each.count, dtype=bool) for kind, each in checked.items()}
    merged: dict[Relation, Edges] = {}
    for relation in sorted(edges):
        title = _check_relation(where, relation, edges[relation], checked)
        merged[relation] = each = merge_edges(edges[relation], checked[relation[2]].count)
        repeated = edges[relation].count - each.count
        loops = int((each.src == each.dst).sum()) if relation[0] == relation[2] else 0
        said += [f"{title}: {count(repeated, 'duplicate edge')} merged"] if repeated else []
        said += [f"{title}: {count(loops, 'self loop')} kept"] if loops else []
        linked[relation[0]][each.src] = True
        linked[relation[2]][each.dst] = True
    for kind, has in linked.items():
        lonely = int((~has).sum())
        most = f"{MOST}: do the edges use their ids?" if lonely > has.size / 2 else ""
        said += [f"{count(lonely, f'{kind} node')} without an edge{most}"] if lonely else []
    return HeteroGraph(name, checked, merged, tuple(said))


def merge_edges(edges: Edges, n_destinations: int) -> Edges:
    """Every pair once, sorted by (src, dst): weights summed, the latest time kept."""
    columns = {name: column for name in ("weight", "time") if (column := getattr(edges, name)) is not None}
    codes, columns, _ = merge_repeats(edges.src * n_destinations + edges.dst, columns)
    return Edges(codes // n_destinations, codes % n_destinations, **columns)


def _nodes(where: str, kind: str, nodes: Nodes) -> Nodes:
    check_type_name(kind, where)
    if not nodes.count:
        raise DataError(f"{where}: {kind} has no rows; every table needs at least one")
    if nodes.x is None:
        return nodes
    if nodes.x.shape[0] != nodes.count:
        raise DataError(f"{where}: {kind}: {nodes.x.shape[0]} rows of features for {nodes.count} ids")
    return replace(nodes, x=check_features(nodes.x, origin=f"{where}: {kind}"))


def _check_relation(where: str, relation: Relation, edges: Edges, nodes: dict[str, Nodes]) -> str:
    title = relation_name(relation)
    relation_of(title)
    if relation[1].startswith(REVERSE):
        raise DataError(f"{where}: {title}: names that begin with {REVERSE} are kept for reverse relations; rename it")
    for end in (relation[0], relation[2]):
        if end not in nodes:
            raise DataError(f"{where}: relation {title} joins the node type {end!r}, which has no nodes")
    if not edges.count:
        raise DataError(f"{where}: {title} has no rows; every table needs at least one")
    for end, rows, kind in (("src", edges.src, relation[0]), ("dst", edges.dst, relation[2])):
        outside = (rows < 0) | (rows >= nodes[kind].count)
        if outside.any():
            at = int(outside.argmax())
            raise DataError(f"{where}: {title}, row {at}: {end} {rows[at]} is not among the {nodes[kind].count} nodes")
    return title


def check_features(
    x: NDArray[Any], *, feature_names: Sequence[str] | None = None, origin: str = "features",
    first_row: int | Callable[[], int] = 0,
) -> NDArray[np.float32]:  # fmt: skip
    """Finite float32 [N, F] within LARGEST, C-contiguous, N and F at least 1; DataError names the first other value.

    `first_row`: the number of the first of these rows in `origin`.
    """
    if x.ndim != 2:
        raise DataError(f"{origin}: features must be a table [N, F], found shape {x.shape}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{origin}: features must be real numbers, found type {x.dtype}")
    n, f = x.shape
    if n == 0 or f == 0:
        raise DataError(f"{origin}: empty graph ({n} nodes, {f} features); at least one of each is needed")

    def cell(bad: NDArray[np.bool_]) -> str:
        row, column = divmod(int(bad.argmax()), f)
        name = f" ({feature_names[column]!r})" if feature_names else ""
        start = first_row if isinstance(first_row, int) else first_row()
        return f"the first at row {start + row}, column {column}{name}"

    bad = ~np.isfinite(x)
    if bad.any():
        nans, n_bad = int(np.isnan(x).sum()), int(bad.sum())
        kinds = [f"{nans} NaN" if nans else "", f"{n_bad - nans} infinite" if n_bad > nans else ""]
        raise DataError(
            f"{origin}: features hold {' and '.join(k for k in kinds if k)} values, {cell(bad)}; only finite numbers "
            "are allowed, fill or remove them"
        )
    del bad
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(x, dtype=np.float32)
    if max(-float(out.min()), float(out.max())) > LARGEST:
        large = np.abs(out) > LARGEST
        raise DataError(f"{origin}: {int(large.sum())} values are beyond {LARGEST:g}, {cell(large)}; their squares do "
                        "not fit single precision: rescale the features")  # fmt: skip
    return out


def check_edges(edge_index: NDArray[Any], n: int, *, origin: str = "edges") -> NDArray[np.int64]:
    """Int64 [2, E] with every id in [0, n), E at least 1; DataError names the first offending edge."""
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise DataError(f"{origin}: edges must have the shape [2, E], found {edge_index.shape}")
    if edge_index.dtype.kind not in "iuf":
        raise DataError(f"{origin}: edge ids must be whole numbers, found type {edge_index.dtype}")
    if edge_index.shape[1] == 0:
        raise DataError(f"{origin}: no edges; a graph needs at least one, or use a feature table with --knn 10")

    def edge(bad: NDArray[np.bool_]) -> str:
        at = int(bad.any(axis=0).argmax())
        return f"edge {at} is ({edge_index[0, at]}, {edge_index[1, at]})"

    if edge_index.dtype.kind == "f":
        fractional = ~np.isfinite(edge_index) | (edge_index != np.floor(edge_index))
        if fractional.any():
            raise DataError(f"{origin}: {edge(fractional)}: ids must be whole numbers")
    outside = (edge_index < 0) | (edge_index >= n)
    if outside.any():
        from_one = edge_index.min() == 1 and edge_index.max() == n
        hint = "; the ids seem to count from 1, subtract 1" if from_one else ""
        raise DataError(f"{origin}: {edge(outside)}: ids must be in 0..{n - 1} (N = {n}){hint}")
    return edge_index.astype(np.int64)


def _undirected(edges: NDArray[np.int64], n: int, ids: NDArray[Any] | None) -> tuple[NDArray[np.int64], list[str]]:
    """Both directions of every edge, unique, sorted by (source, target), and the notes about it."""
    # an edge is one number, so that sorting and merging are those of a flat array
    codes = np.unique(edges[0] * n + edges[1])
    both = np.union1d(codes, codes % n * n + codes // n)
    merged, added = edges.shape[1] - codes.size, both.size - codes.size
    source, target = both // n, both % n
    loops = source == target
    linked = np.zeros(n, dtype=bool)
    linked[source[~loops]] = True
    isolated = n - int(linked.sum())
    which = "" if ids is None else f" ({', '.join(map(str, ids[~linked][:3]))}{' ...' if isolated > 3 else ''})"
    most = f"{MOST}: do the edges use the nodes' ids?" if isolated > n / 2 else ""
    notes = [
        *([f"{count(merged, 'duplicate edge')} merged"] if merged else []),
        *([f"{count(added, 'edge')} in one direction only, symmetrised"] if added else []),
        *([f"{count(int(loops.sum()), 'self loop')} kept"] if loops.any() else []),
        *([f"{count(isolated, 'isolated node')}{which}{most}"] if isolated else []),
    ]
    return np.stack([source, target]), notes


def _check_weights(weight: NDArray[Any], n_edges: int, origin: str) -> NDArray[np.float64]:
    if weight.shape != (n_edges,) or weight.dtype.kind not in "biuf":
        raise DataError(f"{origin}: weights must be numbers, one for each of {n_edges} edges, found {weight.dtype} "
                        f"{weight.shape}")  # fmt: skip
    bad = ~(np.isfinite(weight) & (weight >= 0) & (weight <= LARGEST))
    if bad.any():
        at = int(bad.argmax())
        raise DataError(f"{origin}: edge {at} has the weight {weight[at]:g}; weights are 0 to {LARGEST:g}")
    return weight.astype(np.float64)


def _undirected_weights(
    edges: NDArray[np.int64], weight: NDArray[np.float64], both: NDArray[np.int64], n: int
) -> NDArray[np.float32] | None:
    """The weight of each edge of `both`, the two directions of `edges`; None where all are equal."""
    codes, place = np.unique(edges[0] * n + edges[1], return_inverse=True)
    total = np.bincount(place, weights=weight)
    sums, counts = np.zeros((2, both.shape[1]))
    for wanted in (both[0] * n + both[1], both[1] * n + both[0]):
        at = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
        is_given = codes[at] == wanted
        sums[is_given] += total[at[is_given]]
        counts += is_given
    mean = (sums / counts).astype(np.float32)
    return None if (mean == mean[0]).all() else mean


def check_clusters(k: int, n: int, words: str = "--n-clusters ") -> None:
    """K must be in 2..N: SettingsError below, DataError above. `words` are how K was given."""
    if k < 2:
        raise SettingsError(f"{words}{k}: give at least 2")
    if k > n:
        raise DataError(f"{words}{k}: the data has {n:,} rows, and a cluster needs at least one")


def count(number: int, noun: str) -> str:
    """`1 self loop`, `2 self loops`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
