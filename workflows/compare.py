"""Compare finished runs: one table here, one self-contained HTML page.

python workflows/compare.py OUT/RUN OUT/OTHER s3://BUCKET/OUT/RUN ... --out compare.html
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

from ops.config.cli import parser
from ops.config.exit_codes import entry
from ops.errors import SettingsError
from ops.reporting.compare import compare, comparison_table, write_compare
from ops.storage.run_copy import RESULTS, fetched

EXAMPLES = ("runs/A runs/B", "runs/A s3://BUCKET/runs/B --out compare.html")


def flags(program: str) -> argparse.ArgumentParser:
    """The parser of this command."""
    each = parser(program, "Compare finished runs.", takes="RUN [RUN ...] [--out FILE]", examples=EXAMPLES)
    each.add_argument("runs", nargs="+", metavar="RUN", help="a finished run or search: its folder or s3:// URI")
    each.add_argument("--out", default="compare.html", help="the page (default: compare.html)")
    return each


def main(argv: list[str], program: str = "workflows/compare.py") -> None:
    """Print the table, write the page and print where it is."""
    args = flags(program).parse_args(argv)
    if "://" in args.out:  # a path of that name would be made here
        raise SettingsError(f"--out {args.out}: give a file")
    with ExitStack() as open_runs:
        folders = [open_runs.enter_context(fetched(run, only=RESULTS)).folder for run in args.runs]
        comparison = compare(folders)
        print(comparison_table(comparison))
        print(f"\n{write_compare(comparison, Path(args.out))}")


if __name__ == "__main__":
    entry(main)
