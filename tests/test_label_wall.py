"""No label reaches training or selection: with other labels, or none, everything but the scores is bit-identical."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from ops.atomic_io import read_json
from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.settings import LaunchSettings
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import Interrupted
from ops.evaluation.labelled import LABELLED
from ops.training.experiment import Session, build_experiment, identity
from ops.training.trainer import fit, run_experiment
from trainers import hsan

pytestmark = pytest.mark.slow
K, ROWS = 3, 60
GRAPH, TRUE = planted_graph(ROWS, K, 12, separation=1.5, mixing=0.3)
LABELS = {
    "true": TRUE,
    "shuffled": np.random.default_rng(1).permutation(TRUE),
    "renamed": np.array(["c", "a", "b"])[TRUE],
    "one class": np.zeros(ROWS, dtype=np.int64),
    "a class a row": np.arange(ROWS),
    "none": None,
}
FLAGS = f"--n-clusters {K} --epochs 10 --embedding-dim 8 --lr 0.01 --threads 1 --no-report --quiet --seeds 2"
# Differ between any two runs: time, memory and place.
TIMES = ("sys/", "seconds", "cpu_seconds", "verdict", "peak", "finished", "command", "paths", "planned")


def input_folder(place, labels):
    """The same features and edges, with these labels."""
    place.mkdir()
    np.save(place / "features.npy", GRAPH.x)
    np.save(place / "edges.npy", GRAPH.edge_index)
    if labels is not None:
        np.save(place / "labels.npy", labels)
    return place


def job_on(place, name):
    """A job as the command makes it, on `LABELS[name]`; the data set's own name is the same for all."""
    (place / name).mkdir()
    folder = input_folder(place / name / "graph", LABELS[name])
    argv = ["--dataset", str(folder), "--out", str(place / name / "runs"), *FLAGS.split()]
    return build_experiment(
        hsan.METHOD, resolve(argv, hsan.METHOD, LaunchSettings, place, "train.py hsan"), Console(quiet=True)
    )


def without_scores(value):
    """A JSON value without scores that need labels, times, memory and the input's place, at any depth."""
    if isinstance(value, dict):
        gone = {*LABELLED, *(f"eval/{k}" for k in LABELLED), "oracle", "spec", "given"}
        return {k: without_scores(v) for k, v in value.items() if k not in gone and not k.startswith(TIMES)}
    return [without_scores(v) for v in value] if isinstance(value, list) else value


def assert_same_json(left, right):
    assert without_scores(left) == without_scores(right)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run for each kind of labels: name -> (job, folder)."""
    place, jobs = tmp_path_factory.mktemp("wall"), {}
    for name in LABELS:
        job = job_on(place, name)
        # as part of a study: which would send its records to MLflow, which is no part of this test
        jobs[name] = job, run_experiment(job, place / name / "runs", place / name)[0]
    return jobs


@pytest.fixture(params=[name for name in LABELS if name != "true"])
def pair(request, runs):
    """(folder of the run on the true labels, folder of the run on others)."""
    return runs["true"][1], runs[request.param][1]


def test_the_labels_do_differ_and_are_scored(runs):
    accuracy = {name: json.loads((folder / "result.json").read_text())["last"] for name, (_, folder) in runs.items()}
    assert accuracy["true"]["acc"]["mean"] == accuracy["renamed"]["acc"]["mean"]
    assert accuracy["true"]["acc"]["mean"] > accuracy["shuffled"]["acc"]["mean"]
    assert "acc" not in accuracy["none"]
    first, last = (np.load(runs["true"][1] / "seed-0" / "assignments.npz")[k] for k in ("selected", "last"))
    assert len(set(last.tolist())) == K
    assert first.shape == last.shape == (ROWS,)


def test_identity_and_name_do_not_depend_on_labels(runs):
    assert len({folder.name for _, folder in runs.values()}) == 1
    assert all(identity(job) == identity(runs["true"][0]) for job, _ in runs.values())
    assert re.fullmatch(r"hsan-graph-[0-9a-f]{8}", runs["true"][1].name)


def test_the_same_files_are_written(pair):
    left, right = ({str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in pair)
    assert left == right


def test_assignments_are_bit_identical(pair):
    left, right = (pq.read_table(folder / "assignments.parquet") for folder in pair)
    assert left.equals(right)
    assert (pair[0] / "assignments.parquet").read_bytes() == (pair[1] / "assignments.parquet").read_bytes()
    for seed in ("seed-0", "seed-1"):
        left, right = ((folder / seed / "assignments.npz").read_bytes() for folder in pair)
        assert left == right  # last, confidence and selected


def test_models_are_bit_identical(pair):
    for model in ("model", "seed-0/model", "seed-1/model"):
        for file in ("model.safetensors", "settings.json"):
            assert (pair[0] / model / file).read_bytes() == (pair[1] / model / file).read_bytes()


def test_figures_hold_the_same_but_for_the_labels(pair):
    for seed in ("seed-0", "seed-1"):
        left, right = (dict(np.load(folder / seed / "figures.npz", allow_pickle=False)) for folder in pair)
        left.pop("label")
        right.pop("label", None)
        assert left.keys() == right.keys()
        for key, array in left.items():
            assert array.tobytes() == right[key].tobytes(), key


def test_history_and_results_differ_in_scores_alone(pair):
    assert_same_json(*(json.loads((folder / "result.json").read_text()) for folder in pair))
    for seed in ("seed-0", "seed-1"):
        assert_same_json(*(json.loads((folder / seed / "result.json").read_text()) for folder in pair))
        assert_same_json(*(lines(folder / seed / "history.jsonl") for folder in pair))
    assert (pair[0] / "run.json").read_bytes() == (pair[1] / "run.json").read_bytes()


def stopped(place, name, after):
    """The checkpoint of a training on `LABELS[name]` that was asked to stop after `after` reports."""
    job, reports = job_on(place, name), []

    def stop():
        reports.append(1)
        return len(reports) >= after

    with pytest.raises(Interrupted):
        fit(job, Session(job.data), place / name / "run", 0, stop)
    return sorted((place / name / "run" / "seed-0" / "checkpoints").glob("epoch-*"))


@pytest.mark.parametrize("after", [1, 6])
def test_checkpoints_are_bit_identical_but_for_the_scores_in_their_history(tmp_path, after):
    left = stopped(tmp_path, "true", after)
    assert left
    for name in ("shuffled", "a class a row", "none"):
        right = stopped(tmp_path, name, after)
        assert [p.name for p in left] == [p.name for p in right]
        for one, other in zip(left, right, strict=True):
            assert {p.name for p in one.iterdir()} == {p.name for p in other.iterdir()}
            for tensors in one.glob("*.safetensors"):
                assert tensors.read_bytes() == (other / tensors.name).read_bytes()
                assert load_file(tensors)
            assert_same_json(read_json(one / "shared.json"), read_json(other / "shared.json"))


def test_this_test_would_notice():
    assert without_scores({"a": [{"acc": 1, "loss": 2, "eval/acc": 3}]}) == {"a": [{"loss": 2}]}
    with pytest.raises(AssertionError):
        assert_same_json({"a": [1, {"loss": 2}]}, {"a": [1, {"loss": 3}]})
