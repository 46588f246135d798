"""Tracking against real MLflow: SQLite files and servers that die, writers that are killed, drivers that vanish."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_world import PROJECT, STUDY, MlflowServer, Study, alive, check_whole, load_and_predict, rows, until

from ops.tracking import tracker as driver
from ops.tracking.journal import Journal
from ops.tracking.mlflow_sink import Tracker, default_uri, sync, waiting


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it; made once, since its migrations take seconds."""
    out = tmp_path_factory.mktemp("template")
    said: list[str] = []
    tracker = Tracker(out / "run", default_uri(out), say=said.append)
    tracker.start()
    assert tracker.close(120).records == 0
    assert said == []
    # The experiment knows its place on disk, so each test makes its own.
    connection = sqlite3.connect(out / "mlflow.db")
    connection.execute("delete from experiments where name = 'tessera'")
    connection.commit()
    connection.close()
    return out / "mlflow.db"


@pytest.fixture
def out(tmp_path: Path, empty_database: Path) -> Path:
    """An output folder with a database, as a user's second run finds it."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def server(out: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(out)
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_killed_at_the_start_and_in_mid_run_loses_and_doubles_nothing(server: MlflowServer, out: Path) -> None:
    said: list[str] = []
    study = Study(out).start()
    tracker = Tracker(study.root, server.uri, say=said.append)
    tracker.start()
    study.epochs(20)
    assert not said, "training does not wait for a server"
    until(lambda: said)
    assert len(said) == 1
    assert f"MLflow at {server.uri} cannot be reached (connection refused); training goes on" in said[0]
    server.start()
    until(lambda: rows(server.db, "select count(*) from metrics")[0][0] >= 240)
    assert "is back" in said[1]
    study.epochs(60, pause=0.02)
    server.kill()  # in mid-run, whatever it was doing
    study.epochs(60, pause=0.02)
    assert tracker._process is not None
    os.kill(tracker._process.pid, signal.SIGKILL)  # and the writer with it
    study.epochs(20).model()
    server.start()
    study.epochs(20).end()
    left = tracker.close(120)
    assert (left.records, left.reason) == (0, "")
    check_whole(server.db, study)
    assert rows(server.db, "select name, version from model_versions") == [("tessera-toy", 1)]
    assert len(list((out / "files").rglob("report.html"))) == 1

    # Without the cursors all is sent again, through the same server: MLflow ends with the same rows.
    (study.root / driver.CURSORS).unlink()
    assert sync(study.root, server.uri, timeout=120).records == 0
    check_whole(server.db, study)
    assert rows(server.db, "select name, version from model_versions") == [("tessera-toy", 1)]
    assert rows(server.db, "select count(*) from logged_models") == [(1,)]
    predictions, refusal = load_and_predict(server.uri, out)
    assert predictions == '[["c",2,2.0],["a",0,2.0],["b",1,2.0]]'
    assert "NaN" in refusal


@pytest.mark.slow
def test_a_writer_ended_again_and_again_loses_and_doubles_nothing(out: Path) -> None:
    said: list[str] = []
    study = Study(out).start()
    tracker = Tracker(study.root, default_uri(out), say=said.append)
    tracker.start()
    for end in (signal.SIGKILL, signal.SIGTERM):
        before = rows(out / "mlflow.db", "select count(*) from metrics")[0][0]
        study.epochs(100)
        # The first rows of a backlog are in, the cursor may or may not have moved.
        until(lambda before=before: rows(out / "mlflow.db", "select count(*) from metrics")[0][0] > before)
        writer = tracker._process
        assert writer is not None
        os.kill(writer.pid, end)
        until(lambda writer=writer: writer.poll() is not None)
    study.model()
    until(lambda: rows(out / "mlflow.db", "select count(*) from logged_models") == [(1,)])
    os.kill(tracker._process.pid, signal.SIGKILL)  # between the steps of registering a model
    study.end()
    assert tracker.close(120).records == 0
    assert len([line for line in said if "is started again" in line]) == 3
    assert rows(out / "mlflow.db", "select name, status_message from logged_models") == [("tessera-toy", None)]
    check_whole(out / "mlflow.db", study)
    assert rows(out / "mlflow.db", "select name, version from model_versions") == [("tessera-toy", 1)]


@pytest.mark.slow
def test_two_first_runs_at_once_share_a_database_that_neither_a_race_nor_a_kill_spoils(tmp_path: Path) -> None:
    said: list[str] = []
    studies = [Study(tmp_path / name).start().epochs(20) for name in "ab"]
    trackers = [Tracker(study.root, default_uri(tmp_path), say=said.append) for study in studies]
    for tracker in trackers:
        tracker.start()
    until((tmp_path / "mlflow.db.part").exists)
    assert not (tmp_path / "mlflow.db").exists()
    for tracker in trackers:  # one of them is making the database
        assert tracker._process is not None
        os.kill(tracker._process.pid, signal.SIGKILL)
    for study in studies:
        study.end()
    assert [tracker.close(120).records for tracker in trackers] == [0, 0]
    logged = rows(tmp_path / "mlflow.db", "select key, step, timestamp from metrics order by key, step, timestamp")
    assert logged == sorted(studies[0].recorded() + studies[1].recorded())
    assert rows(tmp_path / "mlflow.db", "select count(*) from runs where status = 'FINISHED'") == [(4,)]
    assert not any("cannot be reached" in line for line in said), said


DRIVER = """
import sys, time
from pathlib import Path
from ops.tracking.mlflow_sink import Tracker
tracker = Tracker(Path(sys.argv[1]), sys.argv[2])
tracker.start()
print(tracker._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_writer_whose_driver_is_killed_sends_what_there_is_and_ends(out: Path) -> None:
    study = Study(out).start().epochs(30).end()
    command = [sys.executable, "-c", DRIVER, str(study.root), default_uri(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PROJECT})
    with process:
        assert process.stdout is not None
        writer = int(process.stdout.readline())
        process.kill()
    until(lambda: not alive(writer))
    assert waiting(study.root, default_uri(out)) == 0
    check_whole(out / "mlflow.db", study)


@pytest.mark.slow
def test_what_waits_is_sent_once_by_the_next_run_and_a_lost_database_is_filled_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = default_uri(out)
    study = Study(out).start().epochs(5)
    study.seed_journal.metrics({"nan": float("nan"), "inf": float("inf"), "no*name": 1.0}, 7)
    study.end()
    expected = [row for row in study.recorded() if row[0] != "no*name"]
    assert waiting(study.root, uri) == 5 * 12 + 3 + 5
    assert sync(study.root, uri, timeout=120).records == 0
    query = "select key, step, timestamp from metrics order by key, step, timestamp"
    assert rows(out / "mlflow.db", query) == expected, "the name that MLflow refuses does not hold up the others"
    assert rows(out / "mlflow.db", "select is_nan, value > 1e308 from metrics where step = 7 order by key") == [
        (0, 1),
        (1, 0),
    ]
    monkeypatch.setattr(driver, "Tracker", None)  # the process that imports MLflow is not started: nothing waits
    assert sync(study.root, uri).records == 0
    monkeypatch.undo()

    (study.root / "report.html").write_text("<p>another")  # resumed, reported again: one run, running then ended
    with Journal(study.root, STUDY) as journal:
        journal.start(STUDY, None, {}, {})
        journal.artifact(Path("report.html"))
        journal.end("KILLED")
    assert sync(study.root, uri, timeout=120).records == 0
    assert [p.read_text() for p in (out / "mlartifacts").rglob("report.html")] == ["<p>another"]
    assert rows(out / "mlflow.db", f"select status from runs where name = '{STUDY}'") == [("KILLED",)]

    (out / "mlflow.db").unlink()
    assert waiting(study.root, uri) > 0
    assert sync(study.root, uri, timeout=120).records == 0
    assert rows(out / "mlflow.db", query) == expected


@pytest.mark.slow
def test_of_a_summary_that_changed_mlflow_shows_the_last_value_whatever_is_sent_again(out: Path) -> None:
    folder, uri = out / "run", default_uri(out)
    latest = "select key, value from latest_metrics order by key"
    for seeds, acc in ((1, 0.75), (3, 0.5)):  # the new value is the smaller one: it is the time that counts
        with Journal(folder, "run") as journal:
            journal.start("run", None, {"k": 4}, {"seeds": str(seeds)})
            journal.summary({"last/acc": acc, "last/nmi": 0.25}, 2)
            journal.end("FINISHED")
        assert sync(folder, uri, timeout=120, require=True).records == 0
        assert rows(out / "mlflow.db", latest) == [("last/acc", acc), ("last/nmi", 0.25)]
    (folder / driver.CURSORS).unlink()  # all again
    assert sync(folder, uri, timeout=120, require=True).records == 0
    assert rows(out / "mlflow.db", latest) == [("last/acc", 0.5), ("last/nmi", 0.25)]
    assert rows(out / "mlflow.db", "select count(*) from metrics") == [(3,)]
    assert rows(out / "mlflow.db", "select value from tags where key = 'seeds'") == [("3",)]


@pytest.mark.slow
def test_a_fresh_run_is_a_new_mlflow_run_also_under_a_writer_that_knew_the_old_one(out: Path) -> None:
    said: list[str] = []
    (out / "mlartifacts").write_text("where files cannot go")
    with Tracker(out, default_uri(out), say=said.append):
        first = Study(out).start().epochs(2)
        until(lambda: rows(out / "mlflow.db", "select count(*) from metrics") == [(24,)])
        shutil.rmtree(first.root)
        second = Study(out).start().epochs(2).end()
    assert len(said) == 1, "one line for the report that cannot be stored; what comes behind it is sent"
    assert "refused a record" in said[0]
    assert waiting(second.root, default_uri(out)) > 0, "the cursors lie in the tracker's root"
    assert waiting(out, default_uri(out)) == 0
    names = rows(out / "mlflow.db", "select name, status from runs order by name, status")
    assert names == [(STUDY, "FINISHED"), (STUDY, "RUNNING"), ("seed-0", "FINISHED"), ("seed-0", "RUNNING")]
    assert rows(out / "mlflow.db", "select count(*) from metrics") == [(48,)]
