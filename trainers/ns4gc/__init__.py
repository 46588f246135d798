"""NS4GC: node-similarity guided contrastive clustering of graphs (Liu et al., TKDE 2024, arXiv 2408.03765).

Two views of the graph, in each of which other edges are dropped and other feature columns masked, pass through one
graph convolutional network of two layers. Z1 and Z2 are the resulting rows of unit length and `S = Z1 Z2^T` their
similarities. The loss draws a node to itself and to its neighbours, and makes S sparse everywhere else: `L = - mean_i
S_ii - a mean_{(i,j) in E} S_ij + b mean_{(i,j) not in E, i != j} sigmoid((S_ij - s) / tau)`. k-means on the rows of the
unmasked graph (Euclidean, as the authors') gives the clusters.

Axes: N nodes, F features, H hidden width, D embedding width, K clusters.
"""

from ops.api import Method
from ops.graph.sampling.batches import remarks
from ops.inference.sklearn import GraphClusterer
from trainers.ns4gc.cost import estimate, exchanged
from trainers.ns4gc.inference import embed, predict
from trainers.ns4gc.settings import Settings
from trainers.ns4gc.training import train


def _filter_order(settings: Settings) -> int:
    """The filter of the baseline `filter + k-means`: as many steps as the network has layers."""
    return 2


METHOD = Method(
    name="ns4gc",
    summary="NS4GC: node-similarity guided contrastive clustering of attributed graphs",
    kind="graph",
    settings=Settings,
    train=train,
    predict=predict,
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    embed=embed,
    filter_order=_filter_order,
    searched=("threshold", "temperature", "drop_edges", "mask_features"),
    fixed=("hidden", "embedding_dim"),
    new_rows="by the network, from their attributes and the edges that the data has",
    save_memory="cut the graph into steps with --parts P --blocks q",
    avoid_collapse="raise --apart or lower --threshold",
)

__all__ = ["METHOD", "NS4GC", "Settings", "embed", "estimate", "exchanged", "predict", "remarks", "train"]


class NS4GC(GraphClusterer):
    """scikit-learn-like estimator: `NS4GC(n_clusters=7).fit(x, edge_index).labels_`."""

    method = METHOD
