"""Train one method on one data set, all seeds: `python workflows/train.py hsan --dataset cora --seeds 3`."""

import json
from pathlib import Path

from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import LaunchSettings, nearest
from ops.errors import SettingsError
from ops.reporting.tables import result_text
from ops.training.trainer import run_training, where
from trainers import caegcn, hadis, hgt, hsan, twhin

METHODS = {"caegcn": caegcn, "hadis": hadis, "hgt": hgt, "hsan": hsan, "twhin": twhin}
PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, train, print."""
    if not argv or argv[0] not in METHODS:
        known = ", ".join(METHODS)
        if argv and argv[0] in ("-h", "--help"):
            print(f"usage: python workflows/train.py METHOD [flags]\n\nMETHOD: {known}; METHOD --help lists its flags")
            return
        hint = nearest(argv[0], METHODS) if argv else ""
        raise SettingsError(f"METHOD: got {argv[0] if argv else 'nothing'}; allowed: {known}{hint}")
    resolved = resolve(argv[1:], METHODS[argv[0]], LaunchSettings, PRESETS, f"workflows/train.py {argv[0]}")
    launch = resolved.launch
    console = Console(launch.quiet, launch.json_output)
    folder, result = run_training(resolved, console)
    if launch.json_output:
        print(json.dumps(result.plain()))
    console.say(result_text(result))
    where(folder, resolved, console)


if __name__ == "__main__":
    entry(main)
