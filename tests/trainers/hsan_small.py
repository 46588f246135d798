"""A small planted graph, short trainings on it and a run that keeps every state, for the tests of HSAN."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import PlainRun, Result, State
from ops.data.synthetic.planted_partition import planted_graph
from ops.data.types.graph import AttributedGraph
from trainers.hsan import Settings, train

SIZES = {"n_clusters": 3, "embedding_dim": 12, "epochs": 5, "update_every": 2, "confidence": 0.6, "tile_rows": 16}
PLAIN = {"gradients": "standard", "kmeans": "euclidean", "ema": 0.0}  # the paper's text, whatever the defaults are
SMALL = SIZES | PLAIN


def small_graph() -> tuple[AttributedGraph, NDArray[np.int64]]:
    return planted_graph(48, 3, 10, degree=6, seed=0, separation=2.0)


def made(**values: Any) -> Settings:
    return Settings.model_validate((SIZES if "protocol" in values else SMALL) | values)


def trained(data: AttributedGraph | None = None, seed: int = 0, **values: Any) -> tuple[Result, PlainRun]:
    run = PlainRun(seed)
    return train(made(**values), data or small_graph()[0], run), run


class Recorder(PlainRun):
    """A plain run that captures a copy of the state of every epoch, as a checkpoint would."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.states: list[State] = []

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        super().report(epoch, metrics, assignment, state)
        if state is not None:
            now = state()
            shared = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in now.shared.items()}
            parts = {i: {k: v.clone() for k, v in part.items()} for i, part in now.parts.items()}
            self.states.append(State(now.epoch, shared, parts))
