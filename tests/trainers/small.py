"""Small graphs, settings and short trainings of the methods for graphs, and runs that keep what they hear."""

from functools import partial

import numpy as np
import torch

from ops.api import PlainRun, Result, State
from ops.data.synthetic.planted_partition import planted_graph
from trainers import METHODS
from trainers.shared import Evaluation

HSAN = {"n_clusters": 3, "embedding_dim": 12, "epochs": 5, "update_every": 2, "confidence": 0.6, "tile_rows": 16}
SMALL = {
    "hsan": HSAN | {"gradients": "standard", "kmeans": "euclidean", "ema": 0.0},  # the paper's, whatever defaults are
    "caegcn": {
        "n_clusters": 3, "widths": "12,10,14", "code_dim": 4, "heads": 2, "head_dim": 3, "epochs": 4,
        "evaluate_every": 2, "pretrain_epochs": 3, "pretrain_lr": 1e-3, "pretrain_batch": 16, "tile_rows": 16,
        "lr": 0.01, "warmup_epochs": 0,
    },
    "ns4gc": {
        "n_clusters": 3, "hidden": 12, "embedding_dim": 6, "epochs": 5, "evaluate_every": 2, "tile_rows": 16, "lr": 0.01
    },
    "dmon": {"n_clusters": 3, "embedding_dim": 8, "epochs": 5, "evaluate_every": 2, "lr": 0.01},
}  # fmt: skip
SIZES = {"hsan": (48, 10, 6), "caegcn": (50, 8, 5), "ns4gc": (50, 10, 6), "dmon": (50, 10, 6)}


def small_graph(method):
    """(graph, labels) of a method's tests."""
    nodes, features, degree = SIZES[method]
    return planted_graph(nodes, 3, features, degree=degree, seed=0, separation=2.0)


def settings_of(method, **values):
    """Its small settings with some replaced."""
    return METHODS[method].settings.model_validate((HSAN if "protocol" in values else SMALL[method]) | values)


def trained(method, data=None, seed=0, run=None, **values):
    """(result, run) of a short training."""
    run = run or PlainRun(seed)
    return METHODS[method].train(settings_of(method, **values), data or small_graph(method)[0], run), run


def of(method):
    """`made`, `small_graph` and `trained` of one method."""
    return partial(settings_of, method), partial(small_graph, method), partial(trained, method)


class Recorder(PlainRun):
    """A plain run that captures a copy of the state of every epoch, as a checkpoint would."""

    def __init__(self, seed=0, start=None, warm=None):
        super().__init__(seed, start, warm=warm)
        self.states = []

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        super().report(epoch, metrics, assignment, state)
        if state is not None:
            now = state()
            shared = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in now.shared.items()}
            parts = {i: {k: v.clone() for k, v in part.items()} for i, part in now.parts.items()}
            self.states.append(State(now.epoch, shared, parts))


class Worker(PlainRun):
    """A plain run of one of several workers."""

    def __init__(self, rank, world):
        super().__init__(3)
        self.rank, self.world = rank, world


def whole(rank, world, method, words):
    """A whole training on a rank: history, assignments, result."""
    result, run = trained(method, run=Worker(rank, world), **words)
    return run.history, run.assignments, result.assignment, result.embedding


def many(rank, world, calls):
    """What several functions of a rank return, in one group: starting processes is what takes the time."""
    return [function(rank, world, *arguments) for function, arguments in calls]


class Scripted:
    """A trainer of one weight, the epoch, which has the clusters of a list at each."""

    def __init__(self, clusters, start=None):
        self.each, self.weight = clusters, torch.zeros(1) if start is None else start.shared["weight"].clone()

    def epoch(self, epoch):
        self.weight.fill_(epoch)
        return {"train/loss": 1.0}

    def clusters(self):
        return self.each[int(self.weight)]

    def evaluate(self, epoch):
        return Evaluation(self.clusters())

    def state(self, epoch):
        return State(epoch, {"weight": self.weight})

    def result(self):
        n = len(self.clusters())
        rows = np.full((n, 4), float(self.weight), np.float32)
        return Result(self.clusters(), np.ones(n, np.float32), rows, {"weight": self.weight.clone()})
