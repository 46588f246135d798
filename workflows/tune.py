"""Search a method's settings with Ray Tune: `python workflows/tune.py hsan --dataset digits --trials 8`.

`tune_hsan.py` and its sisters are the same for one method. Users' methods are ranked, and pruned, by the recall of
validation pairs, which no training sees; all others by label-free indices.
"""

import json
from pathlib import Path

from ops.config.exit_codes import entry
from trainers import METHODS, method_of

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str], program: str = "") -> None:
    """Parse, search, print; `argv` begins with the method, `program` is what the user typed."""
    if argv and argv[0] in ("-h", "--help"):
        names = ", ".join(METHODS)
        print(f"usage: python workflows/tune.py METHOD [flags]\n\nMETHOD: {names}; METHOD --help lists its flags")
        return
    from ops.config.cli import resolve
    from ops.config.console import Console
    from ops.config.settings import SearchSettings
    from ops.results.finished_run import settings_of_run
    from ops.tuning.ranking import print_study
    from ops.tuning.tuner import run_search

    method = method_of(argv)
    program = program or f"workflows/tune.py {method.name}"
    request = resolve(argv[1:], method, SearchSettings, PRESETS, program, settings_of_run)
    console = Console(request.launch.quiet, request.launch.json_output)
    folder, trials = run_search(method, request, console)
    if request.launch.json_output:
        print(json.dumps(trials.plain()))
    print_study(folder, trials, request.launch, console)


def main_of(name: str, argv: list[str]) -> None:
    """`main` of `tune_NAME.py`."""
    main([name, *argv], f"workflows/tune_{name}.py")


if __name__ == "__main__":
    entry(main)
