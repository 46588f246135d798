"""Storage that answers 500, late, or not at all in mid-upload: nothing is lost, nothing half-written can be seen."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from processes import PROJECT, environment, history
from s3_world import BUCKET
from unruly import Unruly

from ops.graph.partition.shards import fetch_shards

RUN = ["hsan", "--dataset", "planted:nodes=120,clusters=3", "--preset", "none", "--embedding-dim", "16",
       "--threads", "1", "--no-report", "--no-explain", "--update-every", "3", "--epochs", "16"]  # fmt: skip


class Schedule:
    """Which upload goes wrong and how: {number of the upload: fault}, counted over paths with `part` in them."""

    def __init__(self, faults: dict[int, str], part: str = "/") -> None:
        self.faults, self.part, self.count = faults, part, 0

    def __call__(self, method: str, path: str) -> str:
        if method != "PUT" or self.part not in path or "/." in path:
            return ""
        self.count += 1
        return self.faults.get(self.count, "")


@pytest.fixture
def proxied(s3, monkeypatch):
    """The proxy, which everything but the test's own client goes through."""
    proxy = Unruly(s3.endpoint, lambda method, path: "")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


def check_whole(client: Any, run: str) -> None:
    """Whoever reads the bucket now meets whole checkpoints and whole results only."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{run}/").get("Contents", ())
    keys = {each["Key"] for each in listed}

    def get(key: str) -> bytes:
        return bytes(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    for key in keys:
        folder, _, name = key.rpartition("/")
        if name == "checksums.json":
            for file, digest in json.loads(get(key)).items():
                assert f"{folder}/{file}" in keys, f"{key} without {file}"
                assert hashlib.sha256(get(f"{folder}/{file}")).hexdigest() == digest, f"{folder}/{file}"
    if f"{run}/result.json" in keys:
        assert json.loads(get(f"{run}/result.json"))["seeds"] == [0]
        wanted = ("assignments.parquet", "model/model.safetensors", "seed-0/result.json")
        assert {f"{run}/{file}" for file in wanted} <= keys


@pytest.mark.slow
def test_a_training_ends_as_if_its_storage_had_behaved(nursery, s3, proxied, tmp_path):
    seen: list[str] = []
    client = s3.client()

    def after(method: str, path: str) -> None:
        seen.append(path)
        check_whole(client, "unruly/run")

    proxied.fault = Schedule({4: "500", 9: "drop", 15: "lost", 21: "slow", 27: "drop", 28: "500"})
    proxied.after = after
    quiet = nursery.run([*RUN, "--out", str(tmp_path), "--name", "quiet"])
    assert quiet.code == 0, quiet.err
    where = ["--out", f"s3://{BUCKET}/unruly", "--name", "run", "--scratch", str(tmp_path / "scratch")]
    ended = nursery.run([*RUN, *where])
    assert ended.code == 0, ended.err
    assert [fault for fault, *_ in proxied.done] == ["500", "drop", "lost", "slow", "drop", "500"]
    assert "training goes on, files are kept in" in ended.err
    assert "storage is back; all files have been sent" in ended.err
    assert [str(error) for error in proxied.errors] == []
    assert "Traceback" not in ended.err
    assert len(seen) > 30, "the bucket was looked at after every change"
    for key in s3.keys("unruly/run/"):
        path = tmp_path / "there" / key.removeprefix("unruly/run/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get(key))
    here, there = tmp_path / "quiet", tmp_path / "there"
    assert history(there / "seed-0") == history(here / "seed-0")
    assert pq.read_table(there / "assignments.parquet").equals(pq.read_table(here / "assignments.parquet"))
    assert (there / "model" / "model.safetensors").read_bytes() == (here / "model" / "model.safetensors").read_bytes()


def command(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    ran = [sys.executable, str(PROJECT / "workflows" / program), *arguments]
    return subprocess.run(
        ran, check=False, capture_output=True, text=True, timeout=400, env=environment(), cwd=folder
    )  # fmt: skip


@pytest.mark.cluster
def test_parts_are_whole_before_their_manifest_is_seen(s3, proxied, tmp_path):
    place = "unruly/parts"

    def after(method: str, path: str) -> None:
        if f"{place}/manifest.json" in s3.keys(f"{place}/"):
            fetch_shards(f"s3://{BUCKET}/{place}", tmp_path / f"look-{len(list(tmp_path.iterdir()))}")

    proxied.fault = Schedule({2: "500", 4: "drop", 5: "lost", 6: "slow"}, place)
    proxied.after = after
    graph = "planted:users=300,notes=200,clusters=4"
    done = command(
        "partition_graph.py", "--graph", graph, "--parts", "3", "--out", f"s3://{BUCKET}/{place}", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [fault for fault, *_ in proxied.done] == ["500", "drop", "lost", "slow"]
    assert proxied.errors == []
    proxied.after = lambda method, path: None
    manifest = fetch_shards(f"s3://{BUCKET}/{place}", tmp_path / "all")
    assert len(manifest.nodes["user"].offsets) == 4


@pytest.mark.cluster
def test_a_search_whose_ray_storage_misbehaves_loses_no_trial(s3, proxied, tmp_path):
    of_ray, others = Schedule({2: "500", 4: "drop", 6: "lost"}, "/ray/"), Schedule({12: "500", 18: "drop"}, "trial-")
    proxied.fault = lambda method, path: of_ray(method, path) or others(method, path)
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--epochs", "6", "--update-every", "2", "--threads", "1",
            "--search", "lr", "--trials", "3", "--concurrent", "1", "--seeds", "0", "--embedding-dim", "8",
            "--no-report", "--name", "study", "--out", f"s3://{BUCKET}/unruly",
            "--scratch", str(tmp_path / "scratch")]  # fmt: skip
    done = command("tune_hsan.py", *argv, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"500", "drop", "lost"} == {fault for fault, _, path in proxied.done if "/ray/" in path}
    assert {"500", "drop"} <= {fault for fault, _, path in proxied.done if "trial-" in path}
    trials = json.loads(s3.get("unruly/study/trials.json"))["trials"]
    assert len(trials) == 3
    assert {t["status"] for t in trials} <= {"finished", "stopped"}
    for trial in trials:
        stored = json.loads(s3.get(f"unruly/study/{trial['trial']}/trial.json"))
        assert stored["metrics"] == trial["metrics"]
        lines = s3.get(f"unruly/study/{trial['trial']}/seed-0/history.jsonl").splitlines()
        assert len(lines) >= trial["epochs"]
