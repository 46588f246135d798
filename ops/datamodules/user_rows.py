"""The users of one rank as its judges see them: what they read, what is hidden of them, and a space to judge them in.

Every rank takes its users' interactions and features from the parts that it owns, and of the hidden pairs those of
its users. Methods never see this.

Axes: U users, n users of this rank, O notes, M hidden pairs, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from ops.atomic_io import replacing
from ops.clustering.lloyd import grid
from ops.clustering.owners import Owners
from ops.data.io.readers import cache_file
from ops.data.types.graph import digest_of
from ops.distributed.process_group import ProcessGroup
from ops.graph.sampling.dataset import PartitionedGraph
from ops.rng import generator
from ops.storage import object_store as s3

SUMS = 1 << 28  # bytes of the sums over all notes that a rank has at once: of so many features
PROJECTED = 64  # random directions that stand for features where users have none
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class HiddenEdges:
    """What only judges see, in mapped files of a `folder`, or `there` on S3 for nodes that do not see it."""

    folder: Path
    there: str
    labelled: bool

    @property
    def valid(self) -> NDArray[np.int64]:
        """Hidden pairs of users and notes [2 M] by their numbers in the parts, in the order of the split."""
        return self._array("valid")

    @property
    def test(self) -> NDArray[np.int64]:
        """Further ones, for the end."""
        return self._array("test")

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The users' groups [U], -1 where one has none; None where there are none."""
        return self._array("labels") if self.labelled else None

    def _array(self, name: str) -> NDArray[np.int64]:
        path = self.folder / f"{name}.npy"
        if self.there and not path.is_file():
            path = cache_file(f"{self.folder.name}-{path.name}")
            if not path.is_file():
                s3.download(s3.parse(self.there) / f"{name}.npy", path)
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def hide(place: Path, remote: s3.Location | None, arrays: Mapping[str, NDArray[np.int64] | None]) -> HiddenEdges:
    """Write what only judges see beside `place`, a folder by the name of its content, and to `remote` if it is given.

    Raises SettingsError, ResourceError or ServiceError where it cannot be written.
    """
    there_are = {name: array for name, array in arrays.items() if array is not None}
    folder = place.with_name(f"{place.name}-judged-{digest_of(*there_are.values())[:12]}")
    for key, array in there_are.items():
        if not (folder / f"{key}.npy").is_file():
            with replacing(folder / f"{key}.npy") as temporary, temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)
    return shown_to_judges(folder, remote)


def shown_to_judges(folder: Path, remote: s3.Location | None) -> HiddenEdges:
    """What `folder` has for judges, also sent to `remote` if it is given. Raises ServiceError."""
    there = None if remote is None else remote / folder.name
    if there is not None:
        for path in sorted(folder.glob("*.npy")):
            s3.upload(path, there / path.name)
    return HiddenEdges(folder.absolute(), str(there or ""), (folder / "labels.npy").is_file())


@dataclass(frozen=True)
class UserRows:
    """Training interactions [n O] (0 / 1), features [n F] or None, hidden pairs (rows of this rank, notes)."""

    owners: Owners
    train: sp.csr_array
    x: NDArray[np.float32] | None
    valid: Pairs
    test: Pairs

    @cached_property
    def space(self) -> NDArray[np.float32]:
        """Features of users and of users at two steps, half each: a space [n F] that no setting moves.

        Without features, random directions (keyed) of the interactions stand for them. All ranks have to ask for it.
        """
        b, owners = self.train, self.owners
        notes = owners.sum_(np.bincount(b.indices, minlength=b.shape[1]))
        of_user, of_note = (1 / np.sqrt(np.maximum(degree, 1)) for degree in (np.diff(b.indptr), notes))
        if self.x is None:
            drawn = generator(0, "fixed space").standard_normal((b.shape[1], PROJECTED)).astype(np.float32)
            return np.asarray(sp.diags_array(of_user) @ b @ sp.diags_array(of_note) @ drawn, np.float32)
        sent = of_user[:, None] * self.x
        largest = owners.group.maximum_(torch.tensor(np.abs(sent).max(initial=0.0)))
        step = grid(float(largest), owners.total)  # on it float64 adds the users of a note in any order alike
        space, width = np.empty(self.x.shape, np.float32), max(SUMS // (8 * b.shape[1]), 1)
        for first in range(0, self.x.shape[1], width):
            columns = slice(first, first + width)
            read = of_note[:, None] ** 2 * owners.sum_(b.T @ (np.round(sent[:, columns] / step) * step))
            space[:, columns] = (self.x[:, columns] + of_user[:, None] * (b @ read)) / 2
        return space


def user_rows(data: PartitionedGraph, hidden: HiddenEdges, group: ProcessGroup) -> UserRows:
    """Those of this rank. Raises as the graph service does."""
    owners = Owners(np.asarray(data.manifest.nodes[data.rows].offsets), group)
    numbers, client = owners.shard.numbers(), data.connect()
    tables = [sp.csr_array((0, data.count(data.others)))]
    for part in owners.parts:
        stored = [client.call("edges", {part: (data.manifest.reverse(r),)})[part] for r in data.labels]
        shape = len(data.part_rows(data.rows, part)), data.count(data.others)
        tables.append(reduce(add, (sp.csr_array((np.ones(len(to)), to, first), shape=shape) for first, to in stored)))
    train = sp.csr_array(sp.vstack(tables, format="csr"))
    train.data[:] = 1
    train.sort_indices()
    x = client.features(data.rows, numbers) if data.n_features else None
    return UserRows(owners, train, x, *(_of_rank(owners, pairs) for pairs in (hidden.valid, hidden.test)))


def _of_rank(owners: Owners, pairs: NDArray[np.int64]) -> Pairs:
    rows = owners.shard.positions(pairs[0])
    return rows[rows >= 0], pairs[1, rows >= 0]
