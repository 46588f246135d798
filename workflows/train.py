"""Train one method on one data set, all seeds: `python workflows/train.py hsan --dataset cora --seeds 3`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.config.exit_codes import entry
from trainers import METHODS, method_of

if TYPE_CHECKING:
    from ops.api import AnyMethod
    from ops.config.cli import Request
    from ops.config.console import Console

PRESETS = Path(__file__).parent / "presets"


EXAMPLES = {
    "graph": ("--dataset cora --seeds 3", "--dataset table.csv --knn 10 --n-clusters auto"),
    "images": ("--dataset FOLDER --n-clusters 10", "--preset demo"),
    "users": ("--dataset ml-100k --n-clusters 20", "--dataset FOLDER --n-clusters 20 --workers 2"),
}  # by the kind of data


def main(argv: list[str], program: str = "workflows/train.py") -> None:
    """Parse, train, print; `program` is what the user typed before `argv`."""
    if wants_names(argv, program):
        return
    train(*requested(argv, program))


def requested(argv: list[str], program: str = "workflows/train.py") -> tuple[AnyMethod, Request[Any, Any]]:
    """The method that `argv` begins with, and what is asked of it."""
    from ops.config.cli import resolve
    from ops.config.settings import LaunchSettings
    from ops.results.finished_run import settings_of_run

    method = method_of(argv)
    program = f"{program} {method.name}"
    return method, resolve(argv[1:], method, LaunchSettings, PRESETS, program, settings_of_run, EXAMPLES[method.kind])


def train(method: AnyMethod, request: Request[Any, Any]) -> None:
    """Train and print."""
    from ops.config.console import Console
    from ops.reporting.tables import result_text
    from ops.storage.run_dir import local_out
    from ops.training.experiment import build_experiment
    from ops.training.trainer import run_experiment, where

    console = Console(request.launch.quiet, request.launch.json_output)
    if only_said(method, request, console):
        return
    folder, result = run_experiment(build_experiment(method, request, console), local_out(request.launch))
    if request.launch.json_output:
        print(json.dumps(result.plain()))
    console.say(result_text(result), lines=True)
    where(folder, request.launch, console)


def wants_names(argv: list[str], program: str) -> bool:
    """Whether help was asked for without a method; the methods are named then."""
    if not argv or argv[0] not in ("-h", "--help"):
        return False
    print(f"usage: {program} METHOD [flags]\n\nMETHOD: {', '.join(METHODS)}; METHOD --help lists its flags\n")
    print(f"examples:\n  {program} hsan --dataset cora\n  {program} hsan --help")
    return True


def only_said(method: AnyMethod, request: Request[Any, Any], console: Console) -> bool:
    """Do what `--dump-config` and `--dry-run` ask for; whether one of them was given."""
    launch = request.launch
    if launch.dump_config:
        from ops.config.cli import dump_config

        dump_config(request, Path(launch.dump_config))
        console.say(f"{launch.dump_config}: all settings of this command; --config {launch.dump_config} takes them")
    if launch.dry_run:
        from ops.training.experiment import build_experiment, dry_run

        dry_run(build_experiment(method, request, console))
    return bool(launch.dump_config or launch.dry_run)


if __name__ == "__main__":
    entry(main)
