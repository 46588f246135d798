"""Hyperparameters of DMoN."""

from ops.config.settings import setting
from trainers.shared import PartSettings


class Settings(PartSettings):
    """Hyperparameters of DMoN, under the paper's names where it has any."""

    epochs: int = setting(500, "training epochs", ge=1, le=1_000_000)
    embedding_dim: int = setting(
        512, "width D of the graph convolution", ge=2, le=65536, search={"choice": [64, 128, 256, 512]}
    )
    collapse: float = setting(
        1.0, "weight of the term that keeps clusters of one size", ge=0, search={"loguniform": [0.1, 10]}
    )
    weight_decay: float = setting(0.0, "weight decay of Adam", ge=0, le=1, search={"loguniform": [1e-6, 1e-3]})
    evaluate_every: int = setting(10, "epochs between evaluations; the last epoch has one", ge=1)

    @property
    def batch_nodes(self) -> int:
        """0: batches consist of whole parts only, since modularity needs nodes together with their neighbours."""
        return 0
