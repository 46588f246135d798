"""Search a method's settings with Ray Tune: `python workflows/tune.py hsan --dataset digits --trials 8`.

`tune_hsan.py` and its sisters are the same for one method. Users' methods are ranked, and pruned, by the recall of
validation pairs, which no training sees; all others by label-free indices.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ops.config.exit_codes import entry
from trainers import METHODS, method_of
from workflows.train import PRESETS, only_said, wants_names

if TYPE_CHECKING:
    from ops.api import AnyMethod

EXAMPLES = {
    "graph": ("--dataset cora --trials 20", "--dataset graph.npz --search lr,temperature"),
    "images": ("--dataset digits --trials 8", "--dataset FOLDER --n-clusters 10 --search lr"),
    "users": ("--dataset ml-100k --trials 8", "--dataset FOLDER --n-clusters 20 --search lr"),
}  # by the kind of data


def main(argv: list[str], program: str = "workflows/tune.py") -> None:
    """Parse, search, print; `program` is what the user typed before `argv`, which begins with the method."""
    if not wants_names(argv, program):
        method = method_of(argv)
        search(method, argv[1:], f"{program} {method.name}")


def main_of(name: str, argv: list[str]) -> None:
    """`main` of `tune_NAME.py`."""
    search(METHODS[name], argv, f"workflows/tune_{name}.py")


def search(method: AnyMethod, argv: list[str], program: str) -> None:
    """Parse the flags of one method, search, print."""
    from ops.config.cli import resolve
    from ops.config.console import Console
    from ops.config.settings import SearchSettings
    from ops.results.finished_run import settings_of_run
    from ops.tuning.ranking import print_study
    from ops.tuning.tuner import run_search

    request = resolve(argv, method, SearchSettings, PRESETS, program, settings_of_run, EXAMPLES[method.kind])
    console = Console(request.launch.quiet, request.launch.json_output)
    if only_said(method, request, console):
        return
    folder, trials = run_search(method, request, console)
    if request.launch.json_output:
        print(json.dumps(trials.plain()))
    print_study(folder, trials, request.launch, console)


if __name__ == "__main__":
    entry(main)
