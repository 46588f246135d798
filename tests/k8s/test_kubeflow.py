"""Kubeflow's steps: submit(job) against a stand-in of the Kubernetes API and a real Ray head; the pipeline, compiled
again, and run by kfp's local runner.
"""

import difflib
import json
import os
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import check
import pytest
import tessera_jobs
import yaml
from manifests import K8S
from ray_world import Cluster
from tessera_jobs import Job, JobFailed, entrypoint, submit

PIPELINE = K8S / "kubeflow" / "pipeline.py"
IMAGE = "registry.mycompany.net/ml/tessera:0.1.0"
PLAN: dict[str, Any] = {"name": "p", "graph": "s3://b/g", "out": "s3://b/runs", "method": "hgt", "clusters": 5,
                        "parts": 2, "trials": 3, "seeds": 2}  # fmt: skip


class Api:
    """As much of the API server as a step asks of it: RayJobs that live through the states they are told to."""

    def __init__(self, token: str) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.plan: list[dict[str, Any]] = []  # what GETs of a job find as its status, one after the other
        self.broken = 0  # so many answers are 500
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                allowed = self.headers.get("Authorization") == f"Bearer {token}"
                status, answer = outer.answer(self.command, self.path, body) if allowed else (401, {})
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = _any  # noqa: N815

            def log_message(self, *words: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        prefix = "/apis/ray.io/v1/namespaces/tessera/rayjobs"
        assert path.startswith(prefix), path
        name = path.removeprefix(prefix).strip("/")
        self.asked.append((method, name))
        if self.broken:
            self.broken -= 1
            return 500, {"message": "etcd"}
        if method == "POST":
            self.jobs[body["metadata"]["name"]] = body
            return 201, body
        if name not in self.jobs:
            return 404, {"message": "not found"}
        if method == "DELETE":
            del self.jobs[name]
            return 200, {}
        if self.plan and name:
            self.jobs[name]["status"] = self.plan.pop(0)
        return 200, self.jobs[name]


@pytest.fixture
def api(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret\n")
    stand_in = Api("secret")
    monkeypatch.setenv("TESSERA_KUBERNETES_API", stand_in.url)
    monkeypatch.setenv("TESSERA_KUBERNETES_TOKEN", str(tmp_path / "token"))
    monkeypatch.setattr(tessera_jobs.time, "sleep", lambda seconds: None)
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()


RUNNING, DONE = {"jobDeploymentStatus": "Running"}, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
BROKEN = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "exit code 3"}


def test_a_rayjob_is_made_and_followed(api, capsys):
    api.plan = [{}, RUNNING, RUNNING, DONE]
    submit(Job("p-tune", "python workflows/tune_hgt.py"), "rayjob", image=IMAGE, every=0)
    assert capsys.readouterr().out.split("\n") == ["p-tune: New", "p-tune: Running", "p-tune: Complete", ""]
    job = api.jobs["p-tune"]
    assert job["spec"]["entrypoint"] == "python workflows/tune_hgt.py"
    assert check.check("job", [job]) == [], "by the rules for manifests"
    assert job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["image"] == IMAGE
    asked, api.plan = len(api.asked), [RUNNING, DONE]
    # a step's Pod that was replaced
    submit(Job("p-tune", "python workflows/tune_hgt.py"), "rayjob", image=IMAGE, every=0)
    assert {method for method, _ in api.asked[asked:]} == {"GET"}
    api.plan = [RUNNING]
    with pytest.raises(JobFailed, match="another command runs under this name"):
        submit(Job("p-tune", "python workflows/tune_hgt.py --trials 9"), "rayjob", image=IMAGE, every=0)
    asked, api.plan = len(api.asked), [DONE, DONE]
    submit(Job("p-tune", "python workflows/tune_hgt.py --trials 9"), "rayjob", image=IMAGE, every=0)
    assert [method for method, _ in api.asked[asked:]] == ["GET", "DELETE", "GET", "POST", "GET"]


def test_a_failure_is_told_and_a_retry_submits_again(api):
    api.plan = [RUNNING, BROKEN]
    with pytest.raises(JobFailed, match="p-train: Failed: FAILED AppFailed exit code 3"):
        submit(Job("p-train", "x"), "rayjob", image=IMAGE, every=0)
    api.plan = [BROKEN, DONE]
    api.asked.clear()
    submit(Job("p-train", "x"), "rayjob", image=IMAGE, every=0)
    assert [method for method, _ in api.asked] == ["GET", "DELETE", "GET", "POST", "GET"]
    api.plan = [{"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}]
    with pytest.raises(JobFailed, match="p-stop: Failed: STOPPED"):
        submit(Job("p-stop", "x"), "rayjob", image=IMAGE, every=0)


def test_an_api_server_that_is_away_for_a_while_is_asked_again(api, monkeypatch):
    api.broken, api.plan = 3, [DONE]
    submit(Job("p-tune", "x"), "rayjob", image=IMAGE, every=0)
    monkeypatch.setattr(tessera_jobs, "PATIENCE", 0.0)
    api.broken = 1
    with pytest.raises(JobFailed, match=r"no answer \(500\); start it"):
        submit(Job("p-new", "x"), "rayjob", image=IMAGE, every=0)
    monkeypatch.setenv("TESSERA_KUBERNETES_TOKEN", "/nowhere")
    with pytest.raises(JobFailed, match=r"401 .*check the token and its rights"):
        submit(Job("p-new", "x"), "rayjob", image=IMAGE, every=0)
    monkeypatch.setenv("TESSERA_KUBERNETES_API", "http://127.0.0.1:9")
    assert tessera_jobs.main(["tune", "--name", "p", "--graph", "g", "--out", "o", "--image", IMAGE]) == 1


def test_the_steps_are_commands_of_the_workflows():
    for step in tessera_jobs.STEPS:
        words = entrypoint(step, **PLAN).split()
        assert (K8S.parent / words[1]).is_file(), words
    tune, train = (entrypoint(step, **PLAN) for step in ("tune", "train"))
    assert tune.rpartition(" --seeds ")[0] == train.rpartition(" --seeds ")[0], "one study, its trials run once"
    assert entrypoint("tune", **PLAN, flags="--epochs 3").endswith("--seeds 0 --epochs 3")
    submitted: list[tuple[Job, str]] = []
    argv = ["parts", "--name", "My_Run!", "--graph", "g", "--out", "o", "--backend", "ray"]
    assert tessera_jobs.main(argv, lambda job, backend, **where: submitted.append((job, backend))) == 0
    assert (submitted[0][0].name, submitted[0][1]) == ("my-run-parts", "ray")


@pytest.mark.parametrize("wrong", [[], ["--image", ""], ["--image", "my image:1"]])
def test_a_rayjob_is_not_made_without_an_image(wrong, api, capsys):
    with pytest.raises(SystemExit, match="2"):
        tessera_jobs.main(["tune", "--name", "p", "--graph", "g", "--out", "o", *wrong])
    assert "error: argument --image: " in capsys.readouterr().err.splitlines()[-1]
    assert api.asked == []


def kfp_python() -> str:
    """A Python that has kfp: TESSERA_KFP_PYTHON, or what `make kubeflow` has made; skips where there is none."""
    python = os.environ.get("TESSERA_KFP_PYTHON") or str(K8S.parent / ".venv-kubeflow" / "bin" / "python")
    if not shutil.which(python):
        pytest.skip("kfp is not installed (its pins exclude Tessera's): make kubeflow")
    return python


def test_the_compiled_pipeline_is_the_one_in_the_repository(tmp_path):
    command = [kfp_python(), str(PIPELINE), str(tmp_path / "new.yaml")]
    bare = {key: value for key, value in os.environ.items() if key != "TESSERA_IMAGE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 0, done.stderr

    def lines(path: Path) -> list[str]:  # which release of kfp compiled it does not matter
        return [line for line in path.read_text().splitlines() if not line.startswith("sdkVersion")]

    new, old = lines(tmp_path / "new.yaml"), lines(PIPELINE.with_suffix(".yaml"))
    assert new == old, "\n".join(difflib.unified_diff(old, new))


def test_compiling_again_keeps_the_image_or_takes_the_one_that_is_given(tmp_path):
    python, ours = kfp_python(), PIPELINE.with_suffix(".yaml").read_text()
    copy, compiled = tmp_path / "pipeline.py", tmp_path / "pipeline.yaml"
    shutil.copy(PIPELINE, copy)
    compiled.write_text(ours.replace("registry.example.com", "registry.mycompany.net/ml"))  # as README's sed does
    bare = {key: value for key, value in os.environ.items() if key not in ("TESSERA_IMAGE", "TESSERA_NAMESPACE")}
    for given, image in (({}, IMAGE), ({"TESSERA_IMAGE": "other.net/tessera:2"}, "other.net/tessera:2")):
        subprocess.run([python, str(copy)], env=bare | given, check=True)
        assert "example" not in compiled.read_text()
        assert images(compiled) == {(image, image)}
    for given, namespace in (({}, "tessera"), ({"TESSERA_NAMESPACE": "other"}, "other"), ({}, "other")):
        subprocess.run([python, str(copy)], env=bare | given, check=True)
        executors = yaml.safe_load(compiled.read_text())["deploymentSpec"]["executors"].values()
        assert {each["container"]["args"][-1] for each in executors} == {namespace}


def images(path: Path) -> set[tuple[str, str]]:
    """(image of the step, image of its RayJob's submitter) of a compiled pipeline's steps, as a step parses it."""
    pairs: set[tuple[str, str]] = set()
    for executor in yaml.safe_load(path.read_text())["deploymentSpec"]["executors"].values():
        container, plan = executor["container"], {key: str(value) for key, value in PLAN.items()}
        names = [word.removeprefix("{{$.inputs.parameters['").removesuffix("']}}") for word in container["args"]]
        said = {"step": "tune", "flags": "", **plan}
        words = [said[n] if n != w else w for n, w in zip(names, container["args"], strict=True)]
        tessera_jobs.main(words, lambda job, backend, its=container, **where: pairs.add((its["image"], where["image"])))
    return pairs


def test_the_steps_of_the_pipeline_in_the_repository_name_their_image_to_their_rayjobs():
    ((step, submitter),) = images(PIPELINE.with_suffix(".yaml"))
    assert step == submitter


def test_the_pipeline_in_the_repository_is_a_chain_with_retries():
    tasks = yaml.safe_load(PIPELINE.with_suffix(".yaml").read_text())["root"]["dag"]["tasks"]
    named = {task["taskInfo"]["name"]: task for task in tasks.values()}
    assert set(named) == set(tessera_jobs.STEPS)
    after = {
        name: {tasks[t]["taskInfo"]["name"] for t in task.get("dependentTasks", ())} for name, task in named.items()
    }
    assert after == {"partition": set(), "tune": {"partition"}, "train": {"tune"}, "parts": {"tune"},
                     "compare": {"train", "parts"}}  # fmt: skip
    assert all(task["retryPolicy"]["maxRetryCount"] == 2 for task in named.values())


@pytest.mark.cluster
def test_the_pipeline_runs_on_a_real_ray_cluster_and_shows_a_failure(tmp_path):
    python = kfp_python()
    cluster = Cluster(3)

    def run(*pairs: str) -> subprocess.CompletedProcess[str]:
        access = {"RAY_API_SERVER_ADDRESS": cluster.dashboard, "RAY_AUTH_TOKEN": cluster.token,
               "PYTHONPATH": str(PIPELINE.parent)}  # fmt: skip
        return subprocess.run(
            [python, str(PIPELINE), "--local", f"root={tmp_path / 'kfp'}", f"out={tmp_path / 'runs'}", *pairs],
            env=os.environ | access, capture_output=True, text=True, timeout=900, cwd=tmp_path, check=False,
        )  # fmt: skip

    try:
        small = "--epochs 2 --hidden 16 --heads 2 --fan-out 4,4 --threads 1 --no-report --no-explain --workers 0"
        graph = "graph=planted:users=200,notes=100,clusters=3,mixing=0.2,mean_edges=10"
        done = run(graph, "clusters=3", "parts=2", "trials=2", "seeds=1", "name=small", f"flags={small}")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        jobs = {j["submission_id"]: j["status"] for j in cluster.get("/api/jobs/")}
        assert jobs == {f"small-{step}": "SUCCEEDED" for step in tessera_jobs.STEPS}
        assert json.loads((tmp_path / "runs" / "small-tune" / "trials.json").read_text())["finished"]
        assert "small-parts" in cluster.logs("small-compare")
        done = run("graph=nowhere.npz", "name=broken")
        assert done.returncode == 1
        assert "broken-partition: FAILED: exit code 3: error: " in done.stdout + done.stderr
        assert "broken-tune" not in {j["submission_id"] for j in cluster.get("/api/jobs/")}, "nothing follows a failure"
    finally:
        cluster.stop()
