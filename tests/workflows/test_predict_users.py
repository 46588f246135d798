"""`workflows/predict.py` on real runs of HGT and TwHIN: known users, new users with and without edges, bad input."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import Shell, temporary
from safetensors.torch import load_file, save_file

from ops.data.hetero_load import load_hetero
from workflows import predict, train

SPEC = "planted:users=200,notes=120,clusters=4,mixing=0.1"
COMMON = "--n-clusters 4 --epochs 4 --batch 256 --parts 2 --workers 0 --threads 1 --no-report --quiet"
RUNS = {
    "h": f"hgt --dataset {SPEC} --hidden 16 --heads 2 --fan-out 40,40 --lr 0.01 {COMMON}",
    "t": f"twhin --dataset {SPEC} --embedding-dim 16 {COMMON}",
}
GRAPH, GROUPS = load_hetero(SPEC)
USERS = GRAPH.nodes["user"]

pytestmark = pytest.mark.slow


def write(folder, users, *, rename=lambda ids: ids, features=True, only=slice(None)):
    """Users of the graph as a tables folder: their features, and their edges to notes by the notes' ids."""
    (folder / "nodes").mkdir(parents=True)
    (folder / "edges").mkdir()
    x = {f"f{i}": USERS.x[users, i] for i in range(USERS.x.shape[1])} if features else {}
    pd.DataFrame({"id": rename(USERS.ids[users])} | x).to_csv(folder / "nodes/user.csv", index=False)
    for relation, edges in GRAPH.edges.items():
        mine = np.flatnonzero(np.isin(edges.src, users))[only]
        table = pd.DataFrame({"src": rename(USERS.ids[edges.src[mine]]), "dst": edges.dst[mine]})
        table.to_csv(folder / "edges" / f"{'__'.join(relation)}.csv", index=False)


def new_ids(ids):
    return np.array([f"new-{i}" for i in ids])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the runs and what there is to predict."""
    folder = tmp_path_factory.mktemp("users")
    here = os.getcwd()
    os.chdir(folder)
    try:
        for name, line in RUNS.items():
            train.main([*line.split(), "--name", name])
    finally:
        os.chdir(here)
    shutil.copytree(folder / "runs/h", folder / "runs/s")  # as --no-store-states and earlier versions leave it
    model = folder / "runs/s/model/model.safetensors"
    weights = {k: v for k, v in load_file(model).items() if not k.startswith(("states.", "ids."))}
    save_file(weights, model)
    write(folder / "known", np.arange(0, 200, 2))
    write(folder / "fresh", np.arange(200), rename=new_ids)
    x = pd.read_csv(folder / "fresh/nodes/user.csv")
    x.to_parquet(folder / "alone.parquet")
    return folder


@pytest.fixture
def shell(capsys, monkeypatch, world, tmp_path):
    made = Shell(capsys, monkeypatch, tmp_path)
    return lambda line: made(line, predict.main, "workflows/predict.py")


def predicted(shell, line):
    ended = shell(f"{line} --out out.parquet --json")
    assert ended.code == 0, ended.err
    return pd.read_parquet("out.parquet"), {**json.loads(ended.out), "said": ended.err}


def purity(clusters, groups):
    """The share of users in the cluster that most of their group are in."""
    table = np.zeros((4, 4))
    np.add.at(table, (groups, clusters), 1)
    return table.max(1).sum() / len(groups)


@pytest.mark.parametrize(("run", "least"), [("h", 0.9), ("t", 0.6)])
def test_known_users_are_matched_by_id_and_mostly_stay(world, shell, run, least):
    found, summary = predicted(shell, f"{world}/runs/{run} --data {world}/known --batch-rows 33")
    assert found.columns.tolist() == ["id", "cluster", "confidence", "vector"]
    assert found.id.tolist() == USERS.ids[::2].tolist()
    assert (summary["rows"], summary["known"], summary["new"], summary["without_edges"]) == (100, 100, 0, 0)
    assert "100 users: 100 known to " in summary["said"]
    # training hid some of these edges: all may differ a little
    assert summary["changed"] <= (1 - least) * 100
    assert np.bincount(found.cluster, minlength=4).tolist() == summary["sizes"]
    assert pq.read_schema("out.parquet").field("vector").type.list_size == 16


def test_new_users_are_placed_by_their_edges_better_than_by_features_alone(world, shell):
    with_edges, told = predicted(shell, f"{world}/runs/h --data {world}/fresh")
    alone, bare = predicted(shell, f"{world}/runs/h --data {world}/alone.parquet")
    assert (told["known"], told["new"], bare["without_edges"]) == (0, 200, 200)
    assert told["edges"] == sum(e.count for e in GRAPH.edges.values())
    assert "200 users have no edge that counts: 200 placed by features alone" in bare["said"]
    assert purity(with_edges.cluster, GROUPS["user"]) > purity(alone.cluster, GROUPS["user"])


def test_twhin_needs_no_features_and_says_who_has_no_edges(world, shell, tmp_path):
    write(tmp_path / "few", np.arange(50), features=False, only=slice(0, 60))
    found, summary = predicted(shell, f"{world}/runs/t --data few")
    none = summary["without_edges"]
    assert 0 < none < 50
    assert (
        f"{none} users have no edge that counts: nothing tells where {none} belong, their confidence is 0"
        in (summary["said"])
    )
    assert (found.confidence == 0).sum() == none
    (tmp_path / "few/nodes/user.csv").unlink()
    (tmp_path / "few/nodes").rmdir()
    again, summary = predicted(shell, f"{world}/runs/t --data few")
    assert summary["rows"] == 50 - none
    same = found[found.confidence > 0]
    assert again.id.tolist() == same.id.tolist()
    np.testing.assert_allclose(np.stack(again.vector), np.stack(same.vector), atol=1e-6)


def test_the_grown_graph_as_a_whole_is_data_too(world, shell):
    _, summary = predicted(shell, f"{world}/runs/t --data {SPEC}")
    assert summary["known"] == 200
    assert "features of users are not used: the model places them by their edges" in summary["said"]


def test_the_registered_model_takes_rows_of_edges(nursery, world, shell, tmp_path):
    uri = f"sqlite:///{world}/runs/mlflow.db"
    x = pd.read_csv(world / "known/nodes/user.csv")
    edges = [
        pd.read_csv(p).assign(relation=p.stem.split("__")[1]) for p in sorted((world / "known/edges").glob("*.csv"))
    ]
    rows = x.merge(pd.concat(edges), left_on="id", right_on="src").rename(columns={"id": "user", "dst": "note"})
    rows.drop(columns="src").to_parquet("rows.parquet")
    code = f"""
