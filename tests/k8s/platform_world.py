"""The dev overlay's services and a RayJob's cluster, running: the manifests' own commands in Pods of `pod_world`."""

import json
import os
import secrets
import time
import urllib.request
from pathlib import Path
from typing import Any

import postgres
from kuberay_commands import ray_environment, ray_start, submit
from manifests import built, one
from pod_world import Network, Pod, settings

SECRETS = {
    "tessera-s3": {"AWS_ACCESS_KEY_ID": "tessera-test", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)},
    "tessera-postgres": {"password": secrets.token_hex(16)},
    "tessera-redis": {"password": secrets.token_hex(16)},
    "tessera-mlflow-server": {"admin-password": secrets.token_hex(16), "flask-secret-key": secrets.token_hex(16)},
    "tessera-mlflow": {"MLFLOW_TRACKING_USERNAME": "tessera", "MLFLOW_TRACKING_PASSWORD": secrets.token_hex(16)},
}
HEAD = "rayjob-x-head-svc.tessera.svc.cluster.local"
TOKEN = secrets.token_hex(32)


class Platform:
    """S3, PostgreSQL and MLflow; heads and workers of jobs on request."""

    def __init__(self, workdir: Path) -> None:
        self.objects = built("dev")
        self.maps = {d["metadata"]["name"]: d["data"] for d in self.objects if d["kind"] == "ConfigMap"}
        self.net = Network(workdir)
        try:
            self._start()
        except BaseException:
            self.net.close()
            raise

    def _start(self) -> None:
        for name in ("s3", "postgres", "mlflow"):
            self.net.add(name, name)
        for name, service in (("job", ()), ("head", (HEAD,)), ("cpu1", ()), ("cpu2", ())):
            self.net.add(name, *service)
        self.s3 = self._store("s3")
        self.database = self._store("postgres", postgres.command())
        self.s3.until(lambda: self.get("s3", "http://127.0.0.1:8333/healthz") == b"")
        self.database.until(lambda: self.rows("SELECT 1"))
        self.template = one("dev", "Deployment", "mlflow")["spec"]["template"]["spec"]
        for container in [*self.template["initContainers"], *self.template["initContainers"]]:  # a Pod may be replaced
            assert self.container(container).wait(180) == 0, self.net.pods[-1].said()
        self.start_mlflow()

    def _store(self, name: str, command: list[str] | None = None) -> Pod:
        spec = one("dev", "StatefulSet", name)["spec"]["template"]["spec"]
        container, kept = spec["containers"][0], self.net.folder / f"{name}-claim"
        kept.mkdir()
        os.chown(kept, spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"])
        command = command or [*container["command"], *container["args"]]
        return Pod(self.net, name, spec, command, settings(self.objects, SECRETS, container), kept=kept)

    def container(self, container: dict[str, Any]) -> Pod:
        """One of the containers of MLflow's Pod."""
        command = [*container["command"], *container["args"]]
        environment = settings(self.objects, SECRETS, container)
        return Pod(self.net, "mlflow", {**self.template, "containers": [container]}, command, environment, self.maps)

    def start_mlflow(self) -> None:
        """The server, until its probe answers."""
        self.mlflow = self.container(self.template["containers"][0])
        self.mlflow.until(lambda: self.get("mlflow", "http://127.0.0.1:5000/health"), 180)

    def get(self, pod: str, url: str, token: str = "") -> bytes:
        """What an address answers within a Pod's network."""
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})

        def ask() -> bytes:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return bytes(answer.read())

        return bytes(self.net.within(pod, ask))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What stands in MLflow's database."""
        import psycopg2

        def ask() -> list[tuple[Any, ...]]:
            password = SECRETS["tessera-postgres"]["password"]
            try:
                connection = psycopg2.connect(host="127.0.0.1", user="mlflow", dbname="mlflow", password=password)
            except psycopg2.OperationalError as error:
                raise ConnectionError(str(error)) from None
            try:
                with connection.cursor() as cursor:
                    cursor.execute(query)
                    return list(cursor.fetchall())
            finally:
                connection.close()

        return list(self.net.within("postgres", ask))

    def keys(self, prefix: str) -> list[str]:
        """The bucket's keys."""
        client = self._client()

        def ask() -> list[str]:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket="tessera", Prefix=prefix)
            listed = [each["Key"] for page in pages for each in page.get("Contents", ())]
            client.close()
            return listed

        return list(self.net.within("s3", ask))

    def read(self, keys: list[str]) -> list[list[dict[str, Any]]]:
        """What the bucket's objects hold: JSON lines, or one JSON document."""
        client = self._client()

        def ask() -> list[bytes]:
            contents = [client.get_object(Bucket="tessera", Key=key)["Body"].read() for key in keys]
            client.close()
            return contents

        texts = zip(keys, self.net.within("s3", ask), strict=True)
        return [
            [json.loads(line) for line in (text.splitlines() if key.endswith("l") else [text])] for key, text in texts
        ]

    def _client(self) -> Any:
        import boto3

        login = SECRETS["tessera-s3"]
        return boto3.client(
            "s3", endpoint_url="http://127.0.0.1:8333", region_name="us-east-1",
            aws_access_key_id=login["AWS_ACCESS_KEY_ID"], aws_secret_access_key=login["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip


class RayPods:
    """The cluster of one RayJob: its head and its workers, each in a network of its own."""

    def __init__(self, platform: Platform, overlay: str) -> None:
        self.platform, self.job, self.token = platform, one(overlay, "RayJob"), TOKEN
        spec = self.job["spec"]["rayClusterSpec"]
        self.head = self._pod("head", spec["headGroupSpec"])
        self.head.until(lambda: b"success" in self.ask("/api/gcs_healthz"), 180)
        self.workers = [self._pod(f"cpu{n}", spec["workerGroupSpecs"][0], HEAD) for n in (1, 2)]
        self.head.until(lambda: len(self.alive()) == 3, 180)

    def _pod(self, name: str, group: dict[str, Any], head: str = "") -> Pod:
        spec = group["template"]["spec"]
        environment = settings(self.platform.objects, SECRETS, spec["containers"][0])
        environment |= ray_environment("rayjob-x", TOKEN, head) | {"RAY_object_store_memory": "200000000"}
        return Pod(self.platform.net, name, spec, ray_start(group, head), environment)

    def ask(self, path: str) -> bytes:
        """What the head's dashboard answers."""
        return self.platform.get("head", f"http://127.0.0.1:8265{path}", TOKEN)

    def alive(self) -> list[str]:
        """The addresses of the nodes that live."""
        nodes = json.loads(self.ask("/nodes?view=summary"))["data"]["summary"]
        return [n["ip"] for n in nodes if "ip" in n and n["raylet"].get("state") == "ALIVE"]

    def submit(self, identity: str, entrypoint: str = "") -> Pod:
        """The submitter's Pod."""
        job = {"spec": {**self.job["spec"], "entrypoint": entrypoint or self.job["spec"]["entrypoint"]}}
        spec = self.job["spec"]["submitterPodTemplate"]["spec"]
        environment = settings(self.platform.objects, SECRETS, spec["containers"][0])
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
        return Pod(self.platform.net, "job", spec, submit(job, HEAD, identity), environment)

    def info(self, identity: str) -> dict[str, Any]:
        """The job's record."""
        return dict(json.loads(self.ask(f"/api/jobs/{identity}")))

    def logs(self, identity: str) -> str:
        """What its driver has printed."""
        return str(json.loads(self.ask(f"/api/jobs/{identity}/logs"))["logs"])

    def end(self, identity: str, seconds: float = 300) -> tuple[int | None, str]:
        """Wait for its end; its driver's exit code and what it printed."""
        limit = time.monotonic() + seconds
        while self.info(identity)["status"] in ("PENDING", "RUNNING"):
            assert time.monotonic() < limit, self.logs(identity)
            time.sleep(0.5)
        return self.info(identity)["driver_exit_code"], self.logs(identity)

    def close(self) -> None:
        """End its Pods."""
        for pod in (*self.workers, self.head):
            pod.kill()
