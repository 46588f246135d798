"""partition_graph.py as a user calls it: report, resume after a kill, other settings, S3, Ray with the same bytes."""

import json
import os
import signal

import numpy as np
import planted_secrets
import pytest
from commands import Shell, temporary
from graph_tables import write_tables
from hetero_graphs import hetero, homogeneous
from processes import until

from ops.datamodules import partitioning
from ops.graph.partition.manifest import read_manifest
from ops.graph.partition.shards import fetch_shards, open_shard
from workflows import partition_graph


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path):
    local = Shell(capsys, monkeypatch, tmp_path)
    return lambda line: local(line, partition_graph.main, "workflows/partition_graph.py")


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name not in (".lock", "job.json")}  # fmt: skip


@pytest.mark.slow
def test_a_partition_with_its_report(shell, tmp_path):
    write_tables(hetero(), tmp_path / "g")
    ended = shell("--graph g --parts 3 --out o")
    assert ended.code == 0, ended.err
    assert "g: 3 parts by fennel, edge cut" in ended.out
    assert {p.name for p in (tmp_path / "o").iterdir()} >= {"manifest.json", "partition.png", "report.html"}
    assert not (tmp_path / "o" / ".work").exists()
    assert temporary(tmp_path / "o") == []
    manifest = read_manifest(tmp_path / "o")
    assert [open_shard(tmp_path / "o", manifest, p).part for p in range(3)] == [0, 1, 2]
    again = shell("--graph g --parts 3 --out o --json")
    assert json.loads(again.out)["again"] is True
    assert json.loads(again.out)["report"] == manifest.report


def test_another_partition_there_is_refused_and_fresh_replaces_it(shell, tmp_path):
    write_tables(homogeneous(), tmp_path / "g")
    assert shell("--graph g --parts 3 --out o").code == 0
    refused = shell("--graph g --parts 2 --method hash --out o")
    assert refused.code == 2
    assert "parts (3 there, 2 now), method (auto there, hash now) differ" in refused.errors[0]
    assert shell("--graph g --parts 2 --method hash --out o --fresh").code == 0
    assert read_manifest(tmp_path / "o").parts == 2
    assert not (tmp_path / "o" / "part-00002").exists()
    os.utime(tmp_path / "g" / "nodes" / "node" / "000.parquet", (1, 1))
    changed = shell("--graph g --parts 2 --method hash --out o")
    assert changed.code in (0, 2)  # what a changed file is, ops.data.io.chunks says
    assert changed.code == 0 or "the input's files differ" in changed.errors[0]


