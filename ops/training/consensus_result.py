"""The consensus of a finished seed: clusters of many k-means draws on its last embedding, a result beside `last`."""

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.atomic_io import Arrays
from ops.clustering.consensus import DRAWS, consensus
from ops.errors import SettingsError
from ops.evaluation.labelled import LABELLED, Evaluator
from ops.results.schema import Numbers
from ops.training.experiment import judges_of

LARGEST_ROWS, LARGEST_K = 20_000, 100  # beyond, draws would take minutes


def applies(experiment: AnyExperiment) -> bool:
    """Whether a run has a consensus: nodes of attributed graphs, where the draws take seconds."""
    return experiment.method.kind == "graph" and experiment.data.n_rows <= LARGEST_ROWS and experiment.k <= LARGEST_K


def check_result(experiment: AnyExperiment) -> None:
    """Raise SettingsError for `--result consensus` where a run has none."""
    if experiment.launch.result == "consensus" and not applies(experiment):
        raise SettingsError(
            f"--result consensus: is for attributed graphs of up to {LARGEST_ROWS:,} nodes and {LARGEST_K} clusters; "
            f"{experiment.method.name} on {experiment.data.name} has --result last"
        )


def consensus_of(
    experiment: AnyExperiment, seed: int, embedding: NDArray[np.float32]
) -> tuple[Arrays, dict[str, float] | None]:
    """(arrays `consensus` and `agreement` [N], scores) of the last embedding [N, D]; nothing where none applies."""
    if not applies(experiment):
        return {}, None
    clusters, agreement = consensus(torch.from_numpy(embedding), experiment.k, (seed, DRAWS))
    judges = judges_of(experiment)
    assert judges is not None, "a process of its own has all rows"
    return {"consensus": clusters, "agreement": agreement}, judges.unlabelled(clusters, {}) | judges.evaluator(clusters)


def scored_again(scores: Numbers, clusters: NDArray[np.int64], labels: NDArray[np.int64] | None) -> Numbers:
    """The scores of a consensus by other labels [N]."""
    return {k: v for k, v in scores.items() if k not in LABELLED} | Evaluator(labels)(clusters)
