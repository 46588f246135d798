"""Short trainings of every method on small data, for the tests of devices: what each case trains, and on what."""

from pathlib import Path
from typing import Any

import caegcn_small
import hadis_small
import numpy as np
import small
import users_small

from ops.api import PlainRun, Result
from ops.graph.sampling.dataset import PartitionedGraph
from trainers.caegcn.training import CaegcnTrainer
from trainers.dmon.training import DmonTrainer
from trainers.hadis.training import HadisTrainer
from trainers.hgt.training import HgtTrainer
from trainers.hsan.training import HsanTrainer
from trainers.ns4gc.training import Ns4gcTrainer
from trainers.twhin.training import TwhinTrainer

TRAINERS = {
    "hsan": HsanTrainer, "caegcn": CaegcnTrainer, "hadis": HadisTrainer, "ns4gc": Ns4gcTrainer, "hgt": HgtTrainer,
    "twhin": TwhinTrainer, "dmon": DmonTrainer,
}  # fmt: skip
SOM = {"cluster": "som", "som_rows": 3, "som_columns": 4}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("hsan", {}),
    ("hsan", {"protocol": "published"}),
    ("hsan", {"batch_nodes": 24, "beta": 1.5, "kmeans": "spherical", "ema": 0.9}),
    ("hsan", {"parts": 4, "blocks": 2, "pair_storage": "recompute"}),
    ("caegcn", {}),
    ("caegcn", {"parts": 4, "blocks": 2, "structure_from": "last", "pos_weight": "balanced"}),
    ("caegcn", caegcn_small.SDCN),
    ("hadis", {}),
    ("hadis", hadis_small.VARIANTS["resampled"] | hadis_small.VARIANTS["mixture"]),
    ("hadis", hadis_small.VARIANTS["frozen"] | {"accumulate": 2}),
    ("ns4gc", {}),
    ("ns4gc", {"parts": 4, "blocks": 2}),
    ("dmon", {}),
    ("dmon", {"parts": 4, "blocks": 2}),
    ("hgt", {"dropout": 0.0}),
    ("hgt", {"dropout": 0.0, "loss": "softmax", "id_buckets": 50}),
    ("hgt", {"dropout": 0.0, "hardness": 0.5, "neg_num": 4, "som_weight": 0.01, **SOM}),
    ("twhin", {}),
    ("twhin", {"normalise": True, "neg_num": 0, **SOM}),
]


def names() -> list[str]:
    """One of each case, for pytest."""
    return [" ".join([method, *(f"{k}={v}" for k, v in words.items())])[:60] for method, words in CASES]


def settings_of(method: str, words: dict[str, Any]) -> Any:
    """Small settings of a method."""
    if method == "hadis":
        return hadis_small.settings_of(**words)
    few = {"epochs": 2, "epoch_steps": 2, "step_batches": 2}
    return (
        small.settings_of(method, **words)
        if method in small.SMALL
        else users_small.settings_of(method, **(few | words))
    )


def data_of(method: str, words: dict[str, Any], users: PartitionedGraph) -> Any:
    """What a case trains on; `users` where the method is for heterogeneous graphs."""
    if method in small.SMALL:
        return small.small_graph(method)[0]
    return hadis_small.small_data(words) if method == "hadis" else users


def placed(case: tuple[str, dict[str, Any]], users: PartitionedGraph, model: dict[str, Any]) -> Any:
    """The clusters in which a case's `predict` puts the rows of its training again, on the device of the model."""
    from trainers import METHODS

    method, words = case
    data = data_of(method, words, users)
    kind, settings = METHODS[method].kind, settings_of(method, words).model_dump()
    if kind == "users":
        return METHODS[method].predict(model, settings, users_small.again(users, np.arange(users.n_rows))).cluster
    rows = (data,) if kind == "images" else (data.x, data.edge_index)
    return METHODS[method].predict(model, settings, *rows)[0]


class DeviceRun(PlainRun):
    """A plain run that packs every state, as a checkpoint would, and keeps the last one."""

    last: Any = None

    def report(
        self, epoch: int, metrics: Any, assignment: Any = None, state: Any = None, embeddings: Any = None
    ) -> None:
        super().report(epoch, metrics, assignment)
        assert all(isinstance(value, float) for value in metrics.values())
        assert all(isinstance(each, np.ndarray) for each in (embeddings or {}).values())
        self.last = state and state()


def trained(case: tuple[str, dict[str, Any]], users: PartitionedGraph, run: PlainRun) -> Result:
    """The result of a case's training."""
    from trainers import METHODS

    method, words = case
    return METHODS[method].train(settings_of(method, words), data_of(method, words, users), run)


class RankRun(DeviceRun):
    """The same for one of several ranks."""

    def __init__(self, rank: int, world: int, device: str) -> None:
        super().__init__(5, device=device)
        self.rank, self.world = rank, world


def on_ranks(rank: int, world: int, folder: str, cases: list[int]) -> list[Any]:
    """The assignments of some of the cases on a rank of the pretended accelerator."""
    from accelerator import NAME, accelerator

    users = users_small.parts_in(Path(folder))
    with accelerator():
        return [trained(CASES[case], users, RankRun(rank, world, NAME)).assignment for case in cases]
