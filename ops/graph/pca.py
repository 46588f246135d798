"""PCA of node features, fitted once and kept with the model.

Axes: N nodes, F features, C components.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT_UP_TO = 4096  # columns; above, an F x F eigenproblem costs more than a randomised SVD


@dataclass(frozen=True)
class Projection:
    """`(x - mean) @ components.T`; mean float32 [F], components float32 [C, F]."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, F] -> [N, C]. Raises ValueError where the columns differ from the fitted ones."""
        if x.shape[1] != len(self.mean):
            raise ValueError(f"x has {x.shape[1]} features, the model was fitted on {len(self.mean)}")
        # mean @ components.T is subtracted afterwards: no second copy of a large x
        return np.asarray(x @ self.components.T - self.mean @ self.components.T, dtype=np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """The projection as a model's tensors."""
        return {"pca.mean": torch.from_numpy(self.mean), "pca.components": torch.from_numpy(self.components)}

    @staticmethod
    def load(tensors: Mapping[str, Tensor]) -> "Projection | None":
        """The projection that is stored in a model, or None where there is none."""
        if "pca.mean" not in tensors:
            return None
        return Projection(tensors["pca.mean"].cpu().numpy(), tensors["pca.components"].cpu().numpy())


def fit_pca(x: NDArray[np.float32], n_components: int) -> Projection:
    """The leading principal axes of `x` [N, F], at most min(N, F); exact up to 4,096 columns, else randomised."""
    from sklearn.decomposition import PCA

    n_components = min(n_components, *x.shape)
    solver = "covariance_eigh" if x.shape[1] <= EXACT_UP_TO else "randomized"
    pca = PCA(n_components, svd_solver=solver, random_state=0).fit(x)
    return Projection(pca.mean_.astype(np.float32), pca.components_.astype(np.float32))
