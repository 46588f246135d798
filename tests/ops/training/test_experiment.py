"""What is said of the data before anything is decided by it."""

import numpy as np
from small_run import GRAPH, N

from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.settings import LaunchSettings
from ops.training.experiment import build_experiment, plan
from trainers import METHODS


def test_notes_come_before_k_is_chosen_by_what_they_warn_of(tmp_path, capsys):
    rows = [f"{i},{x[0]},{1000 * x[1]}" for i, x in enumerate(GRAPH.x)]
    (tmp_path / "table.csv").write_text("\n".join(["id,small,large", *rows]))
    assert len(rows) == N
    argv = ["--dataset", str(tmp_path / "table.csv"), "--knn", "5", "--n-clusters", "auto", "--out", str(tmp_path)]
    request = resolve(argv, METHODS["hsan"], LaunchSettings, tmp_path, "train.py hsan")
    plan(build_experiment(METHODS["hsan"], request, Console()), None)
    said = capsys.readouterr().out
    assert said.count("'large' holds over 90 % of the variance") == 1
    assert said.index("90 % of the variance") < said.index("K = ")


def test_most_nodes_without_an_edge_is_a_warning(tmp_path, capsys):
    np.save(tmp_path / "features.npy", GRAPH.x)
    (tmp_path / "edges.csv").write_text("source,target\n0,1\n")
    argv = ["--dataset", str(tmp_path), "--n-clusters", "2", "--out", str(tmp_path), "--quiet"]
    request = resolve(argv, METHODS["hsan"], LaunchSettings, tmp_path, "train.py hsan")
    plan(build_experiment(METHODS["hsan"], request, Console(quiet=True)), None)
    assert f"warning: {N - 2} isolated nodes; that is most of them: do the edges" in capsys.readouterr().err
