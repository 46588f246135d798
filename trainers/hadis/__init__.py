"""HaDis: diffused sampling and hardness-aware self-distillation for images (Zhang & Huang, arXiv 2401.14038, 2024).

Three networks are trained on two random views of every image: an encoder with a projector, which gives q; its
exponential average, which gives k; and a predictor of k from q with noise. The loss is `L = L_dsa + weight_hsd L_hsd +
weight_proto L_proto`. `L_dsa = -2 mean cos(predictor(q + sigma eps), k)` is in `trainers.hadis.loss`. L_hsd is on the
hardest pairs of the batch (`ops.losses.hardness`). L_proto is on the batch's mean of every pseudo cluster
(`ops.losses.prototypes`). k-means on the k of all images makes the pseudo clusters of every epoch and, in the end, the
result.

Axes: N images, H x W pixels, F features (frozen:FILE), B of a batch, D projection width, K clusters.

Deviations from the released code: the losses see the global batch with its true gradient (in the released code they see
the worker's own batch, and the centres only the gradient of their own rank); the predictor runs once a view (in the
released code once a loss, which also updates its BatchNorm twice), so that the numbers are not the same bit by bit;
nothing is chosen with labels.
"""

from __future__ import annotations

from ops.api import Method
from ops.inference.sklearn import ImageClusterer
from trainers.hadis.cost import estimate, exchanged, remarks
from trainers.hadis.inference import embed, predict
from trainers.hadis.settings import Settings
from trainers.hadis.training import train

METHOD = Method(
    name="hadis",
    summary="HaDis: diffused sampling and hardness-aware self-distillation for images",
    kind="images",
    settings=Settings,
    train=train,
    predict=predict,
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    embed=embed,
    searched=("temperature", "hardness", "sigma", "weight_proto", "ema_momentum", "lr"),
    fixed=("backbone", "hidden", "embedding_dim", "image_size"),
    new_rows="the network projects them as any other image; nothing is learned from them",
    save_memory="raise --accumulate, or lower --batch, --image-size or --hidden",
    precisions=("bf16", "tf32", "float32"),  # bf16 first, as its authors do
    avoid_collapse="lower --lr, or raise --warmup-epochs or --ema-momentum",
)

__all__ = ["METHOD", "HaDis", "Settings", "embed", "estimate", "exchanged", "predict", "remarks", "train"]


class HaDis(ImageClusterer):
    """scikit-learn-like estimator: `HaDis(n_clusters=10, backbone="small", epochs=50).fit(images).labels_`."""

    method = METHOD
