"""Tracking against real MLflow: servers and drivers that are killed, what is deleted, refused, doctored or late."""

import json
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from mlflow_world import STUDY, MlflowServer, Study, check_whole, load_and_predict, rows
from processes import Ended, Nursery, until
from quick_mlflow import empty_database

from ops.atomic_io import read_json, write_json
from ops.config.tracking_uri import default_uri
from ops.distributed.apart import apart
from ops.errors import ServiceError
from ops.storage.status import HISTORY, STATUS, begin, end
from ops.tracking import store, tracker
from ops.tracking.tracker import Tracking

METRICS = "select key, step, timestamp from metrics order by key, step, timestamp"
EVERYTHING = ("metrics", "params", "tags", "runs", "model_versions", "logged_models", "inputs", "datasets")


def send(root: Path, uri: str, *, require: bool = True) -> list[str]:
    """What the same command does when all is done: MLflow gets what it lacks. Returns the lines that were said."""
    said: list[str] = []
    with Tracking(root, uri, require=require, warn=said.append):
        pass
    return said


def content(db: Path) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(rows(db, f"select * from {table}"), key=str) for table in EVERYTHING}


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch):
    """What is to be sent is sent in the end, however busy the machine is."""
    monkeypatch.setattr(tracker, "LAST", 600.0)


@pytest.fixture
def out(tmp_path):
    """An output folder with a database, as a user's second run finds it."""
    (tmp_path / "mlflow.db").write_bytes(empty_database())
    return tmp_path


@pytest.fixture
def server(out):
    server = MlflowServer(out)
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_killed_at_the_start_and_in_mid_run_loses_and_doubles_nothing(nursery, server, out):
    said: list[str] = []
    study = Study(out).start()
    with Tracking(study.root, server.uri, require=False, warn=said.append):
        study.epochs(20)
        until(lambda: said)
        assert len(said) == 1
        assert f"MLflow at {server.uri} cannot be reached (connection refused); training goes on" in said[0]
        server.start()
        until(lambda: rows(server.db, "select count(*) from metrics")[0][0] >= 240)
        assert "is back" in said[1]
        study.epochs(60, pause=0.02)
        server.kill()  # in mid-run, whatever it was doing
        study.epochs(80, pause=0.02).model()
        server.start()
        study.end(model="tessera-toy")
    assert not any("records wait in" in line for line in said), said
    check_whole(server.db, study)
    assert rows(server.db, "select name, version from model_versions") == [("tessera-toy", 1)]
    assert len(list((out / "files").rglob("report.html"))) == 1

    before = content(server.db)
    assert send(study.root, server.uri) == []
    assert content(server.db) == before, "a second sending changes nothing"
    connection = sqlite3.connect(server.db)  # MLflow forgets what it was sent: all is sent again, with the same rows
    connection.execute("delete from tags where key = 'tessera.sent'")
    connection.commit()
    connection.close()
    assert send(study.root, server.uri) == []
    assert content(server.db) == before
    predictions, refusal = load_and_predict(nursery, server.uri, out)
    assert predictions == '[["c",2,2.0],["a",0,2.0],["b",1,2.0]]'
    assert "NaN" in refusal


DRIVER = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from ops.tracking.tracker import Tracking
left = int(sys.argv[3])
def counted(call, behind):
    def method(*args, **more):
        global left
        left -= 1
        if left == 0 and not behind:
            os.kill(os.getpid(), signal.SIGKILL)
        value = call(*args, **more)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return value
    return method
for name in ("create_run", "log_batch", "log_inputs", "set_tag", "set_terminated", "log_artifact", "create_experiment",
             "create_logged_model", "log_model_artifacts", "log_outputs", "create_registered_model",
             "create_model_version", "set_registered_model_alias"):
    setattr(MlflowClient, name, counted(getattr(MlflowClient, name), sys.argv[4] == "behind"))
with Tracking(Path(sys.argv[1]), sys.argv[2], require=True, warn=print):
    pass
