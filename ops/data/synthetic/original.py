"""The original's fake data: users with an age, notes with views, random follow and share edges; no structure to find.

`ops.data.synthetic.stream` writes it; the original's tab files can be read too (`ops.data.io.chunks`).
"""

from collections.abc import Iterator

import numpy as np

from ops.data.synthetic import user_item
from ops.data.synthetic.draws import Int, distinct
from ops.data.synthetic.user_item import NOTE, USER, Block, Planted
from ops.data.types.hetero import Edges, Relation
from ops.rng import generator

USERS = NOTES = 1000
AGES, VIEWS = (10, 50), (200, 1000)
# edges a user, both ends included
EDGES: dict[Relation, tuple[int, int]] = {(USER, "follow_note", NOTE): (10, 20), (USER, "share_note", NOTE): (3, 8)}


def original_blocks(p: Planted, kind: str) -> Iterator[Block]:
    """All blocks of "user" or "note" in order, of the sizes and seed of `p`; users bring their edges. No groups."""
    n, (low, high) = (p.users, AGES) if kind == USER else (p.notes, VIEWS)
    for number, first in enumerate(range(0, n, user_item.BLOCK)):
        ids = np.arange(first, min(first + user_item.BLOCK, n), dtype=np.int64)
        rng = generator(p.seed, f"original {kind}", number)
        x = rng.integers(low, high + 1, size=(ids.size, 1)).astype(np.float32)
        edges = {r: _edges(ids, p.notes, most, rng) for r, most in EDGES.items()} if kind == USER else {}
        yield Block(first, np.empty(0, dtype=np.int64), x, edges)


def _edges(ids: Int, notes: int, per_user: tuple[int, int], rng: np.random.Generator) -> Edges:
    """Random edges of these users, each to notes that differ."""
    counts = np.minimum(rng.integers(per_user[0], per_user[1] + 1, size=ids.size), notes)
    owners = np.repeat(np.arange(ids.size, dtype=np.int64), counts)
    codes = distinct(owners, lambda owners: rng.integers(0, notes, size=owners.size), notes)
    weight = rng.random(codes.size, dtype=np.float32)
    return Edges(ids[codes // notes], codes % notes, weight)
