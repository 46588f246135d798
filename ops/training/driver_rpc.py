"""The link between the workers of a training and its driver: a small actor where workers ask and the driver answers.

All that touches disk, labels, MLflow or the terminal stays in the driver; a worker has the data without labels, asks
for its start and hands over what it finds. A worker that was killed leaves nothing behind but a question.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from ops import memory
from ops.api import Arrays, State
from ops.errors import Interrupted, TesseraError

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux: an interface's IPv4 address

_stores: list[Any] = []  # that this process serves, if it is a rank 0

GO_ON, SAVE, STOP = 0, 1, 2  # the driver's answers to a report

Message = dict[str, Any]


class Desk:
    """A Ray actor (asynchronous): questions in the order they came, each with an answer of its own."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[int, Message]] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._number = 0

    async def ask(self, message: Message) -> Message:
        """A worker's question; returns when the driver has answered it."""
        self._number += 1
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        await self._asked.put((self._number, message))
        return await answer

    async def next(self, seconds: float) -> tuple[int, Message] | None:
        """The driver takes the next question, or None after `seconds` without one."""
        try:
            return await asyncio.wait_for(self._asked.get(), seconds)
        except TimeoutError:
            return None

    async def answer(self, number: int, message: Message) -> None:
        """The driver's answer to question `number`."""
        self._waiting.pop(number).set_result(message)


class WorkerRun:
    """`ops.api.Run` on a worker: rank 0 tells the driver, all ranks obey its answer together."""

    def __init__(self, desk: Any, rank: int, world: int, device: torch.device) -> None:
        import ray

        self._ray, self._desk = ray, desk
        self.rank, self.world, self.device = rank, world, device
        self._cpu = time.process_time()
        memory.reset_peak()
        begun = self.ask({"kind": "begin"})
        self.seed: int = begun["seed"]
        self.settings, self.data, start, self.warm = ray.get(begun["job"])
        self.start: State | None = None if start is None else _state_of(start)

    def ask(self, message: Message) -> Message:
        """The driver's answer."""
        answer: Message = self._ray.get(self._desk.ask.remote(message | {"rank": self.rank}))
        return answer

    def report(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None,
        embeddings: Arrays | None = None,
    ) -> None:
        """See `ops.api.Run.report`."""
        word = torch.zeros(1, dtype=torch.int64, device=self.device)
        spent = self._spent()
        if self.rank == 0:
            told = {
                "epoch": epoch,
                "metrics": dict(metrics),
                "assignment": assignment,
                "spent": spent,
                "embeddings": embeddings,
            }
            word += self.ask({"kind": "report", "has_state": state is not None, **told})["word"]
        if self.world > 1:
            dist.broadcast(word, src=0)
        if word == SAVE and state is not None:
            made = state()
            shared = _arrays(made.shared) if self.rank == 0 else {}
            parts = {part: _arrays(tensors) for part, tensors in made.parts.items()}
            word.fill_(self.ask({"kind": "state", "refs": [self._ray.put((epoch, shared, parts))]})["word"])
        if word == STOP:
            raise Interrupted(f"stopped after epoch {epoch} by the driver")

    def _spent(self) -> list[float]:
        """CPU seconds of all workers together and the largest peak (bytes) of one."""
        cpu = torch.tensor([time.process_time() - self._cpu], dtype=torch.float64, device=self.device)
        peak = torch.tensor([float(memory.peak())], dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(cpu)
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        return [float(cpu), float(peak)]


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as numpy arrays, which travel through Ray's object store without a copy on the other side."""
    return {k: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for k, v in tensors.items()}


def _tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Copies: arrays out of the object store are read-only."""
    return {k: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v for k, v in arrays.items()}


def packed(state: State) -> tuple[int, dict[str, Any], dict[int, dict[str, Any]]]:
    """A state for the object store."""
    return state.epoch, _arrays(state.shared), {part: _arrays(tensors) for part, tensors in state.parts.items()}


def _state_of(stored: tuple[int, dict[str, Any], dict[int, dict[str, Any]]]) -> State:
    epoch, shared, parts = stored
    return State(epoch, _tensors(shared), {part: _tensors(arrays) for part, arrays in parts.items()})


def joined(stored: list[tuple[int, dict[str, Any], dict[int, dict[str, Any]]]]) -> State:
    """The state that all ranks' shares make together: rank 0's `shared`, everyone's parts."""
    shared = next(each[1] for each in stored if each[1])
    parts = {part: _tensors(arrays) for each in stored for part, arrays in each[2].items()}
    return State(stored[0][0], _tensors(shared), parts)


def choose_interface() -> None:
    """Have gloo and NCCL use the interface that has this node's address in Ray, unless the user names one.

    By itself gloo asks what the host's name stands for, which is often 127.0.0.1: no other node reaches that.
    """
    import ray

    address = socket.inet_aton(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    loopback = socket.inet_aton("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                found = fcntl.ioctl(asking, _GET_ADDRESS, struct.pack("256s", name.encode()[:15]))
                if found[20:24] == (loopback if address[0] == loopback[0] else address):
                    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
                        os.environ.setdefault(variable, name)


def open_store() -> tuple[str, int]:
    """On rank 0: where the workers meet, at this node's address in Ray only. Returns the address and the port.

    The store that torch opens by itself takes anybody's word on all interfaces. It lives as long as this process.
    """
    import ray

    address = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    listening = socket.create_server((address, 0))
    port = listening.getsockname()[1]
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
    )
    _stores.append(store)
    return address, port


def use_store(address: str, port: int) -> None:
    """On every rank: have torch's `env://` meet at a store that is open already."""
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}


def work(config: Mapping[str, Any]) -> None:
    """What Ray Train runs on every worker. Errors that are the user's go to the driver; others are for Ray to retry."""
    import ray.train
    import ray.train.torch

    memory.preload()
    torch.set_num_threads(config["threads"])
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    run = WorkerRun(config["desk"], context.get_world_rank(), context.get_world_size(), device)
    try:
        result = config["method"].train(run.settings, run.data, run)
    except Interrupted:
        return
    except TesseraError as error:
        run.ask({"kind": "error", "error": error})
        return
    spent = run._spent()
    if run.rank == 0:
        run.ask({"kind": "result", "refs": [ray.put(result)], "spent": spent})
