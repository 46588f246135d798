"""`workflows/tune_hgt.py` with a real Ray, and what it leaves in the report, the comparison and MLflow's figures."""

import json
import re

import pytest
from processes import RAY

from ops.data.hetero_load import load_hetero
from ops.errors import SettingsError
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from ops.reporting.compare import compare, comparison_table
from workflows import train, tune_hgt

SPEC = "planted:users=120,notes=80,clusters=4"
TINY = ["--hidden", "8", "--heads", "2", "--fan-out", "3,3", "--epochs", "2", "--threads", "1", "--no-explain"]


@pytest.mark.slow
def test_a_search_ranks_by_recall_and_tells_it_everywhere(nursery, tmp_path):
    argv = ["--dataset", SPEC, *TINY, "--trials", "2", "--seeds", "1", "--concurrent", "1", "--no-prune",
            "--cluster", "som", "--out", str(tmp_path), "--name", "study"]  # fmt: skip
    ended = nursery.run(argv, program="tune_hgt", imports=RAY)
    assert ended.code == 0, ended
    assert "searching temperature, hardness, neg_num, lr: 2 trials, ranked by tune/score" in ended.out
    assert re.search(r"(?m)^ranked by tune/score, Recall@50 of validation pairs; ", ended.out)
    assert re.search(r"(?m)^hgt \+ SOM  ", ended.out)
    study = tmp_path / "study"
    trials = json.loads((study / "trials.json").read_text())
    assert all(t["score"] == t["metrics"]["recall_at_50"] for t in trials["trials"])
    assert [(t["status"], t["epochs"]) for t in trials["trials"]] == [("finished", 2)] * 2
    assert "2 trials, ranked by tune/score, here Recall@50" in (study / "report.html").read_text()
    assert {"som", "trials", "curves"} <= {path.stem for path in (study / "figures").iterdir()}
    logged = json.loads((study / "best" / "status.json").read_text())["metrics"]
    result = json.loads((study / "best" / "result.json").read_text())
    assert logged["links/auc"] == result["links"]["auc"]["mean"]
    own = next(row for row in result["recall"]["rows"] if row["name"] == "hgt + SOM")
    assert logged["test/recall_at_50"] == own["metrics"]["recall@50"]["mean"]
    assert all(row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"] for row in result["recall"]["rows"])
    assert "hgt + SOM is " in result["verdict"]
    assert "user-kNN on interactions" in comparison_table(compare([study]))
    with pytest.raises(SettingsError, match=r"is another run: prune \(False there, not set now\) differ; give another"):
        tune_hgt.main([word for word in argv if word != "--no-prune"])


@pytest.mark.slow
def test_a_graph_partitioned_before_cannot_be_searched_where_nothing_is_hidden(untracked, tmp_path):
    graph, _ = load_hetero(SPEC)
    partition_in_memory(graph, tmp_path / "parts", PartitionRequest(2, "hash"))
    given = ["--dataset", str(tmp_path / "parts"), "--n-clusters", "4", *TINY, "--out", str(tmp_path), "--quiet",
             "--holdout", "none"]  # fmt: skip
    with pytest.raises(SettingsError, match="was partitioned before, nothing is hidden from it to rank trials by"):
        tune_hgt.main(given)
    train.main(["hgt", *given, "--no-report", "--name", "run"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["verdict"].startswith("no baseline and no recall")
    assert len(list((tmp_path / "run" / "embeddings").glob("part-*.parquet"))) == 2
    assert "recall" not in result
