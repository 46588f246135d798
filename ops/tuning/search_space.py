"""What a search draws from: the searched settings, their domains and first values, and the names of its trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ops.config.cli import Resolved
from ops.config.settings import SearchSettings, fields, flat, nearest, search_domain
from ops.errors import SettingsError
from ops.storage import run_dir
from ops.storage.run_dir import TRIAL
from ops.training.experiment import Job


def searched(resolved: Resolved, launch: SearchSettings) -> tuple[str, ...]:
    """The settings to search: those of --search, or the method's own choice.

    Raises SettingsError for one without a domain, or one that other settings of the command exclude.
    """
    model = type(resolved.settings)
    can = [key for key in fields(model) if search_domain(model, key)]
    keys = tuple(k.strip().replace("-", "_") for k in launch.search.split(",") if k.strip())
    for key in keys:
        if key not in can:
            raise SettingsError(
                f"--search {key}: has no search domain{nearest(key, can)}; can be searched: {', '.join(can)}"
            )
    found = keys or tuple(resolved.method.SEARCHED)
    for key in found:
        _check_ends(resolved, key, found)
    return found


def _check_ends(resolved: Resolved, key: str, keys: tuple[str, ...]) -> None:
    """Raise SettingsError where the fixed settings exclude the ends of a domain: its trials would all fail."""
    declared = search_domain(type(resolved.settings), key)
    assert declared is not None
    kind, values = next(iter(declared.items()))
    firsts = {k: start(resolved, k) for k in keys}
    for value in [values[0], values[1] - 1] if kind == "randint" else values:
        try:
            resolved.with_settings("trial", **firsts | {key: value})
        except SettingsError as error:
            others = ",".join(k for k in keys if k != key) or "others"
            raise SettingsError(f"--search {key}: {error}; search without it (--search {others})") from None


def identity(job: Job, launch: SearchSettings, keys: tuple[str, ...]) -> dict[str, Any]:
    """What makes two searches the same; what was added to it later stands only where it is not the default."""
    fixed = {k: v for k, v in flat(job.resolved.settings).items() if k not in keys}
    space = {"search_seed": launch.search_seed, "objective": launch.objective, "searched": ",".join(keys)}
    if not launch.prune:  # ended trials of a pruned search may have been ended early
        space["prune"] = False
    if launch.first_seed:  # of the trials
        space["first_seed"] = launch.first_seed
    model = type(job.resolved.settings)
    first = {key: start(job.resolved, key) for key in keys}
    space |= {f"first_{k}": v for k, v in first.items() if v != model.model_fields[k].default}
    return run_dir.identity(job.resolved.method.NAME, fixed | space, job.data.digest())


def start(resolved: Resolved, key: str) -> Any:
    """What the first trial takes: the user's value or the default, never a preset's, which was chosen with labels."""
    if resolved.sources.get(key, "").startswith("preset"):
        return type(resolved.settings).model_fields[key].default
    return getattr(resolved.settings, key)


def domain(declared: Mapping[str, Any] | None) -> Any:
    """A declared search domain as Ray Tune's."""
    from ray import tune

    assert declared is not None
    kind, values = next(iter(declared.items()))
    makers = {"uniform": tune.uniform, "loguniform": tune.loguniform, "randint": tune.randint}
    return tune.choice(values) if kind == "choice" else makers[kind](*values)


def trial_name(resolved: Resolved, digest: str) -> str:
    """The folder of the trial with these settings on the data: trial- and the first 8 characters of its identity."""
    value = run_dir.identity(resolved.method.NAME, flat(resolved.settings), digest)
    return f"{TRIAL}{run_dir.fingerprint(value)[:8]}"


def trial_names(job: Job) -> Callable[[Mapping[str, Any]], str]:
    """The name of a trial of the job by its settings; the data are hashed once for all of them."""
    digest = job.data.digest()
    return lambda settings: trial_name(job.resolved.with_settings("trial", **settings), digest)
