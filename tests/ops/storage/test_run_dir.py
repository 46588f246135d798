"""A run's identity, name, folder and lock, with real second processes."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from ops.config.settings import LaunchSettings, fields, flat
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import SettingsError
from ops.storage import run_dir
from ops.storage.run_copy import fetched
from trainers import hsan

PROJECT = Path(__file__).parents[3]
VALUE = {"method": "hsan", "settings": {"epochs": 3, "lr": 0.1}, "data": "abc"}

# Holds the lock of a folder, says so, and waits until its input closes.
HOLDER = """
import sys
from pathlib import Path
from ops.storage.run_dir import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    command, pipes = [sys.executable, "-c", HOLDER, str(folder)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, cwd=PROJECT, text=True, **pipes)


refused = partial(one_line, SettingsError)


def test_identity_holds_the_methods_settings_and_nothing_of_the_launch():
    graph, _ = planted_graph(40, 2, 4)
    value = run_dir.identity("hsan", flat(hsan.Settings()), graph.digest())
    assert set(value) == {"method", "settings", "data"}
    assert set(value["settings"]) == set(fields(hsan.Settings))
    assert not set(value["settings"]) & set(fields(LaunchSettings))
    assert json.loads(json.dumps(value)) == value


def test_identity_follows_features_and_edges_but_no_name():
    graph, _ = planted_graph(40, 2, 4)
    same = type(graph)("another name", graph.x.copy(), graph.edge_index.copy(), notes=("changed",))
    other_x, other_edges = graph.x.copy(), graph.edge_index.copy()
    other_x[3, 1] += 1e-3
    other_edges = other_edges[:, :-2]
    assert same.digest() == graph.digest()
    assert type(graph)(graph.name, other_x, graph.edge_index).digest() != graph.digest()
    assert type(graph)(graph.name, graph.x, other_edges).digest() != graph.digest()


def test_each_setting_of_the_method_changes_the_fingerprint():
    base = flat(hsan.Settings())
    prints = {run_dir.fingerprint(run_dir.identity("hsan", base, "d"))}
    for key, value in base.items():
        other = run_dir.identity("hsan", base | {key: f"{value}x"}, "d")
        prints.add(run_dir.fingerprint(other))
    prints.add(run_dir.fingerprint(run_dir.identity("caegcn", base, "d")))
    prints.add(run_dir.fingerprint(run_dir.identity("hsan", base, "e")))
    assert len(prints) == len(base) + 3


def test_fingerprint_does_not_depend_on_the_order_of_keys():
    assert run_dir.fingerprint({"a": 1, "b": 2}) == run_dir.fingerprint({"b": 2, "a": 1})


@given(st.text(max_size=80))
def test_a_default_name_is_always_a_valid_name(dataset):
    name = run_dir.default_name("hsan", dataset, VALUE)
    assert re.fullmatch(r"hsan-[a-z0-9_.-]{1,40}-[0-9a-f]{8}", name)
    assert name.endswith(run_dir.fingerprint(VALUE)[:8])


@pytest.mark.parametrize("name", ["a", "A9", "best", "my.run_1-b", "x" * 120, "7"])
def test_plain_names_are_taken(tmp_path, name):
    folder = run_dir.open_folder(str(tmp_path / "out"), name)
    assert folder == tmp_path / "out" / name
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "../a", "a\\b", "a b", "-a", ".a", "a\n", "é", "x" * 121, "a\0"]
)
def test_other_names_are_refused_and_nothing_is_made(tmp_path, name):
    text = refused(run_dir.open_folder, str(tmp_path / "out"), name)
    assert text.startswith(f"--name {name!r}: allowed are letters, digits and . _ -")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file", "file/below", "file/further/below"])
def test_an_output_place_that_cannot_be_written(tmp_path, out):
    (tmp_path / "file").write_text("x")
    text = refused(run_dir.open_folder, str(tmp_path / out), "run")
    assert re.fullmatch(rf"--out {tmp_path}/{out}: cannot be written \(.*\); give a folder that can", text)
    assert (tmp_path / "file").read_text() == "x"


