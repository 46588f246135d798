"""Flags, presets and YAML files become one validated set of settings that remembers where each value came from."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar, runtime_checkable

import yaml

from ops import masking
from ops.config.settings import (
    LaunchSettings,
    MethodSettings,
    S,
    Settings,
    allowed,
    build,
    check_keys,
    domain_words,
    fields,
    flag,
    flat,
    nearby,
)  # fmt: skip
from ops.data.catalog.graphs import canonical
from ops.data.images.catalog import canonical_images
from ops.data.io.plain_yaml import load_yaml
from ops.errors import SettingsError

REMARK = "remark"  # a preset's own key: how it was chosen
SECTIONS = {  # of --help, in the order in which a person asks; other settings of a method follow as its own
    "data": ("dataset", "data", "graph", "known", "knn", "knn_metric", "scale", "one_hot", "ignore", "make_features",
             "skip_damaged"),
    "clustering": ("n_clusters", "epochs", "lr", "preset", "config", "warm_start", "seeds", "first_seed"),
    "search": ("trials", "search", "objective", "prune", "concurrent", "search_seed"),
    "results": ("out", "name", "fresh", "result", "report", "explain", "tensorboard", "json", "quiet",
                "dry_run", "dump_config"),
    "the method's own settings": (),
    "machine": ("workers", "gpus_per_worker", "threads", "device", "precision", "memory_limit", "scratch",
                "stop_on_collapse"),
    "MLflow": ("tracking_uri", "require_tracking"),
}  # fmt: skip
NOT_DUMPED = ("config", "dump_config", "dry_run", "fresh")  # they are a command's, not a training's


M_co = TypeVar("M_co", bound=MethodSettings, covariant=True)
L_co = TypeVar("L_co", bound=LaunchSettings, covariant=True)
MS = TypeVar("MS", bound=MethodSettings)
LS = TypeVar("LS", bound=LaunchSettings)


@dataclass(frozen=True)
class Request(Generic[M_co, L_co]):
    """What a command asks for: the method's settings, how to launch them, and each key's source."""

    settings: M_co
    launch: L_co
    sources: dict[str, str]
    command: str
    remarks: tuple[str, ...] = ()  # what the plan and the report must say of the settings

    def with_settings(self, source: str, **values: object) -> "Request[M_co, L_co]":
        """The same with some of the method's settings replaced, e.g. by a trial."""
        merged = self.settings.model_dump(by_alias=True) | values
        sources = self.sources | dict.fromkeys(values, source)
        return replace(self, settings=build(type(self.settings), merged, sources), sources=sources)

    def with_launch(self, **values: object) -> "Request[M_co, L_co]":
        """The same, launched otherwise."""
        return replace(self, launch=self.launch.model_copy(update=values))


