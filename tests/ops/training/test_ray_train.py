"""What carries tensors between workers, as far as a machine without GPUs can tell."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from gloo import run_in_processes
from ray.train.torch.config import _is_backend_nccl
from torch.distributed.distributed_c10d import BackendConfig

from ops.distributed.resources import Workers
from ops.training import ray_train
from ops.training.ray_train import Driver


@pytest.mark.parametrize(("gpus", "devices"), [(0.0, {"cpu": "gloo"}), (1.0, {"cpu": "gloo", "cuda": "nccl"}),
                                               (0.5, {"cpu": "gloo", "cuda": "nccl"})])  # fmt: skip
def test_every_device_of_a_worker_has_a_backend(gpus, devices, tmp_path, monkeypatch):
    """Read as torch reads it: with NCCL alone a reduction on the CPU would have none."""
    made = {}
    monkeypatch.setattr("ray.train.torch.TorchTrainer", lambda *_, **named: made.update(named))
    driver = object.__new__(Driver)  # of which the trainer asks no more than these two
    driver.experiment, driver.session = SimpleNamespace(method=math), SimpleNamespace(workers=Workers(2, 1, gpus))
    ray_train._trainer(driver, None, tmp_path)
    backend = made["torch_config"].backend
    found = BackendConfig(dist.Backend(backend)).get_device_backend_map()
    assert devices.items() <= found.items()
    assert _is_backend_nccl(backend) == bool(gpus)  # Ray's settings of NCCL's error handling hang on this


def sums_on_the_cpu(rank, world, backend):
    """The sum over a group with a backend for each device."""
    x = torch.arange(3) + rank
    dist.all_reduce(x, group=dist.new_group(range(world), backend=backend))
    return x.numpy()


def test_a_group_with_a_backend_for_each_device_reduces_on_the_cpu():
    backend = ray_train._backend(1.0).replace("nccl", "gloo")  # no GPU here: NCCL's place is taken
    assert backend == "cpu:gloo,cuda:gloo"
    for found in run_in_processes(2, sums_on_the_cpu, backend):
        assert found.tolist() == [1, 3, 5]
