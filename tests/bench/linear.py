"""The linear methods at fixed settings on real data, ten seeds: `python tests/bench/linear.py cora acm ...`."""

import sys
import time

import numpy as np
import torch
from auto import data_of

from ops.clustering.linear import LinearMethod
from ops.evaluation.labelled import scores
from ops.evaluation.quick import DEGREE, QuickClusterings

METHODS = [
    *(LinearMethod("ssgc", order, "tfidf") for order in (5, 10)), LinearMethod("sagsc", 5, "tfidf"),
    LinearMethod("s2cag", 10, "tfidf"), LinearMethod("m-s2cag", 10, "tfidf"), LinearMethod("m-s2cag", 10, "l2"), DEGREE,
]  # fmt: skip

SEEDS = 10

if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"| data | {' | '.join(f'{m.kind} {m.features} T = {m.order}' for m in METHODS)} |", flush=True)
    for name in sys.argv[1:]:
        data, labels = data_of(name)
        quick, cells = QuickClusterings(data, len(np.unique(labels[labels >= 0])), judged=False), []
        for method in METHODS:
            if method.kind == "s2cag" and data.x.min() < 0:
                cells.append("")
                continue
            began = time.process_time()
            acc = [100 * scores(labels, quick.cluster(method, seed))["acc"] for seed in range(SEEDS)]
            spent = (time.process_time() - began) / SEEDS
            cells.append(f"{np.mean(acc):.1f} ± {np.std(acc, ddof=1):.1f} ({spent:.1f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
