"""Redraw the figures and report.html of a finished run or search, without its data and without training.

python workflows/report.py OUT/NAME
"""

import argparse
import sys
from pathlib import Path

from ops.run.entry import entry
from ops.run.report import write_report


def main(argv: list[str]) -> None:
    """Write the report and print where it is."""
    parser = argparse.ArgumentParser(prog="report.py", description="Redraw a run's figures and report.")
    parser.add_argument("run", type=Path, help="folder of a finished run or search (OUT/NAME)")
    run = parser.parse_args(argv).run
    print(write_report(run))
    own = run if (run / "result.json").is_file() else run / "best"
    if not (own / "explain.json").is_file():
        words = "which features set its clusters apart is told at the end of a training only, as that takes the data"
        print(f"no {own / 'explain.json'}: {words}", file=sys.stderr)


if __name__ == "__main__":
    entry(main)
