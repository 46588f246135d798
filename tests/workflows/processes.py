"""Real workflow processes for the tests: started cheaply, killed at a chosen moment, waited for."""

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import ops
from ops.storage.status import HISTORY, STATUS

PROJECT = Path(ops.__file__).parents[1]
TRAIN = PROJECT / "workflows" / "train.py"

# Importing takes ten seconds, so one process imports once and forks a process per command. Each fork is one of its
# own, which checkpoints at every update and can end itself with SIGKILL just before the n-th change to a file whose
# path contains a text; what files it changes, in order, it writes down on request.
NURSERY = r"""
import importlib, json, os, signal, sys
from ops.storage import lease
from ops import memory
from ops.distributed.ray_session import ENVIRONMENT
from ops.evaluation import baselines
from ops.training import seed_run
import pyarrow.pandas_compat, sklearn.cluster, workflows.train
import ops.datamodules.graph, ops.datamodules.users, ops.training.trainer
import mlflow.artifacts, mlflow.genai, quick_mlflow
from ops.config.exit_codes import entry
from trainers import METHODS
memory.preload()
list(METHODS.values())
quick_mlflow.warm_up()
seed_run.CHECKPOINT_SECONDS = 0
baselines.KINDS = baselines.KINDS[:1]  # each costs seconds
os.fsync = lambda handle: None  # what is killed here is a process, not the machine
lease.LASTS, lease.EVERY = 15.0, 1.0  # instead of a minute; a busy machine must not outlive it

def changes(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(path, (str, bytes)):
            reads = not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            return ("read" if reads else "open"), os.fsdecode(path)
    elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "os.truncate"):
        if isinstance(args[0], (str, os.PathLike)):
            return event, os.fspath(args[1] if event == "os.rename" else args[0])
    return None, None

def watch(order):
    left = order["nth"]
    def hook(event, args):
        nonlocal left
        event, path = changes(event, args)
        if path is None or order["below"] not in os.path.abspath(path):
            return
        if order["diary"]:
            os.write(diary, f"{event} {path}\n".encode())
        if order["part"] in path and (event == order["event"] or (not order["event"] and event != "read")):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), order["signal"])
    if order["diary"]:
        diary = os.open(order["diary"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(hook)

for line in sys.stdin:
    order = json.loads(line)
    for name in order["imports"]:
        os.environ |= ENVIRONMENT  # Ray reads it when it is imported
        importlib.import_module(name)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        continue
    code = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = [order["program"], *order["argv"]]
        if order["nth"] or order["diary"]:
            watch(order)
        if order["code"]:
            exec(compile(order["code"], order["program"], "exec"), {"__name__": "__main__"})
        else:
            quick_mlflow.install()
            entry(importlib.import_module(order["program"].removesuffix(".py").replace("/", ".")).main)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
"""
MARK = "TESSERA_TEST_MARK"  # in the environment of a command: all that it starts carries it
RAY = ("ray.train.torch", "ray.tune")  # what commands import that start it


def environment() -> dict[str, str]:
    """This process's, with one thread a product, the project on the path and no MLflow server from outside."""
    strange = "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    kept = {k: v for k, v in os.environ.items() if k not in strange}
    # Ray takes a token that lies in the home folder, which a fork does not, as it has imported Ray before
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", "RAY_AUTH_MODE": "disabled"}
    return kept | ours | {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}  # a process that takes two seconds to start


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Nursery:
    """Runs workflows, one command at a time, in forks of a process that has imported everything and carries `mark`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, uuid.uuid4().hex
        self.pid, self.running = 0, False
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        variables = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT}/tests/helpers", MARK: self.mark}
        command = [sys.executable, "-c", NURSERY]
        self.process = subprocess.Popen(command, env=environment() | variables, cwd=folder, **pipes)

    def start(
        self, argv: list[str], *, program: str = "train", code: str = "", folder: Path | None = None,
        variables: dict[str, str] | None = None, imports: tuple[str, ...] = (), event: str = "", part: str = "",
        nth: int = 0, sent: int = signal.SIGKILL, diary: Path | None = None,
    ) -> int:  # fmt: skip
        """Start a command, or a program's `code`, in a session of its own; returns its pid.

        Just before its nth `event` on a path with `part` it sends itself `sent`; nth 0: never; no event: any that
        changes a file. `imports` are for this command and all later ones.
        """
        if self.running:  # a test that failed has left it
            self.kill()
        below = [argv[argv.index(flag) + 1] for flag in ("--scratch", "--out") if flag in argv]
        order = {
            "argv": argv, "event": event, "part": part, "nth": nth, "program": f"workflows/{program}.py", "code": code,
            "signal": int(sent), "diary": str(diary or ""), "folder": str(folder or self.folder),
            "environment": environment() | (variables or {}), "imports": imports, "below": next(iter(below), ""),
            "out": str(self.folder / "out.txt"), "err": str(self.folder / "err.txt"),
        }  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.pid = self._answer()
        self.running = True
        return self.pid

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def ended(self) -> bool:
        """Whether the command has ended; `wait` says how."""
        return not self.running or bool(select.select([self.process.stdout], [], [], 0)[0])

    def wait(self) -> Ended:
        """Wait for the command; its exit code is minus the signal that killed it."""
        until(self.ended)
        code, self.running = self._answer(), False
        return Ended(code, (self.folder / "out.txt").read_text(), (self.folder / "err.txt").read_text())

    def kill(self) -> Ended:
        """Kill the command and all that it has started."""
        end_session(self.pid)
        return self.wait()

    def run(self, argv: list[str], **how: Any) -> Ended:
        """Start and wait."""
        self.start(argv, **how)
        return self.wait()

    def close(self) -> None:
        """End the importing process and what still runs."""
        if self.running:
            self.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition of the world; fail loudly rather than hang. A busy machine is slow, not wrong."""
    limit = time.monotonic() + 900
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.002 if time.monotonic() < limit - 890 else 0.05)


def stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal (SIGSTOP), and waits for SIGCONT."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def lines(path: Path) -> int:
    """Whole lines of a file, 0 where there is none."""
    return path.read_text().count("\n") if path.exists() else 0


def history(folder: Path) -> list[dict[str, Any]]:
    """A seed's history without what a machine's speed decides."""
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if not k.startswith("sys/")} for r in records]


def same_results(one: Path, other: Path) -> None:
    """Everything that two runs of one seed leave but for what a machine's speed decides."""
    assert history(one / "seed-0") == history(other / "seed-0")
    tables = [path.name for path in one.iterdir() if path.name.startswith(("assignments", "embeddings"))]
    assert tables
    for name in tables:  # files, or folders of parts
        assert pq.read_table(one / name).equals(pq.read_table(other / name))
    model = "model/model.safetensors"
    assert (one / model).read_bytes() == (other / model).read_bytes()


def recorded(folder: Path) -> set[tuple[str, int]]:
    """(name, step) of all metrics that MLflow shows of a study, trial, run or seed."""
    status = json.loads((folder / STATUS).read_text())
    figures = {k.replace("+", "_"): v for k, v in status.get("metrics", {}).items()}  # MLflow takes no +
    metrics = {(k, status["step"]) for k, v in figures.items() if v is not None}
    lines = (folder / HISTORY).read_text().splitlines() if (folder / HISTORY).exists() else []
    epochs = [json.loads(line) for line in lines]
    return metrics | {(k, e["epoch"]) for e in epochs for k in e if k not in ("epoch", "sys/time")}


def rows(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a query finds in MLflow's SQLite file."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def tree(database: Path) -> dict[str, dict[str, Any]]:
    """Every MLflow run by Tessera's key: id, name, status, parent's key, params and metrics {(key, step): n}."""
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in rows(database, "SELECT run_uuid, key, value FROM tags"):
        tags.setdefault(run, {})[key] = value
    key_of = {run: t["tessera.run"] for run, t in tags.items()}
    found: dict[str, dict[str, Any]] = {}
    for run, name, status in rows(database, "SELECT run_uuid, name, status FROM runs"):
        key = key_of[run]
        assert key not in found, f"{key} has two MLflow runs"
        counted = rows(database, "SELECT key, step, count(*) FROM metrics WHERE run_uuid = ? GROUP BY key, step", run)
        found[key] = {
            "id": run, "name": name, "status": status, "parent": key_of.get(tags[run].get("mlflow.parentRunId", "")),
            "params": dict(rows(database, "SELECT key, value FROM params WHERE run_uuid = ?", run)),
            "metrics": {(k, s): n for k, s, n in counted},
        }  # fmt: skip
    return found


def end_session(leader: int) -> None:
    """SIGKILL for a process started in its own session, and for all that is left in that session."""
    members = [leader]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, IndexError):
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                members.append(int(stat.parent.name))
    for pid in members:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def below(root: int) -> dict[int, str]:
    """All processes below `root`, by pid, with their titles."""
    parents, titles = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid = int(stat.parent.name)
            parents[pid] = int(stat.read_text().rpartition(")")[2].split()[1])
            titles[pid] = (stat.parent / "cmdline").read_text().split("\0")[0]
    members = {root}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return {pid: titles[pid] for pid in members if pid in titles}


def workers_below(root: int, kind: str = "TrainWorker") -> list[int]:
    """Pids of Ray's workers of a kind below the process `root`."""
    return sorted(pid for pid, title in below(root).items() if title.startswith("ray::") and kind in title)


def marked(mark: str) -> dict[int, str]:
    """The processes that carry a mark in their environment, with their titles."""
    carriers = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (path / "environ").read_bytes() and int(path.name) != os.getpid():
                carriers[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return carriers


def end_marked(mark: str, seconds: float) -> dict[int, str]:
    """Wait for everything that carries a mark to end by itself; kill, and return, what has not."""
    limit = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < limit:
        time.sleep(0.2)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left
