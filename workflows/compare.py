"""Compare finished runs: one table here, one self-contained HTML page.

python workflows/compare.py OUT/RUN OUT/OTHER ... --out compare.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ops.errors import TesseraError
from ops.run.compare import comparison_table, write_compare


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write the page and print where it is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="compare.py", description="Compare finished runs.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run or search")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page (default: compare.html)")
    args = parser.parse_args(argv)
    try:
        print(comparison_table(args.runs))
        print(f"\n{write_compare(args.runs, args.out)}")
    except TesseraError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
