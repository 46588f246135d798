"""Rules on a cluster within a ray.io object: its groups, their Pods, what they mount, know and may do."""

from __future__ import annotations

import re

from kuberay_pods import CLUSTER, at, cluster_of, cluster_path, insecure, pods, templates
from kuberay_rules import Found, Object, amount, containers, groups, rule


@rule("resources-twice")
def resources_twice(document: Object) -> Found:
    """Ray would be told two numbers."""
    for path, group in groups(document):
        both = {"num-cpus", "num-gpus", "memory", "resources"} & set(group.get("rayStartParams") or {})
        if both and group.get("resources"):
            yield f"{path}.resources", f"stands beside rayStartParams {', '.join(sorted(both))}", "keep one of the two"


@rule("replicas")
def replicas(document: Object) -> Found:
    """Their order, and that both ends are there where nobody scales."""
    scaled = cluster_of(document).get("enableInTreeAutoscaling")
    for path, group in list(groups(document))[1:]:
        low, high, now = (group.get(k) for k in ("minReplicas", "maxReplicas", "replicas"))
        if not scaled and (low is None or high is None):
            yield f"{path}.minReplicas", "or maxReplicas is missing", "give both, or enableInTreeAutoscaling"
        if low is not None and high is not None and low > high:
            yield f"{path}.minReplicas", f"is {low}, above maxReplicas {high}", "give at most maxReplicas"
        elif now is not None and not (low or 0) <= now <= (now if high is None else high):
            yield f"{path}.replicas", f"is {now}", f"give {low or 0} to {high}"


@rule("scale-strategy")
def scale_strategy(document: Object) -> Found:
    """The operator fills it in, and with it takes the whole list: a second `kubectl apply --server-side` conflicts."""
    for path, group in list(groups(document))[1:]:
        if group.get("scaleStrategy") is None:
            yield f"{path}.scaleStrategy", "is missing, which the operator writes", "write scaleStrategy: {}"


@rule("restart-policy")
def restart_policy(document: Object) -> Found:
    """Autoscaler v2, the default, replaces Pods and never restarts them."""
    spec = cluster_of(document)
    if not spec.get("enableInTreeAutoscaling") or at(spec, "autoscalerOptions", "version") == "v1":
        return
    for path, group in groups(document):
        policy = at(group, "template", "spec", "restartPolicy") or "Never"
        if policy != "Never":
            yield f"{path}.template.spec.restartPolicy", f"is {policy}", "autoscaler v2 needs Never, or leave it out"


@rule("token")
def token(document: Object) -> Found:
    """Who reaches an open dashboard runs what he likes."""
    spec, base = cluster_of(document), cluster_path(document)
    if not spec:
        return
    if at(spec, "authOptions", "mode") != "token":
        yield f"{base}.authOptions.mode", "is not token: anybody who reaches the head runs code", "set mode: token"
    elif not spec.get("rayVersion"):
        yield f"{base}.rayVersion", "is missing, authOptions.mode: token needs it", "give the image's Ray version"


