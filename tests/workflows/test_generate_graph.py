"""generate_graph.py as a user's shell sees it."""

import json

import pytest
from commands import Shell

from ops.data.hetero_load import load_hetero
from workflows import generate_graph

PROGRAM = "workflows/generate_graph.py"


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    shell = Shell(capsys, monkeypatch, tmp_path)
    return lambda line: shell(line, generate_graph.main, PROGRAM)


def test_a_graph_is_made_once(run, tmp_path):
    line = "--users 60 --notes 40 --clusters 2 --mean-edges 4 --features 3 --parts 2 --out g"
    ended = run(line)
    assert ended.code == 0
    assert "user: 60 rows" in ended.out
    assert "peak memory" in ended.out
    graph, groups = load_hetero(str(tmp_path / "g"))
    same, _ = load_hetero("planted:users=60,notes=40,clusters=2,mean_edges=4,features=3")
    assert graph.digest() == same.digest()
    assert sorted(groups) == ["note", "user"]
    assert "is there already" in run(line).out
    other = run(line + " --seed 1")
    assert (other.code, other.errors) == (
        2, ["error: --out g: is not empty; give another folder, or --fresh to replace the graph"],
    )  # fmt: skip
    summary = json.loads(run(line + " --seed 1 --fresh --json").out)
    assert summary["rows"]["note"] == 40
    assert load_hetero(str(tmp_path / "g"))[0].digest() != graph.digest()


def test_the_originals_preset(run, tmp_path):
    assert run("--preset original --users 50 --out g").code == 0
    graph, groups = load_hetero(str(tmp_path / "g"))
    assert (graph.nodes["user"].count, graph.nodes["note"].count, groups) == (50, 1000, None)
    assert (tmp_path / "g" / "nodes" / "user.parquet").exists()


def test_a_homogeneous_graph(run, tmp_path):
    assert run("--homogeneous --users 200 --mean-edges 6 --clusters 2 --features 0 --out g").code == 0
    assert list(load_hetero(str(tmp_path / "g"))[0].nodes) == ["node"]


@pytest.mark.parametrize(("line", "code", "said"), [
    ("", 2, "--out: is missing"), ("--out s3://b/x", 2, "is written to a local folder only"),
    ("--out g --user 5", 2, "nearest known: --users"), ("--out g --users 1", 2, "users"),
    ("--out g --mixing 2", 2, "mixing"), ("--out g --format csv", 2, "--format"),
    ("--out g --preset original --clusters 3", 2, "--clusters: goes not with --preset original"),
    ("--out g --homogeneous --notes 3", 2, "--notes: goes not with --homogeneous"),
    ("--out g --parts 1000", 3, "--parts 1000 must be <= 600"),
    ("--out g --clusters 601", 3, "clusters=601 must be <= 600"),
    ("--out g --mean-edges 500", 2, "mean_edges=500 must be in"),
])  # fmt: skip
def test_wrong_input_is_one_line(run, tmp_path, line, code, said):
    ended = run(line)
    assert ended.code == code
    assert len(ended.errors) == 1
    assert said in ended.errors[0]
    assert list(tmp_path.iterdir()) == []
