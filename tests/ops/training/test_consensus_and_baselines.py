"""Which clusterings a run's consensus is of."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from ops.api import Experiment, Result
from ops.atomic_io import save_arrays
from ops.clustering.owners import Owners
from ops.errors import SettingsError
from ops.evaluation.labelled import scores
from ops.results.arrays import ASSIGNMENTS
from ops.results.seed_rows import SeedRows
from ops.training.consensus_and_baselines import LARGEST_K, check_result, consensus_of, consensus_of_seeds
from ops.training.experiment import Judges
from ops.training.seed_run import SeedRun

N, K = 400, 3
TRUTH = np.arange(N) % K
EMBEDDING = (np.eye(K)[TRUTH] + np.arange(N)[:, None] * 1e-4).astype(np.float32)


def experiment(kind="graph", k=K, rows=N):
    method, launch = SimpleNamespace(kind=kind), SimpleNamespace(result="consensus")
    return Mock(Experiment, method=method, k=k, data=SimpleNamespace(n_rows=rows, ids=None), launch=launch)


def asked(clusterings, kind="graph", epoch=None, k=K, embedding=EMBEDDING, spherical=False):
    """The consensus of a run with these clusters at epochs 0, 10, ...; the rows of its embedding are TRUTH's."""
    judges = Judges(lambda clusters, _: {"rows": len(clusters)}, lambda clusters: {}, k, Owners.alone(N))
    run = Mock(SeedRun, assignments={10 * i: c for i, c in enumerate(clusterings)}, seed=0, judges=judges)
    check_result(experiment(kind, k))
    result = Result(TRUTH, EMBEDDING[:, 0], embedding, {}, epoch=epoch, spherical=spherical)
    return consensus_of(experiment(kind, k), run, result)


def other(seed):
    return np.random.default_rng(seed).integers(0, K, N)


@pytest.mark.parametrize(("untrained", "trained", "epoch"), [(5, 15, None), (5, 15, 190)])
def test_it_is_of_the_evaluations_up_to_the_result_but_for_the_first_quarter(untrained, trained, epoch):
    collapsed = [np.zeros(N, np.int64)] * (0 if epoch is None else 30)
    clusterings = [*(other(0) for _ in range(untrained)), *(TRUTH for _ in range(trained)), *collapsed]
    arrays, found = asked(clusterings, epoch=epoch)
    assert scores(TRUTH, arrays["consensus"])["acc"] == 1
    assert (arrays["agreement"] == 1).all()
    assert found == {"rows": N, "ari_of_each": 1.0}


def test_single_clusterings_are_told_by_their_agreement_with_the_consensus():
    each = [np.where(np.arange(N) < 10 * i, (TRUTH + 1) % K, TRUTH) for i in range(6)] * 3
    arrays, found = asked(each)
    used = each[5:]  # a quarter of 18, rounded up, is left out
    assert found["ari_of_each"] == pytest.approx(np.mean([adjusted_rand_score(arrays["consensus"], c) for c in used]))
    assert found["ari_of_each"] < 0.95


def test_draws_take_rows_at_unit_length_where_the_methods_k_means_does():
    rays = (EMBEDDING + 2) * np.linspace(1, 30, N, dtype=np.float32)[:, None]
    right = [scores(TRUTH, asked([TRUTH], embedding=rays, spherical=s)[0]["consensus"])["acc"] for s in (False, True)]
    assert right[0] < 0.9
    assert right[1] == 1


def test_a_graph_of_few_evaluations_has_that_of_draws_on_the_embedding_and_others_that_of_the_few():
    wrong = other(0)
    assert scores(TRUTH, asked([wrong] * 5)[0]["consensus"])["acc"] == 1
    for count in (1, 2, 5):
        assert scores(wrong, asked([TRUTH] + [wrong] * count, kind="images")[0]["consensus"])["acc"] == 1
    assert scores(wrong, asked([wrong], kind="images")[0]["consensus"])["acc"] == 1


def test_too_many_clusters_have_none_and_asking_for_it_is_refused():
    with pytest.raises(SettingsError, match=r"is for up to 300 clusters.* this run has 400 rows and 301 clusters"):
        asked([TRUTH], k=LARGEST_K + 1)
    with pytest.raises(SettingsError, match="67,108,864 rows times clusters"):
        check_result(experiment(rows=30_000_000))
    many = np.arange(N) % LARGEST_K
    arrays, _ = asked([many] * 40, kind="images", k=LARGEST_K)  # evenly spaced ones of more than fit
    assert scores(many, arrays["consensus"])["acc"] == 1


@pytest.mark.parametrize(("seeds", "parts"), [(10, 1), (9, 1), (10, 2)])
def test_ten_seeds_have_a_consensus_of_their_own_numbered_as_the_models_seed(tmp_path, monkeypatch, seeds, parts):
    judges = Judges(lambda clusters, _: {"rows": len(clusters)}, lambda clusters: {}, K, Owners.alone(N))
    monkeypatch.setattr("ops.training.consensus_and_baselines.judges_of", lambda experiment: judges)
    rows = SeedRows(tmp_path, tuple(range(seeds)), parts)
    for seed in rows.seeds:  # the same clusters by other numbers, and a tenth of the rows elsewhere
        clusters = np.where(np.random.default_rng(seed).random(N) < 0.1, other(seed), (TRUTH + seed) % K)
        rows.seed(seed).mkdir()
        save_arrays(rows.seed(seed) / ASSIGNMENTS, last=(TRUTH + seed) % K, consensus=clusters)
    found = consensus_of_seeds(experiment(), rows, chosen=1)
    assert (found is not None) == (tmp_path / "consensus.parquet").is_file() == (seeds == 10 and parts == 1)
    if found is not None:
        table = pd.read_parquet(tmp_path / "consensus.parquet")
        assert table["id"].tolist() == list(range(N))
        assert table["cluster"].tolist() == ((TRUTH + 1) % K).tolist()
        assert 0.9 < table["confidence"].mean() < 0.97
        assert found.means == {"rows": N}