print("sent")
"""


def driver(nursery: Nursery, study: Study, uri: str, calls: int, side: str = "behind") -> Ended:
    """A process that sends and dies before or behind so many calls to MLflow."""
    return nursery.run([str(study.root), uri, str(calls), side], code=DRIVER)


@pytest.mark.slow
def test_a_driver_killed_at_call_after_call_is_completed_by_the_same_command(nursery, out):
    study = Study(out).start().epochs(100).model().end(model="tessera-toy", metrics={"last/acc": 0.5}, step=99)
    for calls, side in ((1, "behind"), (2, "behind"), (4, "before"), (6, "behind"), (5, "behind"), (3, "before")):
        ended = driver(nursery, study, default_uri(out), calls, side)
        assert ended.code == -signal.SIGKILL, ended
    ended = driver(nursery, study, default_uri(out), 10_000)
    assert (ended.code, ended.out) == (0, "sent\n"), ended
    check_whole(out / "mlflow.db", study)
    assert rows(out / "mlflow.db", "select name, version from model_versions") == [("tessera-toy", 1)]
    assert rows(out / "mlflow.db", "select count(*) from logged_models") == [(1,)]


@pytest.mark.slow
def test_two_first_runs_at_once_share_a_database_that_neither_a_race_nor_a_kill_spoils(nursery, tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "connect", store.connect)  # makes it itself
    studies = [Study(tmp_path / name).start().epochs(20).end() for name in "ab"]
    uri = default_uri(tmp_path)
    nursery.start([str(studies[0].root), uri, "0", ""], code=DRIVER)
    until((tmp_path / "mlflow.db.part").exists)
    assert not (tmp_path / "mlflow.db").exists()
    nursery.kill()  # it is making the database
    nursery.start([str(studies[0].root), uri, "0", ""], code=DRIVER)
    assert send(studies[1].root, uri) == []
    assert nursery.wait().out == "sent\n"
    assert rows(tmp_path / "mlflow.db", METRICS) == sorted(studies[0].recorded() + studies[1].recorded())
    assert rows(tmp_path / "mlflow.db", "select count(*) from runs where status = 'FINISHED'") == [(4,)]


@pytest.mark.slow
@pytest.mark.parametrize("deleted", ["experiment", "run"])
def test_what_was_deleted_in_mlflow_is_said_with_its_remedy_and_sent_once_it_is_restored(out, deleted, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr(tracker, "PATIENCE", 1.0)
    uri, study = default_uri(out), Study(out).start().epochs(2)
    assert send(study.root, uri) == []
    client = MlflowClient(uri)
    experiment = str(rows(out / "mlflow.db", "select experiment_id from experiments where name = 'tessera'")[0][0])
    run = rows(out / "mlflow.db", f"select run_uuid from runs where name = '{STUDY}'")[0][0]
    client.delete_experiment(experiment) if deleted == "experiment" else client.delete_run(run)
    study.epochs(2).end()
    before = rows(out / "mlflow.db", METRICS)
    remedy = {
        "experiment": f"experiment 'tessera' is deleted: restore it with `mlflow experiments restore --experiment-id "
        f"{experiment}`, or give another",
        "run": f"the run is deleted: restore it with `mlflow runs restore --run-id {run}`",
    }[deleted]
    said = send(study.root, uri, require=False)
    assert remedy in said[0], said
    assert said[-1].endswith("the same command sends them")
    with pytest.raises(ServiceError) as error:
        send(study.root, uri)
    assert error.value.code == 6
    assert remedy in str(error.value)
    assert deleted == "run" or rows(out / "mlflow.db", METRICS) == before
    client.restore_experiment(experiment) if deleted == "experiment" else client.restore_run(run)
    assert send(study.root, uri) == []
    check_whole(out / "mlflow.db", study)


@pytest.mark.slow
def test_an_experiment_deleted_in_mid_run_is_told_and_all_is_sent_once_it_is_restored(out, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr(tracker, "BACKOFF", 0.5)
    said: list[str] = []
    uri, study = default_uri(out), Study(out).start().epochs(2)
    with Tracking(study.root, uri, require=True, warn=said.append):
        until(lambda: rows(out / "mlflow.db", "select count(*) from metrics") == [(24,)])
        client = MlflowClient(uri)
        experiment = str(rows(out / "mlflow.db", "select experiment_id from experiments where name = 'tessera'")[0][0])
        client.delete_experiment(experiment)
        study.epochs(2)
        until(lambda: any("experiment 'tessera' is deleted" in line for line in said))
        client.restore_experiment(experiment)
        study.epochs(2).end()
    check_whole(out / "mlflow.db", study)


@pytest.mark.slow
def test_another_experiment_can_be_given(out, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    study = Study(out).start().epochs(2).end()
    assert send(study.root, default_uri(out)) == []
    assert ("other",) in rows(out / "mlflow.db", "select name from experiments")
    check_whole(out / "mlflow.db", study)


@pytest.mark.slow
def test_files_wait_for_their_store_are_told_once_and_sent_by_the_same_command(out, monkeypatch):
    """Those that are large, here the model, are sent by a separate process, and are held to the same."""
    sent_apart = set()
    monkeypatch.setattr(tracker, "LARGE", 50)
    monkeypatch.setattr(tracker, "apart", lambda *each, over: (sent_apart.add(each[3]), apart(*each, over=over)))
    uri, study = default_uri(out), Study(out).start().epochs(2).model()
    (out / "mlartifacts").write_text("where files cannot go")
    (study.root / "result.json").write_text("{}")
    study.end(model="tessera-toy")
    said = send(study.root, uri, require=False)
    assert len(said) == 2, said
    assert "the artifact store of MLflow at" in said[0]
    assert "it waits, the same command sends it again" in said[0]
    assert f"; 3 records wait in {study.root}, the same command" in said[1]
    check_whole(out / "mlflow.db", study)  # what can be sent was sent
    (out / "mlartifacts").unlink()
    assert send(study.root, uri) == []
    assert sent_apart == {"model"}
    assert len(list((out / "mlartifacts").rglob("report.html"))) == 1
    assert rows(out / "mlflow.db", "select name, version from model_versions") == [("tessera-toy", 1)]
    assert rows(out / "mlflow.db", "select count(*) from logged_models") == [(1,)]


@pytest.mark.slow
def test_scores_by_corrected_labels_reach_mlflow_with_the_epochs_that_it_lacks(out):
    uri, study = default_uri(out), Study(out).start()

    def record(*scores):
        lines = [{"epoch": i, "eval/acc": score, "sys/epoch_s": 1.0} for i, score in enumerate(scores)]
        (study.seed / HISTORY).write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert send(study.root, uri) == []
        latest = "select step, value from metrics m where key = 'eval/acc' and timestamp = (select max(timestamp) " \
                 "from metrics where key = m.key and step = m.step) order by step"  # fmt: skip
        return [value for _, value in rows(out / "mlflow.db", latest)]

    assert record(0.1, 0.2) == [0.1, 0.2]
    assert record(0.7, 0.8, 0.9) == [0.7, 0.8, 0.9]


@pytest.mark.slow
def test_a_changed_run_is_one_run_and_a_lost_database_is_filled_again(nursery, out):
    uri, study = default_uri(out), Study(out).start().epochs(2)
    with (study.seed / HISTORY).open("a") as file:
        file.write(
            json.dumps({"epoch": 2, "a name@1": 0.5, "train/m0": None, "sys/epoch_s": 1.0, "sys/time": 5.0}) + "\n"
        )
        file.write('{"epoch": 3, "train/m0"')  # still being written
    study.end()
    assert send(study.root, uri) == []
    logged = rows(out / "mlflow.db", "select key, is_nan, timestamp from metrics where step = 2 order by key")
    assert logged == [("a name_1", 0, 5000), ("sys/epoch_s", 0, 5000), ("train/m0", 1, 5000)]
    assert rows(out / "mlflow.db", "select count(*) from metrics where step = 3") == [(0,)]

    begin(study.root, STUDY, {"temperature": 0.7}, {"seeds": "3"})  # resumed, reported again
    (study.root / "report.html").write_text("<p>another")
    assert send(study.root, uri) == []
    assert rows(out / "mlflow.db", f"select status from runs where name = '{STUDY}'") == [("RUNNING",)]
    end(study.root, "FINISHED")
    assert send(study.root, uri) == []
    assert [p.read_text() for p in (out / "mlartifacts").rglob("report.html")] == ["<p>another"]
    assert rows(out / "mlflow.db", "select name, status from runs order by name") == [
        (STUDY, "FINISHED"),
        ("seed-0", "FINISHED"),
    ]
    assert rows(out / "mlflow.db", "select value from tags where key = 'seeds'") == [("3",)]
    before = rows(out / "mlflow.db", METRICS)
    (out / "mlflow.db").unlink()
    assert driver(nursery, study, uri, 10_000).out == "sent\n"
    assert rows(out / "mlflow.db", METRICS) == before


@pytest.mark.slow
def test_epochs_that_a_resumed_training_repeats_are_not_doubled(out):
    uri, study = default_uri(out), Study(out).start().epochs(6)
    assert send(study.root, uri) == []
    expected = study.recorded()
    lines = (study.seed / HISTORY).read_text().splitlines(keepends=True)
    repeated = [json.dumps(json.loads(line) | {"sys/time": 1.8e9, "sys/epoch_s": 9.0}) + "\n" for line in lines[3:]]
    (study.seed / HISTORY).write_text("".join(lines[:3] + repeated[:1]))  # from the checkpoint of epoch 2
    assert send(study.root, uri) == []
    (study.seed / HISTORY).write_text("".join(lines[:3] + repeated))
    study.epochs(1)
    assert send(study.root, uri) == []
    assert rows(out / "mlflow.db", METRICS + " limit 72") != []
    logged = [row for row in rows(out / "mlflow.db", METRICS) if row[1] < 6]
    assert logged == expected


@pytest.mark.slow
def test_of_a_summary_that_changed_mlflow_shows_the_last_value(out):
    folder, uri = out / "run", default_uri(out)
    folder.mkdir()
    latest = "select key, value from latest_metrics order by key"
    for seeds, acc in ((1, 0.75), (3, 0.5)):  # the new value is the smaller one: it is the time that counts
        begin(folder, "run", {"k": 4}, {"seeds": str(seeds)})
        end(folder, "FINISHED", metrics={"last/acc": acc, "last/nmi": 0.25}, step=2)
        assert send(folder, uri) == []
        assert rows(out / "mlflow.db", latest) == [("last/acc", acc), ("last/nmi", 0.25)]
    assert rows(out / "mlflow.db", "select count(*) from metrics") == [(3,)]


@pytest.mark.slow
def test_a_fresh_run_is_a_new_mlflow_run_also_under_a_sender_that_knew_the_old_one(out):
    said: list[str] = []
    first = Study(out).start().epochs(2)
    with Tracking(first.root, default_uri(out), require=True, warn=said.append):
        until(lambda: rows(out / "mlflow.db", "select count(*) from metrics") == [(24,)])
        shutil.rmtree(first.root)
        Study(out).start().epochs(2).end()
    assert said == []
    names = rows(out / "mlflow.db", "select name, status from runs order by name, status")
    assert names == [(STUDY, "FINISHED"), (STUDY, "RUNNING"), ("seed-0", "FINISHED"), ("seed-0", "RUNNING")]
    assert rows(out / "mlflow.db", "select count(*) from metrics where key != 'last/acc'") == [(48,)]


@pytest.mark.slow
def test_a_doctored_folder_sends_no_file_from_outside(out):
    uri, study = default_uri(out), Study(out).start().epochs(2).end()
    (out / "secret.txt").write_text("geheim")
    (out / "other").mkdir()
    (out / "other" / "secret.txt").write_text("geheim")
    (study.root / "result.json").symlink_to(out / "secret.txt")  # a file, a folder, a file in a folder
    (study.root / "model").symlink_to(out / "other")
    (study.root / "figures").mkdir()
    (study.root / "figures" / "a.png").symlink_to("../../secret.txt")
    (study.root / "seed-1").symlink_to(out / "other")
    write_json(out / "other" / STATUS, read_json(study.seed / STATUS))
    write_json(study.root / STATUS, (read_json(study.root / STATUS) or {}) | {"model": "../../secret.txt"})
    os.mkfifo(study.root / "assignments.parquet")
    said = send(study.root, uri, require=False)
    assert len(said) == 2, said
    assert all("is or holds a link: only a run's own files are sent" in line for line in said)
    assert "; 3 records wait in" in said[-1]
    assert not [p for p in (out / "mlartifacts").rglob("*") if p.is_file() and "geheim" in p.read_text()]
    assert len(list((out / "mlartifacts").rglob("report.html"))) == 1, "the others are sent"
    assert rows(out / "mlflow.db", "select count(*) from runs") == [(2,)]


@pytest.mark.slow
@pytest.mark.parametrize("line", ['"text"', '{"no": "epoch"}', "not JSON", '{"epoch": 1, "a": "text"}'])
def test_a_damaged_history_holds_up_nothing_else(out, line):
    study = Study(out).start().epochs(2).end()
    (study.seed / HISTORY).write_text(line + "\n")
    said = send(study.root, default_uri(out), require=False)
    assert len(said) == 2, said
    assert "; 1 records wait in" in said[-1]
    assert rows(out / "mlflow.db", "select count(*) from runs where status = 'FINISHED'") == [(2,)]


@pytest.mark.slow
def test_a_required_server_that_is_away_is_exit_6(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "PATIENCE", 3.0)
    uri = MlflowServer(tmp_path).uri.replace("http://", "http://me:geheim@")
    said: list[str] = []
    study = Study(tmp_path).start()
    tracking = Tracking(study.root, uri, require=True, warn=said.append)
    with pytest.raises(ServiceError, match=r"cannot be reached .*--require-tracking") as error, tracking:
        pytest.fail("the work has begun")
    assert error.value.code == 6
    tracking.thread.join(60)
    assert not tracking.thread.is_alive(), "nothing is sent of a command that has failed"
    everything = [str(error.value), *said, *(p.read_text() for p in study.root.rglob("*") if p.is_file())]
    assert "geheim" not in "".join(everything)


@pytest.mark.slow
def test_closing_does_not_wait_long_for_a_server_that_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker, "GRACE", 2.0)
    study = Study(tmp_path).start().epochs(3).end()
    began = time.monotonic()
    uri = MlflowServer(tmp_path).uri
    said = send(study.root, uri, require=False)
    assert time.monotonic() - began < 300, "a server that is away is given GRACE seconds, not all that there are"
    assert len(said) == 2
    why = f"MLflow at {uri} cannot be reached (connection refused); "
    assert f"{why}training goes on" in said[0]
    assert said[1] == f"{why}6 records wait in {study.root}, the same command sends them"
