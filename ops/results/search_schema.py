"""What a search keeps as JSON: trials.json is a SearchResult, trial.json of a trial a TrialResult."""

from pydantic import Field

from ops.results.schema import LABELLED, Number, Numbers, StoredJson


class TrialResult(StoredJson):
    """One trial of a search; `score` is its objective, `rank` the panel's mean rank among the finished trials."""

    trial: str
    settings: dict[str, object] = Field(default_factory=dict)
    status: str = "-"
    epochs: int | None = None
    metrics: Numbers = Field(default_factory=dict)
    score: Number = None
    rank: Number = None
    given: dict[str, str] = Field(default_factory=dict)
    error: str | None = None
    code: int = 1


class SearchResult(StoredJson):
    """All trials of a search, the best first; `start`: the settings of the first trial, which are the defaults."""

    method: str
    dataset: str
    objective: str = "tune/score"
    trials: list[TrialResult]
    best: str | None = None
    agreement: str = ""
    command: str | None = None
    asked: int = 0
    given: dict[str, str] = Field(default_factory=dict)
    pruned: bool = True
    start: dict[str, object] = Field(default_factory=dict)
    finished: str | None = None

    @property
    def uses_labels(self) -> bool:
        """Whether the objective is a score by labels."""
        return self.objective.split("/")[-1] in LABELLED

    def scored_by(self, metric: str) -> bool:
        """Whether `tune/score` ranks and is made of this metric: `recall_at_50` of users, `agreement` of images."""
        scored = [t.metrics for t in self.trials if t.metrics]
        return self.objective == "tune/score" and bool(scored) and all(metric in metrics for metrics in scored)
