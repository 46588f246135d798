"""`status.json` says how work on a folder stands, whatever ended it."""

import json

import pytest

from ops.atomic_io import read_json
from ops.errors import DivergedError, Interrupted
from ops.storage.status import STATUS, begin, finished, recorded


def test_a_resumed_run_keeps_its_identity_first_parameters_and_figures(tmp_path):
    with recorded(tmp_path, "one", {"k": 7}, {"seeds": "1"}) as shown:
        running = read_json(tmp_path / STATUS)
        shown.update(metrics={"last/acc": 0.5}, step=3, tags={"note": "good"})
    first = read_json(tmp_path / STATUS)
    assert running is not None
    assert first is not None
    assert (running["state"], running["ended"]) == ("RUNNING", None)
    assert first["started"] == running["started"] <= first["ended"]
    assert finished(tmp_path)
    begin(tmp_path, "one", {"k": 8, "epochs": 3}, {"seeds": "2"})
    again = read_json(tmp_path / STATUS)
    assert again is not None
    assert not finished(tmp_path)
    assert again["id"] == first["id"]
    assert again["params"] == {"k": "7", "epochs": "3"}
    assert again["tags"] == {"seeds": "2", "note": "good"}
    assert (again["metrics"], again["ended"]) == ({"last/acc": 0.5}, None)


def test_a_new_folder_has_a_new_identity(tmp_path):
    ids = set()
    for name in "ab":
        (tmp_path / name).mkdir()
        begin(tmp_path / name, "one", {}, {})
        ids.add(json.loads((tmp_path / name / STATUS).read_text())["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("error", "state"),
    [(Interrupted("stop"), "KILLED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(), "KILLED"),
     (DivergedError("nan"), "FAILED"), (ValueError("bug"), "FAILED")],
)  # fmt: skip
def test_what_ends_the_work_passes_and_is_recorded(tmp_path, error, state):
    def work() -> None:
        with recorded(tmp_path, "one", {}, {}) as shown:
            shown["metrics"] = {"last/acc": 1.0}
            raise error

    with pytest.raises(type(error)):
        work()
    stored = read_json(tmp_path / STATUS)
    assert stored is not None
    assert (stored["state"], stored.get("metrics")) == (state, None)


def test_a_status_that_cannot_be_written_does_not_hide_why_the_work_ended(tmp_path):
    def work() -> None:
        with recorded(tmp_path, "one", {}, {}):
            (tmp_path / STATUS).unlink()
            (tmp_path / STATUS).mkdir()
            raise DivergedError("nan")

    with pytest.raises(DivergedError):
        work()
