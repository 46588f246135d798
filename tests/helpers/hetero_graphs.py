"""Small heterogeneous graphs for the tests of partitioning, with everything a graph may have."""

import numpy as np
from hypothesis import strategies as st

from ops.data.types.hetero import Edges, HeteroGraph, Nodes

FOLLOW, KNOWS = ("user", "follow", "note"), ("user", "knows", "user")


def hetero(users=40, notes=25, follows=200, knows=120, seed=0):
    """Users with features and numbers as ids, notes with words; weights and times on one relation; repeats, loops."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(users * 3)[:users].astype(np.int64)
    words = np.array([f"n{i}" for i in rng.permutation(notes)], dtype=np.str_)
    return HeteroGraph(
        "small",
        {
            "user": Nodes(ids, rng.standard_normal((users, 3)).astype(np.float32), ("x0", "x1", "x2")),
            "note": Nodes(words),
        },
        {
            FOLLOW: Edges(rng.integers(0, users, follows), rng.integers(0, notes, follows),
                          rng.random(follows).astype(np.float32), rng.integers(0, 1000, follows)),
            KNOWS: Edges(rng.integers(0, users, knows), rng.integers(0, users, knows)),
        },
    )  # fmt: skip


def homogeneous(n=60, e=150, seed=0):
    """Both directions of random edges, with features."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, n, e), rng.integers(0, n, e)
    code = np.unique(np.concatenate([a * n + b, b * n + a]))
    x = rng.standard_normal((n, 4)).astype(np.float32)
    return HeteroGraph("plain", {"node": Nodes(np.arange(n, dtype=np.int64), x, ("x0", "x1", "x2", "x3"))},
                       {("node", "edge", "node"): Edges(code // n, code % n)})  # fmt: skip


# what `hetero` takes; made in the test, as beartype draws random numbers of its own
sizes = st.tuples(
    st.integers(1, 30), st.integers(1, 20), st.integers(0, 150), st.integers(0, 80), st.integers(0, 2**20)
)


def parts_for(graph, parts, seed=0):
    """A random part for every node."""
    rng = np.random.default_rng([seed, 1])
    return {kind: rng.integers(0, parts, nodes.count) for kind, nodes in graph.nodes.items()}
