"""Training, validation and test edges: by global time, or by each source node's own time.

A pair is a (source, destination) of the label relations, at the time of its latest edge there. What is hidden, a pair
of validation or test, leaves ALL relations between the two types, in either direction. By time no training edge of any
relation with times, whatever types it joins, is as young as the first cut; by user that holds for the edges of a source
node and its own first hidden time, and edges without a source node at either end are not cut. Edges without times are
not either, and where a label relation has none, nothing is cut. Axes: V, T hidden pairs of validation and test.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from ops.data.io.validate import count
from ops.data.types.hetero import Edges, HeteroGraph, Relation, find_relations
from ops.errors import DataError, SettingsError
from ops.rng import generator

How = Literal["time", "user"]
BY_USER = ("ml-100k",)  # data sets whose global cut leaves most users without a history
USUAL = ("user", "note")
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Split:
    """What a method may train on, and hidden pairs (source row, destination row), sorted, each once, never in training.

    `cuts`: the first times of validation and test (None: by user, or without times). `counts`: pairs of each part,
    edges that left the training graph, and what was left out of the evaluation. `relations`: the label relations.
    `timed`: whether all of these have times.
    """

    train: HeteroGraph
    valid: Int64[np.ndarray, "V 2"]
    test: Int64[np.ndarray, "T 2"]
    cuts: tuple[int, int] | None
    counts: dict[str, int]
    how: How
    relations: tuple[Relation, ...]
    timed: bool = True

    @property
    def hidden(self) -> str:
        """How the pairs were chosen, in words."""
        return hidden_words(self.how, timed=self.timed)


def hidden_words(how: How, *, timed: bool) -> str:
    """By time, by each user's time, or at random where edges have no times."""
    order = {"time": "by time", "user": "by each source's time"}[how]
    return order if timed else f"at random{' for each source' if how == 'user' else ''} (no times)"


