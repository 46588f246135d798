"""The users most similar to a user: by their embeddings inside a cluster (or among all), by their raw interactions.

Exact, in chunks of queries: never an array of all users against all users. Workers own users by parts: each looks for
neighbours of all queries among its own users, part by part, and the owner of a query merges what they find.

Axes: U users, n users of one worker, N notes, Q query users, q of them one worker's, D width, K neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from ops.clustering.owners import Owners, Route
from ops.errors import DataError

NEIGHBOURS = 50
CHUNK_VALUES = 1 << 22  # similarities in memory at once: 16 MB of float32
CHUNK_PRODUCTS = 1 << 23


@dataclass(frozen=True)
class Similar:
    """`weights` [q U]: the nearest users of each of this worker's queries (at most K a row) with their similarities;
    `scanned` [q]: how many users the query was compared with."""

    weights: sp.csr_array
    scanned: NDArray[np.int64]


def best(values: Float[np.ndarray, "m"], count: int) -> Int64[np.ndarray, "k"]:
    """Places of the `count` largest values (all of fewer), ascending; of equal values the first ones."""
    if len(values) <= count:
        return np.arange(len(values))
    least = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def nearest_inside(
    z: Float[np.ndarray, "n D"],
    clusters: Int64[np.ndarray, "n"] | None,
    queries: Int64[np.ndarray, "Q"],
    candidates: Bool[np.ndarray, "n"],
    n: int = NEIGHBOURS,
    owners: Owners | None = None,
) -> Similar:
    """The K = `n` candidates with the largest cosine inside each query's cluster (None: among all), not itself.

    Equal cosines: the lowest user number. A cluster with fewer candidates gives fewer neighbours. `queries` are the
    same on every worker. Raises DataError for embeddings that are not finite.
    """
    if not np.isfinite(z).all():
        raise DataError("user embeddings hold values that are not finite: did the training diverge?")
    owners = owners or Owners.alone(len(z))
    unit = torch.nn.functional.normalize(torch.from_numpy(z))
    group = np.zeros(len(z), dtype=np.int64) if clusters is None else clusters
    asking, asking_group = torch.from_numpy(owners.gather(unit.numpy(), queries)), owners.gather(group, queries)
    numbers, nearest = owners.shard.numbers(), _Nearest(len(queries), n)
    scanned = np.zeros(len(queries), dtype=np.int64)
    for _, part in owners.slices():
        for cluster in np.unique(asking_group):
            inside = part.start + np.flatnonzero(candidates[part] & (group[part] == cluster))
            asked = np.flatnonzero(asking_group == cluster)
            scanned[asked] += len(inside)
            block, members = unit[torch.from_numpy(inside)], numbers[inside]
            step = max(1, CHUNK_VALUES // max(len(inside), 1))
            for first in range(0, len(asked), step):
                rows = asked[first : first + step]
                nearest.add(rows, *_nearest(asking[torch.from_numpy(rows)], block, members, queries[rows], n))
    scanned = owners.sum_(scanned) - owners.gather(candidates.astype(np.int64), queries)
    return nearest.of_owners(owners, queries, scanned)


def _nearest(
    asking: torch.Tensor, block: torch.Tensor, members: NDArray[np.int64], numbers: NDArray[np.int64], n: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Similarities [r k] of the nearest of `members`, whose rows are `block`, to each row of `asking` with its number,
    and their numbers; -inf: nobody."""
    cosine = asking @ block.T
    _, asker, place = np.intersect1d(numbers, members, assume_unique=True, return_indices=True)
    cosine[asker, place] = -torch.inf  # nobody is its own neighbour
    k = min(n, len(members))
    if len(members) == k:
        return cosine.numpy(), np.tile(members, (len(numbers), 1))
    values, chosen = cosine.topk(k + 1, dim=1)
    # topk leaves the order of equal values open: rows where they straddle the border are chosen anew
    open_rows = torch.nonzero(values[:, k - 1] == values[:, k]).flatten()
    chosen = chosen[:, :k]
    if len(open_rows):
        row, least = cosine[open_rows], values[open_rows, k - 1 : k]
        above, equal = row > least, row == least
        kept = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
        chosen[open_rows] = torch.nonzero(kept)[:, 1].view(-1, k)
    return cosine.gather(1, chosen).numpy(), members[chosen.numpy()]


