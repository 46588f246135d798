"""k8s/chart: Helm renders what kustomize builds, as the overlays are and with the same values written into both."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import K8S, OVERLAYS, build, built

RENDER = """
import json, sys
from helm_python import Chart
with Chart.load(sys.argv[1]) as chart:
    print(*chart.render(json.loads(sys.argv[3]), name="tessera", namespace=sys.argv[2]).values(), sep="\\n")
"""
RESOURCES = {"cpu": "12", "memory": "96Gi", "ephemeral-storage": "80Gi", "nvidia.com/gpu": "2"}
LIMITS = {key: value for key, value in RESOURCES.items() if key != "ephemeral-storage"}
VALUES = {
    "createNamespace": True,
    "image": {"repository": "r.example.net/deep/clusters", "tag": "2", "cudaTag": "2-gpu"},
    "pullSecret": "login",
    "secrets": {"tessera-s3": "store"},
    "settings": {"tessera-env": {"TESSERA_OUT": "s3://mine/runs", "EXTRA": "1"}},
    "entrypoints": {"rayjob-train-hadis-gpu": "python workflows/train.py hadis --dataset s3://mine/data"},
    "groups": {"gpu": {"maxReplicas": 7, "resources": RESOURCES, "nodeSelector": {"pool": "a100"}}},
    "storage": {"className": "fast", "sizes": {"s3": "200Gi"}},
}
CLAIM = "/spec/volumeClaimTemplates/0/spec"


def group(root: str) -> list[dict[str, Any]]:
    """VALUES' `groups` as a patch of the group below `root`."""
    return [
        {"op": "replace", "path": f"{root}/maxReplicas", "value": 7},
        {"op": "replace", "path": f"{root}/template/spec/containers/0/resources",
         "value": {"requests": RESOURCES, "limits": LIMITS}},
        {"op": "replace", "path": f"{root}/template/spec/nodeSelector", "value": {"pool": "a100"}},
    ]  # fmt: skip


JOB = "rayjob-train-hadis-gpu"
PATCHES: dict[str, list[tuple[dict[str, str], list[dict[str, Any]]]]] = {
    "gpu": [
        ({"kind": "RayCluster"}, group("/spec/workerGroupSpecs/1")),
        ({"kind": "ConfigMap", "name": "tessera-env"}, [
            {"op": "add", "path": "/data/EXTRA", "value": "1"},
            {"op": "replace", "path": "/data/TESSERA_OUT", "value": "s3://mine/runs"}]),
        ({"kind": "StatefulSet"}, [{"op": "add", "path": f"{CLAIM}/storageClassName", "value": "fast"}]),
        ({"kind": "StatefulSet", "name": "s3"},
         [{"op": "replace", "path": f"{CLAIM}/resources/requests/storage", "value": "200Gi"}]),
        ({"kind": "ServiceAccount"}, [{"op": "replace", "path": "/imagePullSecrets/0/name", "value": "login"}]),
    ],
    JOB: [
        ({"kind": "RayJob"}, group("/spec/rayClusterSpec/workerGroupSpecs/0")),
        ({"kind": "RayJob"},
         [{"op": "replace", "path": "/spec/entrypoint", "value": VALUES["entrypoints"][JOB]}]),  # type: ignore[index]
    ],
}  # fmt: skip


def helm(chart: Path, namespace: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """`helm template`, by helm or by its library for Python; skips the test where there is neither."""
    if shutil.which("helm"):
        (chart.parent / "values.json").write_text(json.dumps(values))
        command = ["helm", "template", "tessera", str(chart), "-n", namespace, "-f", str(chart.parent / "values.json")]
        return subprocess.run(command, capture_output=True, text=True, check=False)
    python = os.environ.get("TESSERA_HELM_PYTHON") or str(K8S.parent / ".venv-k8s" / "bin" / "python")
    if not shutil.which(python):
        pytest.skip("neither helm is installed nor helm-python-sdk: make check-k8s brings the latter")
    command = [python, "-c", RENDER, str(chart), namespace, json.dumps(values)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def in_order(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((each for each in objects if each), key=lambda each: (each["kind"], each["metadata"]["name"]))


def rendered(chart: Path, namespace: str, **values: Any) -> list[dict[str, Any]]:
    done = helm(chart, namespace, values)
    assert done.returncode == 0, done.stderr
    return in_order(list(yaml.safe_load_all(done.stdout)))


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    """The chart with the objects that `make chart` writes into it."""
    built("dev")  # skips where there is no kubectl
    folder = tmp_path_factory.mktemp("helm") / "chart"
    shutil.copytree(K8S / "chart", folder, ignore=shutil.ignore_patterns("files"))
    subprocess.run(["make", "-s", "chart", f"CHART={folder}"], cwd=K8S.parent, check=True)
    return folder


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_helm_renders_each_overlay_as_kustomize_builds_it(chart, overlay):
    assert rendered(chart, "tessera", overlays=[overlay], createNamespace=True) == in_order(built(overlay))


@pytest.mark.parametrize("overlay", PATCHES)
def test_the_same_values_give_the_same_objects(chart, tmp_path, overlay):
    kustomization = {
        "resources": [os.path.relpath(K8S / "overlays" / overlay, tmp_path.resolve())],
        "namespace": "other",
        "images": [{"name": "registry.example.com/tessera", "newName": "r.example.net/deep/clusters",
                    "newTag": "2-gpu"}],
        "patches": [{"target": target, "patch": json.dumps(patch)} for target, patch in PATCHES[overlay]],
    }  # fmt: skip
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    # kustomize has no parameter for a Secret's name: it is written into the text
    wanted = build(str(tmp_path)).replace("name: tessera-s3\n", "name: store\n")
    ours = rendered(chart, "other", overlays=[overlay], **VALUES)
    assert ours == in_order(list(yaml.safe_load_all(wanted)))
    assert ours != rendered(chart, "other", overlays=[overlay], createNamespace=True)


def test_without_createnamespace_the_release_has_no_namespace_among_its_objects(chart):
    kinds = {each["kind"] for each in rendered(chart, "tessera", overlays=["dev", "rayjob-train-hsan"])}
    assert {"RayCluster", "RayJob", "Deployment"} <= kinds
    assert "Namespace" not in kinds


@pytest.mark.parametrize(("values", "said"), [
    ({"overlays": ["prod"]}, "overlays: prod: is no folder of k8s/overlays; give one"),
    ({"overlay": "dev"}, "overlay"),
    ({"groups": {"gpu": {"replicas": "two"}}}, "integer"),
])  # fmt: skip
def test_wrong_values_are_refused(chart, values, said):
    done = helm(chart, "tessera", values)
    assert done.returncode != 0
    assert said in done.stderr
