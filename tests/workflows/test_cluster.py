"""Every method on a Ray cluster of four nodes, whose results go to S3: a training during which a node dies, a search.

The head has no CPUs, as in the manifests; each of the three nodes has room for one process. No node sees the cache or
the scratch folder of another. Measured on two cores that other work kept busy: 3 to 10 minutes a training with its
undisturbed twin, 1 to 4 a search.
"""

import json
import time
from pathlib import Path

import pytest
from processes import RAY, same_results
from ray_world import Cluster, needs_nodes
from s3_world import BUCKET

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

GRAPH = ["--dataset", "planted:nodes=1100,clusters=4,features=2000,seed={}", "--parts", "4", "--blocks", "2"]
USERS = ["--dataset", "planted:users=300,notes=200,clusters=4,mixing=0.2,mean_edges=20", "--parts", "2"]
METHODS = {
    "hsan": [*GRAPH, "--epochs", "40", "--update-every", "4", "--embedding-dim", "32"],
    "caegcn": [*GRAPH, "--epochs", "40", "--evaluate-every", "4", "--widths", "32,16", "--code-dim", "8",
               "--heads", "2", "--pretrain-epochs", "2"],
    "dmon": [*GRAPH, "--epochs", "40", "--evaluate-every", "4", "--embedding-dim", "16"],
    "ns4gc": [*GRAPH, "--epochs", "40", "--evaluate-every", "4", "--hidden", "16", "--embedding-dim", "8"],
    "hgt": [*USERS, "--epochs", "20", "--update-every", "4", "--hidden", "16", "--heads", "2", "--fan-out", "4,4",
            "--batch", "128", "--step-batches", "2"],
    "twhin": [*USERS, "--epochs", "100", "--update-every", "10", "--embedding-dim", "16", "--batch", "1024",
              "--step-batches", "2"],
    "hadis": ["--dataset", "digits", "--image-size", "40", "--preset", "demo", "--epochs", "8", "--eval-every", "4",
              "--hidden", "32", "--embedding-dim", "16", "--batch", "128", "--epoch-steps", "2"],
}  # fmt: skip
COMMON = ["--threads", "1", "--no-report", "--no-explain"]


@pytest.fixture(scope="module")
def cluster(s3_server):
    needs_nodes()
    started = Cluster(0, 1, 1, 1, extra=s3_server.environment)
    yield started
    started.stop()


def words(method: str) -> list[str]:
    """What is typed behind the name of a workflow; each graph method gets features of its own."""
    seed = list(METHODS).index(method)
    return [method, *(word.format(seed) for word in METHODS[method]), *COMMON]


def large_arrays(cluster: Cluster, node: int) -> set[str]:
    """The names of the files of features and pixels in a node's cache."""
    cache = cluster.seen_by(node, cluster.own / "cache")
    return {path.name for kind in ("arrays/*.x", "images/*.pixels") for path in cache.glob(kind)}


def fetched(s3, prefix: str, folder: Path) -> Path:
    """The run below the prefix, copied into a folder."""
    for key in s3.keys(f"{prefix}/"):
        if not key.endswith("/"):
            path = folder / key.removeprefix(f"{prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(s3.get(key))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_a_node_that_dies_in_mid_training_changes_nothing(cluster, s3, nursery, tmp_path, method):
    cluster.add(*[1] * (3 - len(cluster.at_work())))
    command = [*words(method), "--workers", "2", "--name", method]
    before = {node: large_arrays(cluster, node) for node in cluster.at_work()}
    job = cluster.submit("python", "workflows/train.py", *command, "--out", f"s3://{BUCKET}/cluster",
                         "--scratch", str(cluster.own / "scratch"))  # fmt: skip
    limit, parts = time.monotonic() + 900, ("/checksums.json", "/workers-")  # a checkpoint is whole, rank 0 has told it
    while not all(any(part in key for key in s3.keys(f"cluster/{method}/seed-0/")) for part in parts):
        assert cluster.info(job)["status"] in ("PENDING", "RUNNING"), cluster.logs(job)
        assert time.monotonic() < limit, cluster.logs(job)
        time.sleep(0.1)
    busy = [node for node, workers in cluster.at_work().items() if workers]
    assert len(busy) == 2, "a node without a worker takes over"
    cluster.kill(busy[0])
    code, said = cluster.wait(job)
    assert code == 0, said
    assert "a worker was lost; 2 workers start again from the checkpoint" in said
    assert "seed 0: resumed after epoch " in said
    for node in cluster.at_work() if method not in ("hgt", "twhin") else ():
        assert len(large_arrays(cluster, node) - before[node]) == 1, "a worker's node has written its own file"
    undisturbed = nursery.run([*command, "--out", str(tmp_path)], imports=RAY)
    assert undisturbed.code == 0, undisturbed.err
    same_results(fetched(s3, f"cluster/{method}", tmp_path / "fetched"), tmp_path / method)


@pytest.mark.parametrize("method", METHODS)
def test_trials_of_a_search_train_on_nodes_that_see_no_common_folder(cluster, s3, method):
    name = f"{method}-study"
    code, said = cluster.wait(cluster.submit(
        "python", "workflows/tune.py", *words(method), "--epochs", "2", "--search", "lr", "--trials", "2",
        "--seeds", "0", "--no-prune", "--name", name, "--out", f"s3://{BUCKET}/cluster",
        "--scratch", str(cluster.own / "scratch"),
    ))  # fmt: skip
    assert code == 0, said
    assert "2 trials at a time of 1 thread on the cluster" in said
    trials = json.loads(s3.get(f"cluster/{name}/trials.json"))["trials"]
    assert [(trial["status"], trial["epochs"]) for trial in trials] == [("finished", 2)] * 2
    keys = set(s3.keys(f"cluster/{name}/"))
    assert {f"cluster/{name}/{trial['trial']}/seed-0/history.jsonl" for trial in trials} <= keys
