"""Pods without Kubernetes: each container's own command and environment, from the manifests, in namespaces of its own.

A Pod has a network (an address on a bridge), a mount and a pid namespace, the manifest's user and no capability; its
root file system is read-only, its volumes are its own. All lies in namespaces that the test makes and ends: nothing is
added to the machine's network. Needs root.
"""

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from manifests import K8S

ROOT = K8S.parent
PROGRAMS = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
WORKDIR = "/mnt/tessera"
NAMESPACE = "tessera"  # the only field of a Pod that the manifests ask for
Env = dict[str, str]


def missing() -> str:
    """Why Pods cannot be made here, "" where they can."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return "network and mount namespaces need root on Linux"
    probe = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "namespaces cannot be made here"


def settings(objects: list[dict[str, Any]], secrets: dict[str, Env], container: dict[str, Any]) -> Env:
    """A container's environment as the kubelet makes it of ConfigMaps and Secrets. KeyError for what is missing."""
    maps = {d["metadata"]["name"]: d.get("data") or {} for d in objects if d["kind"] == "ConfigMap"}
    environment: Env = {}
    for source in container.get("envFrom") or []:
        if "configMapRef" in source:
            environment |= maps[source["configMapRef"]["name"]]
        elif source["secretRef"]["name"] in secrets or not source["secretRef"].get("optional"):
            environment |= secrets[source["secretRef"]["name"]]
    for entry in container.get("env") or []:
        if "value" in entry:
            environment[entry["name"]] = entry["value"]
        elif "fieldRef" in entry["valueFrom"]:
            environment[entry["name"]] = NAMESPACE
        else:
            reference = entry["valueFrom"]["secretKeyRef"]
            environment[entry["name"]] = secrets[reference["name"]][reference["key"]]
    return environment


