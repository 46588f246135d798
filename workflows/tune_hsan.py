"""Search HSAN's settings with Ray Tune: `python workflows/tune_hsan.py --dataset digits --trials 8`."""

from functools import partial

from ops.config.exit_codes import entry
from workflows.tune import main_of

main = partial(main_of, "hsan")

if __name__ == "__main__":
    entry(main)
