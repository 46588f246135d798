"""Redraw the figures and report.html of a finished run or search, without its data and without training.

python workflows/report.py OUT/NAME
"""

import argparse
from pathlib import Path

from ops.run.entry import entry
from ops.run.report import write_report


def main(argv: list[str]) -> None:
    """Write the report and print where it is."""
    parser = argparse.ArgumentParser(prog="report.py", description="Redraw a run's figures and report.")
    parser.add_argument("run", type=Path, help="folder of a finished run or search (OUT/NAME)")
    print(write_report(parser.parse_args(argv).run))


if __name__ == "__main__":
    entry(main)
