"""S2CAG and M-S2CAG: spectral subspace clustering by a random-walk filter (Lin et al., KDD 2025)."""

from typing import Literal

from ops.clustering.linear import LinearMethod
from ops.config.settings import setting
from ops.inference.sklearn import GraphClusterer
from trainers.linear import ORDERS, LinearSettings, linear_method


class Settings(LinearSettings):
    """Hyperparameters of S2CAG."""

    variant: Literal["s2cag", "m-s2cag"] = setting(
        "m-s2cag", "s2cag: singular vectors, rounded by SNEM; m-s2cag: modularity of the affinity, spherical k-means",
        search={"choice": ["s2cag", "m-s2cag"]},
    )  # fmt: skip
    order: int = setting(10, "order T of the random walk", ge=0, le=1000, search=ORDERS)
    decay: float = setting(0.9, "weight a of each further step of the walk", gt=0, le=1, search={"uniform": [0.5, 1]})
    gamma: float = setting(0.9, "weight of the null model (m-s2cag)", ge=0, le=10)
    rounds: int = setting(50, "rounds of the subspace iteration (m-s2cag)", ge=1, le=10_000)

    @property
    def linear(self) -> LinearMethod:
        """The method that the settings describe."""
        return LinearMethod(
            self.variant, self.order, self.features, decay=self.decay, gamma=self.gamma, rounds=self.rounds,
            starts=self.kmeans_starts,
        )  # fmt: skip


METHOD = linear_method(
    "s2cag", "S2CAG and M-S2CAG: spectral subspaces of a random-walk filter", Settings, ("variant", "order", "features")
)

__all__ = ["METHOD", "S2CAG", "Settings"]


class S2CAG(GraphClusterer):
    """scikit-learn-like estimator: `S2CAG(n_clusters=7).fit(x, edge_index).labels_`."""

    method = METHOD
