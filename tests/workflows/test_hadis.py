"""`workflows/train.py hadis` on two Ray workers and `predict.py` with what they leave."""

import json

import pytest
from processes import RAY

TINY = ["hadis", "--dataset", "digits", "--preset", "demo", "--epochs", "2", "--hidden", "32", "--embedding-dim", "16",
        "--batch", "256", "--threads", "1", "--no-report", "--no-explain"]  # fmt: skip


@pytest.mark.slow
def test_two_workers_train_and_their_model_places_the_images_where_they_were(nursery, tmp_path):
    ended = nursery.run([*TINY, "--workers", "2", "--out", str(tmp_path), "--name", "run"], imports=RAY)
    assert ended.code == 0, ended.err
    said = ended.out
    assert "7 steps of 256 images an epoch" in said
    assert "on 2 workers of 1 thread, each sends " in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["method"] == "hadis"
    assert "k-means on pixels" in result["baselines"]
    history = [json.loads(line) for line in (tmp_path / "run" / "seed-0" / "history.jsonl").read_text().splitlines()]
    assert [h["epoch"] for h in history] == [0, 1]
    assert all(h["sys/sent_bytes"] > 0 for h in history)
    assert history[1]["tune/score"] == pytest.approx(
        (history[1]["cluster/silhouette"] + history[1]["cluster/agreement"]) / 2
    )
    argv = [str(tmp_path / "run"), "--data", "digits", "--out", str(tmp_path / "p.parquet"), "--json"]
    summary = json.loads(nursery.run(argv, program="predict").out)
    assert (summary["rows"], summary["changed"]) == (1797, 0)
