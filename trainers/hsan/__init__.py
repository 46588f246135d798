"""HSAN: hard sample aware contrastive clustering of attributed graphs (Liu et al., AAAI 2023, arXiv 2212.08665).

Two attribute encoders and two structure encoders, each one linear layer, give two views of every node:
`Z_v = act(X~ W_v + b_v)`, `E_v = A U_v + c_v`, rows of unit length (eq. 2-4), X~ the low-pass filtered features.
The loss is a weighted InfoNCE over the 2N rows with S = alpha Z Z^T + (1 - alpha) E E^T (eq. 5, 10; `ops.losses`).
Every `update_every` epochs k-means on the fused Z gives pseudo labels, trusted rows H and new pair weights (eq. 6-9).

Axes: N nodes, F features (after PCA where set), D embedding width, K clusters, M = 2N rows (view 1, then view 2).

Deviations from the paper: a temperature T (the paper has 1); ten k-means++ starts instead of one random start; the
structure encoder is a sparse product; nothing is chosen with labels. `protocol=published` restores the released code.
"""

from ops.api import Method
from ops.graph.sampling.batches import remarks
from ops.inference.sklearn import GraphClusterer
from trainers.hsan.cost import estimate, exchanged
from trainers.hsan.inference import embed, predict
from trainers.hsan.settings import PUBLISHED, Settings
from trainers.hsan.training import train


def _filter_order(settings: Settings) -> int:
    """The order of the filter in the baseline `filter + k-means`: that of the method."""
    return settings.low_pass_order


METHOD = Method(
    name="hsan",
    summary="HSAN: hard sample aware contrastive clustering of attributed graphs",
    kind="graph",
    settings=Settings,
    train=train,
    predict=predict,
    weights="enter the filter, in units of their mean, but not the structure encoders",
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    embed=embed,
    filter_order=_filter_order,
    searched=("temperature", "confidence", "beta"),
    fixed=("embedding_dim", "pca_dim", "activation"),
    new_rows="by their attributes only: the structure encoders have one weight row per training node "
    "and say nothing of new ones",
    save_memory="lower --pair-memory (pair weights are then recomputed) or --embedding-dim",
    avoid_collapse="lower --lr or raise --temperature",
)

__all__ = ["HSAN", "METHOD", "PUBLISHED", "Settings", "embed", "estimate", "exchanged", "predict", "remarks", "train"]


class HSAN(GraphClusterer):
    """scikit-learn-like estimator: `HSAN(n_clusters=7, epochs=100).fit(x, edge_index).labels_`."""

    method = METHOD
