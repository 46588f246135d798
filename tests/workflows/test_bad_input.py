"""Every wrong input: its exit code, one line that says what to do, nothing half-written, no work begun."""

import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from commands import TINY, Shell, temporary
from processes import TRAIN, environment

from trainers import METHODS
from workflows import tune_hsan

ALLOWED = ", ".join(METHODS)
X, EDGES, Y = np.eye(6), np.array([[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]), np.array([0, 0, 0, 1, 1, 1])


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path):
    return Shell(capsys, monkeypatch, tmp_path)


def write_inputs(folder):
    """Data files, configurations and places that the table below names."""

    def graph(name, **changes):
        arrays = {"x": X, "edge_index": EDGES, "y": Y} | changes
        np.savez(folder / name, **{k: v for k, v in arrays.items() if v is not None})

    nan = X.copy()
    nan[1, 2] = np.nan
    graph("good.npz")
    graph("nolabels.npz", y=None)
    graph("nan.npz", x=nan)
    graph("outside.npz", edge_index=EDGES + 1)
    graph("table.npz", edge_index=None)
    graph("objects.npz", x=np.array([[None] * 6] * 6))
    (folder / "text.npz").write_text("hello, world\n")
    (folder / "wrong.yaml").write_text("epochs: true\n")
    (folder / "file").write_text("x")
    (folder / "csv").mkdir()
    (folder / "csv" / "features.csv").write_text("id,a\nu,1\nv,2\nw,3\n")
    (folder / "csv" / "edges.csv").write_text("source,target\nu,v\nv,q\n")
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "thesis.tex").write_text("years")


SETTINGS = [
    ("", rf"METHOD: got nothing; allowed: {ALLOWED}$"),
    ("hsam", rf"METHOD: got hsam; allowed: {ALLOWED}; nearest known: hsan$"),
    ("hsan --temprature 1", r"--temprature: unknown flag or value; nearest known: --temperature; "),
    ("hsan --protocol published --gradients standard", r"--protocol published sets gradients=accumulate: got "),
    ("hsan --config wrong.yaml", r"wrong\.yaml: epochs: got True; "),
    ("hsan --dataset good.npz --n-clusters 1", r"--n-clusters 1: give at least 2"),
    ("hsan --dataset nolabels.npz", r"nolabels has no labels to count: give --n-clusters K or --n-clusters auto$"),
    ("hsan --dataset good.npz --knn 3", r".*--knn"),
    ("hgt --dataset planted:users=200,clusters=2 --knn 3", r"--knn 3: is for attributed graphs and feature tables"),
    (f"{TINY} --skip-damaged", r"--skip-damaged: is for images; hsan does not take it$"),
    ("hsan --workers=-1", r"--workers -1: "),
    ("hsan --workers 1000000000", r"--workers 1000000000: allowed are auto, 0 .* and up to [0-9,]+ of "),
    (f"{TINY} --out file", r"--out file: cannot be written \("),
    (f"{TINY} --name a/b", r"--name 'a/b': allowed are letters, digits and "),
    (f"{TINY} --name mine", r"runs/mine: holds files that are no run's \(thesis\.tex\); "),
    (f"{TINY} --name mine --fresh", r"runs/mine: holds files that are no run's \(thesis\.tex\); "),
    (f"{TINY} --tracking-uri ftp://h/x", r"tracking URI 'ftp://h/x' is of no kind that MLflow takes; give "),
    (f"{TINY} --tracking-uri sqlite:///file/x.db", r"tracking URI .*cannot be made"),
]
DATA = [
    ("missing.npz", r"missing\.npz: no such file or folder"),
    ("text.npz", r"text\.npz: is named \.npz but holds text; "),
    ("csv", r"csv/edges\.csv, row 1: target .q. is not among the 3 node ids"),
    ("nan.npz", r"nan\.npz: features hold 1 NaN values, the first at row 1, column 2; "),
    ("objects.npz", r"objects\.npz: .*pickle"),
    ("outside.npz", r"outside\.npz: edge 4 is \(5, 6\): ids must be in 0\.\.5 \(N = 6\)"),
    ("good.npz --n-clusters 7", r"--n-clusters 7: the data has 6 rows, and a cluster needs at least one$"),
    ("table.npz --knn 6", r"--knn: n_neighbors=6 must be < n_nodes=6"),
]
RESOURCES = [
    (f"{TINY} --memory-limit 0.1", r"the training is planned to need \d\.\d\d GiB, there are 0\.10 GiB: lower "),
    (f"{TINY} --pair-memory 0 --pair-storage float", r"paper pair weights as float need "),
]
TABLE = (
    [(2, line, message) for line, message in SETTINGS]
    + [(3, f"hsan --dataset {rest}", message) for rest, message in DATA]
    + [(4, line, message) for line, message in RESOURCES]
)


