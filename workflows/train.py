"""Train one method on one data set, all seeds: `python workflows/train.py hsan --dataset cora --seeds 3`."""

import json
from pathlib import Path

from ops.config.exit_codes import entry
from trainers import METHODS, method_of

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, train, print."""
    if argv and argv[0] in ("-h", "--help"):
        names = ", ".join(METHODS)
        print(f"usage: python workflows/train.py METHOD [flags]\n\nMETHOD: {names}; METHOD --help lists its flags")
        return
    from ops.config.cli import resolve
    from ops.config.console import Console
    from ops.config.settings import LaunchSettings
    from ops.reporting.tables import result_text
    from ops.results.finished_run import settings_of_run
    from ops.training.trainer import run_training, where

    method = method_of(argv)
    program = f"workflows/train.py {method.name}"
    request = resolve(argv[1:], method, LaunchSettings, PRESETS, program, settings_of_run)
    console = Console(request.launch.quiet, request.launch.json_output)
    folder, result = run_training(method, request, console)
    if request.launch.json_output:
        print(json.dumps(result.plain()))
    console.say(result_text(result), lines=True)
    where(folder, request.launch, console)


if __name__ == "__main__":
    entry(main)
