"""A step of the pipeline: one job on a Ray cluster, followed to its end. Standard library only.

  python tessera_jobs.py STEP --name RUN --graph GRAPH --out OUT --image IMAGE ... [--backend rayjob|ray]

`rayjob` makes a RayJob through the Kubernetes API (in a Pod: the service account's token), whose submitter is a Pod of
IMAGE; `ray` speaks to a head's dashboard, as `ray job submit` does (RAY_API_SERVER_ADDRESS, RAY_AUTH_TOKEN). A job of
the same name that runs is followed, one that has ended is submitted again: it goes on from its checkpoints. Exit 1
where the job failed, 2 for wrong flags.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PATIENCE = 600.0  # seconds without an answer before a step gives up; the job itself goes on
STEPS = ("partition", "tune", "train", "parts", "compare")


class JobFailed(Exception):
    """The job ended without success, or nobody answers: one line, and what the job said last."""


@dataclass(frozen=True)
class Job:
    """A name that is the same at every try, and the command."""

    name: str
    entrypoint: str


def entrypoint(step: str, name: str, graph: str, out: str, method: str, clusters: int, parts: int, trials: int,
               seeds: int, flags: str = "") -> str:  # fmt: skip
    """The command of a step. `train` is the search again, with seeds: its trials are there, the best is trained."""
    study, folder = f"{name}-tune", f"{out}/{name}-graph"
    k, cut = ["--n-clusters", str(clusters)], ["python", "workflows/partition_graph.py", "--graph", graph]
    tuned = ["python", "workflows/tune.py", method, "--dataset", graph, *k, "--trials", str(trials),
             "--name", study, "--out", out]  # fmt: skip
    commands = {
        "partition": [*cut, "--parts", str(parts), "--out", folder],
        "tune": [*tuned, "--seeds", "0"],
        "train": [*tuned, "--seeds", str(seeds)],
        "parts": ["python", "workflows/train.py", method, "--dataset", folder, *k, "--seeds", str(seeds),
                  "--name", f"{name}-parts", "--out", out],
        "compare": ["python", "workflows/compare.py", f"{out}/{study}/best", f"{out}/{name}-parts",
                    "--out", "/tmp/compare.html"],  # noqa: S108
    }  # fmt: skip
    return shlex.join(commands[step]) + (f" {flags}" if flags and step in ("tune", "train", "parts") else "")


def submit(
    job: Job, backend: str, *, image: str = "", namespace: str = "tessera", cluster: str = "tessera", every: float = 5.0
) -> None:
    """Run a job to its end; `rayjob` needs the image. Raises JobFailed."""
    runner = RayJobs(namespace, cluster, image) if backend == "rayjob" else RayHead()
    runner.start(job)
    said = ""
    while True:
        state, message = runner.state(job)
        if state != said:
            print(f"{job.name}: {state}", flush=True)
            said = state
        if state in runner.good:
            return
        if state in runner.bad:
            raise JobFailed(f"{job.name}: {state}: {message}".strip(": "))
        time.sleep(every)


class RayHead:
    """Jobs of a running Ray cluster, by its dashboard."""

    good, bad = ("SUCCEEDED",), ("FAILED", "STOPPED")

    def __init__(self) -> None:
        self.url = os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265").rstrip("/")
        token = os.environ.get("RAY_AUTH_TOKEN", "")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def start(self, job: Job) -> None:
        """Submit it under the first number of its name that is free, unless it runs already."""
        self.identity, number = job.name, 0
        while (record := ask(f"{self.url}/api/jobs/{self.identity}", self.headers, missing=True)) is not None:
            if record["status"] not in (*self.good, *self.bad):
                same(job, record.get("entrypoint"))
                return
            number += 1
            self.identity = f"{job.name}-{number}"
        body = {"entrypoint": job.entrypoint, "submission_id": self.identity}
        ask(f"{self.url}/api/jobs/", self.headers, "POST", body)

    def state(self, job: Job) -> tuple[str, str]:
        """Its state and, once it has failed, what it said last."""
        record = ask(f"{self.url}/api/jobs/{self.identity}", self.headers) or {}
        status = str(record.get("status"))
        if status not in self.bad:
            return status, ""
        logs = str((ask(f"{self.url}/api/jobs/{self.identity}/logs", self.headers) or {}).get("logs", ""))
        code = record.get("driver_exit_code")
        return status, f"exit code {code}: {last_line(logs)}"


class RayJobs:
    """RayJobs on Kubernetes, on the standing cluster; the operator's submitter runs them."""

    good, bad = ("Complete",), ("Failed", "ValidationFailed")

    def __init__(self, namespace: str, cluster: str, image: str) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        base = os.environ.get("TESSERA_KUBERNETES_API") or f"https://{host}:{port}"
        self.url, self.cluster = f"{base}/apis/ray.io/v1/namespaces/{namespace}/rayjobs", cluster
        self.image = image

    @property
    def headers(self) -> dict[str, str]:
        """The token is read every time: the kubelet renews it."""
        path = Path(os.environ.get("TESSERA_KUBERNETES_TOKEN", ACCOUNT / "token"))
        return {"Authorization": f"Bearer {path.read_text().strip()}"} if path.is_file() else {}

    def start(self, job: Job) -> None:
        """Create it; one that has ended is removed first (what it has done it finds again), one that runs stays."""
        there = ask(f"{self.url}/{job.name}", self.headers, missing=True)
        if there is not None and self._ended(there)[0] not in (*self.good, *self.bad):
            same(job, there["spec"]["entrypoint"])
            return
        if there is not None:
            ask(f"{self.url}/{job.name}", self.headers, "DELETE", missing=True)
            while ask(f"{self.url}/{job.name}", self.headers, missing=True) is not None:
                time.sleep(1)
        ask(self.url, self.headers, "POST", manifest(job, self.cluster, self.image))

    def state(self, job: Job) -> tuple[str, str]:
        """Its deployment's status, and the operator's message."""
        record = ask(f"{self.url}/{job.name}", self.headers, missing=True)
        if record is None:
            return "Failed", "somebody has deleted it"
        return self._ended(record)

    def _ended(self, record: dict[str, Any]) -> tuple[str, str]:
        status = record.get("status") or {}
        state, job = status.get("jobDeploymentStatus") or "New", status.get("jobStatus")
        if state == "Complete" and job != "SUCCEEDED":  # a stopped or failed job's cluster completes as well
            state = "Failed"
        words = f"{job or ''} {status.get('reason') or ''} {status.get('message') or ''}"
        return state, " ".join(words.split())


