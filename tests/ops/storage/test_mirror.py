"""What a push sends and in which order; a folder and its image on a real server, on one machine and another."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.errors import ServiceError
from ops.storage import object_store
from ops.storage.mirror import MARKERS, Mirror, mirrored, push_order, whole

NAMES = st.sampled_from(
    ["run.json", "result.json", "trials.json", "seed-0/result.json", "seed-0/model/m", "seed-0/history.jsonl",
     "seed-0/checkpoints/epoch-1/checksums.json", "seed-0/checkpoints/epoch-1/shared.json", "best/result.json"]
)  # fmt: skip
STATES = st.dictionaries(NAMES, st.tuples(st.integers(0, 2), st.integers(0, 2)))


def test_markers_are_sent_last_and_removed_first():
    seed = "seed-0/checkpoints/epoch-00000003"
    files = ["assignments.parquet", f"{seed}/shared.safetensors", "seed-0/model/model.safetensors"]
    markers = [f"{seed}/checksums.json", "best/result.json", "seed-0/result.json", "result.json", "trials.json"]
    names = dict.fromkeys([*markers, *files], (1, 1))
    assert push_order(names, {}) == [*files, *markers]
    outermost_first = ["result.json", "trials.json", "best/result.json", "seed-0/result.json", f"{seed}/checksums.json"]
    assert push_order({}, names) == [*outermost_first, *files]


@given(STATES, STATES)
def test_a_push_leaves_what_is_here_and_sends_no_more(local, sent):
    bucket = dict(sent)
    for name in push_order(local, sent):
        marker = name.endswith(MARKERS)
        missing = {n for n in local.keys() - bucket.keys() if not n.endswith(MARKERS)}
        if name in local:
            assert bucket.get(name) != local[name], "sent for nothing"
            assert not (marker and missing), "a marker before its files"
            bucket[name] = local[name]
        else:
            assert marker or not any(n.endswith(MARKERS) for n in bucket.keys() - local.keys()), "files before markers"
            del bucket[name]
    assert bucket == local


def test_names_that_stay_here():
    skip = ("trial-*", "ray")
    names = [
        "a", "seed-0/a", ".lock", "seed-0/checkpoints/.epoch-1.tmp/a", "x.tmp", "trial-1/a", "ray/b",
        "best/ray/b",
    ]  # fmt: skip
    assert [n for n in names if mirrored(n, skip)] == ["a", "seed-0/a", "best/ray/b"]
    assert [n for n in names if mirrored(n, ("*/ray/*",))] == ["a", "seed-0/a", "trial-1/a", "ray/b"]


def test_a_checkpoint_without_its_last_file_is_passed_over():
    names = ["checkpoints/e-1/shared.json", "checkpoints/e-2/shared.json", "checkpoints/e-2/checksums.json", "a"]
    assert whole(names) == set(names[1:])


def written(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def content(folder: Path) -> dict[str, str]:
    result = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(folder).as_posix(): p.read_text() for p in result}


class World:
    """A place on the server and any number of machines' folders."""

    def __init__(self, server, tmp_path: Path, key: str) -> None:
        self.server, self.tmp_path, self.key = server, tmp_path, key
        self.place = object_store.parse(f"s3://tessera/{key}")
        self.said: list[str] = []

    def machine(self, name: str) -> Mirror:
        (self.tmp_path / name).mkdir(exist_ok=True)
        return Mirror(self.tmp_path / name, self.place, self.said.append, skip=("trial-*",))

    def keys(self) -> list[str]:
        return [k.removeprefix(f"{self.key}/") for k in self.server.keys(f"{self.key}/") if "/." not in k]


@pytest.fixture
def world(s3, tmp_path, request):
    return World(s3, tmp_path, f"mirror/{request.node.name}")


