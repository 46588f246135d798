"""The hold-out split of a graph that was partitioned before: `ops.data.splits`, with one part in memory at a time.

Nodes keep their numbers and their parts. Pairs are told by the ids of their ends wherever their order counts (equal
times of a user, edges without times), so that the number of parts moves none of them. Only the nodes' ids and some
numbers a node (8 B each) are ever whole in memory, as in a build; the pairs of all parts are mapped files.

Axes: U sources (users), N targets (notes), P parts, M pairs or edges.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import replacing
from ops.data.io.validate import count
from ops.data.splits import NEVER, How, by_user, check_counts, cut_places, hidden_words, kept, latest
from ops.data.types.hetero import Edges, Relation
from ops.errors import DataError
from ops.graph.partition.arrays import map_array, open_arrays, write_arrays
from ops.graph.partition.csr import index_dtype
from ops.graph.partition.executors import in_process
from ops.graph.partition.manifest import WORK, Manifest, write_manifest
from ops.graph.partition.pipeline import build
from ops.graph.partition.shards import GraphPart, open_shard
from ops.graph.partition.tables import StoredTables, save_edges
from ops.graph.partition.tasks import PartitionRequest
from ops.rng import key64, uniforms

VALID, TEST = 0.1, 0.2  # shares of the pairs
BLOCK = 1 << 22  # pairs that are in memory at once
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Hidden:
    """Hidden pairs as sorted codes source * N + target, which are validation's (1) and the test's (2), the first
    hidden time of each source [U] and of all, and how many pairs are left to train on; codes and parts are mapped."""

    codes: Integers
    which: NDArray[np.int8]
    before: Integers
    first: int
    left: int


@dataclass(frozen=True)
class PartsSplit:
    """A split of the parts below `place`: `labels` are the relations whose pairs are hidden, `how` as in `split`."""

    place: Path
    manifest: Manifest
    labels: tuple[Relation, ...]
    how: How
    seed: int = 0

    @property
    def timed(self) -> bool:
        """Whether all label relations have times."""
        return all(self.manifest.edges[r].time for r in self.labels)

    @property
    def n_sources(self) -> int:
        """U."""
        return self.manifest.nodes[self.labels[0][0]].count

    @property
    def n_targets(self) -> int:
        """N."""
        return self.manifest.nodes[self.labels[0][2]].count

    @cached_property
    def ranks(self) -> tuple[Integers, Integers]:
        """The place of every source's and target's id among all of its type."""
        ids = (np.concatenate([s.ids[kind] for s in self.shards()]) for kind in self.labels[0][::2])
        first, second = (np.argsort(np.argsort(each, kind="stable")) for each in ids)
        return first, second

    def shards(self, *, verify: bool = False) -> Iterator[GraphPart]:
        """The parts, one after the other."""
        return (open_shard(self.place, self.manifest, part, verify) for part in range(self.manifest.parts))

    def write(self, folder: Path, judged: Path) -> Manifest:
        """The training graph as parts in `folder`, hidden pairs [2, M] as valid.npy and test.npy in `judged`.

        Raises DataError for a part that is missing or damaged and where nothing is left to train on, to choose or to
        test by, ResourceError on a full disk, SettingsError where a folder cannot be written.
        """
        work, nodes, notes = folder / WORK, self.manifest.nodes, list(self.manifest.notes)
        dtypes = [each.feature_dtype for each in nodes.values() if each.features]
        request = PartitionRequest(self.manifest.parts, "given", feature_dtype=dtypes[0] if dtypes else "float32")
        parts = np.arange(self.manifest.parts)
        part_of = {kind: np.repeat(parts, np.diff(each.offsets)) for kind, each in nodes.items()}
        shutil.rmtree(work, ignore_errors=True)
        try:
            hidden = self._hide(work)
            stored, linked, trained = self._store(work, hidden)
            notes += self._judge(judged, hidden, linked, trained)
            manifest = build(stored, request, folder, in_process(), part_of=part_of)
            same = {"partitioner": self.manifest.partitioner, "notes": tuple(notes)}
            manifest = manifest.model_copy(update=same)
            write_manifest(folder, manifest)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return manifest

    def _hide(self, work: Path) -> Hidden:
        """Choose what is hidden, each part's by itself but for the cuts in time."""
        folders = [work / "pairs" / f"{part:06d}" for part in range(self.manifest.parts)]
        for folder, shard in zip(folders, self.shards(verify=True), strict=True):
            write_arrays(folder, self._pairs(shard))
        pairs = [open_arrays(folder) for folder in folders]
        cuts = (NEVER, NEVER)
        if self.how == "time":
            places = cut_places(sum(len(each["ordered"]) for each in pairs), VALID, TEST).tolist()
            first, second = (_smallest([each["ordered"] for each in pairs], place) for place in places)
            cuts = (first, second)
        first = cuts[0] if self.timed else NEVER
        before = np.full(self.n_sources, first)
        chosen = [folder.with_name(f"{folder.name}.hidden") for folder in folders]
        for each, folder in zip(pairs, chosen, strict=True):
            sources, times = each["codes"] // self.n_targets, each["times"]
            which = (times >= cuts[0]).astype(np.int8) + (times >= cuts[1])
            if self.how == "user":
                order = np.argsort(each["drawn"], kind="stable")
                which[order] = by_user(sources[order], times[order], VALID, TEST)
            late = which > 0
            if self.timed:
                np.minimum.at(before, sources[late], times[late])
            write_arrays(folder, {"codes": each["codes"][late], "which": which[late]})
        hidden = [open_arrays(folder) for folder in chosen]
        _join(work / "codes.npy", lambda: (each["codes"] for each in hidden), np.int64)
        _join(work / "which.npy", lambda: (each["which"] for each in hidden), np.int8)
        codes, which = map_array(work / "codes.npy"), map_array(work / "which.npy")
        return Hidden(codes, which, before, first, sum(len(each["codes"]) for each in pairs) - len(codes))

    def _pairs(self, shard: GraphPart) -> dict[str, Integers]:
        """The label pairs of a part's sources: sorted codes, times (drawn ones where there are none), numbers drawn by
        the ids of their ends, and the times in order."""
        edges = [self._edges(shard, self.manifest.reverse(r)) for r in self.labels]  # they lead to the sources
        codes = np.concatenate([each.dst * self.n_targets + each.src for each in edges])
        stamps = [np.zeros(each.count, np.int64) if each.time is None else each.time for each in edges]
        codes, times = latest(codes, np.concatenate(stamps))
        sources, targets = np.divmod(codes, self.n_targets)
        ids = self.ranks[0][sources] * self.n_targets + self.ranks[1][targets]
        drawn = (uniforms(key64(self.seed, "split of parts"), ids, 1)[:, 0] * 2**53).astype(np.int64)
        times = times if self.timed else drawn
        return {"codes": codes, "times": times, "drawn": drawn, "ordered": np.sort(times)}

    def _edges(self, shard: GraphPart, relation: Relation) -> Edges:
        """A part's edges of a relation [M], by the numbers of the whole graph."""
        csr, first = shard.relations[relation], int(self.manifest.nodes[relation[2]].offsets[shard.part])
        rows = first + np.repeat(np.arange(len(csr.indptr) - 1, dtype=np.int64), np.diff(csr.indptr))
        return Edges(csr.indices.astype(np.int64), rows, csr.weight, csr.time)

    def _store(self, work: Path, hidden: Hidden) -> tuple[StoredTables, NDArray[np.bool_], NDArray[np.bool_]]:
        """Chunks for a build, one a part and table, without what is hidden; which sources [U] have any training edge,
        and which have one that is predicted."""
        parts, nodes, forward = self.manifest.parts, self.manifest.nodes, self.manifest.forward
        stored = StoredTables(
            work, self.manifest.name, dict.fromkeys(sorted(nodes), parts), dict.fromkeys(forward, parts),
            {kind: each.names for kind, each in nodes.items()}, {kind: each.id_dtype for kind, each in nodes.items()},
            tuple(r for r in forward if self.manifest.edges[r].symmetric),
        )  # fmt: skip
        linked, trained = np.zeros((2, self.n_sources), dtype=bool)
        for part, shard in enumerate(self.shards()):
            for kind in nodes:
                x = shard.features.get(kind)
                arrays = {"ids": shard.ids[kind], "x": None if x is None else x.astype(np.float32)}
                write_arrays(stored.folder("nodes", kind, part), arrays)
            for r in forward:
                edges = self._edges(shard, r)
                keep = kept(r, edges, self.labels, self.n_targets, hidden.codes, hidden.before, hidden.first)
                edges = edges.take(keep)
                for kind, ends in ((r[0], edges.src), (r[2], edges.dst)):
                    if kind == self.labels[0][0]:
                        linked[ends] = True
                if r in self.labels:
                    trained[edges.src] = True
                dtype = index_dtype(max(nodes[r[0]].count, nodes[r[2]].count))
                narrow = edges.src.astype(dtype), edges.dst.astype(dtype)
                save_edges(stored.folder("edges", r, part), *narrow, edges.weight, edges.time)
        return stored, linked, trained

    def _judge(self, judged: Path, hidden: Hidden, linked: NDArray[np.bool_], trained: NDArray[np.bool_]) -> list[str]:
        """Write the hidden pairs of sources that have a training edge; returns what is to be said of the split."""
        lonely, counts = np.zeros_like(linked), {"train pairs": hidden.left}

        def pieces(which: int) -> Iterator[Integers]:
            for at in range(0, len(hidden.codes), BLOCK):
                ends = np.stack(np.divmod(hidden.codes[at : at + BLOCK], self.n_targets))
                lonely[ends[0]] = ~linked[ends[0]]
                yield ends[:, (hidden.which[at : at + BLOCK] == which) & linked[ends[0]]]

        pairs = {}
        for which, name in enumerate(("valid", "test"), 1):
            with replacing(judged / f"{name}.npy") as temporary:
                _join(temporary, partial(pieces, which), np.int64, 2)
            pairs[name] = map_array(judged / f"{name}.npy")
            counts[f"{name} pairs"] = pairs[name].shape[1]
        check_counts(self.manifest.name, self.how, counts)
        words = hidden_words(self.how, timed=self.timed)
        check_judged(self.manifest.name, self.labels, words, trained, pairs)
        notes = [hidden_note(words, counts)]
        if lonely.any():
            without = count(int(lonely.sum()), self.labels[0][0])
            notes.append(f"{without} without training edges: left out of the evaluation")
        return notes