def same(job: Job, running: str | None) -> None:
    """Raise JobFailed where what runs under the job's name is another command."""
    if running != job.entrypoint:
        raise JobFailed(f"{job.name}: another command runs under this name ({running}); wait for it, or give --name")


def manifest(job: Job, cluster: str, image: str) -> dict[str, Any]:
    """A RayJob on a standing cluster. No retries of its own: the pipeline's are seen by everybody."""
    safe = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "submitter", "image": image,
        "envFrom": [{"configMapRef": {"name": "tessera-env"}}], "securityContext": safe,
        "resources": {"requests": {"cpu": "200m", "memory": "512Mi", "ephemeral-storage": "256Mi"},
                      "limits": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip
    pod = {
        "restartPolicy": "Never", "serviceAccountName": "tessera", "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000,
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container], "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
    }  # fmt: skip
    labels = {"app.kubernetes.io/part-of": "tessera", "app.kubernetes.io/component": "submitter"}
    return {
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": job.name},
        "spec": {
            "entrypoint": job.entrypoint, "clusterSelector": {"ray.io/cluster": cluster},
            "submissionMode": "K8sJobMode", "submitterConfig": {"backoffLimit": 2}, "backoffLimit": 0,
            "preRunningDeadlineSeconds": 1800, "activeDeadlineSeconds": 172800,
            "submitterPodTemplate": {"metadata": {"labels": labels}, "spec": pod},
        },
    }  # fmt: skip


def ask(url: str, headers: dict[str, str], method: str = "GET", body: Any = None, *, missing: bool = False) -> Any:
    """A JSON answer; None for a 404 where `missing` may be. Tries again while nobody answers. Raises JobFailed."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers}, method=method)  # noqa: S310
    authority = ACCOUNT / "ca.crt"
    context = ssl.create_default_context(cafile=authority if authority.is_file() else None)
    limit, pause = time.monotonic() + PATIENCE, 1.0
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code == 404 and missing:
                return None
            if error.code == 409 and method == "POST":  # an earlier try arrived without an answer
                return None
            if error.code < 500:
                raise JobFailed(f"{url}: {error.code} {last_line(text)}; check the token and its rights") from None
            reason = f"{error.code}"
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "reason", error))
        if time.monotonic() > limit:
            raise JobFailed(f"{url}: no answer ({reason}); start it, then run the step again") from None
        time.sleep(pause)
        pause = min(2 * pause, 30.0)


def last_line(text: str) -> str:
    """The last line that tells something: an error's where there is one."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][:500]


def main(argv: list[str], submit: Callable[..., None] = submit) -> int:
    """Parse, submit, follow; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tessera_jobs.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    for flag, default in (("name", None), ("graph", None), ("out", None), ("method", "hgt"), ("flags", ""),
                          ("image", ""), ("backend", "rayjob"), ("namespace", "tessera"),
                          ("cluster", "tessera")):  # fmt: skip
        parser.add_argument(f"--{flag}", default=default, required=default is None)
    for flag, number in (("clusters", 20), ("parts", 4), ("trials", 8), ("seeds", 3)):
        parser.add_argument(f"--{flag}", type=int, default=number)
    given = vars(parser.parse_args(argv))
    step, backend = given.pop("step"), given.pop("backend")
    where = {key: given.pop(key) for key in ("image", "namespace", "cluster")}
    if backend == "rayjob" and not re.fullmatch(r"[\w.:/@-]+", where["image"]):
        parser.error(f"argument --image: {where['image']!r} is no image's name; give the one this step runs in")
    given["name"] = re.sub(r"[^a-z0-9]+", "-", given["name"].lower()).strip("-")[:36]
    job = Job(f"{given['name']}-{step}", entrypoint(step, **given))
    try:
        submit(job, backend, **where)
    except JobFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
