"""`workflows/predict.py` on a real run: known rows, new rows alone or with edges to known ones, a grown graph."""

import io
import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
from commands import Shell, temporary
from grown_data import (
    ALL_ROWS,
    CLUSTERS,
    FLAGS,
    GRAPH,
    IDS,
    LABELS,
    NAMES,
    NEW_ROWS,
    OLD,
    OLD_ROWS,
    edges_among,
    edges_touching,
    write_folder,
)
from processes import Ended
from s3_world import BUCKET

from workflows import predict, train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with old/ (the data), runs/a (trained on it, two seeds) and runs/mlflow.db."""
    folder = tmp_path_factory.mktemp("predict")
    write_folder(folder / "old", OLD_ROWS, edges_among(OLD_ROWS))
    old, here = sys.argv, os.getcwd()
    os.chdir(folder)
    try:
        train.main(["hsan", "--dataset", "old", "--name", "a", "--seeds", "2", "--no-report", *FLAGS.split()])
    finally:
        sys.argv = old
        os.chdir(here)
    return folder


@pytest.fixture
def shell(capsys, monkeypatch, world, tmp_path):
    made = Shell(capsys, monkeypatch, tmp_path)
    return lambda line: made(line, predict.main, "workflows/predict.py")


def trained(world) -> pd.DataFrame:
    """id, cluster, confidence of the model's seed."""
    seed = json.loads((world / "runs/a/result.json").read_text())["model_seed"]
    table = pd.read_parquet(world / "runs/a/assignments.parquet")
    return table[table.seed == seed].drop(columns="seed").reset_index(drop=True)


def predicted(shell, line, out) -> tuple[pd.DataFrame, dict]:
    ended = shell(f"{line} --out {out} --json")
    assert ended.code == 0, ended.err
    return pd.read_parquet(out), {**json.loads(ended.out), "said": ended.err}


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert one.columns.tolist() == ["id", "cluster", "confidence"]
    assert one.id.tolist() == other.id.tolist()
    assert one.cluster.tolist() == other.cluster.tolist()
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-5)


pytestmark = pytest.mark.slow


def test_the_training_nodes_get_the_runs_own_clusters(world, shell, tmp_path):
    own = trained(world)
    table, told = predicted(shell, f"{world}/runs/a --data {world}/old", tmp_path / "p.parquet")
    same(table, own)
    assert (told["known"], told["new"], told["changed"]) == (OLD, 0, 0)
    # their feature table alone, columns in another order: features and edges come from the recorded data
    write_folder(tmp_path / "table", OLD_ROWS[::-1], names=NAMES[::-1])
    for data in ("table", "table/features.csv"):
        table, told = predicted(shell, f"{world}/runs/a --data {data} --batch-rows 7", tmp_path / "p.parquet")
        same(table, own[::-1])
        assert told["filtered_over"] == "the training data's"
    assert not temporary(tmp_path)


def test_new_rows_without_edges_come_in_pieces_each_for_itself(world, shell, tmp_path):
    write_folder(tmp_path / "new", NEW_ROWS)
    whole, told = predicted(shell, f"{world}/runs/a --data new", tmp_path / "whole.parquet")
    assert (told["known"], told["new"], told["filtered_over"]) == (0, len(NEW_ROWS), "no edges")
    assert "weight row per training node" in told["said"]
    pieces, _ = predicted(shell, f"{world}/runs/a --data new --batch-rows 7", tmp_path / "pieces.parquet")
    same(pieces, whole)
    pd.read_csv(tmp_path / "new/features.csv").to_parquet(tmp_path / "new.parquet")
    np.save(tmp_path / "new.npy", GRAPH.x[NEW_ROWS])
    same(predicted(shell, f"{world}/runs/a --data new.parquet --batch-rows 11", tmp_path / "p.parquet")[0], whole)
    from_npy, _ = predicted(shell, f"{world}/runs/a --data new.npy --batch-rows 11", tmp_path / "q.parquet")
    assert from_npy.id.tolist() == list(range(len(NEW_ROWS)))
    np.testing.assert_array_equal(from_npy.cluster, whole.cluster)


def test_edges_to_known_nodes_count_and_the_whole_grown_graph_says_the_same(world, shell, tmp_path):
    write_folder(tmp_path / "new", NEW_ROWS, edges_touching(NEW_ROWS))
    beside, told = predicted(shell, f"{world}/runs/a --data new", tmp_path / "new.parquet")
    assert told["filtered_over"] == "their own edges and the training data's"
    write_folder(tmp_path / "all", ALL_ROWS, GRAPH.edge_index)
    grown, told = predicted(shell, f"{world}/runs/a --data all", tmp_path / "all.parquet")
    assert (told["known"], told["new"]) == (OLD, len(NEW_ROWS))
    same(beside, grown[OLD:].reset_index(drop=True))
    # the clusters are the planted ones: the run's, carried over to the new nodes by their labels
    name = [np.bincount(trained(world).cluster[LABELS[:OLD] == k]).argmax() for k in range(CLUSTERS)]
    assert (grown.cluster[OLD:].to_numpy() == np.array(name)[LABELS[OLD:]]).mean() > 0.9
    alone, _ = predicted(shell, f"{world}/runs/a --data new/features.csv", tmp_path / "alone.parquet")
    assert not np.allclose(alone.confidence, beside.confidence)


