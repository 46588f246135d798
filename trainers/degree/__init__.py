"""k-means on log(1 + degree): finds the roles of nodes, where edges and features show no communities."""

from ops.clustering.linear import LinearMethod
from ops.config.settings import setting
from ops.inference.sklearn import GraphClusterer
from trainers.linear import LinearSettings, linear_method


class Settings(LinearSettings):
    """Hyperparameters of k-means on log(degree)."""

    kmeans_starts: int = setting(
        10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000, search={"choice": [10]}
    )

    @property
    def linear(self) -> LinearMethod:
        """The method that the settings describe."""
        return LinearMethod("degree", 0, "raw", starts=self.kmeans_starts)


METHOD = linear_method(
    "degree", "k-means on log(degree): roles instead of communities", Settings, ("kmeans_starts",),
    new_rows="by the number of their edges",
)  # fmt: skip

__all__ = ["METHOD", "Degree", "Settings"]


class Degree(GraphClusterer):
    """scikit-learn-like estimator: `Degree(n_clusters=4).fit(x, edge_index).labels_`."""

    method = METHOD