def split(
    graph: HeteroGraph,
    how: How | None = None,
    valid: float = 0.1,
    test: float = 0.2,
    label_relations: Sequence[str] = (),
    seed: int = 0,
) -> Split:
    """Hide the latest pairs: "time" by global time (the default), "user" by each source's own (ml-100k's).

    "time": the first 1 - valid - test of all pairs train; pairs at a cut's very second are behind it. "user": of n
    pairs of a source the last n - floor((1 - test) n) are test, those before them from floor((1 - valid - test) n) on
    validation, and at least one is kept for training. Without times the order is random, keyed by `seed`; the notes
    say so. Sources that keep no training edge are counted and left out of `valid` and `test`.
    No `label_relations`: all from user to note, or where there are none, all that join the first relation's types.
    Raises SettingsError for shares out of range or label relations between different types, DataError where nothing
    is left to train on or to test.
    """
    if not (valid >= 0 and test > 0 and valid + test < 1):
        raise SettingsError(f"valid={valid:g}, test={test:g}: shares must be >= 0, test > 0, and their sum below 1")
    how = how or usual(graph.name)
    labels = labels_among(graph.edges, label_relations)
    source, target = labels[0][0], labels[0][2]
    codes, times, notes = _pairs(graph, labels, seed)
    timed = all(graph.edges[r].time is not None for r in labels)
    n_targets = graph.nodes[target].count
    owners = codes // n_targets
    parts, cuts = _chosen(how, owners, times, valid, test)
    first, late = cuts[0] if timed else NEVER, (parts > 0) & timed
    before = np.full(graph.nodes[source].count, first)
    np.minimum.at(before, owners[late], times[late])  # by time none of them is before the cut
    hidden = labels, n_targets, codes[parts > 0], before, first
    train = replace(graph, edges={r: e.take(kept(r, e, *hidden)) for r, e in graph.edges.items()})
    trained = _with_edges(train, source)
    counts, left_out = _counted(graph, train, how, source, owners, parts, trained)
    notes += left_out
    judged = [codes[(parts == i) & trained[owners]] for i in (1, 2)]
    pairs = [np.stack([c // n_targets, c % n_targets], axis=1) for c in judged]
    shown_cuts = cuts if timed and how == "time" else None
    return Split(train.with_notes(*notes), pairs[0], pairs[1], shown_cuts, counts, how, labels, timed)


def usual(name: str) -> How:
    """How pairs are hidden of a data set where nothing is asked for."""
    return "user" if name in BY_USER else "time"


def _with_edges(train: HeteroGraph, kind: str) -> NDArray[np.bool_]:
    """Which nodes of a type have a training edge."""
    linked = np.zeros(train.nodes[kind].count, dtype=bool)
    for relation, edges in train.edges.items():
        if relation[0] == kind:
            linked[edges.src] = True
        if relation[2] == kind:
            linked[edges.dst] = True
    return linked


def labels_among(relations: Iterable[Relation], names: Sequence[str]) -> tuple[Relation, ...]:
    """Those of `relations` whose edges are hidden; no `names`: as `split` says. Raises SettingsError."""
    meant = find_relations(relations, names)
    ends = sorted({(r[0], r[2]) for r in meant})
    if not names:
        wanted = USUAL if USUAL in ends else (meant[0][0], meant[0][2])
        return tuple(r for r in meant if (r[0], r[2]) == wanted)
    if len(ends) > 1:
        raise SettingsError(f"label relations join different types ({ends[0]} and {ends[1]}); choose those of one pair")
    return meant


def _pairs(
    graph: HeteroGraph, labels: tuple[Relation, ...], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """Every pair once as a sorted code source * n_targets + target, the time of its latest edge, notes."""
    n_targets = graph.nodes[labels[0][2]].count
    edges = [graph.edges[r] for r in labels]
    codes = np.concatenate([e.src * n_targets + e.dst for e in edges])
    stamps = [e.time for e in edges if e.time is not None]
    if len(stamps) < len(edges):
        unique = np.unique(codes)
        order = generator(seed, "split without times").permutation(unique.size)
        return unique, order.astype(np.int64), [f"edges without times: split at random (seed {seed})"]
    return *latest(codes, np.concatenate(stamps)), []


def latest(codes: NDArray[np.int64], times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every pair once, sorted, at its latest time."""
    order = np.lexsort((times, codes))
    codes, times = codes[order], times[order]
    last = np.ones(codes.size, dtype=bool)
    last[:-1] = codes[1:] != codes[:-1]
    return codes[last], times[last]


def _share(n: Any, share: Any) -> Any:
    """floor(share * n), not one less where the product is a whole number but for rounding."""
    return np.floor(n * share + 1e-9).astype(np.int64)


def cut_places(count: int, valid: float, test: float) -> NDArray[np.int64]:
    """Where among the sorted times of so many pairs validation and test begin."""
    return np.asarray(np.minimum(_share(count, np.array([1 - valid - test, 1 - test])), count - 1))


def _chosen(
    how: How, owners: NDArray[np.int64], times: NDArray[np.int64], valid: float, test: float
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """0 train, 1 validation, 2 test of each pair, and the two cut times."""
    if how == "user":
        return by_user(owners, times, valid, test), (NEVER, NEVER)
    first, second = np.sort(times)[cut_places(times.size, valid, test)].tolist()
    return (times >= first).astype(np.int64) + (times >= second), (first, second)


def by_user(owners: NDArray[np.int64], times: NDArray[np.int64], valid: float, test: float) -> NDArray[np.int64]:
    """0 train, 1 validation, 2 test of each pair; equal times count in the order of the pairs."""
    order = np.lexsort((np.arange(owners.size), times, owners))
    _, starts, sizes = np.unique(owners[order], return_index=True, return_counts=True)
    rank = np.arange(owners.size) - np.repeat(starts, sizes)
    first = np.maximum(_share(sizes, 1 - valid - test), 1)
    second = np.maximum(_share(sizes, 1 - test), first)
    parts = np.empty(owners.size, dtype=np.int64)
    parts[order] = (rank >= np.repeat(first, sizes)).astype(np.int64) + (rank >= np.repeat(second, sizes))
    return parts


def kept(
    relation: Relation, edges: Edges, labels: Sequence[Relation], n_targets: int, hidden: NDArray[np.int64],
    before: NDArray[np.int64], first: int,
) -> NDArray[np.bool_]:  # fmt: skip
    """Which edges [M] of a relation may train: no `hidden` pair (sorted codes source * n_targets + target), and of
    relations that are not `labels` none from time `first` on, or from `before[row]` on where an end is a source."""
    ends = (labels[0][0], labels[0][2])
    keep = np.ones(edges.count, dtype=bool)
    # relations that join other types are cut too: what comes later may be a consequence of the hidden pairs
    cut = edges.time if relation not in labels else None
    if cut is not None:
        keep &= cut < first
    for source, target, at, to in (
        (relation[0], relation[2], edges.src, edges.dst),
        (relation[2], relation[0], edges.dst, edges.src),
    ):
        if (source, target) == ends and len(hidden):
            codes = at * n_targets + to
            keep &= hidden[np.minimum(np.searchsorted(hidden, codes), len(hidden) - 1)] != codes
        if cut is not None and source == ends[0]:
            keep &= cut < before[at]
    return keep


def _counted(
    graph: HeteroGraph, train: HeteroGraph, how: How, source: str, owners: NDArray[np.int64], parts: NDArray[np.int64],
    trained: NDArray[np.bool_],
) -> tuple[dict[str, int], list[str]]:  # fmt: skip
    """The counts of a split, and what to note of them. DataError where one part is empty."""
    shown, hidden = trained[owners], parts > 0
    counts = {
        "train pairs": int((~hidden).sum()),
        "valid pairs": int(((parts == 1) & shown).sum()),
        "test pairs": int(((parts == 2) & shown).sum()),
        "pairs left out": int((hidden & ~shown).sum()),
        "sources left out": int((~trained[np.unique(owners[hidden])]).sum()),
        "test sources": int(np.unique(owners[(parts == 2) & shown]).size),
        "edges hidden": sum(e.count for e in graph.edges.values()) - sum(e.count for e in train.edges.values()),
    }
    check_counts(graph.name, how, counts)
    lonely = counts["sources left out"]
    return counts, [f"{count(lonely, source)} without training edges: left out of the evaluation"] if lonely else []


def check_counts(name: str, how: How, counts: Mapping[str, int]) -> None:
    """Raises DataError where nothing is left to train on or to test."""
    if not counts["train pairs"] or not counts["test pairs"]:
        raise DataError(
            f"{name}: split by {how}: {counts['train pairs']} pairs left to train on, {counts['test pairs']} to "
            "test; both are needed (many equal times? split by user, or give more data)"
        )