class Network:
    """Namespaces on one bridge; `hosts` is what names stand for in all Pods that are started from then on."""

    def __init__(self, workdir: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tp-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.workdir, self.mark = workdir, f"tp{os.getpid() % 100000}"
        self.names: list[str] = []
        self.hosts: dict[str, str] = {"localhost": "127.0.0.1"}
        self.pods: list[Pod] = []
        self._ip("netns", "add", f"{self.mark}-sw")
        self._ip("-n", f"{self.mark}-sw", "link", "add", "br0", "type", "bridge")
        self._ip("-n", f"{self.mark}-sw", "link", "set", "br0", "up")

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def add(self, name: str, *services: str) -> str:
        """A namespace with an address of its own, which `services` are names of; returns its name."""
        inside, number = f"{self.mark}-{name}", len(self.names) + 2
        address, other = f"10.77.0.{number}", ["peer", f"p{number}", "netns", f"{self.mark}-sw"]
        self.names.append(inside)
        self._ip("netns", "add", inside)
        self._ip("link", "add", "eth0", "netns", inside, "type", "veth", *other)
        self._ip("-n", f"{self.mark}-sw", "link", "set", f"p{number}", "master", "br0", "up")
        for words in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            self._ip("-n", inside, *words.split())
        self._ip("-n", inside, "route", "add", "default", "dev", "eth0")  # Ray asks which address leads outside
        for each in services:
            self.hosts[each] = address
        return inside

    def within(self, name: str, function: Callable[[], Any]) -> Any:
        """What `function` returns in a thread of this process that sees the network as a Pod does."""
        result: list[Any] = []

        def enter() -> None:
            with Path(f"/run/netns/{self.mark}-{name}").open() as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            try:
                result.append((function(), None))
            except BaseException as error:
                result.append((None, error))

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        value, error = result[0]
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End every Pod and every namespace."""
        for pod in self.pods:
            pod.kill()
        for name in [*self.names, f"{self.mark}-sw"]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Pod:
    """One container of a Pod, running."""

    def __init__(
        self, net: Network, name: str, spec: dict[str, Any], command: list[str], env: Env,
        files: dict[str, Env] | None = None, kept: Path | None = None,
    ) -> None:  # fmt: skip
        """Start `command` in the namespace `name` as `spec` says; `files`: ConfigMap volumes, `kept`: of its claim."""
        self.net, self.name = net, name
        self.log = net.folder / f"{name}-{len(net.pods)}.log"
        stage = net.folder / f"{name}-{len(net.pods)}"
        stage.mkdir()
        places, script = self._mounts(spec, stage, files or {}, kept)
        for old, new in places.items():
            command = [part.replace(old, new) for part in command]
            env = {k: v.replace(old, new) for k, v in env.items()}
        user = spec["securityContext"]
        become = (f"setpriv --reuid={user['runAsUser']} --regid={user['runAsGroup']} --clear-groups --no-new-privs "
                  "--bounding-set=-all --inh-caps=-all")  # fmt: skip
        # there is no DNS: names stand in /etc/hosts, which gRPC reads only so
        env = {"PATH": PROGRAMS, "PYTHONPATH": WORKDIR, "GRPC_DNS_RESOLVER": "native"} | env
        variables = shlex.join([f"{k}={v}" for k, v in env.items()])
        script += [f"cd {WORKDIR}", f"exec {become} env -i {variables} {shlex.join(command)}"]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", f"{net.mark}-{name}", *namespaces, "/bin/bash", "-ec", "\n".join(script)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        net.pods.append(self)

    def _mounts(
        self, spec: dict[str, Any], stage: Path, files: dict[str, Env], kept: Path | None
    ) -> tuple[dict[str, str], list[str]]:
        hosts = stage / "hosts"
        hosts.write_text("".join(f"{address} {name}\n" for name, address in self.net.hosts.items()))
        user = spec["securityContext"]["runAsUser"]
        (stage / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nuser:x:{user}:{user}::/tmp/home:/bin/sh\n")
        script = ["mount --make-rprivate /", f"hostname {self.name}", f"mount --bind {hosts} /etc/hosts",
                  f"mount --bind {stage}/passwd /etc/passwd", *_reachable(stage),
                  "mount -t tmpfs -o mode=1777 tmpfs /dev/shm", "mount -t tmpfs -o mode=755 tmpfs /mnt",
                  f"mkdir {WORKDIR}", f"mount --bind {self.net.workdir} {WORKDIR}"]  # fmt: skip
        volumes = {v["name"]: v for v in spec.get("volumes") or []}
        places: dict[str, str] = {}
        for number, mount in enumerate(spec["containers"][0].get("volumeMounts") or []):
            path, volume = mount["mountPath"], volumes.get(mount["name"], {})
            if path == "/tmp":
                continue
            places[path] = where = f"/mnt/v{number}"  # the machine's root has no such folder
            script.append(f"mkdir {where}")
            if "configMap" in volume:
                folder = stage / f"v{number}"
                folder.mkdir()
                for name, text in files[volume["configMap"]["name"]].items():
                    (folder / name).write_text(text)
                script.append(f"mount --bind {folder} {where}")
            elif not volume and kept is not None:
                script.append(f"mount --bind {kept} {where}")
            else:
                script.append(f"mount -t tmpfs -o uid={user},gid={user} tmpfs {where}")
        script += ["mount -o remount,bind,ro /", "mount -t tmpfs -o mode=1777 tmpfs /tmp"]
        return places, script

    def titles(self) -> list[str]:
        """What runs in its network, by the processes' own titles."""
        command = ["ip", "netns", "pids", f"{self.net.mark}-{self.name}"]
        titles = []
        for pid in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split():
            with suppress(OSError):
                titles.append(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0])
        return titles

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def wait(self, seconds: float) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """As when its node loses power: SIGKILL for all its processes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def until(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        """Wait for a condition while the Pod runs; errors of the connection are a no."""
        limit = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (OSError, RuntimeError) as error:
                if isinstance(error, HTTPError):
                    error.close()
            assert self.process.poll() is None, f"{self.name} ended\n{self.said()[-4000:]}"
            assert time.monotonic() < limit, f"{self.name}: waited too long\n{self.said()[-4000:]}"
            time.sleep(0.2)


def _reachable(stage: Path) -> list[str]:
    """Commands that let any user run this Python where it lies in a folder of root's own."""
    base = Path(sys.base_prefix).resolve()
    closed = next((p for p in reversed(base.parents) if not p.stat().st_mode & 0o001), None)
    if closed is None:
        return []
    (stage / "python").mkdir()
    return [f"mount --bind {base} {stage}/python", f"mount -t tmpfs -o mode=755 tmpfs {closed}", f"mkdir -p {base}",
            f"mount --bind {stage}/python {base}"]  # fmt: skip
