"""Clusters of rows by a trained model.

python workflows/predict.py RUN|models:/tessera-hsan@last --data NEW --out FILE.parquet

NEW may be new rows alone, new rows with edges to known ones, or the whole grown graph. For a model of users (hgt,
twhin): users with their features and edges to notes that the model knows, in any form that a training takes.
"""

import argparse
import json

from ops.config.cli import parser, read_settings
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import PredictSettings
from ops.errors import SettingsError
from ops.inference.predict import run_prediction
from trainers import METHODS

EXAMPLES = (
    "runs/NAME --data new.csv --out clusters.csv",
    "models:/tessera-hsan@last --data new/ --out clusters.parquet",
)


def flags(program: str) -> argparse.ArgumentParser:
    """The parser of this command."""
    about = "Clusters of known and new rows by a trained model."
    each = parser(program, about, PredictSettings, takes="RUN [flags]", examples=EXAMPLES)
    each.add_argument("run", nargs="?", default=argparse.SUPPRESS, metavar="RUN|models:/NAME@ALIAS",
                      help="folder of a finished run or search (OUT/NAME), or a model in MLflow")  # fmt: skip
    return each


def main(argv: list[str], program: str = "workflows/predict.py") -> None:
    """Parse, predict, print; `program` is what the user typed before `argv`."""
    run, request = read_settings(flags(program), argv, PredictSettings, "run")
    if not run:
        raise SettingsError("give a run's folder OUT/NAME or models:/NAME@ALIAS; --help lists all flags")
    for flag, value in (("--data", request.data), ("--out", request.out)):
        if not value:
            raise SettingsError(f"{flag}: is missing; {program} RUN --data NEW --out FILE.csv")
    console = Console(request.quiet, request.json_output)
    summary = run_prediction(run, request, METHODS, console)
    if request.json_output:
        print(json.dumps(summary))
    sizes = ", ".join(f"{size:,}" for size in summary["sizes"])
    columns = summary.get("columns", "id, cluster, confidence")
    console.say(f"cluster sizes: {sizes}")
    console.say(f"{request.out}: {columns} of {summary['rows']:,} rows")


if __name__ == "__main__":
    entry(main)
