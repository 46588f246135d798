"""What a finished run keeps as JSON: one pydantic model a file, through which it is written and read.

    result.json of a run       RunResult      result.json of seed-S/   SeedResult
    auto.json                  CountSweep     explain.json             Explanation, in stored_run.py
    (of a search: `search_schema.py`)

Only keys that were set are written. Keys that a later version added are kept.
"""

import math
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ops.atomic_io import write_json
from ops.errors import DataError

LABELLED = ("acc", "nmi", "ari", "f1")
GROUPS = ("last", "consensus", "consensus_of_seeds", "selected", "oracle")  # always in this order: the headline first
M = TypeVar("M", bound="StoredJson")


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[int | float | None, BeforeValidator(_finite)]  # NaN and infinity become None, in files null
Numbers = dict[str, Number]


class StoredJson(BaseModel):
    """Base of all files' models."""

    model_config = ConfigDict(extra="allow")

    def plain(self) -> dict[str, object]:
        """The value as it stands in the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.plain())

    @classmethod
    def read(cls: type[M], path: Path) -> M:
        """The file's content. Raises DataError naming the file and the first wrong field."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        except ValidationError as error:
            raise DataError(f"{path}: {problem(error)}; the file is damaged or another program's") from None

    @classmethod
    def read_optional(cls: type[M], path: Path) -> M | None:
        """`read`, or None where there is no file."""
        return cls.read(path) if path.is_file() else None


def problem(error: ValidationError) -> str:
    """The first thing that is wrong with a file, by the field's path: `last.acc.mean: ..., got 'high'`."""
    errors = error.errors(include_url=False)
    if lacking := [".".join(map(str, e["loc"])) for e in errors if e["type"] == "missing"]:
        return f"lacks {', '.join(lacking)}"
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"is not readable JSON ({first['msg']})"
    given = repr(first["input"])
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where}: {first['msg']}, got {given if len(given) < 60 else given[:57] + '...'}"


class Spread(StoredJson):
    """One metric over seeds; `std` has ddof = 1 and is None for a single value."""

    values: list[Number]
    mean: Number
    std: Number = None


class Scores(StoredJson):
    """Metrics over seeds by name, and, of epochs that were chosen, the epochs and what chose them."""

    __pydantic_extra__: dict[str, Spread | None] = Field(init=False)
    epochs: list[int] = []
    indices: list[str] = []

    @property
    def metrics(self) -> dict[str, Spread]:
        """Those that have a value in any seed."""
        return {name: value for name, value in (self.__pydantic_extra__ or {}).items() if value is not None}

    @property
    def means(self) -> dict[str, float]:
        """The means of those that have one."""
        return {name: value.mean for name, value in self.metrics.items() if value.mean is not None}

    def grouped(self, group: str) -> dict[str, Spread]:
        """The metrics by names that MLflow takes: `recall@50` of the group `test` is `test/recall_at_50`."""
        return {f"{group}/{name.replace('@', '_at_')}": value for name, value in self.metrics.items()}


class DataRecord(StoredJson):
    """The data of a run and how they were loaded; `given`: digests of ids, column names and labels."""

    name: str = "unnamed data"
    hash: str | None = None
    given: dict[str, str] = {}
    rows: int | None = None
    notes: list[str] = []
    spec: str | None = None
    knn: int = 0
    knn_metric: str = "euclidean"
    scale: Literal["none", "standard", "robust", "minmax"] = "none"
    one_hot: bool = False
    ignore: str = ""
    make_features: Literal["none", "degree", "spectral"] = "none"


class SettingRecord(StoredJson):
    """A setting's value and where it came from."""

    value: object
    source: str = "unknown"


class Interval(StoredJson):
    """A difference with its 95 % interval, `low` to `high`."""

    mean: float
    low: float
    high: float


class RecallLine(StoredJson):
    """One line of the recall table; `gain`: its recall@50 less that of the method's clusters for the same users."""

    name: str
    note: str
    metrics: Scores
    gain: Interval | None = None


class RecallTable(StoredJson):
    """Recall of hidden notes: `queries` of `users` were asked, `left_out` have no training notes."""

    rows: list[RecallLine]
    queries: int
    users: int
    left_out: int

    @property
    def has_gains(self) -> bool:
        """Whether its lines were compared with that of the method's clusters."""
        return any(row.gain for row in self.rows)


