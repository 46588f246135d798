"""HSAN's encoders and their inputs: X~ (eq. 1) and the sparse adjacency matrix.

Axes: N nodes, n of them on this worker, B of a batch, F features (after PCA where set), D embedding width, M = 2N rows
(view 1, then view 2).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.graph import AttributedGraph
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import SparseRows, adjacency, low_pass, sparse_product, sparse_rows
from ops.graph.pca import Projection, fit_pca
from ops.graph.sampling.batches import Batch
from ops.losses.normalize import unit_rows
from ops.rng import torch_generator
from trainers.hsan.settings import Settings
from trainers.shared import linear_start

ATTRIBUTE = ("attribute_weight", "attribute_bias")  # parameters of the attribute encoders


@dataclass(frozen=True)
class EncoderRows:
    """What one worker encodes in a step: its rows of X~ and of A, and how many nodes all workers have together."""

    x: Float[Tensor, "n F"]
    a: SparseRows
    total: int
    columns: Int64[Tensor, "B"] | None = None  # the nodes that A's columns stand for; None: all


class Encoders(torch.nn.Module):
    """Two attribute and two structure encoders, stacked by view, and alpha.

    First weights are those of torch.nn.Linear, keyed by seed.
    """

    def __init__(self, n_nodes: int, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        d = settings.embedding_dim
        g = torch_generator(seed, "hsan/encoders")
        for name, fan_in in (("attribute", n_features), ("structure", n_nodes)):
            for part, shape in (("weight", (2, fan_in, d)), ("bias", (2, 1, d))):
                self.register_parameter(f"{name}_{part}", torch.nn.Parameter(linear_start(shape, fan_in, g)))
        self.alpha = torch.nn.Parameter(torch.tensor(0.99999))
        self.activation = settings.activation

    def attributes(
        self, rows: EncoderRows, group: ProcessGroup, of: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "M D"]:
        """Z of all nodes, both views, rows of unit length; each worker encodes its own rows and gathers the others."""
        return group.gather(self.local_attributes(rows.x, of), rows.total)

    def local_attributes(
        self, x: Float[Tensor, "n F"], of: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "2 n D"]:
        """Both views of rows of X~, of unit length.

        `of` has the parameters of other encoders than the present ones, by name.
        """
        weight, bias = (self.get_parameter(name) if of is None else of[name] for name in ATTRIBUTE)
        z = (x @ weight).add_(bias)
        z = unit_rows(z.sigmoid()) if self.activation == "sigmoid" else unit_rows(z, in_place=True)
        return z

    def encode(self, rows: EncoderRows, group: ProcessGroup) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M D"]]:
        """(Z, E) of all nodes of a step, both views, rows of unit length."""
        weight, bias = self.get_parameter("structure_weight"), self.get_parameter("structure_bias")
        z = self.attributes(rows, group)
        seen = weight if rows.columns is None else weight[:, rows.columns]
        e = unit_rows(sparse_product(rows.a, seen).add_(bias), in_place=True)
        return z, group.gather(e, rows.total)


def fuse(z: Float[Tensor, "M D"]) -> Float[Tensor, "N D"]:
    """The mean of the two views, from which eq. 6 starts."""
    first, second = z.chunk(2)
    return (first + second) / 2


def prepare(
    settings: Settings, data: AttributedGraph, projection: Projection | None = None
) -> tuple[Float[Tensor, "N F"], Projection | None]:
    """X~: the features after the PCA where one is set, then after the low-pass filter (eq. 1).

    `projection` is a PCA that was fitted before.
    """
    if projection is None and 0 < settings.pca_dim < data.n_features:
        projection = fit_pca(data.x, settings.pca_dim)
    return filtered(settings, data.x, data.edge_index, projection, data.weight), projection


def filtered(
    settings: Settings, x: NDArray[np.float32], edge_index: NDArray[np.int64], projection: Projection | None,
    weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "N F"]:  # fmt: skip
    """Features as the attribute encoders take them: projected where there is a PCA, then filtered over their edges."""
    return torch.from_numpy(low_pass(projection(x) if projection else x, edge_index, settings.low_pass_order, weight))


def structure_matrix(settings: Settings, data: AttributedGraph) -> sp.csr_array:
    """A [N, N], with the graph's own self loops or without."""
    return adjacency(data.edge_index, data.n_nodes, self_loops=settings.self_loops == "keep")


def rows_of(x: Float[Tensor, "N F"], a: sp.csr_array, group: ProcessGroup, device: torch.device) -> EncoderRows:
    """This worker's share of X~ and A. With one worker this is the whole, not a copy."""
    shard = group.shard(x.shape[0])
    local = x[shard] if group.world == 1 else x[shard].clone()
    return EncoderRows(local.to(device), sparse_rows(a if group.world == 1 else sp.csr_array(a[shard]), device), len(x))


def batch_rows(
    x: Float[Tensor, "N F"], a: sp.csr_array, batch: Batch, group: ProcessGroup, device: torch.device
) -> EncoderRows:
    """This worker's share of one batch: the rows of X~ of its nodes, and of A the edges that the batch sees."""
    shard = group.shard(len(batch.nodes))
    columns = send(batch.nodes, device) if batch.inside else None
    features = send(x[torch.from_numpy(batch.nodes[shard])], device)
    return EncoderRows(
        features, sparse_rows(sp.csr_array(batch.adjacency(a)[shard]), device), len(batch.nodes), columns
    )
