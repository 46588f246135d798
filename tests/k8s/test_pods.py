"""The manifests for real, but for Kubernetes itself: services, a RayJob's head, workers and submitter as Pods of their
own networks and users (`pod_world`). A search and a training of two workers, MLflow and a node that die, a stop, a
resume, a browser.
"""

import json
import re
import time
import urllib.error
from pathlib import Path

import pytest
from browser import program
from mlflow_page import visit
from platform_world import HEAD, SECRETS, Platform, RayPods
from pod_world import ROOT, Pod, missing, settings

pytestmark = pytest.mark.cluster

SMALL = "--embedding-dim 8 --threads 1 --no-explain"
SEARCH = f" {SMALL} --trials 2 --epochs 300 --update-every 3 --seeds 1 --no-prune"  # outlasts a restart of MLflow
TRAIN = ("python workflows/train.py hsan --dataset planted:nodes=700,clusters=4 --threads 1 --no-report --no-explain "
         "--embedding-dim 128 --epochs 150 --update-every 2 --workers 2 --out $TESSERA_OUT")  # fmt: skip


@pytest.fixture(scope="module")
def platform():
    if reason := missing():
        pytest.skip(reason)
    world = Platform(ROOT)
    yield world
    world.net.close()


@pytest.fixture(scope="module")
def ray(platform):
    world = RayPods(platform, "rayjob-tune-hsan")
    yield world
    world.close()


def following(ray: RayPods, identity: str, word: str, seconds: float = 240) -> str:
    """Wait until the job has said a word; returns its log."""
    limit = time.monotonic() + seconds
    while True:
        try:
            said = ray.logs(identity)
            if word in said:
                return said
            assert ray.info(identity)["status"] in ("PENDING", "RUNNING"), said
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:  # not submitted yet
                raise
        assert time.monotonic() < limit, identity
        time.sleep(0.3)


def test_nobody_comes_in_without_login_token_or_key(platform, ray):
    for pod, url in (("mlflow", "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1"),
                     ("head", "http://127.0.0.1:8265/api/jobs/"), ("s3", "http://127.0.0.1:8333/tessera")):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as refused:
            platform.get(pod, url)
        assert refused.value.code in (401, 403), url
        refused.value.close()
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        platform.get("mlflow", f"http://{platform.net.hosts['mlflow']}:5000/")  # a name that is not allowed
    refused.value.close()


def test_a_missing_secret_or_bucket_ends_a_job_at_once(platform, ray):
    job = "missing-bucket"
    submitted = ray.submit(job, "python workflows/tune_hsan.py --dataset digits --out s3://nowhere/runs")
    submitted.wait(200)
    code, said = ray.end(job)
    assert code == 6
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert lines == ["error: s3://nowhere/runs: there is no bucket nowhere (endpoint s3:8333); make it, or correct the "
                     "name or AWS_ENDPOINT_URL"]  # fmt: skip
    spec = ray.job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    environment = settings(platform.objects, {}, spec["containers"][0])  # the Pod starts: its Secrets are optional
    pod = Pod(platform.net, "job", spec, ["/bin/bash", "-c", TRAIN.replace(" --workers 2", "")], environment)
    assert pod.wait(120) == 6
    assert "no credentials are set (endpoint s3:8333); set AWS_ACCESS_KEY_ID" in pod.said()

    # without MLflow's Secret the training ends well and tells so first and last, unless tracking is required
    environment = settings(platform.objects, {"tessera-s3": SECRETS["tessera-s3"]}, spec["containers"][0])
    line = f"python workflows/train.py hsan --dataset planted:nodes=60,clusters=3 --epochs 2 --no-report {SMALL}"
    for more, code in (("--name open", 0), ("--name required --require-tracking", 6)):
        pod = Pod(platform.net, "job", spec, ["/bin/bash", "-c", f"{line} --out $TESSERA_OUT {more}"], environment)
        assert pod.wait(240) == code, pod.said()
        lines = [line for line in pod.said().splitlines() if "MLflow at http://mlflow:5000 cannot be reached" in line]
        assert [line.split(":")[0] for line in lines] == ["warning", "error" if code else "warning"], pod.said()
        assert "You are not authenticated" in lines[0]


