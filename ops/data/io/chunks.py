"""An input of any size in chunks: what there is (footers, headers and listings only), and one chunk as arrays.

A chunk is a range of row groups (parquet), of bytes between two line ends (csv, tsv, txt), or of rows of a graph that
is read as a whole (.npz, RecBole, known names). Chunks depend on the files alone, never on who reads them.
Axes: N nodes or M edges of a chunk, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ops.data.io.byte_ranges import ROWS, blocks, byte_ranges, line_end, row_groups
from ops.data.io.dtypes import features_of, ids_of, times_of, weights_of, whole_numbers
from ops.data.io.layout import Files, Layout, find_layout
from ops.data.io.schema import Columns, edge_columns, node_columns
from ops.data.io.sources import Source, opened, read_bytes, reading
from ops.data.types.hetero import EDGE, Ids, Relation, relation_name, relation_of
from ops.data.whole import loaded, stamp_of
from ops.errors import DataError
from ops.storage.object_store import is_s3


@dataclass(frozen=True)
class Chunk:
    """`count` row groups, bytes or rows of `uri` from `first` on; `key`: its node type or relation.

    `row`: number of its first row in the file (-1: not known before it is asked for); `stamp` and `size` are the
    file's: one that is written again is refused. `width`: F of nodes.
    """

    uri: str
    kind: str  # parquet, text or graph
    first: int
    count: int
    key: str = ""
    row: int = -1
    width: int = 0
    columns: Columns | None = None
    size: int = 0
    stamp: str = ""

    @property
    def file(self) -> Source:
        """The file it is a part of."""
        return Source(self.uri, self.size, self.stamp)


@dataclass(frozen=True)
class Tables:
    """The chunks of a graph by node type and relation, in the order of the rows.

    `features`: F by type (0 = none); `weight`, `time`: the relations that have such a column; `symmetric`: relations
    said (graph.yaml) or known to equal their own transpose.
    """

    name: str
    nodes: dict[str, tuple[Chunk, ...]]
    edges: dict[Relation, tuple[Chunk, ...]]
    features: dict[str, int]
    weight: tuple[Relation, ...] = ()
    time: tuple[Relation, ...] = ()
    symmetric: tuple[Relation, ...] = ()
    notes: tuple[str, ...] = ()

    def names(self, kind: str) -> tuple[str, ...]:
        """Of a type's features, where each has a column or a name of its own."""
        first = self.nodes[kind][0]
        if first.kind == "graph":
            return loaded(first.uri, first.stamp).nodes[kind].names
        return _columns(first).feature_names


def tables(spec: str) -> Tables:
    """The chunks of a folder, file, s3:// place or known name; reads no rows but the first of each table.

    What is no folder of tables (.npz, RecBole's files, names such as ml-100k) is read whole, once a process.
    Raises DataError for headers that do not fit, tables without rows, columns that differ between files of a table.
    """
    layout = find_layout(spec)
    return _of_graph(spec) if layout is None else tables_of(layout)


def tables_of(layout: Layout) -> Tables:
    """The chunks of a folder's files. Raises as `tables` does."""
    nodes: dict[str, tuple[Chunk, ...]] = {}
    for kind, files in layout.nodes.items():
        columns = [node_columns(file) for file in files]
        _alike(files, [c.features for c in columns], "ragged features: the feature columns")
        width = _width(files, columns[0], kind)
        nodes[kind] = chunks_of(files, columns, kind, width)
    return _with_edges(layout, nodes)


def read_nodes(chunk: Chunk) -> tuple[Ids, NDArray[np.float32] | None]:
    """Ids int64 or text [N] as in the file, and features float32 [N, F], finite (None for F = 0).

    The ids of one type may be numbers in one chunk and text in another: they are all text then (`joined_ids`).
    Raises DataError (file, row) for missing ids, ragged or non-finite features, a file that changed.
    """
    if chunk.kind == "graph":
        nodes = loaded(chunk.uri, chunk.stamp).nodes[chunk.key]
        rows = slice(chunk.first, chunk.first + chunk.count)
        return nodes.ids[rows], None if nodes.x is None else nodes.x[rows]
    columns = _columns(chunk)
    table = read_table(chunk)
    with reading(chunk.uri):
        at = place_of(chunk)
        return ids_of(table.column(columns.named("id")), at), features_of(table, columns, chunk.width, at)


