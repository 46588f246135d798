"""Hyperparameters of HSAN and the values that its released code fixes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from ops.config.settings import setting
from trainers.shared import TileSettings

PUBLISHED = {"gradients": "accumulate", "weights": "stale", "kmeans": "released", "ema": 0.0}
PUBLISHED_EPOCHS = 400


class Settings(TileSettings):
    """Hyperparameters of HSAN, under the paper's names."""

    epochs: int = setting(50, "training epochs; with --protocol published 400 unless given", ge=1, le=1_000_000)
    embedding_dim: int = setting(500, "embedding width D", ge=2, le=65536, search={"choice": [250, 500, 1000, 1500]})
    low_pass_order: int = setting(2, "filter order t", ge=0, le=100, search={"randint": [1, 9]})
    pca_dim: int = setting(0, "columns that PCA keeps before the filter; 0: no PCA", ge=0)
    activation: Literal["identity", "sigmoid"] = setting("identity", "activation of the attribute encoders")
    temperature: float = setting(1.0, "temperature T of the loss", ge=0.01, le=100, search={"loguniform": [0.1, 2.0]})
    confidence: float = setting(0.9, "share tau of rows to trust", ge=0, le=1, search={"uniform": [0.1, 0.95]})
    beta: float = setting(1.0, "focusing factor of the pair weights", gt=0, le=20, search={"uniform": [0.5, 6.0]})
    update_every: int = setting(10, "epochs between updates of the pair weights", ge=1)
    gradients: Literal["standard", "accumulate"] | float = setting(
        "accumulate",
        "share of the earlier steps' summed gradients that a step adds to its own: standard 0, accumulate 1 (released "
        "code), or a number between",
    )
    lr_decay: Literal["none", "cosine"] = setting("none", "cosine: the learning rate falls to 0 over the epochs")
    weights: Literal["paper", "stale"] = setting("paper", "stale: an update leaves pairs outside H as they were")
    kmeans: Literal["euclidean", "spherical", "released"] = setting("spherical", "which k-means makes the clusters")
    kmeans_starts: int = setting(10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000)
    ema: float = setting(
        0.97, "decay an epoch of the averaged attribute encoders, which give the clusters; 0: the last ones", ge=0, lt=1
    )
    self_loops: Literal["keep", "drop"] = setting("keep", "the graph's own self loops in the structure encoder")
    pair_storage: Literal["auto", "float", "uint16", "recompute"] = setting("auto", "how pair weights are held")
    pair_memory: float = setting(0.5, "GiB for pair weights and kept tiles together", ge=0, le=1e6)
    batch_nodes: int = setting(0, "nodes a step takes, drawn anew every epoch; 0: all pairs", ge=0)
    protocol: Literal["honest", "published"] = setting("honest", "published: the released code's rules throughout")

    def largest_step(self, n_nodes: int) -> int:
        """How many nodes the largest step has; drawn batches differ by one."""
        return -(-n_nodes // -(-n_nodes // self.batch_nodes)) if self.batch_nodes else super().largest_step(n_nodes)

    @property
    def leak(self) -> float:
        """The share of the earlier steps' summed gradients that a step adds to its own."""
        return self.gradients if isinstance(self.gradients, float) else float(self.gradients == "accumulate")

    @property
    def guarded(self) -> bool:
        """Whether worse clusters make the result that of an earlier epoch; the published protocol keeps the last."""
        return self.protocol != "published"

    def lr_at(self, epoch: int) -> float:
        """Adam's learning rate in an epoch. It depends on the epoch alone, so that a resumed run has the same."""
        return self.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2 if self.lr_decay == "cosine" else self.lr

    @model_validator(mode="after")
    def _leak(self) -> Settings:
        if isinstance(self.gradients, float) and not 0 <= self.gradients <= 1:
            raise ValueError(
                f"--gradients {self.gradients:g}: allowed are standard (0), accumulate (1) or a number between"
            )
        return self

    @model_validator(mode="after")
    def _storage(self) -> Settings:
        if self.weights == "stale" and self.pair_storage == "recompute":
            raise ValueError(
                "--weights stale cannot be recomputed (they have no snapshot): drop --pair-storage recompute"
            )
        return self

    @model_validator(mode="after")
    def _batches(self) -> Settings:
        b, p, k = self.batch_nodes, self.parts, self.n_clusters
        given, wrong = f"--batch-nodes {b}" if b else f"--parts {p}", ""
        if b and p:
            wrong = f"--batch-nodes and --parts exclude each other: got {b} and {p}; drop one of them"
        elif (b or p) and self.weights == "stale":
            wrong = (
                "--weights stale (also of --protocol published) needs all pairs in every step: use --weights paper "
                f"or drop {given}"
            )
        elif b == 1 or (b and isinstance(k, int) and b < k):
            wrong = (
                f"--batch-nodes {b} must be at least {k if b > 1 else 2}" + " (the clusters)" * (b > 1) + ": raise it"
            )
        if wrong:
            raise ValueError(wrong)
        return self

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("protocol") != "published":
            return values
        for key, fixed in PUBLISHED.items():
            if values.get(key, fixed) != fixed:
                raise ValueError(
                    f"--protocol published sets {key}={fixed}: got {key}={values[key]!r}; drop one of them"
                )
        return {"epochs": PUBLISHED_EPOCHS, **values, **PUBLISHED}