class _Nearest:
    """The K nearest users of each query so far: similarities float64 [Q K], -inf for nobody, and their numbers."""

    def __init__(self, queries: int, n: int) -> None:
        self._values, self._users = np.full((queries, n), -np.inf), np.zeros((queries, n), dtype=np.int64)

    def add(self, rows: NDArray[np.int64], values: NDArray[Any], users: NDArray[np.int64]) -> None:
        """Further users [r k] of the queries `rows` [r] with their similarities."""
        self._values[rows], self._users[rows] = _first(
            np.hstack([self._values[rows], values]), np.hstack([self._users[rows], users]), self._values.shape[1]
        )

    def of_owners(self, owners: Owners, queries: NDArray[np.int64], scanned: NDArray[np.int64]) -> Similar:
        """What all workers have of the queries, merged by the owner of each."""
        values, users, own = self._values, self._users, np.flatnonzero(owners.shard.positions(queries) >= 0)
        n = values.shape[1]
        if owners.group.world > 1:
            ranks = owners.ranks(queries)
            places = Route(owners.group, ranks, np.arange(len(queries)))
            values, users = (places.exchanged(each[places.order]) for each in (values, users))
            order = np.argsort(places.asked, kind="stable")  # each query as often as there are workers
            values, users = (each[order].reshape(len(own), n * owners.group.world) for each in (values, users))
            values, users = _first(values, users, n)
        rows = np.repeat(np.arange(len(own)), n)
        real = values.ravel() > -np.inf
        weights = sp.csr_array(
            (values.ravel()[real], (rows[real], users.ravel()[real])), shape=(len(own), owners.total)
        )
        weights.sort_indices()
        return Similar(weights, scanned[own])


def _first(values: NDArray[Any], users: NDArray[np.int64], count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The `count` largest values of each row and their users; of equal values the lowest users."""
    order = np.lexsort((users, -values))[:, :count]
    return np.take_along_axis(values, order, 1), np.take_along_axis(users, order, 1)


def nearest_raw(
    train: sp.csr_array, queries: Int64[np.ndarray, "Q"], n: int = NEIGHBOURS, owners: Owners | None = None
) -> Similar:
    """The K = `n` users with the largest cosine of interaction rows (0 / 1) [n N], not itself; equal ones: the lowest
    number.

    common notes / sqrt(notes of one * notes of the other). Only users with a common note are looked at.
    """
    owners = owners or Owners.alone(train.shape[0])
    asking, degree = owners.fetch_sparse(train, queries), np.diff(train.indptr).astype(np.float64)
    notes, numbers, nearest = np.diff(asking.indptr), owners.shard.numbers(), _Nearest(len(queries), n)
    scanned = np.zeros(len(queries), dtype=np.int64)
    for _, part in owners.slices():
        readers = train[part].T.tocsr()
        for rows in _by_products(asking, readers):
            common = asking[rows] @ readers
            common.sort_indices()
            values, chosen = np.full((len(rows), n), -np.inf), np.zeros((len(rows), n), dtype=np.int64)
            for i, row in enumerate(rows):
                users, counts = (a[common.indptr[i] : common.indptr[i + 1]] for a in (common.indices, common.data))
                other = numbers[part][users] != queries[row]
                users, counts = users[other], counts[other]
                cosine = counts / np.sqrt(notes[row] * degree[part][users])
                scanned[row] += len(users)
                top = best(cosine, n)
                values[i, : len(top)], chosen[i, : len(top)] = cosine[top], numbers[part][users[top]]
            nearest.add(rows, values, chosen)
    return nearest.of_owners(owners, queries, owners.sum_(scanned))


def _by_products(asking: sp.csr_array, readers: sp.csr_array) -> Iterator[NDArray[np.int64]]:
    """Runs of queries whose products with all users of a part stay below CHUNK_PRODUCTS (one query at least)."""
    products = np.cumsum(asking @ np.diff(readers.indptr).astype(np.float64))
    rows = np.arange(asking.shape[0])
    for group in np.split(rows, np.flatnonzero(np.diff(products // CHUNK_PRODUCTS)) + 1):
        if len(group):
            yield group