import mlflow, pandas as pd
from workflows import predict
command = ["models:/tessera-hgt@last", "--tracking-uri", {uri!r}, "--data", {str(world / "known")!r}]
predict.main([*command, "--out", "registered.parquet", "--json"])
mlflow.set_tracking_uri({uri!r})
model = mlflow.pyfunc.load_model("models:/tessera-hgt@last")
rows = pd.read_parquet("rows.parquet")
model.predict(rows).to_parquet("pyfunc.parquet")
bare = rows.drop_duplicates("user").assign(note=None, relation=None)
print(len(model.predict(bare)))
try:
    model.predict(rows.assign(note=-5))
except Exception as error:
    print(type(error).__name__, error)
"""
    ended = nursery.run([], code=code, folder=tmp_path)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    summary = json.loads(lines[0])
    assert (summary["known"], summary["changed"]) == (100, None)
    assert lines[1] == "100"
    assert lines[2].startswith("DataError predict: row 0: dst -5 is not among the 120 notes that the model knows")
    found, _ = predicted(shell, f"{world}/runs/h --data {world}/known")
    pd.testing.assert_frame_equal(found, pd.read_parquet(tmp_path / "registered.parquet"))
    table = pd.read_parquet(tmp_path / "pyfunc.parquet").set_index("user").loc[found.id]
    assert table.cluster.tolist() == found.cluster.tolist()
    np.testing.assert_allclose(np.stack(table.vector), np.stack(found.vector), atol=1e-5)


BAD = {
    "note": (
        "edges/user__follow_note__note.csv", "src,dst\n0,3\n0,999\n",
        r"follow_note__note.csv, row 1: dst 999 is not among the 120 notes that \S+ knows; leave the edge out",
    ),
    "features": ("nodes/user.csv", "id,a,b\n0,1,2\n", r"2 features a user, the model was trained on 32; give the same"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(world, shell, tmp_path, case):
    write(tmp_path / "new", np.arange(0, 200, 2))
    name, text, said = BAD[case]
    (tmp_path / "new" / name).write_text(text)
    refused(shell(f"{world}/runs/h --data new --out out.parquet"), 3, said, tmp_path)


def refused(ended, code, said, folder):
    assert ended.code == code, ended.err
    assert len(ended.errors) == 1
    assert pd.Series(ended.errors).str.contains(said).all(), ended.errors
    assert not (folder / "out.parquet").exists()
    assert temporary(folder) == []


@pytest.mark.parametrize(("line", "code", "said"), [
    ("{world}/runs/s --data {world}/known", 3, "keeps nothing of known nodes .* --no-store-states"),
    ("{world}/runs/h --data planted:nodes=50,clusters=2", 3, "has no nodes of the type 'user'"),
    ("{world}/runs/h --data {world}/known --known {world}/known", 2, "--known: is for attributed graphs"),
    ("{world}/runs/h --data nowhere.csv", 3, "nowhere.csv: no such file"),
    ("{world}/runs/h --data nowhere", 3, "nowhere"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line(world, shell, tmp_path, line, code, said):
    refused(shell(f"{line.format(world=world)} --out out.parquet"), code, said, tmp_path)


def test_without_a_table_of_users_features_are_missed(world, shell, tmp_path):
    write(tmp_path / "new", np.arange(10))
    (tmp_path / "new/nodes/user.csv").unlink()
    said = r"has no table of users, and the model places them by 32 features too; give nodes/user.csv"
    refused(shell(f"{world}/runs/h --data new --out out.parquet"), 3, said, tmp_path)