@runtime_checkable  # the tests check every annotation
class Configurable(Protocol[M_co]):
    """What settings are resolved for: a method."""

    @property
    def name(self) -> str:
        """As it stands in commands and presets."""

    @property
    def summary(self) -> str:
        """One line, for `--help`."""

    @property
    def settings(self) -> type[M_co]:
        """The model of its settings."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists all flags")


def parser(
    program: str, description: str, *models: type[Settings], examples: Sequence[str] = (), takes: str = "[flags]"
) -> argparse.ArgumentParser:
    """An argument parser with one flag a setting; values stay text until the settings validate them.

    `takes` follows `program` in its usage, and each of the `examples` in a line of its help.
    """
    flags = _Parser(
        prog=program, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        usage=f"{program} {takes}", formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["examples:", *(f"  {program} {line}" for line in examples)]) if examples else None,
    )  # fmt: skip
    groups = {title: flags.add_argument_group(title) for title in SECTIONS}
    section = {key: title for title, keys in SECTIONS.items() for key in keys}
    for key, (info, model) in fields(*models).items():
        domain = f"; searched over {words}" if (words := domain_words(model, key)) else ""
        text = f"{info.description} [{allowed(info)}; default: {info.default}{domain}]".replace("%", "%%")
        kind = {"action": argparse.BooleanOptionalAction} if info.annotation is bool else {"metavar": key.upper()}
        title = section.get(key, "the method's own settings" if issubclass(model, MethodSettings) else "results")
        groups[title].add_argument(flag(key), dest=key, help=text, **kind)
    return flags


def resolve(
    argv: Sequence[str], method: Configurable[MS], launch: type[LS], presets: Path, program: str,
    settings_of: Callable[[str], Mapping[str, object]] | None = None, examples: Sequence[str] = (),
) -> Request[MS, LS]:  # fmt: skip
    """Defaults < preset < `--config` < flags, validated. Raises SettingsError in one line for anything wrong.

    `settings_of(RUN)` gives the settings of the finished run that `--warm-start` names.
    """
    models = (method.settings, launch)
    every = fields(*models)
    flags = _parse(parser(program, method.summary, *models, examples=examples), argv, every)
    config = _read_config(Path(flags["config"]), method.name, every) if "config" in flags else {}
    merged = config | flags
    dataset = str(merged.get("dataset", launch.model_fields["dataset"].default))
    chosen = str(merged.get("preset", "none" if merged.get("warm_start") else "auto"))
    name = canonical(dataset) or canonical_images(dataset) or dataset.lower()
    frozen = str(merged.get("backbone", "")).startswith("frozen:")  # features, which a preset for pixels does not suit
    preset = _preset(chosen, "frozen" if frozen else name, method.name, presets)
    base = read_yaml(preset, [*every, REMARK]) if preset else {}
    warm, before = merged.get("warm_start"), {}
    if warm is not None and settings_of is not None:
        before = {k: v for k, v in settings_of(str(warm)).items() if k in fields(method.settings)}
    remark = base.pop(REMARK, None)
    sources = (
        dict.fromkeys(before, f"warm start {warm}")
        | dict.fromkeys(base, f"preset {preset.stem}" if preset else "")
        | dict.fromkeys(config, str(flags.get("config")))
        | dict.fromkeys(flags, "flag")
    )
    values = before | base | merged
    settings = build(method.settings, values, sources)
    derived = {k for k, v in settings.model_dump(by_alias=True).items() if v != every[k][0].default and k not in values}
    sources |= dict.fromkeys(derived, "protocol")
    command = f"{'' if program.startswith('tessera') else 'python '}{program} {masking.command(argv)}".strip()
    remarks = (f"preset {preset.stem}: {remark}",) if preset and remark else ()
    return Request(settings, build(launch, values, sources), sources, command, remarks)


def _parse(flags: argparse.ArgumentParser, argv: Sequence[str], keys: Mapping[str, object]) -> dict[str, Any]:
    given, unknown = flags.parse_known_args(list(argv))
    if unknown:
        hint = nearby(unknown[0].split("=")[0], [flag(key) for key in keys])
        raise SettingsError(f"{masking.command(unknown[:1])}: unknown flag or value{hint}; --help lists all flags")
    return vars(given)


def read_settings(flags: argparse.ArgumentParser, argv: Sequence[str], model: type[S], first: str) -> tuple[str, S]:
    """(the argument `first` or "", the settings) of a workflow without a method; SettingsError in one line."""
    values = _parse(flags, argv, fields(model))
    name = str(values.pop(first, ""))
    return name, build(model, values, dict.fromkeys(values, "flag"))


def read_yaml(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """A YAML mapping whose keys are among `keys`. Raises SettingsError naming the file and what is wrong with it."""
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # reading a pipe would wait for ever
            raise SettingsError(f"{path}: is no regular file; give a YAML file")
        values = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: numbers of 5,000 digits, no UTF-8
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"{path}: is not YAML ({reason}); expected lines such as `epochs: 100`") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds {type(values).__name__}, expected lines such as `epochs: 100`")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    check_keys(values, keys, str(path))
    if "config" in values:
        raise SettingsError(f"{path}: config names a file from the command line only; give --config")
    return values


def _read_config(path: Path, method: str, keys: Iterable[str]) -> dict[str, Any]:
    """`--config`: a YAML file, or the `run.json` of a run, whose settings are taken. Raises SettingsError."""
    if path.name != "run.json":
        return read_yaml(path, keys)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        values, trained = dict(stored["settings"]), stored["method"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"--config {path}: is no run's run.json ({type(error).__name__}); give a run's") from None
    if trained != method:
        raise SettingsError(f"--config {path}: is a run of {trained}, not of {method}; give a run of {method}")
    check_keys(values, keys, str(path))
    return values


def dump_config(request: Request[Any, Any], path: Path) -> None:
    """Write all settings of a request as YAML that `--config` takes; a tracking URI with a password is left out.

    Raises SettingsError where the file cannot be written.
    """
    values = flat(request.settings) | flat(request.launch) | {"preset": "none"}
    uri = values.get("tracking_uri")
    leave_out = (*NOT_DUMPED, *(["tracking_uri"] if uri and masking.shown(uri) != uri else []))
    stored = {key: value for key, value in values.items() if value is not None and key not in leave_out}
    try:
        path.write_text(f"# of: {request.command}\n{yaml.safe_dump(stored, sort_keys=False)}", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--dump-config {path}: cannot be written ({error.strerror}); give a file") from None


def _preset(name: str, dataset: str, method: str, folder: Path) -> Path | None:
    """The preset's file: named, by path, or the data set's own where there is one."""
    if name == "none":
        return None
    if name == "auto":
        path = folder / f"{method}-{dataset}.yaml"
        return path if dataset and "/" not in dataset and path.is_file() else None
    for candidate in (Path(name), folder / f"{name}.yaml", folder / f"{method}-{name}.yaml"):
        if candidate.is_file():
            return candidate
    have = sorted(p.stem for p in folder.glob(f"{method}-*.yaml"))
    raise SettingsError(f"--preset {name}: no such preset or file{nearby(name, have)}; presets: {', '.join(have)}")
