"""Flags, presets and YAML files become one validated set of settings that remembers where each value came from."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import yaml

from ops.config.settings import (
    LaunchSettings,
    MethodSettings,
    S,
    Settings,
    allowed,
    build,
    check_keys,
    fields,
    nearest,
    search_domain,
)
from ops.data.catalog.graphs import canonical
from ops.data.images.catalog import canonical_images
from ops.errors import SettingsError
from ops.results.finished_run import settings_of_run

REMARK = "remark"  # a preset's own key: how it was chosen


@dataclass(frozen=True)
class Resolved:
    """What a command asks for: the method's settings, how to launch them, and each key's source."""

    method: ModuleType
    settings: MethodSettings
    launch: LaunchSettings
    sources: dict[str, str]
    command: str
    remarks: tuple[str, ...] = ()  # what the plan and the report must say of the settings

    def with_settings(self, source: str, **values: Any) -> Resolved:
        """The same with some of the method's settings replaced, e.g. by a trial."""
        merged = self.settings.model_dump(by_alias=True) | values
        sources = self.sources | dict.fromkeys(values, source)
        return replace(self, settings=build(type(self.settings), merged, sources), sources=sources)

    def with_launch(self, **values: Any) -> Resolved:
        """The same, launched otherwise."""
        return replace(self, launch=self.launch.model_copy(update=values))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists all flags")


def flag(key: str) -> str:
    """A setting's flag."""
    return "--" + key.replace("_", "-")


def parser(program: str, description: str, *models: type[Settings]) -> argparse.ArgumentParser:
    """An argument parser with one flag a setting; values stay text until the settings validate them."""
    made = _Parser(prog=program, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    groups = {model: made.add_argument_group(f"{model.__module__.split('.')[-1]} settings") for model in models}
    for key, (info, model) in fields(*models).items():
        domain = search_domain(model, key)
        searched = f"; searched over {', '.join(f'{k} {v}' for k, v in domain.items())}" if domain else ""
        text = f"{info.description} [{allowed(info)}; default: {info.default}{searched}]".replace("%", "%%")
        if info.annotation is bool:
            groups[model].add_argument(flag(key), dest=key, help=text, action=argparse.BooleanOptionalAction)
        else:
            groups[model].add_argument(flag(key), dest=key, help=text, metavar=key.upper())
    return made


def resolve(
    argv: Sequence[str], method: ModuleType, launch: type[LaunchSettings], presets: Path, program: str
) -> Resolved:
    """Defaults < preset < `--config` < flags, validated. Raises SettingsError in one line for anything wrong."""
    models = (method.Settings, launch)
    known = fields(*models)
    made = parser(program, (method.__doc__ or "").splitlines()[0], *models)
    given, unknown = made.parse_known_args(list(argv))
    if unknown:
        hint = nearest(unknown[0].split("=")[0], [flag(key) for key in known])
        raise SettingsError(f"{unknown[0]}: unknown flag or value{hint}; --help lists all flags")
    flags = vars(given)
    config = read_yaml(Path(flags["config"]), known) if "config" in flags else {}
    merged = config | flags
    dataset = str(merged.get("dataset", launch.model_fields["dataset"].default))
    chosen = str(merged.get("preset", "none" if merged.get("warm_start") else "auto"))
    preset = _preset(chosen, canonical(dataset) or canonical_images(dataset) or dataset.lower(), method, presets)
    base = read_yaml(preset, [*known, REMARK]) if preset else {}
    warm = merged.get("warm_start")
    before = {} if warm is None else read_settings_of(str(warm), fields(method.Settings))
    remark = base.pop(REMARK, None)
    sources = (
        dict.fromkeys(before, f"warm start {warm}")
        | dict.fromkeys(base, f"preset {preset.stem}" if preset else "")
        | dict.fromkeys(config, str(flags.get("config")))
        | dict.fromkeys(flags, "flag")
    )
    values = before | base | merged
    settings = build(method.Settings, values, sources)
    derived = {k for k, v in settings.model_dump(by_alias=True).items() if v != known[k][0].default and k not in values}
    sources |= dict.fromkeys(derived, "protocol")
    command = f"python {program} {shlex.join(argv)}".strip()
    remarks = (f"preset {preset.stem}: {remark}",) if preset and remark else ()
    return Resolved(method, settings, build(launch, values, sources), sources, command, remarks)


def read_settings_of(run: str, known: Any) -> dict[str, Any]:
    """The method's settings of a finished run, as far as they are `known`: what a warm start goes on from."""
    return {key: value for key, value in settings_of_run(run).items() if key in known}


def read_settings(made: argparse.ArgumentParser, argv: Sequence[str], model: type[S], first: str) -> tuple[str, S]:
    """(the argument `first` or "", the settings) of a workflow without a method; SettingsError in one line."""
    given, unknown = made.parse_known_args(list(argv))
    if unknown:
        hint = nearest(unknown[0].split("=")[0], [flag(key) for key in fields(model)])
        raise SettingsError(f"{unknown[0]}: unknown flag or value{hint}; --help lists all flags")
    values = vars(given)
    name = str(values.pop(first, ""))
    return name, build(model, values, dict.fromkeys(values, "flag"))


def read_yaml(path: Path, known: Any) -> dict[str, Any]:
    """A YAML mapping of known settings. Raises SettingsError naming the file and what is wrong with it."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{path}: is not YAML ({reason}); expected lines such as `epochs: 100`") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds {type(values).__name__}, expected lines such as `epochs: 100`")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    check_keys(values, known, str(path))
    if "config" in values:
        raise SettingsError(f"{path}: config names a file from the command line only; give --config")
    return values


def _preset(name: str, dataset: str, method: ModuleType, folder: Path) -> Path | None:
    """The preset's file: named, by path, or the data set's own where there is one."""
    if name == "none":
        return None
    if name == "auto":
        own = folder / f"{method.NAME}-{dataset}.yaml"
        return own if dataset and "/" not in dataset and own.is_file() else None
    for candidate in (Path(name), folder / f"{name}.yaml", folder / f"{method.NAME}-{name}.yaml"):
        if candidate.is_file():
            return candidate
    have = sorted(p.stem for p in folder.glob(f"{method.NAME}-*.yaml"))
    raise SettingsError(f"--preset {name}: no such preset or file{nearest(name, have)}; presets: {', '.join(have)}")
