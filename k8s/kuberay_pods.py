"""The Pods that controllers make of manifests: for tools that know Pods only, and for the rules of Pod Security.

Of a ray.io object: head (with the autoscaler's container where there is one), every worker group (with the container
that waits for the head), submitter. Of Deployments, StatefulSets, Jobs, CronJobs: their template; of a Pod: itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

CLUSTER = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
JOB = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}
TEMPLATED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Deployment", "StatefulSet", "Job", "DaemonSet", "ReplicaSet"), ("spec", "template")),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}


def at(node: Any, *keys: Any) -> Any:
    """`node[k1][k2]...`, {} where something on the way is missing or null."""
    for key in keys:
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and isinstance(key, int) and key < len(node):
            node = node[key]
        else:
            return {}
    return {} if node is None else node


def cluster_path(document: dict[str, Any]) -> str:
    """Where a ray.io object has its cluster's spec, dotted; "" where it has none."""
    return ".".join(CLUSTER.get(document.get("kind", ""), ()))


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    """A ray.io object's cluster spec, {} where it has none."""
    keys = CLUSTER.get(document.get("kind", ""))
    return at(document, *keys) if keys else {}


def job_of(document: dict[str, Any]) -> dict[str, Any]:
    """A RayJob's or RayCronJob's job spec, {} for others."""
    keys = JOB.get(document.get("kind", ""))
    return at(document, *keys) if keys else {}


def templates(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(role, dotted path of the template, template) of everything an object makes Pods of; templates may be empty."""
    kind = document.get("kind")
    if kind in TEMPLATED:
        yield kind.lower(), ".".join(TEMPLATED[kind]), at(document, *TEMPLATED[kind])
        return
    if kind not in CLUSTER:
        return
    base, cluster = cluster_path(document), cluster_of(document)
    if cluster:
        yield "head", f"{base}.headGroupSpec.template", at(cluster, "headGroupSpec", "template")
    for number, group in enumerate(at(cluster, "workerGroupSpecs") or []):
        path = f"{base}.workerGroupSpecs[{number}].template"
        yield str(group.get("groupName") or number), path, at(group, "template")
    job = job_of(document)
    if job and job.get("submissionMode", "K8sJobMode") == "K8sJobMode":
        where = ".".join((*JOB[kind], "submitterPodTemplate"))
        yield "submitter", where, job.get("submitterPodTemplate") or {}


def pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The Pods of an object as plain v1 objects, with what the operator adds to them as far as rules look at it."""
    meta = document.get("metadata") or {}
    cluster = cluster_of(document)
    for role, path, template in templates(document):
        spec = copy.deepcopy(template.get("spec") or {})
        if document["kind"] in CLUSTER:
            _as_the_operator(role, path, spec, cluster)
        metadata = copy.deepcopy(template.get("metadata") or {})
        metadata["name"] = f"{meta.get('name') or str(meta.get('generateName')) + 'x'}-{role}".lower()[:63]
        if meta.get("namespace"):
            metadata["namespace"] = meta["namespace"]
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _as_the_operator(role: str, path: str, spec: dict[str, Any], cluster: dict[str, Any]) -> None:
    """Add the containers and volumes that KubeRay 1.7 puts into a Pod."""
    if role == "submitter":
        if not spec:
            image = at(cluster, "headGroupSpec", "template", "spec", "containers", 0, "image") or "none"
            spec |= {"restartPolicy": "Never", "containers": [{"name": "ray-job-submitter", "image": image}]}
        return
    containers = spec.get("containers") or []
    if not containers:
        return
    ray = containers[0]
    volumes = spec["volumes"] = spec.get("volumes") or []  # null is none, as the server has it
    if not any(m.get("mountPath") == "/dev/shm" for m in ray.get("volumeMounts") or []):  # noqa: S108
        shm = at(ray, "resources", "limits", "memory") or None
        volumes.append({"name": "shared-mem", "emptyDir": {"medium": "Memory"} | ({"sizeLimit": shm} if shm else {})})
        shared = {"name": "shared-mem", "mountPath": "/dev/shm"}  # noqa: S108
        ray["volumeMounts"] = [*(ray.get("volumeMounts") or []), shared]
    if role != "head":
        small = {"cpu": "200m", "memory": "256Mi"}
        kept = {
            k: copy.deepcopy(ray[k]) for k in ("image", "imagePullPolicy", "securityContext", "envFrom") if k in ray
        }
        mounts = copy.deepcopy(ray.get("volumeMounts") or [])
        waits = {"name": "wait-gcs-ready", "volumeMounts": mounts, "resources": {"requests": small, "limits": small}}
        spec["initContainers"] = [*(spec.get("initContainers") or []), kept | waits]
    elif cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions") or {}
        keys = ("securityContext", "env", "envFrom", "volumeMounts", "resources")
        kept = {k: copy.deepcopy(options[k]) for k in keys if k in options}
        image = options.get("image") or ray.get("image")
        pull = options.get("imagePullPolicy", "IfNotPresent")
        containers.append({"name": "autoscaler", "image": image, "imagePullPolicy": pull} | kept)


def insecure(spec: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) where a Pod would be refused by Pod Security `restricted`."""
    pod = spec.get("securityContext") or {}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key, "is true"
    for volume in spec.get("volumes") or []:
        if "hostPath" in volume:
            yield f"volumes[{volume.get('name')}]", "is a hostPath"
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or []:
            field = f"{kind}[{container.get('name')}].securityContext"
            for name, wrong in _insecure(pod, container.get("securityContext") or {}):
                yield f"{field}.{name}", wrong


def _insecure(pod: dict[str, Any], context: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Likewise of `context`, one container's securityContext, where the Pod's stands behind it."""
    both = pod | context
    if not both.get("runAsNonRoot"):
        yield "runAsNonRoot", "is not true, nor is the Pod's"
    if both.get("runAsUser") == 0:
        yield "runAsUser", "is 0"
    if not at(both, "seccompProfile", "type"):
        yield "seccompProfile", "is not set, nor is the Pod's"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation", "is not false"
    if context.get("privileged"):
        yield "privileged", "is true"
    if "ALL" not in (at(context, "capabilities", "drop") or []):
        yield "capabilities.drop", "does not have ALL"
