"""DMoN: deep modularity networks (Tsitsulin, Palowitch, Perozzi & Müller, JMLR 2023, arXiv 2006.16904).

A graph convolution and a softmax give every node its shares of the K clusters. Training raises the modularity of these
shares; a second term keeps the clusters from becoming one. Nothing is quadratic: the cost of a step is linear in nodes
and edges.

Axes: N nodes, F features, D embedding width, K clusters.
"""

from ops.api import Method
from ops.graph.sampling.batches import remarks
from ops.inference.sklearn import GraphClusterer
from trainers.dmon.cost import estimate, exchanged
from trainers.dmon.inference import embed, predict
from trainers.dmon.settings import Settings
from trainers.dmon.training import train


def _filter_order(settings: Settings) -> int:
    """The filter of the baseline `filter + k-means`: as many steps as the network has layers."""
    return 1


METHOD = Method(
    name="dmon",
    summary="DMoN: modularity of a graph network's clusters, at linear cost",
    kind="graph",
    settings=Settings,
    train=train,
    predict=predict,
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    embed=embed,
    filter_order=_filter_order,
    weights="enter the convolution and the modularity, in units of their mean",
    searched=("collapse", "lr", "embedding_dim"),
    fixed=("embedding_dim", "n_clusters"),
    new_rows="by the network, from their attributes and the edges that the data has",
    save_memory="cut the graph into steps with --parts P --blocks q, or lower --embedding-dim",
    avoid_collapse="raise --collapse",
)

__all__ = ["METHOD", "DMoN", "Settings", "embed", "estimate", "exchanged", "predict", "train"]


class DMoN(GraphClusterer):
    """scikit-learn-like estimator: `DMoN(n_clusters=7).fit(x, edge_index).labels_`."""

    method = METHOD
