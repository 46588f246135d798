"""How the workers of Ray Train meet: by a network interface and a store at the address that their node has in Ray."""

# a class inside a function is pickled without the names that only its annotations use
from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from typing import Any

import torch.distributed as dist

_GET_ADDRESS = 0x8915  # SIOCGIFADDR of Linux: an interface's IPv4 address

_stores: list[Any] = []  # that this process serves, if it is a rank 0


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
                answer = fcntl.ioctl(asking, _GET_ADDRESS, struct.pack("256s", name.encode()[:15]))
                if answer[20:24] == (loopback if address[0] == loopback[0] else address):
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


def backend(gpus: float) -> str:
    """What carries the tensors between the workers, by device.

    GPU workers need gloo beside NCCL: the numbers of TwHIN's rows, by which the host routes them, stay on the CPU.
    """
    return "cpu:gloo,cuda:nccl" if gpus else "gloo"


def torch_config(gpus: float) -> Any:
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
                    ray.get([ask(rank, join, backend_config.backend, rank, count, "env://", limit)
                             for rank in range(count)])  # fmt: skip

            return Backend

    return Config(backend=backend(gpus))