def check_records(platform: Platform, name: str) -> None:
    """Nothing is lost, nothing doubled: the records in the bucket against the database; artefacts are there too."""
    every = platform.keys(f"runs/{name}/")
    keys = [k for k in every if k.endswith("status.json")]
    recorded = []
    for key, (status,) in zip(keys, platform.read(keys), strict=True):
        figures = status.get("metrics", {}).items()
        named = [(re.sub(r"[^\w\-./: ]", "_", k), v) for k, v in figures]  # as MLflow takes them
        recorded += [(status["id"], k, status["step"], status["ended"]) for k, v in named if v is not None]
        history = [h for h in (key.replace("status.json", "history.jsonl"),) if h in every]
        recorded += [
            (status["id"], k, epoch["epoch"], int(1000 * epoch["sys/time"]))
            for epochs in platform.read(history) for epoch in epochs for k in epoch if k not in ("epoch", "sys/time")
        ]  # fmt: skip
    logged = platform.rows("SELECT t.value, m.key, m.step, m.timestamp FROM metrics m JOIN tags t "
                           "ON t.run_uuid = m.run_uuid AND t.key = 'tessera.id'")  # fmt: skip
    assert len(recorded) > 60
    assert sorted((k, key, int(step), int(at)) for k, key, step, at in logged) == sorted(recorded)
    runs = platform.rows("SELECT name, status FROM runs ORDER BY name")
    assert len(runs) == len(keys)
    assert {status for _, status in runs} <= {"FINISHED", "KILLED"}
    assert platform.rows("SELECT name FROM registered_models") == [("tessera-hsan",)]
    assert set(platform.rows("SELECT alias FROM registered_model_aliases")) == {("last",), ("newest",)}
    stored = platform.keys("mlflow/")
    assert [k for k in stored if k.endswith("report.html")], "artefacts went through the server into the bucket"
    assert [k for k in stored if k.endswith("model.safetensors")]


def check_page(platform: Platform, picture: Path) -> None:
    """MLflow's page that compares two runs, in a browser."""
    seeds = platform.rows("SELECT run_uuid, experiment_id FROM runs WHERE name LIKE 'seed-%'")
    both, experiment = [run for run, _ in seeds[-2:]], seeds[0][1]
    page = f'/#/compare-runs?runs={json.dumps(both, separators=(",", ":"))}&experiments=["{experiment}"]'
    secret = SECRETS["tessera-mlflow"]
    login = secret["MLFLOW_TRACKING_USERNAME"], secret["MLFLOW_TRACKING_PASSWORD"]
    dom = platform.net.within("mlflow", lambda: visit(page, *login, picture))
    assert all(run in dom for run in both), "the page names both runs"
    assert "cluster/calinski_harabasz" in dom  # the first of its metrics: the page draws the rows that are in sight
    assert picture.stat().st_size > 20_000
    print(f"picture: {picture}")


def test_the_search_of_the_manifest_with_mlflow_killed_in_mid_run(platform, ray, tmp_path):
    submitted = ray.submit("search", ray.job["spec"]["entrypoint"] + SEARCH)
    submitted.until(lambda: platform.rows("SELECT count(*) FROM metrics")[0][0] > 0, 600)
    platform.mlflow.kill()
    said = following(ray, "search", "cannot be reached")
    assert "MLflow at http://mlflow:5000 cannot be reached" in said
    platform.start_mlflow()
    assert submitted.wait(900) == 0, submitted.said()[-3000:]
    code, said = ray.end("search")
    assert code == 0, said
    assert "MLflow at http://mlflow:5000 is back" in said
    assert "Traceback" not in said
    name = next(line for line in said.splitlines() if line.startswith("report: ")).split("/")[-2]
    check_records(platform, name)
    if program() is None:
        pytest.skip("no Chromium: the page of two runs was not opened; the rest has passed")
    check_page(platform, tmp_path / "compare.png")


def test_two_workers_lose_a_node_and_a_job_is_stopped_and_goes_on(platform, ray):
    submitted = ray.submit("train", TRAIN)
    said = following(ray, "train", "seed 0  epoch 4")
    assert "on 2 workers of 1 thread of the cluster" in said
    trains = [sum("RayTrainWorker" in title for title in pod.titles()) for pod in ray.workers]
    assert sum(trains) == 2, trains
    victim = ray.workers[trains.index(max(trains))]
    victim.kill()
    assert submitted.wait(900) == 0, submitted.said()[-3000:]
    code, said = ray.end("train")
    assert code == 0, said
    assert "a worker was lost; 2 workers start again from the checkpoint" in said

    again = TRAIN.replace("--epochs 150", "--epochs 900")
    ray.submit("stop", again)
    following(ray, "stop", "seed 0  epoch 4")
    spec = ray.job["spec"]["submitterPodTemplate"]["spec"]
    stop = Pod(platform.net, "job", spec, ["ray", "job", "stop", "--address", f"http://{HEAD}:8265", "stop"],
               {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ray.token, "HOME": "/tmp/home"})  # fmt: skip
    assert stop.wait(200) == 0, stop.said()
    assert ray.info("stop")["status"] == "STOPPED"
    assert "resume with: python workflows/train.py hsan" in ray.logs("stop")
    for pod in (ray.head, *ray.workers):
        pod.kill()  # the cluster goes, as when a RayJob is deleted
    new = RayPods(platform, "rayjob-train-hsan")
    try:
        new.submit("resumed", again)
        following(new, "resumed", "seed 0: resumed after epoch")
    finally:
        new.close()
