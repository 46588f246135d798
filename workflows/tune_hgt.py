"""Search HGT's settings with Ray Tune: `python workflows/tune_hgt.py --dataset planted --trials 8`.

Trials are pruned and ranked by the recall of validation pairs, which no training sees.
"""

import json
from pathlib import Path

from ops.run.cli import resolve
from ops.run.console import Console
from ops.run.entry import entry
from ops.run.search import run_search
from ops.run.settings import SearchSettings
from ops.run.study import print_study
from trainers import hgt

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, search, print."""
    resolved = resolve(argv, hgt, SearchSettings, PRESETS, "workflows/tune_hgt.py")
    console = Console(resolved.launch.quiet, resolved.launch.json_output)
    folder, trials = run_search(resolved, console)
    if resolved.launch.json_output:
        print(json.dumps(trials))
    print_study(folder, trials, resolved, console)


if __name__ == "__main__":
    entry(main)
