"""Search HSAN's settings with Ray Tune: `python workflows/tune_hsan.py --dataset digits --trials 8`."""

from pathlib import Path

from ops.config.exit_codes import entry
from ops.tuning.tuner import search_command
from trainers import hsan

PRESETS = Path(__file__).parent / "presets"


def main(argv: list[str]) -> None:
    """Parse, search, print."""
    search_command(argv, hsan, PRESETS, "workflows/tune_hsan.py")


if __name__ == "__main__":
    entry(main)
