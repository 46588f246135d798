"""What a search draws from: the searched settings, their domains and first values, and the names of its trials."""

from collections.abc import Callable, Mapping
from typing import Any

from ops.api import AnyExperiment, AnyMethod
from ops.config.cli import Request
from ops.config.settings import LaunchSettings, MethodSettings, SearchSettings, fields, flat, nearby, search_domain
from ops.errors import SettingsError
from ops.storage import run_dir
from ops.storage.run_dir import TRIAL


def searched_settings(method: AnyMethod, request: Request[MethodSettings, SearchSettings]) -> tuple[str, ...]:
    """The settings to search: those of --search, or the method's own choice.

    Raises SettingsError for one without a domain, or one that other settings of the command exclude.
    """
    model = method.settings
    can = [key for key in fields(model) if search_domain(model, key)]
    keys = tuple(k.strip().replace("-", "_") for k in request.launch.search.split(",") if k.strip())
    for key in keys:
        if key not in can:
            raise SettingsError(
                f"--search {key}: has no search domain{nearby(key, can)}; can be searched: {', '.join(can)}"
            )
    chosen = keys or method.searched
    for key in chosen:
        _check_ends(request, key, chosen)
    return chosen


def _check_ends(request: Request[MethodSettings, SearchSettings], key: str, keys: tuple[str, ...]) -> None:
    """Raise SettingsError where the fixed settings exclude the ends of a domain: its trials would all fail."""
    declared = search_domain(type(request.settings), key)
    assert declared is not None
    kind, values = next(iter(declared.items()))
    firsts = {k: start(request, k) for k in keys}
    for value in [values[0], values[1] - 1] if kind == "randint" else values:
        try:
            request.with_settings("trial", **firsts | {key: value})
        except SettingsError as error:
            others = ",".join(k for k in keys if k != key) or "others"
            raise SettingsError(f"--search {key}: {error}; search without it (--search {others})") from None


def identity(experiment: AnyExperiment, launch: SearchSettings, keys: tuple[str, ...]) -> dict[str, object]:
    """What makes two searches the same; what was added to it later stands only where it is not the default."""
    fixed = {k: v for k, v in flat(experiment.settings).items() if k not in keys}
    space: dict[str, object] = {
        "search_seed": launch.search_seed,
        "objective": launch.objective,
        "searched": ",".join(keys),
    }
    if not launch.prune:  # ended trials of a pruned search may have been ended early
        space["prune"] = False
    if launch.first_seed:  # of the trials
        space["first_seed"] = launch.first_seed
    model = type(experiment.settings)
    first = {key: start(experiment.request, key) for key in keys}
    space |= {f"first_{k}": v for k, v in first.items() if v != model.model_fields[k].default}
    return run_dir.identity(experiment.method.name, fixed | space, experiment.data.digest())


def start(request: Request[MethodSettings, LaunchSettings], key: str) -> object:
    """What the first trial takes: the user's value or the default, never a preset's, which was chosen with labels."""
    if request.sources.get(key, "").startswith("preset"):
        return type(request.settings).model_fields[key].default
    return getattr(request.settings, key)


def domain(declared: Mapping[str, Any] | None) -> Any:
    """A declared search domain as Ray Tune's."""
    from ray import tune

    assert declared is not None
    kind, values = next(iter(declared.items()))
    makers = {"uniform": tune.uniform, "loguniform": tune.loguniform, "randint": tune.randint}
    return tune.choice(values) if kind == "choice" else makers[kind](*values)


def trial_name(experiment: AnyExperiment, digest: str) -> str:
    """The folder of the trial with these settings on the data: trial- and the first 8 characters of its identity."""
    value = run_dir.identity(experiment.method.name, flat(experiment.settings), digest)
    return f"{TRIAL}{run_dir.fingerprint(value)[:8]}"


def trial_names(experiment: AnyExperiment) -> Callable[[Mapping[str, object]], str]:
    """The name of a trial of the experiment by its settings; the data are hashed once for all of them."""
    digest = experiment.data.digest()
    return lambda settings: trial_name(experiment.with_settings("trial", **settings), digest)
