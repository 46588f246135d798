"""One seed over several workers: Ray Train runs the method, this process keeps its run (files, scores, signals).

A worker that dies takes its group with it; Ray Train starts the group anew and it goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from ops.api import D, Experiment, Result, S, State
from ops.distributed.resources import Workers
from ops.errors import ResourceError
from ops.training.driver_rpc import (
    GO_ON,
    SAVE,
    STOP,
    Desk,
    Message,
    choose_interface,
    joined,
    open_store,
    packed,
    use_store,
    work,
)
from ops.training.experiment import Session
from ops.training.seed_run import SeedRun

MAX_FAILURES = 3  # restarts of the group before the run ends with Ray's error
POLL_SECONDS = 1.0
ENDING_SECONDS = 30.0  # how long the others may take to end after one worker has told an error


@dataclass
class Driver(Generic[S, D]):
    """The driver's side of one seed; `again` makes `run` anew, from its checkpoint, for a new group of workers."""

    experiment: Experiment[S, D]
    session: Session[D]
    run: SeedRun
    again: Callable[[], SeedRun]
    result: Result | None = None
    error: BaseException | None = None
    _began: set[int] = field(default_factory=set)
    _job: Any = None
    _waiting: tuple[int, Message] | None = None  # a question that came while the state was being collected

    @property
    def workers(self) -> Workers:
        """The workers of the session, which has some."""
        assert self.session.workers is not None
        return self.session.workers

    def train(self, place: Path) -> tuple[SeedRun, Result]:
        """Train to the end; returns the run as it stands and the method's result. Ray must be running.

        Raises what the method or the run raised (Interrupted, DivergedError, ...), ResourceError where the cluster
        cannot place the workers or they keep failing.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # on this process's node: it is lost with that only
        desk = ray.remote(num_cpus=0)(Desk).options(scheduling_strategy=here).remote()
        place.mkdir(parents=True, exist_ok=True)
        trainer = _trainer(self, desk, place)
        ended: list[Any] = []
        thread = threading.Thread(target=_fit, args=(trainer, ended), daemon=True)
        thread.start()
        told = None
        while thread.is_alive():
            asked = self._next(ray, desk)
            if asked is not None:
                self._handle(ray, desk, *asked)
            if self.error is not None:
                told = told or time.monotonic()
                if time.monotonic() - told > ENDING_SECONDS:
                    break
        shutil.rmtree(place, ignore_errors=True)  # Ray's own notes: nothing goes on from them
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise ResourceError(f"the workers ended without a result: {_reason(ended)}")
        return self.run, self.result

    def _next(self, ray: Any, desk: Any) -> tuple[int, Message] | None:
        if self._waiting is not None:
            asked, self._waiting = self._waiting, None
            return asked
        found: tuple[int, Message] | None = ray.get(desk.next.remote(POLL_SECONDS))
        return found

    def _handle(self, ray: Any, desk: Any, number: int, message: Message) -> None:
        kind = message["kind"]
        if kind == "begin":
            desk.answer.remote(number, self._begin(ray, message["rank"]))
            return
        if "spent" in message:
            self.run.workers_spent = message["spent"]
        if kind == "report":
            self._report(ray, desk, number, message)
            return
        if kind == "error":
            self.error = message["error"]
        elif kind == "result":
            self.result = ray.get(message["refs"][0])
        desk.answer.remote(number, {"word": STOP})

    def _begin(self, ray: Any, rank: int) -> Message:
        """A worker's start; one whose rank has begun before belongs to a new group."""
        if self._job is None or rank in self._began:
            if self._job is not None:
                self.experiment.console.warn(
                    f"a worker was lost; {self.workers.count} workers start again from the checkpoint"
                )
                self.run.close()
                self.run = self.again()
            self._began = set()
            start = None if self.run.start is None else packed(self.run.start)
            self._job = ray.put((self.experiment.settings, self.session.data, start, self.run.warm))
        self._began.add(rank)
        return {"seed": self.run.seed, "job": self._job}

    def _report(self, ray: Any, desk: Any, number: int, message: Message) -> None:
        """Pass a report on to the run; where it wants the state, have all workers send theirs before it goes on."""
        asked = [number]

        def collect() -> State:
            desk.answer.remote(asked.pop(), {"word": SAVE})
            shares: list[Any] = []
            while len(shares) < self.workers.count:
                found = self._next(ray, desk)
                if found is None:
                    continue
                if found[1]["kind"] != "state":  # the group has died and another one begins
                    self._waiting = found
                    raise _GroupLost
                asked.append(found[0])
                shares.append(ray.get(found[1]["refs"][0]))
            return joined(shares)

        word = GO_ON
        try:
            state = collect if message["has_state"] else None
            told = message["metrics"], message["assignment"]
            found = message["embeddings"]
            copied = found and {k: v.copy() for k, v in found.items()}  # what came through Ray is read-only
            self.run.report(message["epoch"], *told, state, copied)
        except _GroupLost:
            return
        except BaseException as error:
            self.error, word = error, STOP
        for each in asked:
            desk.answer.remote(each, {"word": word})


class _GroupLost(Exception):
    """The workers died while their state was being collected."""


def _fit(trainer: Any, ended: list[Any]) -> None:
    try:
        ended.append(trainer.fit())
    except BaseException as error:
        ended.append(error)


def _reason(ended: list[Any]) -> str:
    lines = str(ended[-1] if ended else "no word from Ray").strip().splitlines()
    return lines[-1] if lines else "no word from Ray"


def _trainer(driver: Driver[S, D], desk: Any, place: Path) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    workers = driver.workers
    resources = {"CPU": float(workers.threads)} | ({"GPU": workers.gpus} if workers.gpus else {})
    return TorchTrainer(
        work,
        train_loop_config={"desk": desk, "method": driver.experiment.method, "threads": workers.threads},
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
        ),
        torch_config=_torch_config(_backend(workers.gpus)),
        run_config=RunConfig(
            name=f"{place.name}-{time.time_ns()}",  # Ray would take a name it knows for the run to go on with
            storage_path=str(place.absolute()),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env=_environment(workers),  # type: ignore[call-arg]
        ),
    )


def _environment(workers: Workers) -> dict[str, Any] | None:
    """What a cluster's nodes, which were started before, do not inherit from this process. Never secrets: Ray logs it.

    A worker imports torch for Ray's sake before it imports us.
    """
    return {"env_vars": {"OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}} if workers.cluster else None


def _backend(gpus: float) -> str:
    """What carries the tensors between the workers, by device.

    GPU workers need gloo beside NCCL: k-means, the SOM and the users' sums are kept and reduced on the CPU, which NCCL
    cannot do.
    """
    return "cpu:gloo,cuda:nccl" if gpus else "gloo"


def _torch_config(backend: str) -> Any:
    """Ray Train's, whose workers choose their network interface and meet there, where Ray's own meet on all."""
    import ray
    from ray.train.torch import TorchConfig
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> Any:
            parent: Any = super().backend_cls

            class Backend(parent):  # type: ignore[misc]
                def on_start(self, worker_group: Any, backend_config: Any) -> None:
                    worker_group.execute(choose_interface)
                    worker_group.execute(use_store, *worker_group.execute_single(0, open_store))
                    worker_group.execute(_set_torch_distributed_env_vars)
                    ask, count, limit = worker_group.execute_single_async, len(worker_group), backend_config.timeout_s
                    join = _setup_torch_process_group
                    ray.get([ask(rank, join, backend, rank, count, "env://", limit) for rank in range(count)])

            return Backend

    return Config(backend=backend)
