"""Compare finished runs: one table here, one self-contained HTML page.

python workflows/compare.py OUT/RUN OUT/OTHER ... --out compare.html
"""

import argparse
from pathlib import Path

from ops.run.compare import comparison_table, write_compare
from ops.run.entry import entry


def main(argv: list[str]) -> None:
    """Print the table, write the page and print where it is."""
    parser = argparse.ArgumentParser(prog="compare.py", description="Compare finished runs.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a finished run or search")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page (default: compare.html)")
    args = parser.parse_args(argv)
    print(comparison_table(args.runs))
    print(f"\n{write_compare(args.runs, args.out)}")


if __name__ == "__main__":
    entry(main)
