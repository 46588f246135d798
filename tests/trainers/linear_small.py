"""A small planted graph, the linear methods on it, and what each worker of a gloo group computes."""

from typing import Any

import torch

from ops.api import PlainRun
from ops.data.synthetic.planted_partition import planted_graph
from trainers import METHODS

METHODS_AND_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("ssgc", {"components": 3, "centred": True, "features": "standard"}),
    ("sagsc", {"features": "l2"}),
    ("s2cag", {"variant": "s2cag"}),
    ("s2cag", {"variant": "m-s2cag"}),
]


def small_graph(negative=False):
    data, labels = planted_graph(90, 3, 12, degree=10, mixing=0.1, separation=2.0, seed=0)
    if not negative:
        data.x.setflags(write=True)
        data.x[:] -= data.x.min()
    return data, labels


def settings_of(name, **values):
    return METHODS[name].settings.model_validate({"n_clusters": 3} | values)


def fit(rank, world, cases):
    """(bytes reported, clusters, embedding) of each case."""
    torch.set_num_threads(1)
    out = []
    for name, values in cases:
        run = PlainRun(0)
        run.rank, run.world = rank, world
        result = METHODS[name].train(settings_of(name, **values), small_graph()[0], run)
        out.append((run.history[0].get("sys/sent_bytes", 0.0), result.assignment, result.embedding))
    return out
