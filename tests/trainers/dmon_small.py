"""A small planted graph, short trainings of DMoN on it, and what each worker of a gloo group computes."""

from typing import Any

from hsan_small import Recorder
from ns4gc_small import Worker, small_graph

from ops.api import PlainRun, Result
from ops.data.types.graph import AttributedGraph
from trainers.dmon import Settings, train
from trainers.dmon.training import DmonTrainer

SMALL = {"n_clusters": 3, "embedding_dim": 8, "epochs": 5, "evaluate_every": 2, "lr": 0.01}
VARIANTS: list[dict[str, Any]] = [{}, {"parts": 4, "blocks": 2}]


def settings_of(**values: Any) -> Settings:
    return Settings.model_validate(SMALL | values)


def trained(data: AttributedGraph | None = None, run: PlainRun | None = None, **values: Any) -> tuple[Result, Any]:
    run = run or Recorder()
    return train(settings_of(**values), data or small_graph()[0], run), run


def trainings(rank, world):
    """Of every variant the losses, clusters, embedding and gradients of a whole training, and the bytes of a step."""
    said = []
    for words in VARIANTS:
        trainer = DmonTrainer(settings_of(**words), small_graph()[0], Worker(rank, world))
        records = [trainer.epoch(epoch) for epoch in range(5)]
        gradients = {name: p.grad.numpy() for name, p in trainer.network.named_parameters()}
        result = trainer.result()
        losses = [record["train/loss"] for record in records]
        said.append((losses, result.assignment, result.embedding, gradients, records[-1].get("sys/sent_bytes")))
    return said
