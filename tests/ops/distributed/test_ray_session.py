"""Ray sessions: a local one listens on the loopback address only; an address without a cluster is told at once."""

import subprocess
import sys
import tempfile

import pytest

from ops.distributed import ray_session
from ops.errors import ResourceError, ServiceError, TesseraError

LOOK = """
import ray.tune, ray.train.torch  # as the user's program may have done before
from ops.distributed.ray_session import ray_session
with ray_session(1):
    import ray
    print(*(n["NodeManagerAddress"] for n in ray.nodes()))
    print(*sorted(set(ray._private.worker._global_node.all_processes) & {"dashboard", "log_monitor", "monitor"}))
from ray._private import node, ray_constants
print(ray_constants.ENABLE_RAY_CLUSTER, node.Node.start_monitor.__name__)
"""


@pytest.mark.slow
def test_a_local_session_is_on_loopback_with_few_processes_and_leaves_ray_as_it_was():
    ended = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=900)
    assert ended.stdout.splitlines() == ["127.0.0.1", "", "True start_monitor"]


@pytest.mark.parametrize(("address", "code", "words"), [
    ("127.0.0.1:1", 6, "RAY_ADDRESS=127.0.0.1:1: no Ray cluster can be used there .*Connection refused"),
    ("http://127.0.0.1:8265", 2, "RAY_ADDRESS=http://127.0.0.1:8265: is for `ray job submit`"),
    ("ray://127.0.0.1:10001", 2, "give HOST:PORT of the head"),
])  # fmt: skip
def test_an_address_without_a_cluster_is_one_line_at_once(monkeypatch, address, code, words):
    monkeypatch.setenv("RAY_ADDRESS", address)
    for key in ray_session.ENVIRONMENT:
        monkeypatch.setenv(key, ray_session.ENVIRONMENT[key])
    with pytest.raises(TesseraError, match=words) as caught, ray_session.ray_session(1):
        pass
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_local_session_that_cannot_start_is_one_line(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for key in ray_session.ENVIRONMENT:
        monkeypatch.setenv(key, ray_session.ENVIRONMENT[key])
    folder = tmp_path / ("x" * 84)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with pytest.raises(ServiceError) as caught, ray_session.ray_session(1):
        pass
    assert str(caught.value).startswith("Ray cannot be started here (")
    assert "AF_UNIX path length cannot exceed" in str(caught.value)
    assert str(caught.value).endswith("; set TMPDIR (or RAY_TMPDIR) to a folder with a shorter path")
    assert "\n" not in str(caught.value)


def test_any_other_failure_of_a_local_start_is_one_line_too(monkeypatch):
    import ray

    def fails(*_, **__):
        raise Exception("The current node timed out during startup.\nIt may be busy.")  # as Ray does

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for key in ray_session.ENVIRONMENT:
        monkeypatch.setenv(key, ray_session.ENVIRONMENT[key])
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(ServiceError) as caught, ray_session.ray_session(1):
        pass
    assert str(caught.value).startswith("Ray cannot be started here (The current node timed out during startup. It ")
    assert "ray/session_latest/logs, and whether memory" in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "outcome"), [((64, 64), 0), ((64, 4096), 4096), ((256, 10_000), 4096), ((1024, 2048), None)]
)
def test_as_many_open_files_as_ray_needs(monkeypatch, limits, outcome):
    given = []
    monkeypatch.setattr("resource.getrlimit", lambda kind: limits)
    monkeypatch.setattr("resource.setrlimit", lambda kind, values: given.append(values))
    if outcome == 0:
        with pytest.raises(ResourceError, match=r"64 open files are allowed.*ulimit -n"):
            ray_session._allow_files()
    else:
        ray_session._allow_files()
        assert given == ([] if outcome is None else [(outcome, limits[1])])


FULL = """
import numpy as np, ray
from ops.data.types.images import ImageSet
from ops.distributed.ray_session import in_object_store, ray_session
from ops.errors import ResourceError
from pathlib import Path

ray.init(num_cpus=1, object_store_memory=80 << 20, include_dashboard=False, logging_level=40, _temp_dir="PLACE/ray")
images = ImageSet("zeros", np.zeros((300 << 10, 3, 16, 16), np.uint8)).in_files(Path("FOLDER"))
try:
    with ray_session(1):
        in_object_store(images)
except ResourceError as error:
    print("told:", error)
"""


@pytest.mark.slow
def test_a_full_object_store_is_one_line(tmp_path):
    """225 MiB of pixels for a store of 80 MiB, whose disk is a file system of 150 MiB that only this process sees."""
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("a small disk of its own needs a mount namespace, which only root may make")
    with tempfile.TemporaryDirectory(prefix="tr-", dir="/tmp") as place:  # short: Ray's sockets lie below it
        script = FULL.replace("PLACE", place).replace("FOLDER", str(tmp_path))
        mount = f'mount -t tmpfs -o size=150m none {place} && exec "$@"'
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", mount, "sh", sys.executable, "-c", script],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert "told: Ray's object store on this node is full, and so is the disk" in done.stdout, done.stderr[-2000:]
