"""TwHIN and k-means: users clustered by translating embeddings (El-Kishky et al., KDD 2022), the baseline of HGT.

Each node has a vector, in tables that are split by part and live in the training workers; each relation has a
translation. An edge scores `(s + r) . t`. The loss is logistic, against the ends of other edges of the batch and
against uniformly drawn nodes; the optimiser is row-wise Adagrad.

Axes: N nodes of a type, D embedding width, K clusters.
"""

from ops.api import Method
from ops.inference.user_estimator import UserClusterer
from trainers.twhin.cost import estimate, exchanged, remarks
from trainers.twhin.inference import predict
from trainers.twhin.settings import Settings
from trainers.twhin.training import train

METHOD = Method(
    name="twhin",
    summary="TwHIN: users clustered by translating embeddings, the baseline of HGT",
    kind="users",
    settings=Settings,
    train=train,
    predict=predict,
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    searched=("temperature", "lr", "batch_negatives", "neg_num"),
    fixed=("embedding_dim",),
    new_rows="they are placed by the vectors of the nodes at the other ends of their edges",
    save_memory="lower --embedding-dim, or take more workers: each keeps its parts of the tables",
    avoid_collapse="lower --lr or raise --temperature",
    places_by_features=False,
)

__all__ = ["METHOD", "Settings", "TwHIN", "estimate", "exchanged", "predict", "remarks", "train"]


class TwHIN(UserClusterer):
    """scikit-learn-like estimator: `TwHIN(n_clusters=20, epochs=10).fit(hetero_data).labels_`."""

    method = METHOD
