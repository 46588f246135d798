"""Search HGT's settings with Ray Tune: `python workflows/tune_hgt.py --dataset planted --trials 8`."""

from functools import partial

from ops.config.exit_codes import entry
from workflows.tune import main_of

main = partial(main_of, "hgt")

if __name__ == "__main__":
    entry(main)