@pytest.mark.slow
def test_another_machine_goes_on_where_the_first_stopped(world, tmp_path):
    one = world.machine("one")
    one.pull()
    written(
        tmp_path / "one",
        run_json="1",
        seed__checkpoints__e1__shared_json="s",
        seed__checkpoints__e1__checksums_json="c",
    )
    one.push()
    other = world.machine("other")
    other.pull()
    assert content(tmp_path / "other") == content(tmp_path / "one")
    shutil.rmtree(tmp_path / "other" / "seed" / "checkpoints")
    written(tmp_path / "other", result_json="r")
    other.push()
    assert world.keys() == ["result.json", "run.json"]
    written(tmp_path / "one", run_json="stale")
    again = world.machine("one")
    again.pull()
    assert content(tmp_path / "one") == {"run.json": "1", "result.json": "r"}
    assert not (tmp_path / "one" / "seed" / "checkpoints").exists(), "an empty checkpoint would be called damaged"


@pytest.mark.slow
def test_only_changes_are_sent(world, tmp_path, monkeypatch):
    one = world.machine("one")
    one.pull()
    written(tmp_path / "one", a="1", b="1", trial__x="others'")
    one.push()
    sent: list[str] = []
    upload = object_store.upload
    monkeypatch.setattr(object_store, "upload", lambda path, *a, **k: sent.append(path.name) or upload(path, *a, **k))
    one.push()
    written(tmp_path / "one", b="22")
    one.push()
    again = world.machine("one")  # the next process
    again.pull()
    again.push()
    assert sent == ["b"]
    world.server.client().delete_object(Bucket="tessera", Key=f"{world.key}/a")  # by somebody's hand
    healed = world.machine("one")
    healed.pull()
    healed.push()
    assert sent == ["b", "a"]


@pytest.mark.slow
def test_what_could_not_be_sent_is_kept_and_sent_later(world, tmp_path, monkeypatch):
    one = world.machine("one")
    one.pull()
    written(tmp_path / "one", a="1")
    one.push()
    good = world.server.endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    written(tmp_path / "one", a="newer", result_json="r")
    one.offer()
    one.offer()
    assert len(world.said) == 1
    assert "storage cannot be reached (endpoint 127.0.0.1:9); training goes on, files are kept in" in world.said[0]
    with pytest.raises(ServiceError, match=f"everything is kept in {tmp_path / 'one'}, the same command sends it"):
        one.finish()
    monkeypatch.setenv("AWS_ENDPOINT_URL", good)
    again = world.machine("one")
    again.pull()
    assert content(tmp_path / "one") == {"a": "newer", "result.json": "r"}, "the folder is the newer one"
    again.finish()
    assert world.server.get(f"{world.key}/a") == b"newer"
    one.offer()
    assert world.said[1:] == [f"{world.place}: storage is back; all files have been sent"]


@pytest.mark.slow
def test_a_bucket_that_was_emptied_starts_anew_and_half_a_checkpoint_goes(world, tmp_path):
    one = world.machine("one")
    one.pull()
    written(tmp_path / "one", a="1")
    one.push()
    one.clear()
    assert world.keys() == []
    world.server.client().delete_object(Bucket="tessera", Key=f"{world.key}/.mirror.json")
    world.server.put(f"{world.key}/seed-0/checkpoints/epoch-1/shared.json", b"half")
    again = world.machine("one")
    again.pull()
    assert content(tmp_path / "one") == {}
    again.push()
    assert world.keys() == []


@pytest.mark.slow
def test_trials_of_a_search_that_the_bucket_has_forgotten_are_removed(world, tmp_path):
    one = world.machine("one")
    one.pull()
    written(tmp_path / "one", run_json="1", trial_1__trial_json="old", trial_2__trial_json="both")
    for name in ("trial-1", "trial-2"):
        (tmp_path / "one" / name.replace("-", "_")).rename(tmp_path / "one" / name)
    one.push()
    world.server.put(f"{world.key}/trial-2/trial.json", b"both")
    other = world.machine("other")
    other.pull()
    world.machine("one").pull()
    assert sorted(path.name for path in (tmp_path / "one").glob("trial-*")) == ["trial-2"]
