"""README's steps by a real kubectl, in order, against a stand-in of the API server (`api_world`) with a controller.

With KUBE_APISERVER=URL (what `kubectl proxy` gives: no login) they go to that server, which needs KubeRay's custom
resources and no namespace `tessera`; no Pod has to start there.
"""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api_world import ApiServer
from manifests import K8S, built

CONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: "{url}"}}}}]
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
users: [{{name: me, user: {{}}}}]
current-context: here
"""
CLUSTER, JOB = ("rayclusters", "tessera"), ("rayjobs", "rayjob-tune-hsan")
TEXT = (K8S / "README.md").read_text()


def commands(begin: str, end: str) -> list[str]:
    """README's commands from one heading to another, without those that follow something or need Pods."""
    text = TEXT[TEXT.index(begin) : TEXT.index(end)]
    lines = [
        re.sub(r"\s{2,}#.*", "", line) for line in text.splitlines() if not line.startswith(("#", "```", "export"))
    ]
    return [line for line in lines if line and not re.search(r" -w\b|logs -f|port-forward|ray job|docker", line)]


class Shell:
    """A checkout's copy of k8s/, and a shell whose kubectl speaks to the server at `url`."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        shutil.copytree(K8S, folder / "k8s", ignore=shutil.ignore_patterns("__pycache__", "files"))
        (folder / "config").write_text(CONFIG.format(url=url))

    def run(self, *lines: str) -> subprocess.CompletedProcess[str]:
        """All lines in one bash, which ends at the first that fails."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        settings = {"KUBECONFIG": str(self.folder / "config"), "HOME": str(self.folder), "PATH": path}
        command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def write(self, file: str, old: str, new: str) -> None:
        """Change one of its manifests."""
        path = self.folder / "k8s" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def get(self, kind: str, name: str = "") -> dict[str, Any]:
        """An object of the namespace, or the list of a kind, as the server has it."""
        return json.loads(ok(self.run(f"kubectl -n tessera get {kind} {name} -o json")))

    def change_groups(self, manager: str, **fields: Any) -> None:
        """What a controller called `manager` does: set fields of every worker group that has others."""
        groups = self.get(*CLUSTER)["spec"]["workerGroupSpecs"]
        patch = json.dumps({"spec": {"workerGroupSpecs": [fields | group | fields for group in groups]}})
        command = f"kubectl -n tessera patch {' '.join(CLUSTER)} --type merge --field-manager {manager}"
        ok(self.run(f"{command} -p {shlex.quote(patch)}"))

    def operated(self) -> None:
        """What the operator writes into a cluster that it has seen."""
        self.change_groups("kuberay-operator", scaleStrategy={})


@pytest.fixture
def shell(tmp_path):
    built("dev")  # skips where there is no kubectl
    given = os.environ.get("KUBE_APISERVER")
    if given:
        world = Shell(tmp_path, given)
        there = world.run("kubectl get namespace tessera").stderr
        assert "NotFound" in there, f"{given}: has a namespace tessera, which this test would delete; {there}"
        yield world
        ok(world.run("kubectl delete namespace tessera --ignore-not-found --wait"))
        return
    api = ApiServer()
    yield Shell(tmp_path, api.url)
    api.server.shutdown()
    api.server.server_close()


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


APPLY = "kubectl apply --server-side -k k8s/overlays/dev"


def test_the_steps_in_order_and_again_with_another_image(shell):
    ok(shell.run(*commands("# 2  the image", "# 3  the Secrets")))
    ok(shell.run(*commands("# 3  the Secrets", "# 4  check")))
    secrets = {each["metadata"]["name"]: each["data"] for each in shell.get("secrets")["items"]}
    assert set(secrets) == {f"tessera-{each}" for each in ("mlflow", "mlflow-server", "postgres", "redis", "s3")}
    drawn = [value for data in secrets.values() for key, value in data.items() if "USERNAME" not in key]
    assert all(re.fullmatch("[0-9a-f]{48}", base64.b64decode(value).decode()) for value in drawn)
    assert len(set(drawn)) == len(drawn)
    check = commands("# 4  check", "# 5  a search")
    ok(
        shell.run(
            *[line for line in check if "condition=Available" not in line or not os.environ.get("KUBE_APISERVER")]
        )
    )
    assert shell.get(*CLUSTER)["spec"]["workerGroupSpecs"]
    shell.operated()
    ok(shell.run(APPLY))  # the same again
    ok(shell.run(*commands("# 5  a search", "# 6  MLflow")))
    assert "suspend" not in shell.get(*JOB)["spec"], "replaced by what stands in the file"
    assert ok(shell.run(*commands("# 6  MLflow", "# 7  the standing"))).strip()
    shell.write("base/site/kustomization.yaml", "newTag: 0.1.0", "newTag: 0.1.1")
    ok(shell.run(APPLY))
    assert "registry.mycompany.net/ml/tessera:0.1.1" in str(shell.get("deployments", "mlflow"))
    (removal,) = re.findall(r"## Removal\n.*?```sh\n(.*?)```", TEXT, re.DOTALL)
    ok(shell.run(removal))
    assert "NotFound" in shell.run("kubectl get namespace tessera").stderr


def test_without_our_scale_strategy_the_operator_has_the_list(shell):
    shell.write("base/cluster/raycluster.yaml", "scaleStrategy: {}", "rayStartParams: {}")
    shell.write("base/cluster/raycluster.yaml", "      rayStartParams: {} # the", "      # the")
    ok(shell.run(APPLY))
    shell.operated()
    done = shell.run(APPLY)
    assert done.returncode == 1
    assert 'conflict with "kuberay-operator": .spec.workerGroupSpecs' in done.stderr


def test_after_the_autoscaler_the_second_apply_needs_to_force_as_readme_says(shell):
    ok(shell.run(APPLY))
    shell.operated()

    shell.change_groups("kuberay-autoscaler", replicas=2)
    assert "conflict" in shell.run(APPLY).stderr
    assert "`--force-conflicts`" in TEXT
    ok(shell.run(f"{APPLY} --force-conflicts"))
    assert shell.get(*CLUSTER)["spec"]["workerGroupSpecs"][0]["replicas"] == 1


def test_a_job_among_the_manifests_could_not_take_another_image(shell):
    job = "k8s/job.yaml"
    (shell.folder / job).write_text(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: tessera}\n"
        "spec: {template: {spec: {restartPolicy: Never, containers: [{name: j, image: tessera:1}]}}}"
    )
    ok(shell.run("kubectl create namespace tessera"))
    apply = f"kubectl apply --server-side -f {job}"
    ok(shell.run(apply))
    shell.write("job.yaml", "tessera:1", "tessera:2")
    assert "field is immutable" in shell.run(apply).stderr
    assert "immutable" in shell.run(f"python k8s/check.py {job}").stdout
