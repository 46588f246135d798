"""SAGSC: scalable attributed-graph subspace clustering (Fettal, Labiod & Nadif, AAAI 2023)."""

from ops.clustering.linear import LinearMethod
from ops.config.settings import setting
from ops.inference.sklearn import GraphClusterer
from trainers.linear import ORDERS, LinearSettings, linear_method


class Settings(LinearSettings):
    """Hyperparameters of SAGSC."""

    order: int = setting(5, "order p of the filter", ge=0, le=1000, search=ORDERS)

    @property
    def linear(self) -> LinearMethod:
        """The method that the settings describe."""
        return LinearMethod("sagsc", self.order, self.features, starts=self.kmeans_starts)


METHOD = linear_method(
    "sagsc", "SAGSC: subspace clustering of filtered features by a quadratic kernel", Settings, ("order", "features")
)

__all__ = ["METHOD", "SAGSC", "Settings"]


class SAGSC(GraphClusterer):
    """scikit-learn-like estimator: `SAGSC(n_clusters=7).fit(x, edge_index).labels_`."""

    method = METHOD