@pytest.mark.parametrize(("code", "line", "message"), TABLE, ids=[f"{c} {line}" for c, line, _ in TABLE])
def test_wrong_input_is_one_line_and_its_exit_code(shell, tmp_path, code, line, message):
    write_inputs(tmp_path)
    ended = shell(line)
    assert len(ended.errors) == 1, ended.err
    assert re.match(f"error: (?:.*/)?(?:{message})", ended.errors[0]), ended.errors[0]
    assert ended.code == code
    assert ended.err.splitlines() == ended.errors
    assert "Traceback" not in ended.out + ended.err
    assert temporary(tmp_path) == []
    begun = [
        str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.name in ("mlflow.db", "status.json", "seed-0")
    ]
    assert begun == []
    assert [p.name for p in (tmp_path / "runs" / "mine").iterdir() if p.name != ".lock"] == ["thesis.tex"]
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(("line", "message"), [
    ("--trails 3", r"--trails: unknown flag or value; nearest known: --trials; "),
    ("--trials 0", r"--trials: got '0'; allowed: whole number in \[1, 100000\]$"),
    (
        "--search temperatur",
        r"--search temperatur: has no search domain; nearest known: temperature; can be searched: ",
    ),
    ("--search weights", r"--search weights: has no search domain"),
    (
        "--dataset planted:nodes=60,clusters=3 --objective last/speed",
        r"--objective: got 'last/speed'; allowed: tune/score or last/acc ",
    ),
])  # fmt: skip
def test_a_searchs_wrong_input(shell, tmp_path, line, message):
    ended = shell(line, tune_hsan.main, "workflows/tune_hsan.py")
    assert len(ended.errors) == 1, ended.err
    assert re.match(f"error: {message}", ended.errors[0]), ended.errors[0]
    assert ended.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_the_output(shell, tmp_path):
    (tmp_path / "small").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tessera-test", str(tmp_path / "small")]
    completed = subprocess.run(command, check=False, capture_output=True, text=True)
    if completed.returncode:
        pytest.skip(f"cannot mount a small file system here: {completed.stderr.strip()}")
    try:
        free = os.statvfs(tmp_path / "small")
        (tmp_path / "small" / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize))
        ended = shell(f"{TINY} --out small")
        assert temporary(tmp_path) == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "small")], check=True)
    assert ended.code == 4
    assert ended.err == "error: No space left on device; free some space and start the same command again\n"


@pytest.mark.slow
def test_a_real_process_ends_the_same_way(tmp_path):
    write_inputs(tmp_path)
    command = [sys.executable, str(TRAIN), "hsan", "--dataset", "nan.npz"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert re.fullmatch(r"error: nan\.npz: features hold 1 NaN values, .*\n", ended.stderr)


@pytest.mark.slow
def test_required_tracking_that_cannot_be_reached(shell, tmp_path):
    with socket.socket() as taken:  # bound, not listening: nobody answers
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = shell(f"{TINY} --require-tracking --tracking-uri {uri}")
    assert ended.code == 6
    assert len(ended.errors) == 1
    assert re.match(rf"error: MLflow at {uri} cannot be reached \(.*\); ", ended.errors[0])
    assert "Traceback" not in ended.err
    assert temporary(tmp_path) == []
    assert not list(tmp_path.rglob("seed-*"))


@pytest.mark.slow
def test_json_finished_runs_and_taken_names(nursery, shell, tmp_path):
    first = nursery.run([*TINY.split(), "--json", "--name", "one"], folder=tmp_path)
    assert first.code == 0, first.err
    assert json.loads(first.out)["seeds"] == [0]
    stored = json.loads((tmp_path / "runs" / "one" / "result.json").read_text())
    assert json.loads(first.out) == stored
    assert temporary(tmp_path) == []

    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs" / "one").rglob("*") if p.name != ".lock"}
    again = shell(f"{TINY} --name one")
    assert again.code == 0
    assert re.search(
        rf"^runs/one: finished on {stored['finished']} with seeds 0, --fresh runs it again$", again.out, re.MULTILINE
    )
    quiet = shell(f"{TINY} --name one --json --quiet")
    assert (quiet.code, json.loads(quiet.out), quiet.err) == (0, stored, "")
    summary = shell(f"{TINY} --name one --json")
    assert json.loads(summary.out) == stored
    assert "finished on" in summary.err

    other = shell(f"{TINY} --name one --beta 2 --lr 0.5")
    assert other.code == 2
    assert other.errors == [
        "error: runs/one: is another run: lr (0.001 there, 0.5 now), beta (1.0 there, 2.0 now) differ; "
        "give another --name, or --fresh"
    ]
    data = shell(f"{TINY.replace('nodes=60', 'nodes=60,seed=1')} --name one")
    assert data.code == 2
    assert data.errors == ["error: runs/one: is another run: data differ; give another --name, or --fresh"]
    assert {p: p.stat().st_mtime_ns for p in files} == files

    with socket.socket() as taken:  # bound, not listening: nobody answers
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        required = shell(f"{TINY} --name one --require-tracking --tracking-uri {uri}")
    assert required.code == 6
    assert "finished on" in required.out
    assert required.errors[0].startswith(f"error: MLflow at {uri} cannot be reached")
