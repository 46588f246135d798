"""One declaration a setting: default, YAML key, flag, MLflow parameter, search domain and docs come from it.

Sources, weakest first: defaults < preset < `--config FILE` < flags < trial. The environment is no source: names such
as SEEDS or LR would be picked up by accident.
"""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

from ops.errors import SettingsError


def setting(default: Any, help: str, *, search: Mapping[str, Any] | None = None, **bounds: Any) -> Any:
    """A field with its meaning, bounds (ge, gt, le, lt) and search domain.

    `search` is one of {"uniform": [a, b]}, {"loguniform": [a, b]}, {"choice": [...]}, {"randint": [a, b]} (b excluded).
    """
    return Field(default, description=help, json_schema_extra={"search": dict(search)} if search else None, **bounds)


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys and NaN refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: object, info: Any) -> object:
        # pydantic alone reads `epochs: yes` in YAML as 1
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("neither true nor false is a value of this setting")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("no text may hold a NUL character")
        return value


S = TypeVar("S", bound=Settings)


class MethodSettings(Settings):
    """What every method has; a method's own `Settings` derive from it. All of it enters a run's identity."""

    n_clusters: int | Literal["auto"] | None = setting(
        None, "number of clusters K; auto sweeps K without labels; default: the number of classes of the data"
    )
    epochs: int = setting(400, "training epochs", ge=1, le=1_000_000)
    lr: float = setting(1e-3, "learning rate of Adam", gt=0, le=1, search={"loguniform": [1e-5, 1e-2]})

    @property
    def k(self) -> int:
        """K, once it is a number."""
        assert isinstance(self.n_clusters, int), "K is resolved before training"
        return self.n_clusters


class LaunchSettings(Settings):
    """Where and how a run happens; only `warm_start` changes what is computed, and its model enters the identity."""

    dataset: str = setting("digits", "a name, a file or a folder; the latter two also as s3://BUCKET/PATH")
    knn: int = setting(0, "build a k-nearest-neighbour graph for a feature table; 0: the data has edges", ge=0)
    knn_metric: Literal["euclidean", "cosine", "heat", "dot"] = setting("euclidean", "distance of the k-NN graph")
    scale: Literal["none", "standard", "robust", "minmax"] = setting(
        "none", "bring every feature column to one scale: mean and deviation, median and quartiles, or 0 to 1"
    )
    one_hot: bool = setting(False, "make a column of 0 and 1 of each value of a table's columns of words")
    ignore: str = setting("", "comma-separated columns of a table that are left out")
    make_features: Literal["none", "degree", "spectral"] = setting(
        "none", "features for edges without any: a column a degree, or leading eigenvectors of the graph"
    )
    skip_damaged: bool = setting(False, "leave damaged images out instead of stopping; they are counted and named")
    preset: str = setting(
        "auto", "a preset's name or path; auto: that of the data set or of a frozen backbone, none: defaults only"
    )
    config: str | None = setting(None, "YAML file with any of these settings, or a run's run.json")
    out: str = setting("runs", "folder for results, or s3://BUCKET/PREFIX")
    scratch: str = setting("", "folder of this machine for the work on a run on S3; default TMP/tessera-UID")
    name: str | None = setting(None, "name of the run; default METHOD-DATASET-first 8 characters of its identity")
    seeds: int = setting(1, "how many seeds to train", ge=1, le=10_000)
    first_seed: int = setting(0, "the first seed", ge=0, le=2**31)
    fresh: bool = setting(False, "forget a stored run of this name and start over")
    workers: Literal["auto"] | int = setting(
        "auto", "training workers; 0: in this process; auto: 0 without a cluster, else one a GPU or one per 4 free CPUs"
    )
    gpus_per_worker: float | None = setting(
        None, "GPUs a worker or trial takes; default: 1 where the cluster has any", ge=0, le=64
    )
    threads: int = setting(0, "CPU threads of a training process; 0: all cores there are", ge=0, le=1024)
    precision: Literal["auto", "float32", "tf32", "bf16"] = setting(
        "auto", "what a GPU's products are rounded to; auto: the method's choice, tf32 for most, float32 on CPUs"
    )
    memory_limit: float = setting(
        0, "GiB a training process may plan for; 0: what the machine (cgroup) has", ge=0, le=1e6
    )
    warm_start: str | None = setting(None, "a finished run to go on from: its settings, model and cluster ids")
    result: Literal["last", "consensus"] = setting(
        "last",
        "whose clusters assignments.parquet has: last, the result's, or consensus, what the evaluations agree on",
    )
    report: bool = setting(True, "draw figures and the HTML report")
    explain: bool = setting(True, "tell in the report, and in explain.json, which features set each cluster apart")
    stop_on_collapse: bool = setting(False, "end with exit code 5 when the clusters collapse")
    tracking_uri: str | None = setting(None, "MLflow server or database; default MLFLOW_TRACKING_URI or OUT/mlflow.db")
    require_tracking: bool = setting(False, "end with exit code 6 when MLflow cannot be reached")
    tensorboard: bool = setting(False, "write every seed's epochs for TensorBoard too (extra tensorboard)")
    json_output: bool = setting(False, "print result.json and nothing else on standard output", alias="json")
    quiet: bool = setting(False, "print errors only")
    dry_run: bool = setting(False, "say the plan and end, without training anything")
    dump_config: str | None = setting(None, "write all settings to this YAML file, which --config takes, and end")


