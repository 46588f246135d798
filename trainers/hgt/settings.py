"""Hyperparameters of HGT, and those it shares with TwHIN (`GraphSettings`)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import field_validator, model_validator

from ops.config.data_settings import UserSettings
from ops.config.settings import setting

UNITS_A_CLUSTER = 9  # with fewer, k-means of the units is far behind k-means of the rows


class GraphSettings(UserSettings):
    """The settings of every method on a partitioned heterogeneous graph; each method's `Settings` derive from it."""

    epochs: int = setting(20, "passes over the label relations' edges", ge=1, le=1_000_000)
    batch: int = setting(1024, "edges of the label relations in a step", ge=2, le=1_000_000)
    step_batches: int = setting(
        4, "batches that make one step of the optimiser; workers share them, so that their number changes no sum", ge=1,
        le=65536,
    )  # fmt: skip
    epoch_steps: int = setting(
        0, "steps of an epoch, at whose end the training can be resumed; 0: one pass over all edges", ge=0
    )
    update_every: int = setting(5, "epochs between looks at the clusters", ge=1)
    prefetch: int = setting(4, "batches that a worker has drawn ahead in two threads; 0: none", ge=0, le=64)
    kmeans: Literal["euclidean", "spherical"] = setting("spherical", "which k-means makes the clusters")
    kmeans_starts: int = setting(10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000)
    som_rows: int = setting(
        0, "rows of the self-organising map; 0: a square of about nine units a cluster", ge=0, le=1000,
        search={"choice": [10, 20, 30, 40]},
    )  # fmt: skip
    som_columns: int = setting(0, "its columns; 0: as for the rows", ge=0, le=1000, search={"choice": [10, 20, 30, 40]})
    som_iterations: int = setting(40, "passes in which the map's radius shrinks to 1", ge=1, le=10_000)
    store_states: bool = setting(
        True, "keep in the model what new users are placed by: states (TwHIN: vectors) of the nodes at other ends"
    )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the map, once K is a number."""
        side = math.ceil(math.sqrt(UNITS_A_CLUSTER * self.k))
        return self.som_rows or side, self.som_columns or side

    @model_validator(mode="after")
    def _units(self) -> GraphSettings:
        if self.cluster == "kmeans" or not isinstance(self.n_clusters, int):
            return self
        (rows, columns), k = self.grid, self.n_clusters
        units = rows * columns
        if k > units:
            raise ValueError(
                f"--som-rows {rows} times --som-columns {columns} are {units} units, fewer than the "
                f"{k} clusters they are grouped into: raise them or lower --n-clusters"
            )
        return self


class Settings(GraphSettings):
    """Hyperparameters of HGT; `fan_out` gives the number of layers."""

    lr: float = setting(0.01, "learning rate of Adam", gt=0, le=1, search={"loguniform": [3e-4, 3e-2]})
    hidden: int = setting(64, "width of states and embeddings", ge=2, le=8192, search={"choice": [32, 64, 128]})
    heads: int = setting(4, "attention heads, which share the width", ge=1, le=256, search={"choice": [1, 2, 4, 8]})
    fan_out: str = setting(
        "10,10",
        "neighbours drawn per relation, from the roots outwards; as many numbers as the network has layers",
        search={"choice": ["5,5", "10,5", "10,10", "15,10", "20,20"]},
    )
    sampling: Literal["replace", "distinct", "padded"] = setting(
        "distinct", "neighbours with replacement; distinct; distinct and circularly repeated (the original's)"
    )
    dropout: float = setting(
        0.0,
        "share of entries dropped after the input and in every layer (the original's: 0.5)",
        ge=0,
        lt=1,
        search={"choice": [0.0, 0.1, 0.3, 0.5]},
    )
    norm: Literal["none", "layer"] = setting("none", "LayerNorm after every layer, without weights")
    id_buckets: int = setting(
        0, "rows of a learned table per node type that ids are hashed into, added to the input; 0: none", ge=0, le=2**26
    )
    loss: Literal["bpr", "softmax"] = setting(
        "bpr", "bpr: against drawn negatives; softmax: against the batch, corrected for popularity"
    )
    temperature: float = setting(
        0.2,
        "1 / scale of the cosine in the loss (the original's: 0.5)",
        ge=0.01,
        le=100,
        search={"loguniform": [0.1, 2.0]},
    )
    neg_num: int = setting(2, "negatives of a positive and direction (bpr)", ge=1, le=50, search={"randint": [1, 21]})
    hardness: float = setting(
        0.0,
        "share of each positive's negatives taken from the hardest of 50 uniform candidates (bpr)",
        ge=0,
        le=1,
        search={"uniform": [0.0, 1.0]},
    )
    som_weight: float = setting(
        0.0,
        "weight of the map's loss beside the links'; 0: the map comes after training",
        ge=0,
        le=1e3,
        search={"loguniform": [1e-4, 1e-1]},
    )

    @property
    def fan_outs(self) -> tuple[int, ...]:
        """Neighbours per relation and hop, from the roots outwards."""
        return tuple(int(width) for width in self.fan_out.split(","))

    @property
    def layers(self) -> int:
        """L, the number of layers: one for each hop."""
        return len(self.fan_outs)

    @field_validator("fan_out", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """Accept YAML's `fan_out: [10, 10]` and `fan_out: 10`."""
        if isinstance(value, list):
            return ",".join(map(str, value))
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        widths = [text.strip() for text in self.fan_out.split(",")]
        if not (len(widths) <= 8 and all(text.isdecimal() and 1 <= int(text) <= 10_000 for text in widths)):
            raise ValueError(
                f"--fan-out: got {self.fan_out!r}; allowed: 1 to 8 whole numbers in [1, 10000] with commas between, "
                "e.g. 10,10 for two layers"
            )
        if self.hidden % self.heads:
            raise ValueError(f"--heads {self.heads} must divide --hidden, which is {self.hidden}: change one of them")
        if self.loss == "softmax" and self.hardness > 0:
            raise ValueError(
                f"--hardness {self.hardness:g} picks negatives for --loss bpr; --loss softmax takes the batch: drop one"
            )
        return self