def test_a_file_where_the_runs_folder_should_be(tmp_path):
    (tmp_path / "run").write_text("x")
    assert "cannot be written (File exists)" in refused(run_dir.open_folder, str(tmp_path), "run")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_dir.open_folder("~/out", "run") == tmp_path / "out" / "run"


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path):
    with hold(tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(SettingsError) as caught, run_dir.lock(tmp_path):
            pytest.fail("the lock was given twice")
        assert str(caught.value).startswith(f"{tmp_path}: process {holder.pid} is at work on this run; ")
        holder.stdin.close()
    with run_dir.lock(tmp_path):  # released when the first ended
        assert refused(run_dir.lock(tmp_path).__enter__).startswith(f"{tmp_path}: process ")


def test_a_child_that_outlives_the_process_does_not_keep_its_lock(tmp_path):
    with run_dir.lock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with child, run_dir.lock(tmp_path):
        assert child.poll() is None
        child.stdin.close()


def test_an_error_inside_releases_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), run_dir.lock(tmp_path):
        raise ZeroDivisionError
    with run_dir.lock(tmp_path):
        pass


def test_claim_writes_the_identity_once_and_takes_it_again(tmp_path):
    run_dir.claim(tmp_path, VALUE, fresh=False)
    before = (tmp_path / run_dir.RUN_FILE).stat().st_mtime_ns
    run_dir.claim(tmp_path, VALUE, fresh=False)
    assert json.loads((tmp_path / run_dir.RUN_FILE).read_text()) == VALUE
    assert (tmp_path / run_dir.RUN_FILE).stat().st_mtime_ns == before
    assert [p.name for p in tmp_path.iterdir()] == [run_dir.RUN_FILE]


@pytest.mark.parametrize(("other", "keys"), [
    ({"settings": {"epochs": 4, "lr": 0.1}}, "epochs (3 there, 4 now)"),
    ({"settings": {"epochs": 4, "lr": 0.2}}, "epochs (3 there, 4 now), lr (0.1 there, 0.2 now)"),
    ({"settings": {"epochs": 3, "lr": 0.1, "beta": 2}}, "beta (not set there, 2 now)"),
    ({"settings": {"epochs": 3}}, "lr (0.1 there, not set now)"),
    ({"data": "xyz"}, "data"),
    ({"method": "caegcn"}, "method"),
    ({"method": "caegcn", "data": "x", "settings": {"epochs": 3, "lr": 1}}, "lr (0.1 there, 1 now), method, data"),
])  # fmt: skip
def test_claim_names_the_keys_that_differ_and_leaves_the_run(tmp_path, other, keys):
    run_dir.claim(tmp_path, VALUE, fresh=False)
    text = refused(run_dir.claim, tmp_path, VALUE | other, fresh=False)
    assert text == f"{tmp_path}: is another run: {keys} differ; give another --name, or --fresh"
    assert json.loads((tmp_path / run_dir.RUN_FILE).read_text()) == VALUE


