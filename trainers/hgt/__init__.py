"""HGT-Cluster: users clustered by embeddings of a heterogeneous graph transformer (Hu et al., WWW 2020).

Two layers of typed attention over sampled neighbourhoods are trained to tell the edges of the label relations from
edges that are drawn at random. Then k-means, or a self-organising map whose units are grouped, makes the clusters. The
edges that a batch predicts are never in its neighbourhoods. Users without edges in the training are embedded by their
features alone.

Axes: N users, O notes, D embedding width, K clusters.
"""

from __future__ import annotations

from ops.api import Method
from ops.inference.user_estimator import UserClusterer
from trainers.hgt.cost import estimate, exchanged, remarks
from trainers.hgt.inference import predict
from trainers.hgt.settings import Settings
from trainers.hgt.training import train

METHOD = Method(
    name="hgt",
    summary="HGT: users clustered by a heterogeneous graph transformer",
    kind="users",
    settings=Settings,
    train=train,
    predict=predict,
    estimate=estimate,
    exchanged=exchanged,
    remarks=remarks,
    searched=("temperature", "hardness", "neg_num", "lr"),
    fixed=("hidden", "heads", "fan_out"),
    new_rows="they are embedded from their own features and edges; nothing is learned from them",
    save_memory="lower --batch or --fan-out",
    precisions=("tf32", "bf16", "float32"),
    avoid_collapse="lower --lr or raise --temperature",
)

__all__ = ["HGT", "METHOD", "Settings", "estimate", "exchanged", "predict", "remarks", "train"]


class HGT(UserClusterer):
    """scikit-learn-like estimator: `HGT(n_clusters=20, epochs=10).fit(hetero_data).labels_`."""

    method = METHOD
