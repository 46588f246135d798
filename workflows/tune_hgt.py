"""Search HGT's settings with Ray Tune: `python workflows/tune_hgt.py --dataset planted --trials 8`.

Trials are ranked, and pruned, by the recall of validation pairs, which no training sees.
"""

from pathlib import Path

from ops.config.exit_codes import entry
from ops.tuning.tuner import search_command
from trainers import hgt

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, search, print."""
    search_command(argv, hgt, PRESETS, "workflows/tune_hgt.py")


if __name__ == "__main__":
    entry(main)