class SearchSettings(LaunchSettings):
    """A search on top of a launch."""

    trials: int = setting(8, "how many settings to try", ge=1, le=100_000)
    concurrent: int = setting(0, "trials at a time; 0: one per core of the machine or the cluster", ge=0)
    prune: bool = setting(
        True,
        "end weak trials early (ASHA); which are ended depends on timing, so a busy machine may end with another "
        "setting; --no-prune: every trial to its end, the same result each time",
    )
    search_seed: int = setting(0, "seed of the search's draws", ge=0)
    search: str = setting("", "comma-separated settings to search; default: the method's own choice")
    objective: Literal["tune/score", "last/acc", "last/nmi", "last/ari", "last/f1"] = setting(
        "tune/score", "what finished trials are ranked by; last/acc marks the study as tuned with labels"
    )
    seeds: int = setting(3, "seeds to train the best setting with; 0: do not", ge=0, le=10_000)


class PredictSettings(Settings):
    """What `workflows/predict.py` takes beside the model."""

    data: str = setting(
        "", "rows to cluster: whatever a training takes, or a feature table without edges; of users also edges to notes"
    )
    out: str = setting(
        "", "file to write, .parquet, .csv or .npy (clusters only): id, cluster, confidence; users: also vector"
    )
    known: str | None = setting(None, "the training data, where the run does not lead to it or the model is in MLflow")
    knn: int = setting(0, "the k of the training's k-NN graph, for --known and a model in MLflow", ge=0)
    knn_metric: Literal["euclidean", "cosine", "heat", "dot"] = setting("euclidean", "distance of that k-NN graph")
    skip_damaged: bool = setting(False, "leave damaged images out instead of stopping; they are counted and named")
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    batch_rows: int = setting(16384, "rows of a feature table in memory, and users placed, at a time", ge=1)
    tracking_uri: str | None = setting(None, "MLflow server or database; default MLFLOW_TRACKING_URI or runs/mlflow.db")
    json_output: bool = setting(False, "print a JSON summary and nothing else on standard output", alias="json")
    quiet: bool = setting(False, "print errors only")


class PartitionSettings(Settings):
    """What `workflows/partition_graph.py` takes."""

    graph: str = setting("", "node and edge tables, a graph file or a name; tables and files also as s3://BUCKET/PATH")
    parts: int = setting(4, "how many parts", ge=1, le=1_000_000)
    method: Literal["auto", "hash", "fennel", "metis"] = setting(
        "auto", "how nodes get their part; auto: metis for one node type and up to 50 M directed edges, else fennel"
    )
    out: str = setting("", "folder for the parts, or s3://BUCKET/PREFIX")
    seed: int = setting(0, "seed of the assignment", ge=0, le=2**31)
    fennel: Literal["auto", "stream", "waves"] = setting(
        "auto", "one stream over the graph in memory, or waves of tasks; auto: the stream up to 4 M edges"
    )
    tasks: Literal["auto"] | int = setting(
        "auto", "Ray tasks at a time; 0: in this process; auto: 0 for a small graph without a cluster, else all CPUs"
    )
    feature_dtype: Literal["float32", "float16"] = setting("float32", "how features are stored")
    scratch: str = setting("", "folder of this machine for the work on parts on S3; default TMP/tessera-UID")
    fresh: bool = setting(False, "forget a partition, finished or not, in --out and start over")
    json_output: bool = setting(False, "print the report as JSON and nothing else on standard output", alias="json")
    quiet: bool = setting(False, "print errors only")


def fields(*models: type[Settings]) -> dict[str, tuple[FieldInfo, type[Settings]]]:
    """Every key (in YAML files and, with dashes, as a flag) with its field and model; later models win."""
    return {f.alias or name: (f, model) for model in models for name, f in model.model_fields.items()}


