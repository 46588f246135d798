"""Hyperparameters of NS4GC; the defaults are the authors' for Cora."""

from ops.config.settings import setting
from trainers.shared import TileSettings


class Settings(TileSettings):
    """Hyperparameters of NS4GC, under the paper's names where it has any."""

    epochs: int = setting(200, "training epochs", ge=1, le=1_000_000)
    weight_decay: float = setting(1e-5, "weight decay of Adam", ge=0, le=1)
    hidden: int = setting(256, "width H of the first layer", ge=1, le=65536)
    embedding_dim: int = setting(64, "embedding width D", ge=2, le=65536, search={"choice": [32, 64, 128, 256]})
    drop_edges: float = setting(0.3, "share of the edges that a view lacks", ge=0, lt=1, search={"uniform": [0, 0.8]})
    mask_features: float = setting(
        0.2, "share of the feature columns that a view lacks", ge=0, lt=1, search={"uniform": [0, 0.8]}
    )
    neighbours: float = setting(1.0, "weight a of the similarity of neighbours", ge=0, search={"loguniform": [0.1, 10]})
    apart: float = setting(
        1.0,
        "weight b of the term that makes similarities of other pairs sparse",
        ge=0,
        search={"loguniform": [0.1, 10]},
    )
    threshold: float = setting(
        0.6, "similarity s from which on two nodes without an edge count as similar", ge=-1, le=1,
        search={"uniform": [0.2, 0.9]},
    )  # fmt: skip
    temperature: float = setting(
        0.1, "temperature tau: how sharp that threshold is", ge=0.01, le=100, search={"loguniform": [0.05, 1.0]}
    )
    kmeans_starts: int = setting(10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000)
    evaluate_every: int = setting(10, "epochs between evaluations; the last epoch has one", ge=1)

    @property
    def batch_nodes(self) -> int:
        """0: batches consist of whole parts only, since the convolutions need nodes together with their neighbours."""
        return 0
