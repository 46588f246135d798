"""What sets the clusters of a run apart, as `explain.json` keeps it."""

from ops.evaluation.explain import ExplainedCluster
from ops.results.schema import StoredJson


class Explanation(StoredJson):
    """What sets each cluster of the model's seed apart."""

    seed: int | None = None
    clusters: list[ExplainedCluster]
