"""The rules of KubeRay 1.7's operator, which no API server checks, and a few of ours: a wrong object is accepted there
and its job then waits for ever.

A rule looks at one object that Pods are made of and yields (field, what is wrong, what to do).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

import yaml
from kuberay_pods import at, cluster_of, cluster_path, job_of, templates

Object = dict[str, Any]
Found = Iterator[tuple[str, str, str]]
Rule = Callable[[Object], Found]
RULES: dict[str, Rule] = {}

LONGEST = {"RayJob": 47, "RayCluster": 53, "RayService": 41, "RayCronJob": 47}
MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
UNITS = {"": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip
# Every field there is at each level, of the 1.7 CRDs.
FIELDS = {
    "job": """
        activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus
        entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec
        runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend
        ttlSecondsAfterFinished""",
    "cluster": """
        authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec
        headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions
        upgradeStrategy workerGroupSpecs""",
    "head": "enableIngress headService ingressOptions labels rayStartParams resources serviceType template",
    "group": """
        groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas
        resources scaleStrategy suspend template""",
}
QUEUE = "kueue.x-k8s.io/queue-name"


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule under the name that findings carry."""

    def keep(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return keep


def amount(text: object) -> Decimal:
    """A quantity such as 200m, 1.5 or 4Gi as a number."""
    match = re.fullmatch(r"([0-9.]+)([a-zA-Z]{0,2})", str(text))
    return Decimal(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else Decimal(0)


def groups(document: Object) -> Iterator[tuple[str, Object]]:
    """(dotted path, group) of the head and every worker group."""
    base, cluster = cluster_path(document), cluster_of(document)
    if cluster:
        yield f"{base}.headGroupSpec", at(cluster, "headGroupSpec")
    for number, group in enumerate(at(cluster, "workerGroupSpecs") or []):
        yield f"{base}.workerGroupSpecs[{number}]", group


def containers(document: Object) -> Iterator[tuple[str, str, Object, Object]]:
    """(role, dotted path, Pod spec, first container) of every template."""
    for role, path, template in templates(document):
        spec = template.get("spec") or {}
        yield role, f"{path}.spec.containers[0]", spec, at(spec, "containers", 0)


@rule("immutable")
def immutable(document: Object) -> Found:
    """The server refuses a Job's corrected image, and one that cannot be pulled never ends."""
    if document["kind"] == "Job":
        yield "spec.template", "cannot be changed once it is applied", "do the work in an init container, or a CronJob"


@rule("name")
def name(document: Object) -> Found:
    """The operator derives longer names from an object's."""
    given, longest = str(at(document, "metadata", "name") or ""), LONGEST.get(document["kind"], 253)
    if len(given) > longest:
        yield "metadata.name", f"has {len(given)} characters", f"give at most {longest}"
    if given and not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", given):
        yield "metadata.name", f"is {given!r}", "begin with a letter; small letters, digits and - only"


@rule("unknown-field")
def unknown_field(document: Object) -> Found:
    """A mistyped field is dropped or refused, depending on the client."""
    job, base, cluster = job_of(document), cluster_path(document), cluster_of(document)
    levels: list[tuple[str, Object, str]] = [(base, cluster, "cluster")]
    levels += [(base.rpartition(".")[0], job, "job")] if job else []
    levels += [(path, group, "group" if number else "head") for number, (path, group) in enumerate(groups(document))]
    for path, node, level in levels:
        allowed = FIELDS[level].split()
        for key in set(node) - set(allowed):
            near = get_close_matches(key, allowed, 1)
            yield f"{path}.{key}", "is no field of KubeRay 1.7", f"did you mean {near[0]}?" if near else "remove it"


@rule("submission-mode")
def submission_mode(document: Object) -> Found:
    """The server takes any text here."""
    job = job_of(document)
    mode = job.get("submissionMode", MODES[0])
    if job and mode not in MODES:
        yield "spec.submissionMode", f"is {mode!r}", f"give one of {', '.join(MODES)}"
    if mode == "SidecarMode" and (job.get("submitterPodTemplate") or job.get("submitterConfig")):
        yield "spec.submitterPodTemplate", "stands beside submissionMode SidecarMode", "remove it, and submitterConfig"


@rule("ttl")
def ttl(document: Object) -> Found:
    """A time to live means nothing for a cluster that stays."""
    job = job_of(document)
    if "ttlSecondsAfterFinished" in job and not job.get("shutdownAfterJobFinishes"):
        yield "spec.ttlSecondsAfterFinished", "needs shutdownAfterJobFinishes: true", "set it, or remove the TTL"
    if (job.get("ttlSecondsAfterFinished") or 0) < 0:
        yield "spec.ttlSecondsAfterFinished", "is negative", "give 0 or more"


@rule("deletion-rules")
def deletion_rules(document: Object) -> Found:
    """Two answers to the same question."""
    job = job_of(document)
    if at(job, "deletionStrategy", "deletionRules") and job.get("shutdownAfterJobFinishes"):
        yield "spec.deletionStrategy.deletionRules", "excludes shutdownAfterJobFinishes", "keep one of the two"


@rule("suspend")
def suspend(document: Object) -> Found:
    """A suspended job's cluster is deleted."""
    job = job_of(document)
    if job.get("suspend") and not job.get("shutdownAfterJobFinishes"):
        yield "spec.suspend", "needs shutdownAfterJobFinishes: true", "set it"
    if job.get("suspend") and job.get("clusterSelector"):
        yield "spec.suspend", "stands beside clusterSelector", "remove one of the two"


@rule("retries")
def retries(document: Object) -> Found:
    """A retry is a new cluster."""
    job = job_of(document)
    limit = job.get("backoffLimit") or 0
    if limit < 0:
        yield "spec.backoffLimit", "is negative", "give 0 or more"
    if limit > 0 and job.get("clusterSelector"):
        yield "spec.backoffLimit", "stands beside clusterSelector", "set it to 0"
    if limit > 0 and job.get("submissionMode") == "InteractiveMode":
        yield "spec.backoffLimit", "stands beside submissionMode InteractiveMode", "set it to 0"
    if limit > 0 and any(at(c, "resources", "limits", "nvidia.com/gpu") for _, _, _, c in containers(document)):
        yield "spec.backoffLimit", "would take GPUs again for an error that stays", "set it to 0"


@rule("deadline")
def deadline(document: Object) -> Found:
    """Without one a job whose Pods cannot start stays in Initializing for ever."""
    job = job_of(document)
    if job and not job.get("preRunningDeadlineSeconds"):
        yield "spec.preRunningDeadlineSeconds", "is not set", "give the seconds that a cluster may take to start"
    for key in ("preRunningDeadlineSeconds", "activeDeadlineSeconds"):
        if job.get(key, 1) is not None and int(job.get(key, 1)) <= 0:
            yield f"spec.{key}", f"is {job[key]}", "give 1 or more"


@rule("cluster")
def cluster(document: Object) -> Found:
    """A job has a cluster of its own or names one."""
    job = job_of(document)
    if job and not job.get("rayClusterSpec") and not at(job, "clusterSelector", "ray.io/cluster"):
        yield "spec.rayClusterSpec", "is missing", "give it, or clusterSelector with ray.io/cluster"
    if job and at(job, "rayClusterSpec", "upgradeStrategy"):
        yield "spec.rayClusterSpec.upgradeStrategy", "is for a RayCluster of its own", "remove it"


@rule("runtime-env")
def runtime_env(document: Object) -> Found:
    """It is a text that holds YAML."""
    text = job_of(document).get("runtimeEnvYAML")
    if text is None:
        return
    try:
        good = isinstance(text, str) and isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        good = False
    if not good:
        yield "spec.runtimeEnvYAML", "is not a text that holds a YAML mapping", "write it as a block: runtimeEnvYAML: |"


@rule("kueue")
def kueue(document: Object) -> Found:
    """Kueue counts a job's cluster once."""
    if QUEUE not in at(document, "metadata", "labels"):
        return
    job, spec = job_of(document), cluster_of(document)
    if job and not job.get("shutdownAfterJobFinishes"):
        yield "spec.shutdownAfterJobFinishes", "is not true, Kueue needs it", "set it"
    if job.get("clusterSelector"):
        yield "spec.clusterSelector", "excludes Kueue", "give rayClusterSpec"
    if spec.get("enableInTreeAutoscaling"):
        yield f"{cluster_path(document)}.enableInTreeAutoscaling", "excludes Kueue", "remove one of the two"