def test_fresh_empties_a_run_but_for_the_lock_in_use(tmp_path):
    run_dir.claim(tmp_path, VALUE, fresh=False)
    (tmp_path / "seed-0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "result.json").write_text("{}")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (tmp_path / "link").symlink_to(outside)
    other = VALUE | {"data": "xyz"}
    with run_dir.lock(tmp_path):
        run_dir.claim(tmp_path, other, fresh=True)
        assert sorted(p.name for p in tmp_path.iterdir()) == [run_dir.LOCK_FILE, run_dir.RUN_FILE]
    assert json.loads((tmp_path / run_dir.RUN_FILE).read_text()) == other
    assert (outside / "kept").read_text() == "x"
    shutil.rmtree(outside)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_of_somebody_elses_files_is_never_taken_nor_emptied(tmp_path, fresh):
    """`--out ~ --name Documents --fresh` must not empty it."""
    (tmp_path / "thesis.tex").write_text("years")
    text = refused(run_dir.claim, tmp_path, VALUE, fresh=fresh)
    assert text.startswith(f"{tmp_path}: holds files that are no run's (thesis.tex); ")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_kill_before_the_identity_leaves_is_no_stranger(tmp_path):
    (tmp_path / run_dir.LOCK_FILE).write_text("1")
    (tmp_path / f".{run_dir.RUN_FILE}.tmp").write_text('{"meth')
    (tmp_path / run_dir.PROBE).write_text("")
    run_dir.claim(tmp_path, VALUE, fresh=False)
    assert json.loads((tmp_path / run_dir.RUN_FILE).read_text()) == VALUE


def test_fresh_removes_the_identity_last(tmp_path):
    """A kill in the middle leaves a folder that the same command takes again."""
    run_dir.claim(tmp_path, VALUE, fresh=False)
    for name in ("a", "b", "seed-0", "z"):
        (tmp_path / name).write_text("x")
    removed = []

    def watch(event, args):
        if event == "os.remove" and str(args[0]).startswith(str(tmp_path)):
            removed.append(Path(args[0]).name)

    sys.addaudithook(watch)
    run_dir.claim(tmp_path, VALUE, fresh=True)
    assert set(removed) >= {"a", "b", "seed-0", "z", run_dir.RUN_FILE}
    assert [n for n in removed if n in {"a", "b", "seed-0", "z", run_dir.RUN_FILE}][-1] == run_dir.RUN_FILE


def test_a_damaged_identity_is_not_taken_for_the_same_run(tmp_path):
    (tmp_path / run_dir.RUN_FILE).write_text('{"method": "hs')
    (tmp_path / "seed-0").mkdir()
    text = refused(run_dir.claim, tmp_path, VALUE, fresh=False)
    assert text == f"{tmp_path / run_dir.RUN_FILE}: is damaged; give another --name, or --fresh"
    run_dir.claim(tmp_path, VALUE, fresh=True)  # it is a run's folder, and may be emptied
    assert json.loads((tmp_path / run_dir.RUN_FILE).read_text()) == VALUE


@pytest.mark.parametrize(("out", "kept"), [("runs", False), ("../runs", True), ("ABSOLUTE", True), ("a/../b", False)])
def test_a_job_keeps_no_results_in_its_copy_of_the_working_directory(tmp_path, monkeypatch, out, kept):
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    launch = LaunchSettings(out=out.replace("ABSOLUTE", str(tmp_path / "elsewhere")))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}')
    if kept:
        assert run_dir.local_out(launch)
    else:
        with pytest.raises(SettingsError, match=f"--out {out}: is in the job's copy of --working-dir"):
            run_dir.local_out(launch)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {}}')  # the bare `ray job submit`
    assert run_dir.local_out(launch)


@pytest.mark.parametrize("name", [run_dir.LOCK_FILE, run_dir.PROBE])
def test_a_link_in_a_run_is_not_written_through(tmp_path, name):
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "victim")
    start = run_dir.lock(tmp_path / "run").__enter__ if name == run_dir.LOCK_FILE else run_dir.open_folder
    arguments = () if name == run_dir.LOCK_FILE else (str(tmp_path), "run")
    assert "symbolic links" in refused(start, *arguments)
    assert (tmp_path / "victim").read_text() == "theirs"


@pytest.mark.parametrize(
    "name", ["seed-0", "model", "best/figures", "result.json", "seed-0/checkpoints/epoch-00000001"]
)
def test_a_linked_folder_or_file_in_a_run_is_refused(tmp_path, name):
    (tmp_path / "victim").mkdir()
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    run_dir.write_json(run / run_dir.RUN_FILE, VALUE)
    (run / name).symlink_to(tmp_path / "victim")
    assert "is a symbolic link, which no run's folder may hold" in refused(run_dir.claim, run, VALUE, fresh=False)
    assert "is a symbolic link" in refused(fetched(str(run)).__enter__)
    assert not list((tmp_path / "victim").iterdir())
    (tmp_path / "linked").symlink_to(run)  # the folder itself may be one
    (run / name).unlink()
    run_dir.claim(tmp_path / "linked", VALUE, fresh=False)
