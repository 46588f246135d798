"""Redraw the figures and report.html of a finished run or search, without its data and without training.

python workflows/report.py OUT/NAME
"""

import argparse
import sys

from ops.config.cli import parser
from ops.config.exit_codes import entry
from ops.reporting.html import write_report
from ops.results.arrays import PICTURES
from ops.storage.run_copy import fetched

EXAMPLES = ("runs/NAME", "s3://BUCKET/runs/NAME")


def flags(program: str) -> argparse.ArgumentParser:
    """The parser of this command."""
    each = parser(program, "Redraw a run's figures and report.", takes="RUN", examples=EXAMPLES)
    each.add_argument("run", help="a finished run or search: its folder OUT/NAME, or s3://BUCKET/PREFIX/NAME")
    return each


def main(argv: list[str], program: str = "workflows/report.py") -> None:
    """Write the report and print where it is."""
    with fetched(flags(program).parse_args(argv).run) as run:
        page = write_report(run.folder)
        run.send()
        print(run.shown(page))
        folder = run.folder if (run.folder / "result.json").is_file() else run.folder / "best"
        if not any((folder / name).is_file() for name in ("explain.json", PICTURES)):  # images have pictures instead
            words = (
                "which features set its clusters apart is told at the end of a training only, as that takes the data"
            )
            print(f"no {run.shown(folder / 'explain.json')}: {words}", file=sys.stderr)


if __name__ == "__main__":
    entry(main)
