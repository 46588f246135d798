"""A finished run's or search's folder, read back whole and checked: the only input of reports and comparisons.

Nothing here trains, loads the data set or runs code from a file. A run's folder holds result.json, seed-S/ and perhaps
auto.json, explain.json and pictures.npz; a search's folder holds trials.json and best/, which is a run's folder.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ops.atomic_io import Arrays
from ops.errors import DataError
from ops.evaluation.explain import ExplainedCluster
from ops.results.arrays import read_map, read_pictures, read_sample
from ops.results.schema import CountSweep, Numbers, RunResult, SeedResult, StoredJson, problem


class Explanation(StoredJson):
    """explain.json: what sets each cluster of the model's seed apart."""

    seed: int | None = None
    clusters: list[ExplainedCluster]


@dataclass(frozen=True)
class StoredRun:
    """One finished run, and per seed its result and history (epochs ascending, each once).

    `sample`, `map` and `pictures` are those of the model's seed, as all numbers of clusters are.
    """

    path: Path
    result: RunResult
    seeds: dict[int, SeedResult] = field(default_factory=dict)
    histories: dict[int, list[Numbers]] = field(default_factory=dict)
    sweep: CountSweep | None = None
    explained: list[ExplainedCluster] = field(default_factory=list)
    sample: Arrays = field(default_factory=dict)
    map: Arrays = field(default_factory=dict)
    pictures: Arrays = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The model's seed (of runs that do not say it, the first), whose clusters all pages show."""
        return model_seed(self.result)

    @property
    def sizes(self) -> list[int]:
        """Rows of each cluster in the model's seed; empty where they were not stored."""
        return self.seeds[self.seed].sizes if self.seed in self.seeds else []

    @property
    def n_clusters(self) -> tuple[int | None, str]:
        """K and where it is from; K is None where nothing stored tells it."""
        setting = self.result.settings.get("n_clusters")
        source = f"from {setting.source if setting else 'unknown'}"
        if self.sweep is not None:
            return self.sweep.chosen, "chosen by --n-clusters auto"
        if setting and isinstance(setting.value, int):
            return setting.value, source
        return len(self.sizes) or None, source


def model_seed(result: RunResult) -> int:
    """The seed whose model and numbers of clusters a run shows."""
    return result.seeds[0] if result.model_seed not in result.seeds else int(result.model_seed)


def is_search(folder: Path) -> bool:
    """True for a folder with trials.json."""
    return (folder / "trials.json").is_file()


def read_result(folder: Path) -> RunResult:
    """result.json of a run's folder (of its best/ for a search).

    Raises DataError for a folder that is missing, no run, unfinished, or whose result.json is damaged.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a run's folder OUT/NAME (it holds result.json)")
    if (folder / "result.json").is_file():
        return RunResult.read(folder / "result.json")
    if is_search(folder):
        return read_result(folder / "best")
    if any(folder.glob("seed-*")):
        raise DataError(f"{folder}: the run is not finished (no result.json); start its command again, it resumes")
    raise DataError(f"{folder}: is not a run (no result.json in it); give a run's folder OUT/NAME")


def read_history(path: Path) -> list[Numbers]:
    """The epochs of history.jsonl, ascending; of an epoch written twice the later line counts. Missing file: []."""
    if not path.is_file():
        return []
    line_type, epochs = TypeAdapter(Numbers), {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            record = line_type.validate_json(line)
            epochs[int(record["epoch"] or 0)] = record
        except (ValidationError, KeyError) as error:
            reason = problem(error) if isinstance(error, ValidationError) else "lacks epoch"
            raise DataError(f"{path}: line {number}: {reason}; the file is damaged") from None
    return [epochs[epoch] for epoch in sorted(epochs)]


def read_run(folder: Path) -> StoredRun:
    """All that a finished run has stored. Raises DataError as `read_result` does, and for any damaged file."""
    result = read_result(folder)
    folders = {seed: folder / f"seed-{seed}" for seed in result.seeds}
    seeds = {seed: SeedResult.read_optional(each / "result.json") for seed, each in folders.items()}
    explanation = Explanation.read_optional(folder / "explain.json")
    return StoredRun(
        path=folder,
        result=result,
        seeds={seed: each for seed, each in seeds.items() if each is not None},
        histories={seed: read_history(each / "history.jsonl") for seed, each in folders.items()},
        sample=read_sample(folders[model_seed(result)]),
        sweep=CountSweep.read_optional(folder / "auto.json"),
        explained=explanation.clusters if explanation else [],
        map=read_map(folders[model_seed(result)]),
        pictures=read_pictures(folder),
    )
