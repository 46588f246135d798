"""Redraw the figures and report.html of a finished run or search, without its data and without training.

python workflows/report.py OUT/NAME
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.errors import TesseraError
from ops.run.report import write_report


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report and print where it is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="report.py", description="Redraw a run's figures and report.")
    parser.add_argument("run", type=Path, help="folder of a finished run or search (OUT/NAME)")
    try:
        print(write_report(parser.parse_args(argv).run))
    except TesseraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
