"""Runs of a second on forty nodes, in this process and without a thread that sends records to MLflow."""

from contextlib import nullcontext

import numpy as np

from ops.api import Experiment
from ops.config.cli import Request
from ops.config.console import Console
from ops.config.settings import LaunchSettings
from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from trainers import METHODS

N = 40
GRAPH, LABELS = planted_graph(N, 2, 4, degree=6, seed=1)
IDS = np.arange(N) + 100


def experiment(
    out, x=GRAPH.x, labels=LABELS, ids=IDS, names=("a", "b", "c", "d"), method=METHODS["hsan"], **launch
) -> Experiment:
    """A training of four epochs in OUT/a."""
    settings = method.settings(n_clusters=2, epochs=4, embedding_dim=4, update_every=2)
    options = {
        "out": str(out),
        "name": "a",
        "report": False,
        "explain": False,
        "workers": 0,
        "tracking_uri": f"sqlite:///{out}/m.db",
    }
    request = Request(settings, LaunchSettings(**options | launch), {"n_clusters": "flag"}, "a test")
    data = make_graph("small", x, GRAPH.edge_index, ids=ids, feature_names=names)
    return Experiment(method, request, data, labels, None, Console(), 1)


def without_tracking(patch) -> None:
    patch.setattr("ops.training.trainer.Tracking", lambda *args, **options: nullcontext())
