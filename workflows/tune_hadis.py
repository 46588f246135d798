"""Search HaDis's settings with Ray Tune: `python workflows/tune_hadis.py --dataset digits --trials 8`.

Trials are ranked, and pruned, by the mean of the projections' silhouette and the agreement of two augmented copies,
which compares trials of one backbone, not backbones.
"""

from pathlib import Path

from ops.config.exit_codes import entry
from ops.tuning.tuner import search_command
from trainers import hadis

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, search, print."""
    search_command(argv, hadis, PRESETS, "workflows/tune_hadis.py")


if __name__ == "__main__":
    entry(main)
