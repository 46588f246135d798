"""What a run shows to others: secrets of its environment and flags in nothing that it leaves or prints, and no open
port but on loopback addresses, from its start to its end."""

import json
import shutil

import pytest
from planted_secrets import KEYS, ODBC, QUOTED, Runner, assert_nothing, contents, ray_sessions
from s3_world import BUCKET, KEY, SECRET

from ops.storage import lease, object_store, run_dir
from ops.tuning.remote_trials import Trials
from workflows import compare, report

pytestmark = pytest.mark.slow

SHORT = ["--threads", "1", "--epochs", "4", "--embedding-dim", "8", "--no-explain"]
GRAPH = ["--dataset", "planted:nodes=300,clusters=3"]


@pytest.fixture
def ray_folder():
    with ray_sessions() as folder:
        yield folder


@pytest.fixture
def run(nursery, tmp_path, ray_folder):
    return Runner(nursery, tmp_path, ray_folder)


def test_a_search_whose_trials_need_the_keys_ends_in_the_bucket_and_is_read_from_there(
    run, tmp_path, ray_folder, s3, capsys
):
    """Trials, and the workers that they start, write to the bucket with the keys that they inherit."""
    out, scratch = f"s3://{BUCKET}/secret", tmp_path / "scratch"
    argv = [*GRAPH, *SHORT, "--trials", "1", "--concurrent", "1", "--seeds", "1", "--no-prune", "--workers", "1",
            "--search", "lr", "--tracking-uri", QUOTED, "--out", out, "--scratch", str(scratch),
            "--name", "study"]  # fmt: skip
    empty = {name: "" for name in KEYS if name.startswith("AWS")}  # the server knows no session's token
    ended = run("tune_hsan", *argv, listeners=("TrainWorker", "raylet"), **(empty | s3.environment))
    assert ended.code == 0, ended
    said = ended.out + ended.err
    assert "records in MLflow at http://***@127.0.0.1:1" in said or "MLflow at http://***@127.0.0.1:1 cannot be" in said
    assert f"report: {out}/study/report.html" in ended.out
    assert list(ray_folder.glob("**/logs/*runtime_env*"))
    keys = s3.keys("secret/study/")
    assert_nothing(contents(tmp_path, ray_folder) | {key: s3.get(key) for key in keys}, KEY, SECRET)
    trials = json.loads(s3.get("secret/study/trials.json"))["trials"]
    assert [trial["status"] for trial in trials] == ["finished"]
    for trial in trials:
        assert json.loads(s3.get(f"secret/study/{trial['trial']}/trial.json"))["metrics"] == trial["metrics"]
    names = ("report.html", "best/result.json", "best/assignments.parquet")
    assert {f"secret/study/{name}" for name in names} <= set(keys)
    assert any(k.startswith("secret/study/ray/experiment_state") for k in keys)
    assert not [k for k in keys if k.endswith(lease.LEASE_FILE) or "checkpoints" in k]
    shutil.rmtree(scratch)
    again = run("tune_hsan", *argv, **(empty | s3.environment))
    assert "finished on" in again.out, "another machine knows it"
    # what the driver copies of trials that ran elsewhere
    study, there = tmp_path / "driver", object_store.parse(f"{out}/study")
    study.mkdir()
    followed = Trials(study, there)
    followed.pull(records=True)
    assert {p.name for p in study.rglob("*") if p.is_file()} == {"history.jsonl", "status.json", run_dir.LOCK_FILE}
    followed.pull()
    assert len(list(study.glob("trial-*/trial.json"))) == 1
    local = next(study.glob("trial-*"))  # as if it had run here: what is here is not touched any more
    mark = s3.get(f"secret/study/{local.name}/{run_dir.MARK_FILE}").decode()
    (local / run_dir.MARK_FILE).write_text(json.dumps({"id": mark}))
    (local / "trial.json").write_text("newer")
    Trials(study, there).pull()
    assert (local / "trial.json").read_text() == "newer"
    report.main([f"{out}/study"])
    assert capsys.readouterr().out.strip() == f"{out}/study/report.html"
    compare.main([f"{out}/study", f"{out}/study/best", "--out", str(tmp_path / "compare.html")])
    acc = json.loads(s3.get("secret/study/best/result.json"))["last"]["acc"]["mean"]
    assert capsys.readouterr().out.count(f"{100 * acc:.1f}") >= 2


@pytest.mark.parametrize("uri", [QUOTED, ODBC])  # SIGNED: test_partition_graph; PASSWD: test_users_faults
def test_a_model_and_a_server_that_cannot_be_reached(run, tmp_path, uri):
    ended = run("predict", "models:/x@y", "--data", "digits", "--out", "p", "--tracking-uri", uri)
    assert ended.code in (2, 3, 6), ended
    if uri == QUOTED:
        assert run("train", "hsan", *GRAPH, *SHORT, "--tracking-url", uri).code == 2  # no such flag
    ended = run("train", "hsan", *GRAPH, *SHORT, "--require-tracking", f"--tracking-uri={uri}")
    assert ended.code == 6, ended
    assert_nothing(contents(tmp_path), least=3)  # nothing has begun: the output, the run's folder, its lock
