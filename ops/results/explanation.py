"""What sets the clusters of a run apart, as `explain.json` keeps it."""

from pydantic import Field

from ops.results.schema import StoredJson


class FeatureDifference(StoredJson):
    """A feature's means in a cluster and in all other rows; `difference` in standard deviations over all rows."""

    feature: str
    binary: bool
    inside: float
    outside: float
    difference: float


class FarRow(StoredJson):
    """A row, and how many times as far from its cluster's mean it lies as the median row."""

    row: int
    times: float


class ExplainedCluster(StoredJson):
    """What sets one cluster apart."""

    cluster: int
    rows: int
    features: list[FeatureDifference]
    far: list[FarRow] = Field(default_factory=list)


class Explanation(StoredJson):
    """What sets each cluster of the model's seed apart."""

    seed: int | None = None
    clusters: list[ExplainedCluster]
