"""A real Ray cluster for tests: nodes with loopback addresses of their own, tokens on, ended by their pids.

Ray takes 127.0.0.1 for the machine's outer address; it leaves the addresses behind it alone.
"""

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from processes import MARK, PROJECT, below, environment, marked, until, workers_below

from ops import FOR_TORCH

PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
RAY = str(Path(sys.executable).parent / "ray")


def port() -> int:
    """A free one."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def needs_nodes() -> None:
    """Skip the test where no second node can be started."""
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if not sys.platform.startswith("linux") or probe.returncode:
        pytest.skip("a second node needs a mount namespace of its own, which only root may make")


class Cluster:
    """Nodes of a few declared CPUs each. Everything that they start carries a mark in its environment."""

    def __init__(self, *cpus: int, extra: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tr-", dir="/tmp"))  # short: Ray's sockets lie below it
        self.mark = uuid.uuid4().hex
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.own = self.folder / "own"  # every node sees a folder of its own there
        self.own.mkdir()
        self.environment = environment() | (extra or {}) | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), MARK: self.mark,
            "TESSERA_CACHE": str(self.own / "cache"),
            # on one machine: each node would take its memory for its own, workers would give way to all other work
            "RAY_memory_monitor_refresh_ms": "0", "RAY_worker_niceness": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }  # fmt: skip
        self.environment.pop("PYTHONPATH")  # the code comes with the job
        for name in FOR_TORCH:
            self.environment.pop(name, None)  # nodes know nothing of us
        self.token = token.read_text()
        self.gcs, self.dashboard = f"127.0.0.2:{port()}", f"http://127.0.0.1:{port()}"
        head = [
            "--head", f"--port={self.gcs.rpartition(':')[2]}", "--include-dashboard=true", f"--num-cpus={cpus[0]}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard.rpartition(':')[2]}",
        ]  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            self._start(head)
            until(self._answers)
            self.add(*cpus[1:])
        except BaseException:  # nobody has it yet who could stop it
            self.stop()
            raise

    def add(self, *cpus: int) -> None:
        """Start more nodes and wait until those that live are those that the head knows."""
        for count in cpus:
            self._start([f"--address={self.gcs}", f"--num-cpus={count}"])
        until(lambda: self._living() == sum(process.poll() is None for process in self.processes))

    def _living(self) -> int:
        nodes = self.get("/nodes?view=summary")["data"]["summary"]
        return sum(node["raylet"]["state"] == "ALIVE" for node in nodes)

    def at_work(self) -> dict[int, list[int]]:
        """The living nodes behind the head by number, with the pids of the training workers on each."""
        living = {n: p.pid for n, p in enumerate(self.processes) if n and p.poll() is None}
        return {n: workers_below(pid) for n, pid in living.items()}

    def kill(self, node: int) -> None:
        """End a node and all that runs on it, as a power cut does."""
        for pid in below(self.processes[node].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.processes[node].wait()

    def seen_by(self, node: int, path: Path) -> Path:
        """A path as the node sees it."""
        return Path(f"/proc/{self.processes[node].pid}/root{path}")

    def _start(self, more: list[str]) -> None:
        number = len(self.processes)
        options = [
            f"--node-ip-address=127.0.0.{number + 2}", "--object-store-memory=100000000", "--disable-usage-stats",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--temp-dir={self.folder}/{number}",  # two nodes in one would unpack a job's code over each other
            *(f"--{each}={port()}" for each in PORTS),
        ]  # fmt: skip
        command = [RAY, "start", "--block", *options, *more]
        if number:
            mount = f'mount -t tmpfs none {shlex.quote(str(self.own))} && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
        with (self.folder / "log").open("ab") as log:
            started = subprocess.Popen(command, env=self.environment, cwd=PROJECT, stdout=log, stderr=log)
        self.processes.append(started)

    def _answers(self) -> bool:
        assert self.processes[0].poll() is None, (self.folder / "log").read_text()[-3000:]
        try:
            return bool(self._ask("/api/version"))
        except OSError:
            return False

    def _ask(self, path: str) -> Any:
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def get(self, path: str) -> Any:
        """What the head's dashboard answers; one that is too busy is asked again."""
        limit = time.monotonic() + 600
        while True:
            try:
                return self._ask(path)
            except urllib.error.HTTPError:
                raise
            except OSError:
                alive = self.processes[0].poll() is None and time.monotonic() < limit
                assert alive, (self.folder / "log").read_text()[-3000:]
                time.sleep(0.5)

    def call(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`ray job ...`, as typed by somebody who has the token."""
        command = [RAY, "job", arguments[0], "--address", self.dashboard, *arguments[1:]]
        return subprocess.run(
            command, env=self.environment | variables, cwd=PROJECT, capture_output=True, text=True, timeout=900,
            check=False,
        )  # fmt: skip

    def submit(self, *entrypoint: str, options: tuple[str, ...] = ("--working-dir", ".")) -> str:
        """Submit a job; returns its id."""
        done = self.call("submit", "--no-wait", *options, "--", *entrypoint)
        match = re.search(r"'(raysubmit_\w+)' submitted successfully", done.stdout)
        assert match, done.stdout + done.stderr
        return match[1]

    def info(self, job: str) -> dict[str, Any]:
        """The job's record: status, driver_exit_code, ..."""
        return dict(self.get(f"/api/jobs/{job}"))

    def logs(self, job: str) -> str:
        """What the job's driver has printed."""
        return str(self.get(f"/api/jobs/{job}/logs")["logs"])

    def wait(self, job: str, seconds: float = 900) -> tuple[int | None, str]:
        """Wait for the job's end; returns its driver's exit code and what it printed."""
        limit = time.monotonic() + seconds
        while self.info(job)["status"] in ("PENDING", "RUNNING"):
            assert time.monotonic() < limit, self.logs(job)
            time.sleep(0.3)
        return self.info(job)["driver_exit_code"], self.logs(job)

    def driver(self, job: str) -> int:
        """The pid of the job's python process."""
        for pid in marked(self.mark):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if title[0].endswith(b"python") and title[1:2] and title[1].startswith(b"workflows/") \
                        and job.encode() in Path(f"/proc/{pid}/environ").read_bytes():  # fmt: skip
                    return pid
        raise AssertionError(self.logs(job))

    def stop(self) -> None:
        """End the nodes and all that they have started; asked gently, Ray takes half a minute of a busy machine."""
        until(self._none_left)
        for process in self.processes:
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _none_left(self) -> bool:
        for pid in (left := marked(self.mark)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left