@pytest.mark.parametrize(("line", "code", "message"), [
    ("--out o", 2, "--graph: is missing"),
    ("--graph g", 2, "--out: is missing"),
    ("--graph g --out o --parts 0", 2, "--parts: got '0'"),
    ("--graph g --out o --tasks -1", 2, "--tasks: got -1"),
    ("--graph g --out o --methods hash", 2, "nearest known: --method"),
    ("--graph g --out gs://x", 2, "parts go to a folder or to s3://"),
    ("--graph g --out g", 2, "holds files that are no partition's"),
    ("--graph g --out o --parts 1000", 3, "--parts 1000: the graph has 60 nodes"),
    ("--graph nowhere --out o", 3, "nowhere"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line(shell, tmp_path, line, code, message):
    write_tables(homogeneous(), tmp_path / "g")
    ended = shell(line)
    assert ended.code == code
    assert message in ended.errors[0]
    assert len(ended.errors) == 1
    assert not (tmp_path / "o" / "manifest.json").exists()


@pytest.fixture
def run(nursery):
    def run(*flags, start=False):
        begin = nursery.start if start else nursery.run
        return begin([*map(str, flags)], program="partition_graph")

    return run


@pytest.mark.slow
def test_killed_processes_go_on_to_the_same_bytes(nursery, run, tmp_path):
    write_tables(hetero(3000, 2000, 40_000, 20_000), tmp_path / "g")
    flags = ["--graph", tmp_path / "g", "--parts", 4, "--method", "fennel", "--fennel", "waves", "--tasks", 0, "--out"]
    assert run(*flags, tmp_path / "whole").code == 0
    out = tmp_path / "o"
    for seen in ("edges/*", "blocks/*", "rounds/round.*", "parts/part.000001"):
        run(*flags, out, start=True)
        until(lambda seen=seen: nursery.ended() or any((out / ".work").glob(seen)))
        if nursery.kill().code != -signal.SIGKILL:
            break  # a fast machine was done before the signal
    assert run(*flags, out).code == 0
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_ray_tasks_write_the_same_bytes_show_no_secret_and_tell_their_errors_in_one_line(nursery, run, tmp_path):
    write_tables(hetero(600, 500, 3000, 2000), tmp_path / "g", pieces=4)
    flags = ["--graph", str(tmp_path / "g"), "--parts", "3", "--fennel", "waves", "--tasks"]
    assert run(*flags, 0, "--out", tmp_path / "0").code == 0
    with planted_secrets.ray_sessions() as sessions:
        watched = planted_secrets.Runner(nursery, tmp_path, sessions)
        argv, uri = [*flags, "3", "--out", str(tmp_path / "3")], planted_secrets.SIGNED
        ended = watched("partition_graph", *argv, listeners=("raylet",), MLFLOW_TRACKING_URI=uri)
        assert ended.code == 0, ended
        assert list(sessions.glob("**/logs/*runtime_env*"))
        planted_secrets.assert_nothing(planted_secrets.contents(tmp_path, sessions))
    assert contents(tmp_path / "0") == contents(tmp_path / "3")
    (tmp_path / "g" / "nodes" / "note" / "002.parquet").unlink()
    ended = run(*flags, 2, "--out", tmp_path / "o")
    assert ended.code == 3, ended.err
    assert "is not among the ids of the note nodes" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_parts_on_s3_are_those_of_a_folder(shell, s3, tmp_path):
    write_tables(homogeneous(), tmp_path / "g")
    assert shell("--graph g --parts 3 --out o").code == 0
    ended = shell("--graph g --parts 3 --out s3://tessera/parts/x --scratch scratch")
    assert ended.code == 0, ended.err
    manifest = fetch_shards("s3://tessera/parts/x", tmp_path / "copy")
    local = contents(tmp_path / "o")
    assert all(local[name] == data for name, data in contents(tmp_path / "copy").items())
    assert len(contents(tmp_path / "copy")) == len(manifest.files) + 1
    assert np.array_equal(open_shard(tmp_path / "copy", manifest, 1).ids["node"],
                          open_shard(tmp_path / "o", manifest, 1).ids["node"])  # fmt: skip
    again = shell("--graph g --parts 3 --out s3://tessera/parts/x --scratch scratch")
    assert "is finished already" in again.out
    refused = shell("--graph g --parts 2 --out s3://tessera/parts/x --scratch scratch")
    assert refused.code == 2
    assert "parts (3 there, 2 now)" in refused.errors[0]


@pytest.mark.slow
def test_on_s3_the_buckets_partition_counts_not_what_this_machine_had_begun(shell, s3, tmp_path, monkeypatch):
    write_tables(homogeneous(), tmp_path / "g")
    one, other = (f"--graph g --out s3://tessera/parts/two --scratch {name}" for name in "ab")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(partitioning, "_build", killed)
        assert shell(f"{one} --parts 2").code != 0
    assert s3.keys("parts/two/") == ["parts/two/job.json"], "said before the first part"
    refused = shell(f"{other} --parts 5")
    assert refused.code == 2
    assert "parts (2 there, 5 now)" in refused.errors[0]
    s3.client().delete_object(Bucket="tessera", Key="parts/two/job.json")  # begun by a version that said it last
    with monkeypatch.context() as patch:
        patch.setattr(partitioning, "_build", killed)
        assert shell(f"{other} --parts 5").code != 0
    mixed = shell(f"{one} --parts 5")
    assert mixed.code == 2, "this machine's work is that of two parts"
    assert "parts (2 there, 5 now)" in mixed.errors[0]
    assert shell(f"{other} --parts 5").code == 0
    refused = shell(f"{one} --parts 2")
    assert refused.code == 2
    assert "parts (5 there, 2 now)" in refused.errors[0]
    assert "is finished already" in shell(f"{other} --parts 5").out
