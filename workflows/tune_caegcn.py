"""Search CaEGCN's settings with Ray Tune: `python workflows/tune_caegcn.py --dataset acm --trials 20`."""

from functools import partial

from ops.config.exit_codes import entry
from workflows.tune import main_of

main = partial(main_of, "caegcn")

if __name__ == "__main__":
    entry(main)
