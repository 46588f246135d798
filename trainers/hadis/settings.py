"""Hyperparameters of HaDis; the defaults are the authors' for CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ops.config.data_settings import ImageSettings
from ops.config.settings import setting

BACKBONES = ("resnet18", "resnet34", "resnet50", "small")
FROZEN = "frozen:"


class Settings(ImageSettings):
    """Hyperparameters of HaDis, under the paper's names."""

    epochs: int = setting(1000, "training epochs", ge=1, le=1_000_000)
    lr: float = setting(
        0.05, "base learning rate of SGD: times --batch / 256", gt=0, le=10, search={"loguniform": [0.02, 1.0]}
    )
    hidden: int = setting(4096, "hidden width of projector and predictor", ge=2, le=65536)
    embedding_dim: int = setting(256, "width D of the projections, which are clustered", ge=2, le=65536)
    batch: int = setting(256, "images of a step of the optimiser, over all workers", ge=2, le=1_000_000)
    epoch_steps: int = setting(0, "most steps of an epoch; 0: an epoch sees all images", ge=0, le=1_000_000)
    accumulate: int = setting(
        1, "parts of a batch that are computed one after the other; losses and BatchNorm see one part", ge=1, le=65536
    )
    temperature: float = setting(
        0.5, "temperature T of the prototype loss", ge=0.01, le=100, search={"loguniform": [0.1, 1.0]}
    )
    hardness: float = setting(
        0.5, "temperature tau of the hardness loss", ge=0.01, le=100, search={"loguniform": [0.1, 2.0]}
    )
    sigma: float = setting(
        0.001, "noise on what the predictor gets, from the warm-up's end", ge=0, le=10,
        search={"loguniform": [1e-4, 1e-1]},
    )  # fmt: skip
    weight_hsd: float = setting(1.0, "weight of the hardness loss, from the first epoch", ge=0, le=1e3)
    weight_proto: float = setting(
        0.1, "weight of the prototype loss, from the warm-up's end", ge=0, le=1e3, search={"loguniform": [0.01, 1.0]}
    )
    ema_momentum: float = setting(
        0.996, "decay a step of the target network", ge=0, le=1, search={"choice": [0.97, 0.98, 0.99, 0.996]}
    )
    ema_schedule: Literal["constant", "cosine"] = setting("constant", "cosine: the decay rises to 1 at the end")
    momentum: float = setting(0.9, "momentum of SGD", ge=0, lt=1)
    weight_decay: float = setting(5e-4, "weight decay", ge=0, le=1)
    decay: Literal["all", "weights"] = setting("all", "weights: none on BatchNorm and biases")
    predictor_lr: float = setting(10.0, "learning rate of the predictor by that of the rest", gt=0, le=1000)
    warmup_epochs: int | None = setting(
        None, "epochs of rising learning rate, without noise and prototypes; default: a tenth", ge=0, le=1_000_000
    )
    lr_end: float = setting(0.006, "share of the learning rate at which its cosine ends", ge=0, le=1)
    batch_norm: Literal["sync", "local", "shuffled"] = setting(
        "sync", "sync: statistics of all workers; shuffled: of each, the target's images dealt anew"
    )
    resample: bool = setting(False, "draw images in inverse proportion to the size of their pseudo cluster")
    cluster: Literal["kmeans", "gmm"] = setting("kmeans", "what makes the clusters of the projections")
    kmeans_starts: int = setting(10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000)
    eval_every: int = setting(10, "epochs between evaluations; the last epoch has one", ge=1)
    crop_min: float = setting(0.08, "smallest share of an image that a view shows", gt=0, le=1)
    flip: float = setting(0.5, "probability of mirrored views", ge=0, le=1)
    jitter: float = setting(1.0, "strength of changed colours; 1: 0.4, 0.4, 0.4 and 0.1 of hue", ge=0, le=2)
    grey: float = setting(0.2, "probability of grey views", ge=0, le=1)
    feature_noise: float = setting(0.2, "noise on views of features (frozen:FILE), by their deviation", ge=0, le=10)
    feature_drop: float = setting(0.2, "share of features that a view lacks (frozen:FILE)", ge=0, lt=1)

    @property
    def warmup(self) -> int:
        """The number of epochs of warm-up."""
        return self.epochs // 10 if self.warmup_epochs is None else self.warmup_epochs

    @property
    def frozen(self) -> str | None:
        """The file of features that were computed elsewhere, where these are the backbone."""
        return self.backbone.removeprefix(FROZEN) if self.backbone.startswith(FROZEN) else None

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.backbone not in BACKBONES and not Path(self.frozen or "").suffix:
            raise ValueError(
                f"--backbone: got {self.backbone!r}; allowed: {', '.join(BACKBONES)} or frozen:FILE.npy|parquet|csv"
            )
        if self.warmup >= self.epochs and self.warmup:
            raise ValueError(f"--warmup-epochs {self.warmup} must be below --epochs, which is {self.epochs}: lower it")
        if self.batch // self.accumulate < 2:
            raise ValueError(
                f"--accumulate {self.accumulate} leaves {self.batch // self.accumulate} images of --batch {self.batch} "
                "in a part, which needs 2: lower it"
            )
        return self
