"""How far the choice without labels is from the best by labels: `python tests/bench/auto.py cora bat wine ...`.

Labels score the candidates afterwards; the choice sees none. A line a data set, means over three seeds, at once; the
mean gaps at the end.
`wine` and `breast_cancer` are scikit-learn's, columns standardised; tables get their 10 nearest neighbours.
"""

import sys
import time
from collections import Counter

import numpy as np
import torch

from ops.clustering.linear import LinearMethod
from ops.data.load import load
from ops.evaluation.auto import choose
from ops.evaluation.labelled import scores
from ops.evaluation.quick import DEGREE, QuickClusterings

SEEDS = 3
RULES = ("chosen", "by modularity", "by silhouette", "m-s2cag T = 10", "degree")


def data_of(name, folder="/tmp"):
    if name in ("wine", "breast_cancer"):
        from sklearn import datasets

        table = getattr(datasets, f"load_{name}")()
        x = (table.data - table.data.mean(0)) / table.data.std(0)
        np.savez(f"{folder}/{name}.npz", x=x.astype(np.float32), y=table.target)
        return load(f"{folder}/{name}.npz", knn=10)
    return load(name, knn=10) if name in ("digits", "usps") else load(name)


def of_seed(data, labels, seed):
    """(name of the choice, ACC in percent of each rule and of the best candidate by labels) of one seed."""
    k = len(np.unique(labels[labels >= 0]))
    choice = choose(data, k, seed)
    acc = [100 * scores(labels, c.clusters[seed])["acc"] for c in choice.candidates]
    quick = QuickClusterings(data, k, judged=False)
    fixed, degree = (quick.cluster(m, seed) for m in (LinearMethod("m-s2cag", 10, "tfidf"), DEGREE))
    linear = [i for i, c in enumerate(choice.candidates) if c.method != DEGREE]
    by = [max(linear, key=lambda i: choice.candidates[i].indices[index]) for index in ("modularity", "silhouette")]
    values = [acc[choice.candidates.index(choice.chosen)], *(acc[i] for i in by)]
    values += [100 * scores(labels, each)["acc"] for each in (fixed, degree)]
    print(f"  {choice.reasons[0]}", file=sys.stderr, flush=True)
    return choice.chosen.name, [*values, max(*acc, values[-1])]


def row(name):
    """The mean distances of each rule from the best candidate by labels; prints the line."""
    data, labels = data_of(name)
    began = time.process_time()
    each = [of_seed(data, labels, seed) for seed in range(SEEDS)]
    spent = (time.process_time() - began) / SEEDS
    names = Counter(chosen for chosen, _ in each)
    chosen = "; ".join(f"{name} ({count})" if len(names) > 1 else name for name, count in names.most_common())
    *values, best = np.mean([values for _, values in each], axis=0)
    print(f"| {name} | {chosen} | {' | '.join(f'{v:.1f}' for v in values)} | {best:.1f} | {spent:.0f} |", flush=True)
    return [best - v for v in values]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"| data | choice | {' | '.join(RULES)} | best by labels | CPU-s |", flush=True)
    gaps = np.mean([row(name) for name in sys.argv[1:]], axis=0)
    print(f"| mean gap | | {' | '.join(f'{gap:.1f}' for gap in gaps)} | | |")