def read_edges(
    chunk: Chunk,
) -> tuple[Ids, Ids, NDArray[np.float32] | None, NDArray[np.int64] | None]:
    """Both ends [M], [M] as ids of the file, weight float32 [M] (finite, >= 0) or None, time int64 [M] s or None.

    Raises DataError (file, row) for missing ids, negative or non-finite weights, times that are none.
    """
    if chunk.kind == "graph":
        graph, relation = loaded(chunk.uri, chunk.stamp), relation_of(chunk.key)
        edges = graph.edges[relation].take(np.arange(chunk.first, chunk.first + chunk.count))
        source_ids, target_ids = graph.nodes[relation[0]].ids, graph.nodes[relation[2]].ids
        return source_ids[edges.src], target_ids[edges.dst], edges.weight, edges.time
    columns = _columns(chunk)
    table = read_table(chunk)
    with reading(chunk.uri):
        at = place_of(chunk)
        weight, time = columns.named("weight"), columns.named("time")
        return (
            ids_of(table.column(columns.named("src")), at),
            ids_of(table.column(columns.named("dst")), at),
            None if weight is None else weights_of(table.column(weight), weight, at),
            None if time is None else times_of(table.column(time), time, at),
        )


def place_of(chunk: Chunk) -> Callable[[int], str]:
    """Where a row of the chunk stands, for messages: place_of(chunk)(3) -> "FILE, row 1003" (rows from 0)."""

    def at(row: int) -> str:
        if chunk.kind == "graph":
            return f"{chunk.uri}: {chunk.key}, row {chunk.first + row}"
        first = chunk.row
        if first < 0:  # counted only where something is wrong
            first = sum(block.count(b"\n") for block in blocks(chunk.file, chunk.first)) - 1
        return f"{chunk.uri}, row {first + row}"

    return at


def joined_ids(parts: list[Ids]) -> Ids:
    """Ids of several chunks as one array: int64 where all are numbers, else text."""
    if len({part.dtype.kind for part in parts}) > 1:
        return np.concatenate([part.astype(np.str_) for part in parts])
    return cast(Ids, np.concatenate(parts) if parts else np.empty(0, dtype=np.int64))


def read_table(chunk: Chunk) -> Any:
    """The columns of a chunk that have a meaning, as an Arrow table. Raises DataError."""
    columns = _columns(chunk)
    wanted = [n for n, r in zip(columns.names, columns.roles, strict=True) if r]
    if chunk.kind == "parquet":
        import pyarrow.parquet as pq

        with opened(chunk.file) as stream, pq.ParquetFile(stream) as file:
            groups = list(range(chunk.first, chunk.first + chunk.count))
            return file.read_row_groups(groups, columns=wanted, use_threads=False)
    return _text(chunk, columns, wanted)


def _text(chunk: Chunk, columns: Columns, wanted: list[str]) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pc

    words = {
        n: pa.string()
        for n, r in zip(columns.names, columns.roles, strict=True)
        if r in ("id", "src", "dst", "list", "joined", "label")
    }
    data = read_bytes(chunk.file, chunk.first, chunk.count)
    with reading(chunk.uri):
        table = pc.read_csv(
            pa.BufferReader(data),
            read_options=pc.ReadOptions(column_names=list(columns.names), use_threads=False),
            parse_options=pc.ParseOptions(delimiter=columns.delimiter),
            convert_options=pc.ConvertOptions(
                column_types=words, null_values=[""], strings_can_be_null=True, include_columns=wanted
            ),
        )
        for name in words.keys() & {columns.named(r) for r in ("id", "src", "dst")}:
            table = table.set_column(wanted.index(name), name, whole_numbers(table.column(name)))
    return table


def _columns(chunk: Chunk) -> Columns:
    if chunk.columns is None:
        raise ValueError(f"{chunk.uri}: a {chunk.kind} chunk without columns")
    return chunk.columns


