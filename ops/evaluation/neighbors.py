"""The users most similar to a user: by their embeddings inside a cluster (or among all), by their raw interactions.

Exact, in chunks of queries: never an array of all users against all users.

Axes: U users, N notes, Q query users, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from ops.errors import DataError

NEIGHBOURS = 50
CHUNK_VALUES = 1 << 22  # similarities in memory at once: 16 MB of float32
CHUNK_PRODUCTS = 1 << 23


@dataclass(frozen=True)
class Similar:
    """`weights` [Q U]: each query's nearest users (at most n a row) with their similarities; `scanned` [Q]: how many
    users the query was compared with."""

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
    z: Float[np.ndarray, "U D"],
    clusters: Int64[np.ndarray, "U"] | None,
    queries: Int64[np.ndarray, "Q"],
    candidates: Bool[np.ndarray, "U"],
    n: int = NEIGHBOURS,
) -> Similar:
    """The n candidates with the largest cosine inside each query's cluster (None: among all users), not itself.

    Equal cosines: the lowest user number. A cluster with fewer candidates gives fewer neighbours. Raises DataError
    for embeddings that are not finite.
    """
    if not np.isfinite(z).all():
        raise DataError("user embeddings hold values that are not finite: did the training diverge?")
    unit = torch.nn.functional.normalize(torch.from_numpy(z))
    group = np.zeros(len(z), dtype=np.int64) if clusters is None else clusters
    members = {int(c): np.flatnonzero(candidates & (group == c)) for c in np.unique(group[queries])}
    scanned = np.zeros(len(queries), dtype=np.int64)
    parts: list[tuple[NDArray[Any], ...]] = []
    for cluster, inside in members.items():
        block = unit[torch.from_numpy(inside)]
        asked = np.flatnonzero(group[queries] == cluster)
        scanned[asked] = len(inside) - candidates[queries[asked]]
        step = max(1, CHUNK_VALUES // max(len(inside), 1))
        for first in range(0, len(asked), step):
            rows = asked[first : first + step]
            parts.append((*_nearest(unit, block, inside, queries[rows], n), rows))
    return Similar(_matrix(parts, len(queries), len(z)), scanned)


def _nearest(
    unit: torch.Tensor, block: torch.Tensor, members: NDArray[np.int64], asking: NDArray[np.int64], n: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Similarities [q k] of the nearest of `members` to each of `asking`, and their numbers; -inf: nobody."""
    cosine = unit[torch.from_numpy(asking)] @ block.T
    _, asker, place = np.intersect1d(asking, members, assume_unique=True, return_indices=True)
    cosine[asker, place] = -torch.inf  # nobody is its own neighbour
    k = min(n, len(members))
    if len(members) == k:
        return cosine.numpy(), np.tile(members, (len(asking), 1))
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


def _matrix(parts: list[tuple[NDArray[Any], ...]], n_queries: int, n_users: int) -> sp.csr_array:
    values = np.concatenate([p[0].ravel() for p in parts] or [np.zeros(0)]).astype(np.float64)
    users = np.concatenate([p[1].ravel() for p in parts] or [np.zeros(0, np.int64)])
    rows = np.concatenate([np.repeat(p[2], p[1].shape[1]) for p in parts] or [np.zeros(0, np.int64)])
    real = values > -np.inf
    weights = sp.csr_array((values[real], (rows[real], users[real])), shape=(n_queries, n_users))
    weights.sort_indices()
    return weights


def nearest_raw(train: sp.csr_array, queries: Int64[np.ndarray, "Q"], n: int = NEIGHBOURS) -> Similar:
    """The n users with the largest cosine of interaction rows (0 / 1), not itself; equal ones: the lowest number.

    common notes / sqrt(notes of one * notes of the other). Only users with a common note are looked at.
    """
    degree = np.diff(train.indptr).astype(np.float64)
    readers = train.T.tocsr()
    scanned = np.zeros(len(queries), dtype=np.int64)
    parts: list[tuple[NDArray[Any], ...]] = []
    for rows in _by_products(train, readers, queries):
        common = train[queries[rows]] @ readers
        common.sort_indices()
        for i, row in enumerate(rows):
            users, counts = (a[common.indptr[i] : common.indptr[i + 1]] for a in (common.indices, common.data))
            other = users != queries[row]
            users, counts = users[other], counts[other]
            cosine = counts / np.sqrt(degree[queries[row]] * degree[users])
            scanned[row] = len(users)
            chosen = best(cosine, n)
            parts.append((cosine[None, chosen], users[None, chosen].astype(np.int64), np.array([row])))
    return Similar(_matrix(parts, len(queries), train.shape[0]), scanned)


def _by_products(train: sp.csr_array, readers: sp.csr_array, queries: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Runs of queries whose products with all users stay below CHUNK_PRODUCTS (one query at least)."""
    popularity = np.diff(readers.indptr).astype(np.float64)
    products = np.cumsum((train @ popularity)[queries])
    for group in np.split(np.arange(len(queries)), np.flatnonzero(np.diff(products // CHUNK_PRODUCTS)) + 1):
        if len(group):
            yield group
