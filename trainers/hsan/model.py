"""HSAN's encoders and what goes into them: X~ (eq. 1) and the sparse adjacency matrix.

Axes: N nodes, F features (after PCA where set), D embedding width, M = 2N rows (view 1, then view 2).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ops.contrast.rows import unit_rows
from ops.data.types import AttributedGraph
from ops.graph.adjacency import adjacency, low_pass, sparse_matrix, symmetric_product
from ops.graph.pca import Projection, fit_pca
from ops.rng import torch_generator
from trainers.hsan.settings import Settings


class Encoders(torch.nn.Module):
    """Two attribute and two structure encoders (stacked by view) and alpha; torch.nn.Linear's start, keyed by seed."""

    def __init__(self, n_nodes: int, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        d = settings.embedding_dim
        g = torch_generator(seed, "hsan/encoders")
        for name, fan_in in (("attribute", n_features), ("structure", n_nodes)):
            bound = 1 / math.sqrt(fan_in)
            for part, shape in (("weight", (2, fan_in, d)), ("bias", (2, 1, d))):
                start = torch.empty(shape).uniform_(-bound, bound, generator=g)
                self.register_parameter(f"{name}_{part}", torch.nn.Parameter(start))
        self.alpha = torch.nn.Parameter(torch.tensor(0.99999))
        self.activation = settings.activation

    def attributes(self, x: Float[Tensor, "N F"]) -> Float[Tensor, "M D"]:
        """Z, both views, rows of unit length."""
        weight, bias = self.get_parameter("attribute_weight"), self.get_parameter("attribute_bias")
        z = (x @ weight).add_(bias).flatten(0, 1)
        return unit_rows(z.sigmoid()) if self.activation == "sigmoid" else unit_rows(z, in_place=True)

    def structure(self, a: Tensor) -> Float[Tensor, "M D"]:
        """E, both views, rows of unit length; `a` is the sparse adjacency matrix [N, N]."""
        weight, bias = self.get_parameter("structure_weight"), self.get_parameter("structure_bias")
        return unit_rows(symmetric_product(a, weight).add_(bias).flatten(0, 1), in_place=True)


def fuse(z: Float[Tensor, "M D"]) -> Float[Tensor, "N D"]:
    """The mean of the two views (eq. 6's input)."""
    first, second = z.chunk(2)
    return (first + second) / 2


def prepare(settings: Settings, data: AttributedGraph) -> tuple[Float[Tensor, "N F"], Projection | None]:
    """X~: PCA where set, then the low-pass filter (eq. 1)."""
    projection = fit_pca(data.x, settings.pca_dim) if 0 < settings.pca_dim < data.n_features else None
    x = projection(data.x) if projection else data.x
    return torch.from_numpy(low_pass(x, data.edge_index, settings.low_pass_order)), projection


def structure_matrix(settings: Settings, data: AttributedGraph, device: torch.device) -> Tensor:
    """A, sparse [N, N], with the graph's own self loops or without."""
    loops = settings.self_loops == "keep"
    return sparse_matrix(adjacency(data.edge_index, data.n_nodes, self_loops=loops), device)
