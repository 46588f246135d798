"""A finished run that is given corrected ids, labels or column names is scored and written anew, not trained."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from small_run import LABELS, N, experiment, without_tracking

from ops.evaluation.labelled import scores
from ops.results.arrays import seed_arrays
from ops.storage.status import HISTORY
from ops.training.trainer import run_experiment

OTHERS = np.where(np.arange(N) % 3 == 0, 1 - LABELS, LABELS)


pytestmark = pytest.mark.usefixtures("untracked")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of one seed."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        without_tracking(patch)
        run_experiment(experiment(out), out)
    return out


@pytest.fixture
def out(trained, tmp_path):
    shutil.copytree(trained / "a", tmp_path / "a")
    return tmp_path


def history(out, seed=0) -> list[dict]:
    return [json.loads(line) for line in (out / f"a/seed-{seed}" / HISTORY).read_text().splitlines()]


def test_the_same_inputs_change_nothing(out, capsys):
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    run_experiment(experiment(out), out)
    said = capsys.readouterr().out
    assert "finished on" in said
    assert "changed since" not in said
    assert before == {path: path.read_bytes() for path in before}


def test_the_clusters_of_every_baseline_are_a_table_of_the_run(out):
    table = pd.read_parquet(out / "a/baselines.parquet")
    figures = json.loads((out / "a/result.json").read_text())["baselines"]
    assert table["id"].tolist() == pd.read_parquet(out / "a/assignments.parquet")["id"].tolist()
    assert {name: scores(LABELS, table[name].to_numpy())["acc"] for name in table.columns[1:]} == {
        name: figures[name]["acc"]["mean"] for name in figures
    }


@pytest.mark.parametrize("labels", [np.where(np.arange(N) < 9, -1, OTHERS), None])
def test_other_labels_are_scored_and_nothing_is_trained(out, capsys, labels):
    model, before = (out / "a/model/model.safetensors").read_bytes(), history(out)
    first = [json.loads((out / "a" / name).read_text()) for name in ("result.json", "seed-0/result.json")]
    _, result = run_experiment(experiment(out, labels=labels), out)
    assert "labels changed since" in capsys.readouterr().out
    assert (out / "a/model/model.safetensors").read_bytes() == model
    arrays = seed_arrays(out / "a/seed-0")
    expected = {} if labels is None else scores(labels, arrays["last"])
    assert {k: result.last.means.get(k) for k in ("acc", "nmi", "f1")} == {
        k: expected.get(k) for k in ("acc", "nmi", "f1")
    }
    assert (result.oracle is None) == (labels is None)
    if labels is not None:
        best = max(record["eval/acc"] for record in history(out) if "eval/acc" in record)
        assert result.oracle.means["acc"] == best
        assert [r["epoch"] for r in history(out) if "eval/acc" in r] == [r["epoch"] for r in before if "eval/acc" in r]
        np.testing.assert_array_equal(np.load(out / "a/seed-0/figures.npz")["label"], labels)
    rest = [{k: v for k, v in record.items() if not k.startswith("eval/")} for record in before]
    assert [{k: v for k, v in record.items() if not k.startswith("eval/")} for record in history(out)] == rest
    if labels is not None:
        run_experiment(experiment(out, labels=labels), out)
        assert "changed since" not in capsys.readouterr().out
    run_experiment(experiment(out), out)  # and back
    again = [json.loads((out / "a" / name).read_text()) for name in ("result.json", "seed-0/result.json")]
    assert again[1] == first[1]
    assert again[0] | {"finished": "", "paths": {}} == first[0] | {"finished": "", "paths": {}}


@pytest.mark.parametrize("ids", [np.array([f"n{i}" for i in range(N)]), None])
def test_other_ids_are_written(out, capsys, ids):
    before = pd.read_parquet(out / "a/assignments.parquet")
    run_experiment(experiment(out, ids=ids), out)
    assert "ids changed since" in capsys.readouterr().out
    after = pd.read_parquet(out / "a/assignments.parquet")
    assert after.id.tolist() == (np.arange(N) if ids is None else ids).tolist()
    assert after.cluster.tolist() == before.cluster.tolist()


def test_other_column_names_are_in_the_model_and_the_explanation(out):
    run_experiment(experiment(out, names=("e", "f", "g", "h"), explain=True), out)
    assert json.loads((out / "a/model/settings.json").read_text())["feature_names"] == ["e", "f", "g", "h"]
    clusters = json.loads((out / "a/explain.json").read_text())["clusters"]
    assert {feature["feature"] for cluster in clusters for feature in cluster["features"]} <= set("efgh")


@pytest.mark.slow
def test_one_more_seed_never_averages_two_label_sets(out):
    _, result = run_experiment(experiment(out, labels=OTHERS, seeds=2), out)
    each = [scores(OTHERS, seed_arrays(out / f"a/seed-{seed}")["last"])["acc"] for seed in (0, 1)]
    assert result.last.metrics["acc"].values == each


@pytest.mark.slow
def test_the_consensus_stands_beside_last_and_is_written_without_training_when_asked_for(out):
    arrays = seed_arrays(out / "a/seed-0")
    for which, clusters, confidence in (("consensus", "consensus", "agreement"), ("last", "last", "confidence")):
        _, result = run_experiment(experiment(out, result=which), out)
        assert (result.result, result.consensus.means["acc"]) == (which, scores(LABELS, arrays["consensus"])["acc"])
        table = pd.read_parquet(out / "a/assignments.parquet")
        assert scores(arrays[clusters], table["cluster"].to_numpy())["acc"] == 1.0
        np.testing.assert_array_equal(table["confidence"], arrays[confidence])
    _, result = run_experiment(experiment(out, labels=OTHERS), out)
    assert result.consensus.means["acc"] == scores(OTHERS, arrays["consensus"])["acc"]
