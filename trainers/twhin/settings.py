"""Hyperparameters of TwHIN; those of the graph, the clusters and the evaluation are the same as HGT's."""

from ops.config.settings import setting
from trainers.hgt.settings import GraphSettings


class Settings(GraphSettings):
    """Hyperparameters of TwHIN."""

    lr: float = setting(0.1, "learning rate of the row-wise Adagrad", gt=0, le=10, search={"loguniform": [0.01, 1.0]})
    batch: int = setting(4096, "edges of a relation in a step", ge=2, le=1_000_000)
    embedding_dim: int = setting(64, "embedding width D", ge=1, le=8192, search={"choice": [32, 64, 128]})
    normalise: bool = setting(False, "score by the cosine of s + r and t instead of their product")
    temperature: float = setting(
        1.0, "what scores are divided by in the loss", ge=0.01, le=100, search={"loguniform": [0.1, 2.0]}
    )
    batch_negatives: int = setting(
        50, "other edges of the batch whose ends corrupt an edge's; 0: none", ge=0, le=65536,
        search={"choice": [10, 50, 200]},
    )  # fmt: skip
    neg_num: int = setting(
        50, "uniformly drawn nodes a step that corrupt each end; 0: none", ge=0, le=65536,
        search={"choice": [10, 50, 200]},
    )  # fmt: skip
    fold_steps: int = setting(
        0, "gradient steps that refine the vector of an unseen node; 0: the closed form", ge=0, le=10_000
    )
