"""TwHIN and k-means: users clustered by translating embeddings (El-Kishky et al., KDD 2022), the baseline of HGT.

A vector per node in tables split by part, a translation per relation, score `(s + r) . t`, logistic loss against
ends of the batch's other edges and uniformly drawn nodes, row-wise Adagrad. Tables live in the training workers.

Axes: N nodes of a type, D embedding width, K clusters.
"""

from __future__ import annotations

from trainers.twhin.cost import estimate, exchanged, remarks
from trainers.twhin.inference import predict
from trainers.twhin.settings import Settings
from trainers.twhin.training import train

NAME = "twhin"
KIND = "users"
SEARCHED = ("temperature", "lr", "batch_negatives", "neg_num")
SHAPED = ("embedding_dim",)
NEW_ROWS = "they are placed by the vectors of the nodes at the other ends of their edges"
BY_FEATURES = False
ADVICE = "lower --embedding-dim, or take more workers: each keeps its parts of the tables"
COLLAPSED = "lower --lr or raise --temperature"  # what helps when all rows fall together

__all__ = ["ADVICE", "BY_FEATURES", "COLLAPSED", "KIND", "NAME", "NEW_ROWS", "SEARCHED", "SHAPED", "Settings",
           "estimate", "exchanged", "predict", "remarks", "train"]  # fmt: skip
