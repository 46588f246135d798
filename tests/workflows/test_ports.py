"""Who listens where while a workflow runs on one machine: nothing but loopback addresses, from its start to its end."""

from __future__ import annotations

import ipaddress
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
from processes import PROJECT, environment

from ops.data.synthetic.stream import generate
from ops.data.synthetic.user_item import Planted

pytestmark = pytest.mark.slow

LISTEN = "0A"  # a socket's state in /proc/net/tcp
GRAPH = "planted:nodes=300,clusters=3"
USERS = "planted:users=150,notes=90,clusters=3"
SHORT = ["--threads", "1", "--no-report", "--no-explain"]
SEARCH = ["--trials", "2", "--concurrent", "1", "--seeds", "1", "--no-prune", "--embedding-dim", "8", "--epochs", "4"]

# program, arguments, a process whose open port has to be seen: else the test would pass where nothing runs
WORKFLOWS = {
    "train --workers 2": (
        "train.py", ["hsan", "--dataset", GRAPH, "--workers", "2", "--epochs", "8", "--embedding-dim", "8"],
        "TrainWorker",
    ),
    "a search": ("tune_hsan.py", ["--dataset", GRAPH, *SEARCH], "raylet"),
    "a search with a worker a trial": ("tune_hsan.py", ["--dataset", GRAPH, *SEARCH, "--workers", "1"], "TrainWorker"),
    "parts of users, served by actors": (
        "train.py", ["twhin", "--dataset", USERS, "--parts", "2", "--workers", "2", "--epochs", "4",
                     "--embedding-dim", "8"],
        "PartService",
    ),
    "partition with tasks": (
        "partition_graph.py", ["--graph", "g", "--parts", "2", "--fennel", "waves", "--tasks", "2"], "raylet",
    ),
}  # fmt: skip


def address(text: str) -> str:
    """An address of /proc/net/tcp or tcp6, whose 32-bit words stand in the machine's order."""
    words = [bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8)]
    found = ipaddress.ip_address(b"".join(words))
    return str(getattr(found, "ipv4_mapped", None) or found)


def listening() -> dict[str, str]:
    """The address of every listening socket of this machine by the socket's number."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTEN:
                found[inode] = address(local.partition(":")[0])
    return found


def open_ports(mark: str) -> set[tuple[str, str]]:
    """(title, address) of the listening sockets of all processes with `mark` in their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() not in (process / "environ").read_bytes() or int(process.name) == os.getpid():
                continue
            title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
            links = {os.readlink(handle) for handle in (process / "fd").iterdir()}
            sockets = listening()  # after the links: a socket that is closed in between is missed, not mistaken
            found |= {(title, sockets[i]) for i in (link[8:-1] for link in links) if i in sockets}
    return found


def watched(command: list[str], folder: Path) -> set[tuple[str, str]]:
    """Run a command to its end; every (title, address) that has listened meanwhile."""
    mark = uuid.uuid4().hex
    found: set[tuple[str, str]] = set()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment() | {"TESSERA_TEST_MARK": mark}, cwd=folder, stdout=log, stderr=log
        )
        limit = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < limit:
            found |= open_ports(mark)
            time.sleep(0.1)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (folder / "log").read_text()[-3000:]
    return found


def test_an_open_port_is_seen(tmp_path):
    """The watch itself: IPv4, IPv6 and all interfaces are told apart."""
    code = """
import socket, time
kinds = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::")]
open_ones = [socket.create_server((address, 0), family=family) for family, address in kinds]
time.sleep(3)
"""
    found = watched([sys.executable, "-c", code], tmp_path)
    assert {address for _, address in found} == {"127.0.0.1", "0.0.0.0", "::1", "::"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_listens_on_loopback_only(name, tmp_path):
    program, arguments, expected = WORKFLOWS[name]
    if program == "partition_graph.py":
        generate(Planted(users=600, notes=400, clusters=4), tmp_path / "g", 4)
    else:
        arguments = [*arguments, *SHORT]
    command = [sys.executable, str(PROJECT / "workflows" / program), *arguments, "--out", str(tmp_path / "o")]
    found = watched(command, tmp_path)
    assert any(expected in title for title, _ in found), found
    outside = {(title, where) for title, where in found if not ipaddress.ip_address(where).is_loopback}
    assert outside == set()