def test_training_data_that_moved_or_changed(world, shell, tmp_path):
    write_folder(tmp_path / "new", NEW_ROWS, edges_touching(NEW_ROWS))
    write_folder(tmp_path / "moved", OLD_ROWS, edges_among(OLD_ROWS))
    fewer = edges_among(OLD_ROWS)
    write_folder(tmp_path / "other", OLD_ROWS, fewer[:, (fewer != 5).all(axis=0)])
    expected, _ = predicted(shell, f"{world}/runs/a --data new", tmp_path / "p.parquet")
    same(predicted(shell, f"{world}/runs/a --data new --known moved", tmp_path / "q.parquet")[0], expected)
    for line, words in {
        f"{world}/runs/a --data new --known other": "is not the data",
        f"{world}/runs/a --data new --known nowhere": "no such data set",
    }.items():
        ended = shell(f"{line} --out r.parquet")
        assert ended.code == 3
        assert len(ended.errors) == 1
        assert words in ended.err
        assert not (tmp_path / "r.parquet").exists()


def test_the_registered_model_predicts_the_same(nursery, world, shell, tmp_path):
    uri = f"sqlite:///{world}/runs/mlflow.db"
    write_folder(tmp_path / "new", NEW_ROWS, edges_touching(NEW_ROWS))
    script = f"""
import mlflow, pandas as pd
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/tessera-hsan@newest")
rows = pd.read_csv("new/features.csv", index_col="id")
model.predict(rows[rows.columns[::-1]]).reset_index().to_parquet("pyfunc.parquet")
try:
    model.predict(rows[rows.columns[1:]])
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = nursery.run([], code=script, folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "lacks f0" in ended.out
    alone, _ = predicted(shell, f"{world}/runs/a --data new/features.csv", tmp_path / "alone.parquet")
    same(pd.read_parquet(tmp_path / "pyfunc.parquet"), alone)

    def registered(model: str, uri: str, *more: str) -> Ended:
        """The command, in a process of its own: MLflow's addresses are a process's."""
        argv = [model, "--tracking-uri", uri, "--data", "new", "--out", "m.parquet", *more]
        return nursery.run(argv, program="predict", folder=tmp_path)

    ended = registered("models:/tessera-hsan@last", uri, "--known", str(world / "old"))
    assert ended.code == 0, ended.err
    expected, _ = predicted(shell, f"{world}/runs/a --data new", tmp_path / "p.parquet")
    same(pd.read_parquet(tmp_path / "m.parquet"), expected)
    for given, code in {"models:/nothing@last": 3, "models:/": 2}.items():
        ended = registered(given, uri)
        assert ended.code == code
        assert len(ended.err.splitlines()) == 1
    ended = registered("models:/tessera-hsan@last", "http://127.0.0.1:9")
    assert ended.code == 6
    assert "cannot be reached" in ended.err


def test_run_data_and_result_may_be_on_s3(world, shell, tmp_path, s3, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path / "new", NEW_ROWS, edges_touching(NEW_ROWS))
    expected, _ = predicted(shell, f"{world}/runs/a --data new", tmp_path / "p.parquet")
    for folder, key in ((world / "runs/a", "runs/a"), (tmp_path / "new", "new")):
        for path in folder.rglob("*"):
            if path.is_file():
                s3.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())
    place = f"s3://{BUCKET}"
    ended = shell(f"{place}/runs/a --data {place}/new --out {place}/found/q.parquet")
    assert ended.code == 0, ended.err
    assert f"known to {place}/runs/a" in ended.out
    same(pd.read_parquet(io.BytesIO(s3.get("found/q.parquet"))), expected)
    table, _ = predicted(shell, f"{place}/runs/a --data {place}/new/features.csv", tmp_path / "r.parquet")
    assert table.id.tolist() == expected.id.tolist()
    for line, words in {
        f"{place}/runs/b --data new": "no finished run",
        f"{place}/runs/a --data {place}/nothing": f"{place}/nothing",
    }.items():
        ended = shell(f"{line} --out x.parquet")
        assert (ended.code, len(ended.errors), words in ended.err) == (3, 1, True)


@pytest.mark.parametrize(("line", "code", "words"), [
    ("{run} --data narrow.npy --out o.parquet", 3, "5 features, the model was trained on 8"),
    ("{run} --data renamed --out o.parquet", 3, "lacks f7 and has besides g"),
    ("{run} --data far --out o.parquet", 3, "'n999' is not among the "),
    ("nowhere --data narrow.npy --out o.parquet", 3, "no such folder"),
    ("{run} --out o.parquet", 2, "--data"),
    ("{run} --data narrow.npy", 2, "--out"),
    ("{run} --data narrow.npy --out o.parquet --batch-rows 0", 2, "--batch-rows"),
    ("{run} --dta x --out o.parquet", 2, "--data"),
    ("ftp://x/y --data narrow.npy --out o.parquet", 2, "s3://BUCKET/OUT/NAME"),
])  # fmt: skip
def test_mistakes_end_in_one_line(world, shell, tmp_path, line, code, words):
    np.save(tmp_path / "narrow.npy", GRAPH.x[:, :5])
    folder = write_folder(tmp_path / "renamed", NEW_ROWS)
    text = (folder / "features.csv").read_text()
    (folder / "features.csv").write_text(text.replace("f7", "g", 1))
    write_folder(tmp_path / "far", NEW_ROWS, edges_touching(NEW_ROWS))
    with (tmp_path / "far/edges.csv").open("a") as file:
        file.write(f"{IDS[-1]},n999\n")
    ended = shell(line.format(run=world / "runs/a"))
    assert ended.code == code
    assert len(ended.errors) == 1
    assert words in ended.err
    assert not (tmp_path / "o.parquet").exists()