def allowed(info: FieldInfo) -> str:
    """A field's type and bounds in words, e.g. `number in (0, 1]`."""
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    words: list[str] = []
    for part in get_args(info.annotation) or (info.annotation,):
        if part is not type(None):
            literal = [str(v) for v in get_args(part)] or ([part] if isinstance(part, str) else [])
            words += literal or [names.get(part, str(part))]
    bounds = {
        sign: getattr(meta, sign) for meta in info.metadata for sign in ("ge", "gt", "le", "lt") if hasattr(meta, sign)
    }
    if not bounds:
        return " or ".join(words)
    low = f"[{bounds['ge']:g}" if "ge" in bounds else f"({bounds.get('gt', -math.inf):g}"
    high = f"{bounds['le']:g}]" if "le" in bounds else f"{bounds.get('lt', math.inf):g})"
    return f"{' or '.join(words)} in {low}, {high}"


LONGEST = 80  # characters of a value in a message
# What other libraries call a setting -> what it may be called here
SYNONYMS = {
    "random_state": ("seed", "first_seed"), "learning_rate": ("lr",), "max_iter": ("epochs",), "n_epochs": ("epochs",),
    "batch_size": ("batch",), "k": ("n_clusters",), "num_clusters": ("n_clusters",), "n_components": ("embedding_dim",),
    "latent_dim": ("embedding_dim",), "hidden_dim": ("hidden",), "n_jobs": ("threads",),
}  # fmt: skip


def nearby(key: str, keys: Iterable[str]) -> str:
    """The one of `keys` that a mistyped key, or what other libraries call it, is closest to, as a hint."""
    words = {each: each for each in keys}
    words |= {word: each for word, names in SYNONYMS.items() for each in names if each in words and word not in words}
    close = difflib.get_close_matches(key.lower().replace("-", "_"), list(words), n=1, cutoff=0.5)
    return f"; nearest known: {words[close[0]]}" if close else ""


def check_keys(values: Mapping[str, object], keys: Iterable[str], where: str) -> None:
    """Raise SettingsError naming the first key that is none of the `keys`, and the nearest one."""
    keys = list(keys)
    for key in values:
        if key not in keys:
            raise SettingsError(f"{where}: unknown setting '{key}'{nearby(str(key), keys)}; --help lists all")


def build(model: type[S], values: Mapping[str, object], sources: Mapping[str, str]) -> S:
    """Validate `values` (keys of `model`); raises SettingsError with source, value and what is allowed, in one line."""
    declared = fields(model)
    try:
        return model.model_validate({k: v for k, v in values.items() if k in declared})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if not key:  # a rule between settings: its own words say all
            raise SettingsError(str(first["msg"]).removeprefix("Value error, ")) from None
        where = sources.get(key, "default")
        place = flag(key) if where == "flag" else f"{where}: {key}"
        given = repr(values.get(key))
        given = given if len(given) <= LONGEST else f"{given[:LONGEST]}... ({len(given):,} characters)"
        raise SettingsError(f"{place}: got {given}; allowed: {allowed(declared[key][0])}") from None


def flag(key: str) -> str:
    """A setting's flag."""
    return "--" + key.replace("_", "-")


def search_domain(model: type[Settings], key: str) -> Mapping[str, Any] | None:
    """The declared search domain of a setting, or None."""
    extra = fields(model)[key][0].json_schema_extra
    return extra.get("search") if isinstance(extra, dict) else None  # type: ignore[return-value]


def domain_words(model: type[Settings], key: str) -> str:
    """The declared search domain in words, "" where there is none."""
    return ", ".join(f"{kind} {values}" for kind, values in (search_domain(model, key) or {}).items())


def flat(settings: Settings) -> dict[str, Any]:
    """The settings as JSON values by key: MLflow parameters, result.json, the identity."""
    values: dict[str, Any] = json.loads(settings.model_dump_json(by_alias=True))
    return values


def docs_table(*models: type[Settings]) -> str:
    """A Markdown table of every setting: flag, default, allowed, meaning, search domain."""
    rows = ["| flag | default | allowed | meaning | searched over |", "|---|---|---|---|---|"]
    for key, (info, model) in fields(*models).items():
        default = "" if info.default is None else str(info.default)
        words = (f"`{flag(key)}`", default, allowed(info), str(info.description), domain_words(model, key))
        rows.append(f"| {' | '.join(words)} |")
    return "\n".join(rows)
