"""What KubeRay 1.7 runs in the containers of a RayJob: `ray start` of the head and the workers, the submitter's shell.

Written from its behaviour (k8s/kuberay_pods.py has what it adds to Pods), so that a test can start a manifest's own
text without an operator.
"""

from typing import Any

from kuberay_rules import amount

SHELL = ["/bin/bash", "-c", "--"]


def ray_start(group: dict[str, Any], head: str = "") -> list[str]:
    """The command of a group's container; `head`: the name of the head's Service, "" for the head itself."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    given = {
        "num-cpus": str(-int(-amount(limits["cpu"]))), "memory": str(int(amount(limits["memory"]))),
        "metrics-export-port": "8080", "block": "true", "dashboard-agent-listen-port": "52365",
    }  # fmt: skip
    given |= {"address": f"{head}:6379"} if head else {"dashboard-host": "0.0.0.0"}
    given |= group["rayStartParams"]
    flags = " ".join(f"--{k}" if v == "true" else f"--{k}={v}" for k, v in sorted(given.items()))
    return [*SHELL, f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; ray start {'' if head else '--head '}{flags}"]


def ray_environment(cluster: str, token: str, head: str = "") -> dict[str, str]:
    """What the operator adds to a Ray container's environment."""
    service = head or "127.0.0.1"
    return {
        "RAY_CLUSTER_NAME": cluster, "RAY_PORT": "6379", "RAY_ADDRESS": f"{service}:6379", "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_KUBERAY_IN_USE": "1", "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }  # fmt: skip


def submit(job: dict[str, Any], head: str, identity: str) -> list[str]:
    """The submitter's command: wait for the head, submit once, follow."""
    address = f"http://{head}:8265"
    healthy = (f"python -c \"import urllib.request; r=urllib.request.urlopen('{address}/api/gcs_healthz', timeout=10); "
               "exit(0 if b'success' in r.read() else 1)\"")  # fmt: skip
    run = f"ray job submit --address {address} --no-wait --submission-id {identity} -- {job['spec']['entrypoint']}"
    text = (
        f"until {healthy} >/dev/null 2>&1 ; do echo waiting ; sleep 2 ; done ; "
        f"if ! ray job status --address {address} {identity} >/dev/null 2>&1 ; "
        f"then {run} ; fi ; ray job logs --address {address} --follow {identity}"
    )
    return ["/bin/bash", "-ce", "--", text]
