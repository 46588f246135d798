"""What carries tensors between workers, as far as a machine without GPUs can tell."""

import pytest
import torch
import torch.distributed as dist
from gloo import run_in_processes
from ray.train.torch.config import _is_backend_nccl
from torch.distributed.distributed_c10d import BackendConfig

from ops.distributed.rendezvous import backend, torch_config


@pytest.mark.parametrize(("gpus", "devices"), [(0.0, {"cpu": "gloo"}), (1.0, {"cpu": "gloo", "cuda": "nccl"}),
                                               (0.5, {"cpu": "gloo", "cuda": "nccl"})])  # fmt: skip
def test_every_device_of_a_worker_has_a_backend(gpus, devices):
    """Read as torch reads it: with NCCL alone a reduction on the CPU would have none."""
    name = torch_config(gpus).backend
    assert devices.items() <= BackendConfig(dist.Backend(name)).get_device_backend_map().items()
    assert _is_backend_nccl(name) == bool(gpus)  # Ray's settings of NCCL's error handling hang on this


def sums_on_the_cpu(rank, world, name):
    """The sum over a group with a backend for each device."""
    x = torch.arange(3) + rank
    dist.all_reduce(x, group=dist.new_group(range(world), backend=name))
    return x.numpy()


@pytest.mark.slow
def test_a_group_with_a_backend_for_each_device_reduces_on_the_cpu():
    name = backend(1.0).replace("nccl", "gloo")  # no GPU here: NCCL's place is taken
    assert name == "cpu:gloo,cuda:gloo"
    for total in run_in_processes(2, sums_on_the_cpu, name):
        assert total.tolist() == [1, 3, 5]