def check_judged(
    name: str, labels: tuple[Relation, ...], words: str, trained: NDArray[np.bool_], pairs: Mapping[str, Integers]
) -> None:
    """Raises DataError where no source has both training edges (`trained` [U]) and hidden pairs [2, M]."""
    for key, what in (("valid", "validation"), ("test", "test")):
        if not trained[pairs[key][0]].any():
            raise DataError(
                f"{name}: no {labels[0][0]} has both training and hidden {labels[0][2]}s for the {what}, hidden "
                f"{words}: recall cannot be told; give more edges, or another --holdout"
            )


def hidden_note(words: str, counts: Mapping[str, int]) -> str:
    """How many pairs are hidden, and how they were chosen."""
    return (f"hidden {words}: {counts['valid pairs']:,} pairs for validation, {counts['test pairs']:,} for the test; "
            f"{counts['train pairs']:,} are left to train on")  # fmt: skip


def _smallest(ordered: list[Integers], place: int) -> int:
    """The number at a place of all sorted arrays together, by bisection."""
    low = min(int(each[0]) for each in ordered if len(each))
    high = max(int(each[-1]) for each in ordered if len(each))
    while low < high:
        middle = (low + high) // 2
        if sum(int(np.searchsorted(each, middle, side="right")) for each in ordered) > place:
            high = middle
        else:
            low = middle + 1
    return low


def _join(path: Path, pieces: Callable[[], Iterable[NDArray[np.integer]]], dtype: type, rows: int = 0) -> None:
    """Write arrays [M], or [rows, M], one after the other to a .npy file; `pieces` gives them twice."""
    total, at = sum(piece.shape[-1] for piece in pieces()), 0
    joined = np.lib.format.open_memmap(path, "w+", dtype, (rows, total) if rows else (total,))
    for piece in pieces():
        joined[..., at : at + piece.shape[-1]] = piece
        at += piece.shape[-1]
    joined.flush()
