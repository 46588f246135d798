"""Search CaEGCN's settings with Ray Tune: `python workflows/tune_caegcn.py --dataset acm --trials 8`."""

from pathlib import Path

from ops.config.exit_codes import entry
from ops.tuning.tuner import search_command
from trainers import caegcn

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, search, print."""
    search_command(argv, caegcn, PRESETS, "workflows/tune_caegcn.py")


if __name__ == "__main__":
    entry(main)
