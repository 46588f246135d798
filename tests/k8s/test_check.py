"""k8s/check.py: every rule refuses what it should, in one line with file, object, field and remedy; ours pass."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import check
import pytest
import yaml
from kuberay_pods import insecure, pods
from kuberay_rules import RULES, amount
from manifests import K8S, OVERLAYS, built, one

JOB, CLUSTER = ("rayjob-tune-hsan", "RayJob"), ("dev", "RayCluster")
Change = Callable[[dict[str, Any]], object]


def spec(document: dict[str, Any]) -> dict[str, Any]:
    inner = document["spec"]
    return dict.__getitem__(inner, "rayClusterSpec") if document["kind"] == "RayJob" else inner


def head(document: dict[str, Any]) -> dict[str, Any]:
    return spec(document)["headGroupSpec"]["template"]["spec"]


def group(document: dict[str, Any]) -> dict[str, Any]:
    return spec(document)["workerGroupSpecs"][0]


def worker(document: dict[str, Any]) -> dict[str, Any]:
    return group(document)["template"]["spec"]


def put(where: Callable[[dict[str, Any]], dict[str, Any]], **values: Any) -> Change:
    return lambda document: where(document).update(values)


def itself(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]


def ray(document: dict[str, Any]) -> dict[str, Any]:
    return head(document)["containers"][0]


def limits(document: dict[str, Any]) -> dict[str, Any]:
    return worker(document)["containers"][0]["resources"]["limits"]


def drop(where: Callable[[dict[str, Any]], dict[str, Any]], key: str) -> Change:
    return lambda document: where(document).pop(key)


# rule -> (object, change, the finding's field, a word of what it says)
CASES: list[tuple[str, tuple[str, str], Change, str, str]] = [
    ("name", JOB, lambda d: d["metadata"].update(name="r" * 48), "metadata.name", "at most 47"),
    ("name", CLUSTER, lambda d: d["metadata"].update(name="r" * 54), "metadata.name", "at most 53"),
    ("name", JOB, lambda d: d["metadata"].update(name="2nd"), "metadata.name", "begin with a letter"),
    ("unknown-field", JOB, put(itself, ttlSecondAfterFinished=1), "spec.ttlSecondAfterFinished", "ttlSecondsAfter"),
    ("unknown-field", JOB, put(spec, wokerGroupSpecs=[]), "spec.rayClusterSpec.wokerGroupSpecs", "workerGroupSpecs?"),
    ("unknown-field", CLUSTER, put(group, minReplica=1), "spec.workerGroupSpecs[0].minReplica", "minReplicas?"),
    ("immutable", ("dev", "Deployment"), lambda d: d.update(kind="Job"), "spec.template", "init container"),
    ("submission-mode", JOB, put(itself, submissionMode="K8sJob"), "spec.submissionMode", "HTTPMode"),
    ("submission-mode", JOB, put(itself, submissionMode="SidecarMode"), "spec.submitterPodTemplate", "remove it"),
    ("ttl", JOB, put(itself, shutdownAfterJobFinishes=False), "spec.ttlSecondsAfterFinished", "shutdownAfterJob"),
    ("ttl", JOB, put(itself, ttlSecondsAfterFinished=-1), "spec.ttlSecondsAfterFinished", "negative"),
    ("deletion-rules", JOB, put(itself, deletionStrategy={"deletionRules": [{}]}), "spec.deletionStrategy", "one of"),
    ("suspend", JOB, put(itself, suspend=True, shutdownAfterJobFinishes=False), "spec.suspend", "set it"),
    ("suspend", JOB, put(itself, suspend=True, clusterSelector={"a": "b"}), "spec.suspend", "clusterSelector"),
    ("retries", JOB, put(itself, backoffLimit=-1), "spec.backoffLimit", "negative"),
    ("retries", JOB, put(itself, clusterSelector={"ray.io/cluster": "x"}), "spec.backoffLimit", "clusterSelector"),
    ("retries", JOB, put(itself, submissionMode="InteractiveMode"), "spec.backoffLimit", "InteractiveMode"),
    ("retries", ("rayjob-train-hadis-gpu", "RayJob"), put(itself, backoffLimit=1), "spec.backoffLimit", "GPUs"),
    ("deadline", JOB, drop(itself, "preRunningDeadlineSeconds"), "spec.preRunningDeadlineSeconds", "not set"),
    ("deadline", JOB, put(itself, activeDeadlineSeconds=0), "spec.activeDeadlineSeconds", "1 or more"),
    ("cluster", JOB, drop(itself, "rayClusterSpec"), "spec.rayClusterSpec", "missing"),
    ("cluster", JOB, put(spec, upgradeStrategy={"type": "None"}), "spec.rayClusterSpec.upgradeStrategy", "remove"),
    ("runtime-env", JOB, put(itself, runtimeEnvYAML="env_vars: ["), "spec.runtimeEnvYAML", "YAML mapping"),
    ("runtime-env", JOB, put(itself, runtimeEnvYAML="pip"), "spec.runtimeEnvYAML", "YAML mapping"),
    ("kueue", JOB, lambda d: (kueued(d), d["spec"].update(shutdownAfterJobFinishes=False)), "spec.shutdown", "set it"),
    ("kueue", JOB, lambda d: (kueued(d), d["spec"].update(clusterSelector={"x": "y"})), "spec.clusterSel", "excludes"),
    ("kueue", JOB, lambda d: (kueued(d), spec(d).update(enableInTreeAutoscaling=True)), "Autoscaling", "excludes"),
    ("resources-twice", JOB, lambda d: spec(d)["headGroupSpec"].update(resources={"C": "1"}), "resources", "num-cpus"),
    ("replicas", CLUSTER, put(group, minReplicas=9), "spec.workerGroupSpecs[0].minReplicas", "above maxReplicas 2"),
    ("replicas", CLUSTER, put(group, replicas=3), "spec.workerGroupSpecs[0].replicas", "give 1 to 2"),
    ("replicas", JOB, drop(group, "maxReplicas"), "workerGroupSpecs[0].minReplicas", "give both"),
    ("scale-strategy", CLUSTER, drop(group, "scaleStrategy"), "workerGroupSpecs[0].scaleStrategy", "scaleStrategy: {}"),
    ("scale-strategy", JOB, drop(group, "scaleStrategy"), "workerGroupSpecs[0].scaleStrategy", "scaleStrategy: {}"),
    ("restart-policy", CLUSTER, put(worker, restartPolicy="Always"), "[0].template.spec.restartPolicy", "Never"),
    ("restart-policy", CLUSTER, put(head, restartPolicy="OnFailure"), "headGroupSpec.template.spec", "Never"),
    ("token", JOB, put(spec, authOptions={}), "spec.rayClusterSpec.authOptions.mode", "set mode: token"),
    ("token", CLUSTER, drop(spec, "authOptions"), "spec.authOptions.mode", "anybody"),
    ("token", CLUSTER, drop(spec, "rayVersion"), "spec.rayVersion", "missing"),
    ("redis", CLUSTER, lambda d: spec(d)["gcsFaultToleranceOptions"].update(redisPassword={"value": "x"}),
     "spec.gcsFaultToleranceOptions.redisPassword", "secretKeyRef"),
    ("redis", CLUSTER, put(ray, env=[{"name": "RAY_REDIS_ADDRESS", "value": "x"}]), "containers[0].env", "REDIS_ADD"),
    ("redis", CLUSTER, lambda d: spec(d)["headGroupSpec"]["rayStartParams"].update({"redis-password": "x"}),
     "redis-password", "in the open"),
    ("alpha", CLUSTER, put(spec, networkPolicy={"mode": "DenyAll"}), "spec.networkPolicy", "NetworkPolicy of your own"),
    ("alpha", CLUSTER, put(spec, gcsFaultToleranceOptions={"storage": {"size": 1}}), "storage", "redisAddress"),
    ("mounts", JOB, drop(worker, "volumes"), "workerGroupSpecs[0].template.spec.volumes", "tmp"),
    ("mounts", CLUSTER, lambda d: spec(d)["autoscalerOptions"]["volumeMounts"].append({"name": "logs"}),
     "headGroupSpec.template.spec.volumes", "logs"),
    ("limits", JOB, put(limits, memory="1Gi"), "resources.limits.memory", "below the request 4Gi"),
    ("limits", JOB, drop(limits, "memory"), "resources.limits.memory", "/dev/shm"),
    ("limits", JOB, put(limits, cpu="4500m"), "resources.limits.cpu", "whole CPUs"),
    ("head-cpus", JOB, lambda d: spec(d)["headGroupSpec"].update(rayStartParams={}), "num-cpus", "on the head"),
    ("scratch", JOB, lambda d: worker(d)["volumes"][0].update(emptyDir={}), "volumes[tmp].emptyDir.sizeLimit", "disk"),
    ("scratch", CLUSTER, lambda d: ray(d)["resources"]["requests"].pop("ephemeral-storage"), "ephemeral", "give"),
    ("scratch", ("managed", "Deployment"), lambda d: d["spec"]["template"]["spec"]["containers"][0].pop("resources"),
     "ephemeral-storage", "give"),
    ("environment", JOB, lambda d: worker(d)["containers"][0]["envFrom"].pop(), "env", "secret tessera-mlflow"),
    ("environment", JOB, put(ray, env=[{"name": "AWS_REGION", "value": "x"}]), "[0].env", "AWS_REGION"),
    ("secret", JOB, put(ray, env=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]), "env[AWS_SECRET", "in the open"),
    ("api-token", CLUSTER, put(head, automountServiceAccountToken=True), "automountServiceAccountToken", "drivers"),
    ("api-token", CLUSTER, lambda d: ray(d)["volumeMounts"].append({"name": "api-token"}), "volumeMounts", "only"),
    ("api-token", JOB, drop(worker, "automountServiceAccountToken"), "spec.automountServiceAccountToken", "set false"),
    ("optional-secret", JOB, lambda d: ray(d)["envFrom"][1]["secretRef"].pop("optional"), "envFrom[tessera", "wait"),
    ("pod-security", JOB, drop(itself, "submitterPodTemplate"), "spec.submitterPodTemplate.spec", "runAsNonRoot"),
    ("pod-security", CLUSTER, lambda d: spec(d)["autoscalerOptions"].pop("securityContext"),
     "spec.autoscalerOptions.securityContext.capabilities.drop", "ALL"),
    ("pod-security", JOB, drop(worker, "securityContext"), "workerGroupSpecs[0].template.spec.containers", "seccomp"),
    ("pod-security", JOB, put(head, hostNetwork=True), "headGroupSpec.template.spec.hostNetwork", "is true"),
]  # fmt: skip


def kueued(document: dict[str, Any]) -> None:
    document["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "q"}


@pytest.mark.parametrize(
    ("rule", "source", "change", "field", "word"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_each_rule_names_file_object_field_and_remedy(rule, source, change, field, word):
    document = one(*source)
    assert check.check("file.yaml", [document]) == []
    change(document)
    lines = [line for line in check.check("file.yaml", [document]) if f": {rule}: " in line]
    assert lines, check.check("file.yaml", [document])
    where, _, message = lines[0].partition(f": {rule}: ")
    assert where.startswith(f"file.yaml: {document['kind']} {document['metadata']['name']}: ")
    assert any(field in line.partition(f": {rule}: ")[0] for line in lines), lines
    assert any(word in line for line in lines), lines
    assert "; " in message, "what is wrong; what to do"


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} == set(RULES)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_manifests_pass(overlay):
    assert check.check(overlay, built(overlay)) == []


def test_other_objects_and_versions():
    deployment = one("dev", "Deployment", "mlflow")
    deployment["spec"]["template"]["spec"]["containers"][0].pop("securityContext")
    lines = check.check("f", [deployment])
    assert len(lines) == 2
    assert lines[1] == (
        "f: Deployment mlflow: spec.template.spec.containers[mlflow].securityContext.capabilities.drop: pod-security: "
        "does not have ALL; Pod Security restricted needs it"
    )
    secret = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "stringData": {"password": "x"}}
    assert "secret: is in the open; make Secrets by kubectl" in check.check("f", [secret])[0]
    old = {"kind": "RayJob", "apiVersion": "ray.io/v1alpha1", "metadata": {"name": "s"}}
    assert "version: ray.io/v1alpha1 RayJob is not KubeRay 1.7's" in check.check("f", [old])[0]


def test_the_pods_have_what_the_operator_adds():
    head_pod, worker_pod = pods(one("dev", "RayCluster"))
    assert [c["name"] for c in head_pod["spec"]["containers"]] == ["ray-head", "autoscaler"]
    assert [c["name"] for c in worker_pod["spec"]["initContainers"]] == ["wait-gcs-ready"]
    shared = {v["name"]: v for v in worker_pod["spec"]["volumes"]}["shared-mem"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Gi"}
    job = one("rayjob-train-hgt", "RayJob")
    assert [p["metadata"]["name"].removeprefix("rayjob-train-hgt-") for p in pods(job)] == ["head", "cpu", "submitter"]
    del job["spec"]["submitterPodTemplate"]
    assert [field for field, _ in insecure(list(pods(job))[2]["spec"])] != []


def test_quantities():
    assert [float(amount(q)) for q in ("200m", "1.5", 2, "1Ki", "2G", "many")] == [0.2, 1.5, 2, 1024, 2e9, 0]


def test_the_command(tmp_path, monkeypatch, capsys):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("a: [")
    assert check.main([str(wrong)]) == 2
    assert "is not YAML" in capsys.readouterr().err
    assert check.main([str(tmp_path / "none.yaml")]) == 2
    assert check.main(["--wrong"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"))
    capsys.readouterr()
    assert check.main(["-"]) == 0
    assert capsys.readouterr().out == f"1 objects of 1 places checked by {len(RULES)} rules, 0 findings\n"
    document = one("rayjob-tune-hsan", "RayJob")
    document["spec"]["submissionMode"] = "typo"
    wrong.write_text(yaml.safe_dump(document))
    done = subprocess.run([sys.executable, K8S / "check.py", wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        f"{wrong}: RayJob rayjob-tune-hsan: spec.submissionMode: submission-mode: is 'typo'; "
        "give one of K8sJobMode, HTTPMode, InteractiveMode, SidecarMode"
    )
    assert check.main(["--list"]) == 0
    assert check.main(["--pods", str(wrong)]) == 0
    assert "kind: Pod" in capsys.readouterr().out
    broken = tmp_path / "folder"
    broken.mkdir()
    assert check.main([str(broken)]) == 2


def test_only_the_heads_of_the_standing_cluster_reach_redis_and_no_cluster_another():
    (peer,) = one("dev", "NetworkPolicy", "redis")["spec"]["ingress"][0]["from"]
    assert peer["podSelector"]["matchLabels"] == {"ray.io/cluster": "tessera"}
    assert peer["podSelector"]["matchExpressions"][0]["values"] == ["head", "redis-cleanup"]
    for overlay in ("rayjob-train-hadis-gpu", "rayjob-tune-hsan-kueue"):
        labels = [p["metadata"]["labels"] for p in pods(one(overlay, "RayJob"))][:2]  # head, workers
        policy = one(overlay, "NetworkPolicy")["spec"]
        for selector in (policy, *policy["ingress"][0]["from"], *policy["egress"][0]["to"]):
            asked = selector["podSelector"]["matchLabels"]
            assert asked["app.kubernetes.io/instance"] == overlay
            assert all(asked.items() <= each.items() for each in labels)
    every = [d for d in built("dev") if d["kind"] == "NetworkPolicy" and "Ingress" in d["spec"]["policyTypes"]]
    everybody = {"podSelector": {"matchExpressions": [{"key": "ray.io/cluster", "operator": "Exists"}]}}
    assert {d["metadata"]["name"] for d in every if everybody in d["spec"].get("ingress", [{}])[0].get("from", [])} == {
        "mlflow",
        "s3",
    }


def test_kueue_covers_all_that_a_job_requests_and_has_a_flavor_for_its_nodes():
    (group,) = one("kueue-queues", "ClusterQueue")["spec"]["resourceGroups"]
    job = one("rayjob-train-hadis-gpu", "RayJob")
    asked = {key for pod in pods(job) for c in pod["spec"]["containers"] for key in c["resources"]["requests"]}
    assert asked <= set(group["coveredResources"])
    flavors = {d["metadata"]["name"]: d.get("spec", {}) for d in built("kueue-queues") if d["kind"] == "ResourceFlavor"}
    assert set(flavors) == {flavor["name"] for flavor in group["flavors"]}
    assert flavors["tessera-gpu"]["nodeLabels"] == worker(job)["nodeSelector"]
    assert one("kueue-queues", "LocalQueue")["metadata"]["namespace"] == "tessera"


def test_the_dashboard_shows_series_that_ray_has():
    (program,) = re.findall(r'python -c "(from ray[^"]*)"', (K8S / "README.md").read_text())
    rays = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    def series(text: str) -> set[str]:
        return set(re.findall(r"\bray_[a-z_]+(?=\{)", text))

    ours = series(one("monitoring", "ConfigMap")["data"]["tessera.json"])
    assert len(ours) >= 7
    assert ours <= series(rays)
