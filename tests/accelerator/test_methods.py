"""Every method trains on the pretended accelerator, ends with the CPU's assignments, and does not wait in a step."""

import device_cases
import numpy as np
import pytest
from accelerator import NAME, accelerator
from device_cases import CASES, TRAINERS, DeviceRun, data_of, on_ranks, settings_of, trained
from gloo import run_in_processes
from users_small import parts_in

FEW = [
    case if case[0] not in [other[0] for other in CASES[:i]] else pytest.param(case, marks=pytest.mark.slow)
    for i, case in enumerate(CASES)
]  # one of each method where seconds count


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    return parts_in(tmp_path_factory.mktemp("users"))


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))  # CaEGCN's pre-training


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=device_cases.names())
def test_a_training_ends_with_the_cpus_assignments(case, users):
    cpu = trained(case, users, DeviceRun(5))
    with accelerator() as count:
        run = DeviceRun(5, device=NAME)
        on_device = trained(case, users, run)
    assert count["kernels"] > 100
    assert (on_device.assignment == cpu.assignment).mean() == 1.0
    assert np.allclose(on_device.embedding, cpu.embedding, rtol=0, atol=1e-3)
    assert all(tensor.device.type == "cpu" for tensor in on_device.model.values())
    assert on_device.model.keys() == cpu.model.keys()


@pytest.mark.parametrize("case", FEW, ids=lambda case: device_cases.names()[CASES.index(case)])
def test_the_host_waits_once_an_epoch(case, users):
    method, words = case
    with accelerator() as count:
        trainer = TRAINERS[method](settings_of(method, words), data_of(method, words, users), DeviceRun(5, device=NAME))
        trainer.epoch(0)
        trainer.evaluate(0)
        # the joint mode of HGT makes a map before the steps, as an update would
        vars(trainer)["_refresh_map"] = lambda: None
        waits = []
        for epoch in (1, 2):
            count.clear()
            trainer.epoch(epoch)
            waits.append(count["host syncs"])
    assert waits == [1, 1]


@pytest.mark.slow
def test_two_ranks_end_with_the_cpus_assignments(users):
    cases = [[method for method, _ in CASES].index(name) for name in ("hsan", "twhin")]
    alone = [trained(CASES[case], users, DeviceRun(5)).assignment for case in cases]
    folder = str(users.place).rsplit("/", 1)[0]
    for assignments in run_in_processes(2, on_ranks, folder, cases):
        for here, there in zip(alone, assignments, strict=True):
            assert np.array_equal(here, there)
