"""CaEGCN: cross-attention fusion based enhanced graph convolutional network (Huo et al., TKDE 2023, arXiv 2101.06883).

A content auto-encoder and a graph auto-encoder run side by side. Between graph layers the two are fused, `Y = gamma Z +
(1 - gamma) H`. The fused rows attend to all others before they pass along the edges, `Z' = relu(D^-1/2 (A + I) D^-1/2 R
U)`. Both branches are pulled to one target p, sharpened from the Student-t assignment q of the content code: `L =
MSE(X, X_cae) + a KL(p||q) + b KL(p||z) + c MSE(X, X_gae) + d BCE(A + I, A^)`. The graph branch's softmax z is the
result. Without attention and graph decoder the model is SDCN (Bo et al., WWW 2020; `--preset sdcn`).

Axes: N nodes, F features, Z width of the content code, K clusters.

Deviations from the paper: A^ is decoded from the K columns before the softmax (`structure_from`), as the last layer of
the decoder cannot fit it; heads have width 64; attention is in two places (`attention_at`) and scaled. All of these are
settings.
"""

from typing import Any, ClassVar

from ops.api import Method
from ops.graph.sampling.batches import remarks
from ops.inference.sklearn import GraphClusterer
from trainers.caegcn.cost import estimate, exchanged
from trainers.caegcn.inference import embed, predict
from trainers.caegcn.settings import Settings
from trainers.caegcn.training import train


def _filter_order(settings: Settings) -> int:
    """The filter of the baseline `filter + k-means`: as many steps as the graph encoder has layers."""
    return 3 if settings.depth == "released" else len(settings.layers) + 2


METHOD = Method(
    name="caegcn",
    summary="CaEGCN: cross-attention fused graph convolution; SDCN as a preset",
    kind="graph",
    settings=Settings,
    train=train,
    predict=predict,
    weights="enter the graph branch, in units of their mean, but not the structure loss",
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    embed=embed,
    filter_order=_filter_order,
    searched=("gamma", "content_kl", "graph_kl", "structure", "freedom"),
    fixed=(
        "n_clusters",
        "widths",
        "code_dim",
        "depth",
        "attention_at",
        "heads",
        "head_dim",
        "decoder",
    ),
    new_rows="by the content branch where the data has no edges, else by the graph branch over those edges",
    save_memory="cut the graph into steps with --parts P --blocks q, or lower --head-dim",
    avoid_collapse="lower --lr",
)

__all__ = ["METHOD", "SDCN", "CaEGCN", "Settings", "embed", "estimate", "exchanged", "predict", "remarks", "train"]


class CaEGCN(GraphClusterer):
    """scikit-learn-like estimator: `CaEGCN(n_clusters=3, epochs=100).fit(x, edge_index).labels_`."""

    method = METHOD


class SDCN(CaEGCN):
    """SDCN (Bo et al., WWW 2020): CaEGCN without attention and graph decoder, the structure of `--preset sdcn`."""

    preset: ClassVar[dict[str, Any]] = {
        "depth": "full", "attention_at": "none", "decoder": False, "graph_mse": 0.0, "structure": 0.0,
        "head_start": "random", "warmup_epochs": 0, "pretrain_keep": "last",
    }  # fmt: skip