class WarmStart(StoredJson):
    """The run that a warm start went on from, its nodes by kind, and the share per seed that kept its cluster."""

    run: str
    known: int
    new: int
    gone: int
    kept: list[float]


class RunResult(StoredJson):
    """All that a finished run says of itself; `last` is the result, `oracle` uses labels and is none.

    `result`: `assignments.parquet` has `last` or `consensus`; `taken`: why the `last` of a seed is of an earlier epoch.
    """

    version: int = Field(default=1, alias="schema")
    method: str
    dataset: DataRecord
    settings: dict[str, SettingRecord]
    seeds: list[int] = Field(min_length=1)
    last: Scores
    command: str | None = None
    made_by: str | None = None
    result: str = "last"
    consensus: Scores | None = None
    consensus_of_seeds: Scores | None = None
    taken: dict[str, str] = {}
    resumed_from: dict[str, list[int]] = {}
    selected: Scores | None = None
    oracle: Scores | None = None
    selected_by: list[str] = []
    baselines: dict[str, Scores | None] = {}
    embeddings: str | None = None
    recall: RecallTable | None = None
    links: Scores | None = None
    map: Scores | None = None
    stability: Number = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_gib: float = 0.0
    precision: str | None = None
    planned_memory_gib: float = 0.0
    model_seed: int | None = None
    warm: WarmStart | None = None
    warnings: list[str] = []
    verdict: str = ""
    finished: str | None = None
    paths: dict[str, str] = {}

    @property
    def has_labels(self) -> bool:
        """Whether any score by labels was stored."""
        return any(name in self.last.means for name in LABELLED)

    @property
    def recall_line(self) -> RecallLine | None:
        """The line of the method's clusters in the recall table, e.g. `hgt + SOM`; None where nothing was hidden."""
        lines = self.recall.rows if self.recall else []
        return next((line for line in lines if line.name.startswith(f"{self.method} + ")), None)

    @property
    def strongest(self) -> RecallLine | None:
        """The line of the highest recall@50 among those that need neither the method's vectors nor its clusters."""
        lines = [line for line in (self.recall.rows if self.recall else [])
                 if not line.name.startswith(self.method) and not line.name.endswith(" clusters")]  # fmt: skip
        return max(lines, key=lambda line: line.metrics.means.get("recall@50", 0.0), default=None)

    @property
    def hidden_scores(self) -> dict[str, Spread]:
        """All scores on hidden test edges: `test/recall_at_50`, ..., `links/auc`; empty where none were hidden."""
        line = self.recall_line
        return (line.metrics.grouped("test") if line else {}) | (self.links.grouped("links") if self.links else {})


class SeedResult(StoredJson):
    """What one seed comes to; `sizes` [K] are those of its last epoch's clusters, `given` as in `DataRecord`.

    `alike`: all rows had the same features. `baselines`: their scores, where ranks that own rows have made them.
    """

    seed: int | None = None
    epochs: int | None = None
    finished: str | None = None
    resumed_from: list[int] = []
    last: Numbers = {}
    taken: str = ""
    consensus: Numbers | None = None
    selected: Numbers | None = None
    selected_by: str = ""
    oracle: Numbers | None = None
    sizes: list[int] = []
    alike: bool = False
    given: dict[str, str] = {}
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_gib: float = 0.0
    precision: str | None = None
    warnings: list[str] = []
    kept: float | None = None
    baselines: dict[str, Numbers] | None = None

    def figures(self) -> dict[str, Number]:
        """All its scores by names such as `last/acc`, `selected/nmi`."""
        groups = {group: getattr(self, group, None) or {} for group in GROUPS}  # a seed has none of all seeds
        return {f"{group}/{k}": v for group, each in groups.items() for k, v in each.items() if k != "epoch"}

    @property
    def selected_epoch(self) -> int | None:
        """The epoch that was chosen without labels."""
        epoch = (self.selected or {}).get("epoch")
        return None if epoch is None else int(epoch)


class CountSweep(StoredJson):
    """The choice of the number of clusters: candidates `k`, their mean `rank` and each index over them."""

    k: list[int]
    chosen: int
    rank: list[Number] = []
    indices: dict[str, list[Number]] = {}
    confidence: Number = None
    reason: str = ""
