"""SSGC: simple spectral graph convolution (Zhu & Koniusz, ICLR 2021), singular vectors, spherical k-means."""

from ops.clustering.linear import LinearMethod
from ops.config.settings import setting
from ops.inference.sklearn import GraphClusterer
from trainers.linear import ORDERS, LinearSettings, linear_method


class Settings(LinearSettings):
    """Hyperparameters of SSGC."""

    order: int = setting(5, "order T of the filter", ge=0, le=1000, search=ORDERS)
    alpha: float = setting(0.05, "share of the unfiltered features", ge=0, le=1, search={"uniform": [0, 0.3]})
    components: int = setting(20, "singular vectors kept", ge=1, le=4096)
    centred: bool = setting(
        False, "take the columns' means off first: principal components", search={"choice": [False, True]}
    )

    @property
    def linear(self) -> LinearMethod:
        """The method that the settings describe."""
        return LinearMethod(
            "ssgc", self.order, self.features, alpha=self.alpha, components=self.components, centred=self.centred,
            starts=self.kmeans_starts,
        )  # fmt: skip


METHOD = linear_method(
    "ssgc", "SSGC: averaged graph filters and spherical k-means", Settings, ("order", "features", "centred")
)

__all__ = ["METHOD", "SSGC", "Settings"]


class SSGC(GraphClusterer):
    """scikit-learn-like estimator: `SSGC(n_clusters=7).fit(x, edge_index).labels_`."""

    method = METHOD