@rule("redis")
def redis(document: Object) -> Found:
    """GCS fault tolerance is declared once."""
    spec, base = cluster_of(document), cluster_path(document)
    options = spec.get("gcsFaultToleranceOptions")
    names = {e.get("name") for e in at(spec, "headGroupSpec", "template", "spec", "containers", 0, "env") or []}
    for variable in {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"} & names:
        yield f"{base}.headGroupSpec.template.spec.containers[0].env", f"has {variable}", "use gcsFaultToleranceOptions"
    if at(spec, "headGroupSpec", "rayStartParams", "redis-password"):
        yield f"{base}.headGroupSpec.rayStartParams.redis-password", "is a password in the open", "use a secretKeyRef"
    if options and options.get("redisAddress") and not at(options, "redisPassword", "valueFrom", "secretKeyRef"):
        yield f"{base}.gcsFaultToleranceOptions.redisPassword", "is no secretKeyRef", "give valueFrom.secretKeyRef"


@rule("alpha")
def alpha(document: Object) -> Found:
    """Fields whose gates are off by default."""
    spec, base = cluster_of(document), cluster_path(document)
    for key in ("networkPolicy", "tlsOptions", "historyServerOptions"):
        if spec.get(key):
            yield f"{base}.{key}", "is alpha, its gate is off", "remove it (a NetworkPolicy of your own serves as well)"
    if at(spec, "gcsFaultToleranceOptions", "storage"):
        yield f"{base}.gcsFaultToleranceOptions.storage", "is alpha, its gate is off", "use redisAddress"


@rule("mounts")
def mounts(document: Object) -> Found:
    """The server looks at neither; the Pod is never made."""
    for role, path, template in templates(document):
        spec = template.get("spec") or {}
        claims = [at(claim, "metadata") for claim in at(document, "spec", "volumeClaimTemplates") or []]
        there = {v.get("name") for v in [*(spec.get("volumes") or []), *claims]}
        asked = at(cluster_of(document), "autoscalerOptions", "volumeMounts") if role == "head" else []
        for mount in [m for c in spec.get("containers") or [] for m in c.get("volumeMounts") or []] + list(asked or []):
            if mount.get("name") not in there:
                yield f"{path}.spec.volumes", f"has no {mount.get('name')}, which is mounted", "add the volume"


@rule("limits")
def limits(document: Object) -> Found:
    """Requests above limits make no Pod; fractions of a CPU are rounded up for Ray."""
    for role, path, _, container in containers(document):
        in_ray = role != "submitter" and document["kind"] in CLUSTER
        asked, most = at(container, "resources", "requests"), at(container, "resources", "limits")
        for key in asked:
            if key in most and amount(most[key]) < amount(asked[key]):
                yield f"{path}.resources.limits.{key}", f"{most[key]} is below the request {asked[key]}", "raise it"
        if in_ray and container and "memory" not in most:
            yield f"{path}.resources.limits.memory", "is missing: /dev/shm would have no size", "give it"
        if in_ray and amount(most.get("cpu", 0)) % 1:
            yield f"{path}.resources.limits.cpu", f"{most['cpu']} is rounded up for Ray", "give whole CPUs"


@rule("head-cpus")
def head_cpus(document: Object) -> Found:
    """Training on the head takes the memory of its own services."""
    spec, base = cluster_of(document), cluster_path(document)
    if spec.get("workerGroupSpecs") and str(at(spec, "headGroupSpec", "rayStartParams").get("num-cpus")) != "0":
        yield f"{base}.headGroupSpec.rayStartParams.num-cpus", "is not 0: trials would run on the head", 'set "0"'


@rule("scratch")
def scratch(document: Object) -> Found:
    """Ray spills objects to disk: a node that is full evicts Pods, first of all those that requested nothing of it."""
    for _, path, spec, container in containers(document):
        scratches = [volume for volume in spec.get("volumes") or [] if "emptyDir" in volume]
        for volume in scratches:
            if not at(volume, "emptyDir", "sizeLimit"):
                field = f"{path.removesuffix('.containers[0]')}.volumes[{volume.get('name')}].emptyDir.sizeLimit"
                yield field, "is missing: it may fill the node's disk", "give the most that it may take"
        on_disk = any(at(volume, "emptyDir", "medium") != "Memory" for volume in scratches)
        if on_disk and "ephemeral-storage" not in at(container, "resources", "requests"):
            yield f"{path}.resources.requests.ephemeral-storage", "is missing", "give what is usually taken of the disk"


@rule("environment")
def environment(document: Object) -> Found:
    """Each container has its own: what the driver logs and stores by, trials on the workers need too."""
    named: dict[str, set[str]] = {}
    for role, _, _, container in containers(document):
        names = {e["name"] for e in container.get("env") or [] if e.get("name", "").startswith(("AWS_", "MLFLOW_"))}
        for source in container.get("envFrom") or []:
            names |= {f"{kind[:-3]} {ref['name']}" for kind, ref in source.items() if isinstance(ref, dict)}
        named[role] = names
    head = named.get("head", set())
    for role, path, _, _ in containers(document):
        if role not in ("head", "submitter") and (missing := head - named[role]):
            yield f"{path}.env", f"lacks {', '.join(sorted(missing))}, which the head has", "give it to the workers too"


@rule("secret")
def secret(document: Object) -> Found:
    """Secrets by reference only."""
    for path, node in [(p, c) for _, p, _, c in containers(document)]:
        for entry in node.get("env") or []:
            if re.search(r"PASSWORD|SECRET|TOKEN$|ACCESS_KEY", entry.get("name", "")) and entry.get("value"):
                yield f"{path}.env[{entry['name']}]", "is a secret in the open", "use valueFrom.secretKeyRef"


@rule("api-token")
def api_token(document: Object) -> Found:
    """Who holds the autoscaler's token may change RayClusters, and so mount any Secret; drivers run anybody's code."""
    for _, path, spec, container in containers(document) if document["kind"] in CLUSTER else ():
        pod = path.removesuffix(".containers[0]")
        if spec.get("automountServiceAccountToken") is not False:
            remedy = "set false; the autoscaler's goes into autoscalerOptions.volumeMounts, of a projected volume"
            yield f"{pod}.automountServiceAccountToken", "is not false: drivers would hold the account's token", remedy
        tokens = [v["name"] for v in spec.get("volumes") or [] if "serviceAccountToken" in str(v.get("projected"))]
        if any(mount.get("name") in tokens for mount in container.get("volumeMounts") or []):
            yield f"{path}.volumeMounts", "has the account's token", "mount it in autoscalerOptions.volumeMounts only"


@rule("optional-secret")
def optional_secret(document: Object) -> Found:
    """A Pod waits for ever for a Secret that is missing; the program says in a line what it lacks, and ends."""
    for path, node in [(p, c) for _, p, _, c in containers(document)]:
        for entry in node.get("envFrom") or []:
            if "secretRef" in entry and not at(entry, "secretRef", "optional"):
                given = entry["secretRef"].get("name")
                yield (
                    f"{path}.envFrom[{given}].optional",
                    "is not true: the Pod would wait for it",
                    "set optional: true",
                )


@rule("pod-security")
def pod_security(document: Object) -> Found:
    """In a namespace with Pod Security `restricted` such a Pod is refused, and a submitter's refusal is silent."""
    for (_, template, _), pod in zip(templates(document), pods(document), strict=True):
        for field, wrong in insecure(pod["spec"]):
            path = f"{template}.spec.{field}".lstrip(".")
            if "[autoscaler]" in field:
                path = f"{cluster_path(document)}.autoscalerOptions.{field.partition('].')[2]}"
            elif "[wait-gcs-ready]" in field:
                continue  # a copy of the worker's
            yield path, wrong, "Pod Security restricted needs it"
