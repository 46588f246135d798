"""HGT-Cluster: users clustered by embeddings of a heterogeneous graph transformer (Hu et al., WWW 2020).

Two layers of typed attention over sampled neighbourhoods, trained to tell the edges of the label relations from drawn
ones; then k-means, or a self-organising map whose units are grouped. The edges that a batch predicts are never in its
neighbourhoods. Users without edges in training keep what their features say.

Axes: N users, O notes, D embedding width, K clusters.
"""

from __future__ import annotations

from trainers.hgt.cost import estimate, exchanged, remarks
from trainers.hgt.inference import predict
from trainers.hgt.settings import Settings
from trainers.hgt.training import train

NAME = "hgt"
KIND = "users"
SEARCHED = ("temperature", "hardness", "neg_num", "lr")
SHAPED = ("hidden", "heads", "fan_out")
NEW_ROWS = "they are embedded from their own features and edges; nothing is learned from them"
BY_FEATURES = True  # users are placed by their features too
ADVICE = "lower --batch or --fan-out"
COLLAPSED = "lower --lr or raise --temperature"  # what helps when all rows fall together

__all__ = [
    "ADVICE",
    "BY_FEATURES",
    "COLLAPSED",
    "KIND",
    "NAME",
    "NEW_ROWS",
    "SEARCHED",
    "SHAPED",
    "Settings",
    "estimate",
    "exchanged",
    "predict",
    "remarks",
    "train",
]