def _with_edges(layout: Layout, nodes: dict[str, tuple[Chunk, ...]]) -> Tables:
    edges: dict[Relation, tuple[Chunk, ...]] = {}
    weight, time, notes = [], [], []
    for relation, files in layout.edges.items():
        columns = [edge_columns(file) for file in files]
        _alike(files, [tuple(sorted(filter(None, c.roles))) for c in columns], "columns")
        edges[relation] = chunks_of(files, columns, relation_name(relation))
        weight += [relation] if columns[0].named("weight") else []
        time += [relation] if columns[0].named("time") else []
        rest = sorted({n for c in columns for n, r in zip(c.names, c.roles, strict=True) if not r})
        notes += [f"{relation_name(relation)}: columns ignored: {', '.join(rest[:5])}"] if rest else []
    features = {kind: chunks[0].width for kind, chunks in nodes.items()}
    return Tables(
        layout.name, nodes, edges, features, tuple(weight), tuple(time), layout.symmetric, tuple(notes)
    )  # fmt: skip


def _alike(files: Files, found: list[tuple[str, ...]], what: str) -> None:
    for file, here in zip(files, found, strict=True):
        if here != found[0]:
            raise DataError(
                f"{file.uri}: {what} are {', '.join(here[:6]) or 'none'}; in {files[0].uri} they are "
                f"{', '.join(found[0][:6]) or 'none'}; all files of a table need the same"
            )


def chunks_of(files: Files, columns: list[Columns], key: str, width: int = 0) -> tuple[Chunk, ...]:
    """The chunks of all files of one table. Raises DataError where they hold no rows."""
    found: list[Chunk] = []
    for file, own in zip(files, columns, strict=True):
        pieces = row_groups(file) if file.suffix == ".parquet" else byte_ranges(file)
        kind = "parquet" if file.suffix == ".parquet" else "text"
        found += [Chunk(file.uri, kind, a, n, key, row, width, own, file.size, file.stamp) for a, n, row in pieces]
    if not found:
        raise DataError(f"{files[0].uri}: {key} has no rows; every table needs at least one")
    return tuple(found)


def _width(files: Files, columns: Columns, key: str) -> int:
    """F: the number of feature columns, or what the first row holds in its one column of them."""
    if not (columns.named("list") or columns.named("joined")):
        return len(columns.features)
    name = columns.features[0]
    for file in files:
        if file.suffix == ".parquet":
            value = _first_value(file, name)
        else:
            start = line_end(file, 0)
            end = line_end(file, start)
            one = Chunk(file.uri, "text", start, end - start, key, 0, 0, columns, file.size, file.stamp)
            value = read_table(one).column(name).to_pylist() if end > start else []
        if value:
            first = value[0]
            width = len(first.split(":")) if isinstance(first, str) else len(first) if isinstance(first, list) else 0
            if not width:
                raise DataError(f"{file.uri}, row 0: column {name!r} must hold a list of numbers, found {first!r}")
            return width
    raise DataError(f"{files[0].uri}: {key} has no rows; every table needs at least one")


def _first_value(file: Source, name: str) -> list[Any]:
    import pyarrow.parquet as pq

    with opened(file) as stream, pq.ParquetFile(stream) as parquet:
        for batch in parquet.iter_batches(batch_size=1, columns=[name], use_threads=False):
            found: list[Any] = batch.column(0).to_pylist()
            return found
    return []


def _of_graph(spec: str) -> Tables:
    """What is read as a whole, as ranges of rows."""
    stamp = "" if is_s3(spec) else stamp_of(spec)
    graph = loaded(spec, stamp)

    def cut(key: str, n: int, width: int = 0) -> tuple[Chunk, ...]:
        ranges = ((a, min(ROWS, n - a)) for a in range(0, n, ROWS))
        return tuple(Chunk(spec, "graph", a, m, key, a, width, None, 0, stamp) for a, m in ranges)

    return Tables(
        graph.name,
        {kind: cut(kind, nodes.count, nodes.n_features) for kind, nodes in graph.nodes.items()},
        {r: cut(relation_name(r), edges.count) for r, edges in graph.edges.items()},
        {kind: nodes.n_features for kind, nodes in graph.nodes.items()},
        tuple(r for r, edges in graph.edges.items() if edges.weight is not None),
        tuple(r for r, edges in graph.edges.items() if edges.time is not None),
        (EDGE,) if tuple(graph.edges) == (EDGE,) else (),  # ops.data.load makes edges undirected
        graph.notes,
    )
