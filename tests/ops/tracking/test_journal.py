"""The journal keeps every record once, whatever moment a kill chose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.tracking.journal import FILENAME, Journal, batches, number, read, read_from

Steps = list[dict[str, float]]
steps = st.lists(
    st.dictionaries(st.sampled_from(["train/loss", "cluster/é", "sys/x"]), st.floats(width=64), max_size=3), max_size=6
)


def record(folder: Path, values: Steps, end: bool = True) -> None:
    """One whole run, as a trainer writes it."""
    with Journal(folder, "hsan-toy-1/seed-0") as journal:
        journal.start("seed-0", "hsan-toy-1", {"temperature": 0.5, "seed": 0}, {"host": "here"})
        for step, metrics in enumerate(values):
            journal.metrics(metrics, step)
        (folder / "report.html").write_text("<p>")
        journal.artifact(Path("report.html"), "report")
        if end:
            journal.end("FINISHED")


def content(folder: Path) -> list[str]:
    """What is logged, sorted, without what may differ between two recordings (time, journal id, how often resumed)."""
    kept = [{k: v for k, v in r.items() if k not in ("time", "journal")} for r in read(folder / FILENAME)]
    return sorted(json.dumps(r, sort_keys=True) for r in kept if r["op"] not in ("resume", "end"))


@settings(max_examples=60, deadline=None)
@given(values=steps, cut=st.floats(0, 1))
def test_a_kill_at_any_byte_loses_nothing_and_doubles_nothing(values: Steps, cut: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(folder, values)
        path, whole = folder / FILENAME, content(folder)
        before = list(read(path))
        os.truncate(path, round(cut * path.stat().st_size))
        Journal(folder, "hsan-toy-1/seed-0").close()
        kept = list(read(path))
        if kept[0] == before[0]:  # else the cut went through the header and the journal is a new one
            assert kept == before[: len(kept)]
        record(folder, values)
        assert content(folder) == whole
        assert list(read(path))[-1]["status"] == "FINISHED"
        assert list(read(path))[: len(kept)] == kept, "the first record and its time win"


def test_recording_again_writes_nothing(tmp_path: Path) -> None:
    record(tmp_path, [{"train/loss": 1.0}, {"train/loss": float("nan")}], end=False)
    before = (tmp_path / FILENAME).read_bytes()
    record(tmp_path, [{"train/loss": 7.0}, {"train/loss": 7.0}], end=False)
    assert (tmp_path / FILENAME).read_bytes() == before


def test_a_summary_is_written_again_where_its_value_changed_and_is_the_latest(tmp_path: Path) -> None:
    nan = float("nan")
    with Journal(tmp_path, "r") as journal:
        journal.summary({"acc": 0.5, "nmi": 0.25, "ari": nan}, 2)
    path = tmp_path / FILENAME
    ahead = [r | {"time": r["time"] + 10**9} for r in read(path)]  # the clock was set back since
    path.write_text("".join(json.dumps(r) + "\n" for r in ahead))
    for _ in range(2):
        with Journal(tmp_path, "r") as journal:
            journal.summary({"acc": 0.75, "nmi": 0.25, "ari": nan}, 2)
    last = list(read(path))[len(ahead) :]
    assert [(r["key"], r["step"], r["value"]) for r in last] == [("acc", 2, 0.75)]
    assert last[0]["time"] > max(r["time"] for r in ahead)
    with Journal(tmp_path, "r") as journal:  # back to the first value: compared with the last one, not with any
        journal.summary({"acc": 0.5}, 2)
    assert list(read(path))[-1]["value"] == 0.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), -0.0, 1e-320, 0.1])
def test_a_value_comes_back_as_given_in_strict_json(tmp_path: Path, value: float) -> None:
    with Journal(tmp_path, "r") as journal:
        journal.metrics({"m": value}, 3)
    line = (tmp_path / FILENAME).read_text().splitlines()[-1]
    strict = json.loads(line, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert repr(number(strict["value"])) == repr(value)
    assert strict["step"] == 3


def test_an_ended_run_resumes_with_what_changed_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "r")
    journal.start("r", None, {"k": 7, "seeds": 1}, {"state": "new"})
    journal.end("KILLED")
    journal.end("KILLED")
    journal.start("r", None, {"k": 8, "epochs": 3}, {"state": "old"})
    journal.start("r", None, {"k": 8, "epochs": 3}, {"state": "old"})
    journal.end("FINISHED")
    journal.close()
    header, start, killed, resume, finished = read(tmp_path / FILENAME)
    assert [header["op"], start["op"], killed["status"], finished["status"]] == [
        "header",
        "start",
        "KILLED",
        "FINISHED",
    ]
    assert (resume["op"], resume["params"], resume["tags"]) == ("resume", {"epochs": "3"}, {"state": "old"})


def test_a_file_is_recorded_again_only_when_its_content_changed(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for text in ("a", "a", "b"):
        (model / "settings.json").write_text(text)
        with Journal(tmp_path, "r") as journal:
            journal.model("model", "tessera-toy")
            journal.artifact(model / "settings.json")
    assert [r["op"] for r in read(tmp_path / FILENAME)] == ["header", "model", "artifact", "model", "artifact"]


def test_a_file_outside_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with Journal(tmp_path / "run", "r") as journal, pytest.raises(ValueError, match="secret"):
        journal.artifact(Path("../secret"))


def test_a_new_folder_is_a_new_journal(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        Journal(tmp_path, "r").close()
        Journal(tmp_path, "r").close()
        ids.add(next(read(tmp_path / FILENAME))["journal"])
        (tmp_path / FILENAME).unlink()
    assert len(ids) == 2


def test_reading_from_an_offset_goes_on_behind_the_last_whole_line(tmp_path: Path) -> None:
    record(tmp_path, [{"train/loss": 1.0}] * 3)
    path = tmp_path / FILENAME
    everything = list(read_from(path))
    _, middle = everything[2]
    with path.open("ab") as file:
        file.write(b'{"op": "metric", "ke')
    assert list(read_from(path, middle)) == everything[3:]


def test_batches_keep_order_and_every_record_and_can_go_on_behind_any_of_them(tmp_path: Path) -> None:
    record(tmp_path, [{"a": 1.0, "b": 2.0}] * 5)
    path = tmp_path / FILENAME
    groups = list(batches(path, 0, 4))
    assert [[r["op"] for r in group] for group, _ in groups] == [
        *(["header"], ["start"]),
        *(["metric"] * 4, ["metric"] * 4, ["metric"] * 2),
        *(["artifact"], ["end"]),
    ]
    assert [r for group, _ in groups for r in group] == list(read(path))
    for i, (_, end) in enumerate(groups):
        assert list(batches(path, end, 4)) == groups[i + 1 :]


CHILD = """
import resource, signal, sys
from pathlib import Path
from ops.errors import ResourceError
from ops.tracking.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]), "r")
try:
    for step in range(1000):
        journal.metrics({"a": step, "b": step}, step)
except ResourceError as error:
    print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.metrics({"a": step, "b": step}, step)
    print(step)
"""


def test_a_full_disk_leaves_whole_records_and_one_line_for_the_user(tmp_path: Path) -> None:
    """A limit on the file's size stands for the full disk: the kernel cuts the write in the same place."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    message, step = done.stdout.splitlines()
    assert FILENAME in message
    assert "free some space" in message
    metrics = [(r["key"], r["step"]) for r in read(tmp_path / FILENAME) if r["op"] == "metric"]
    assert metrics == [(key, s) for s in range(int(step) + 1) for key in "ab"]
