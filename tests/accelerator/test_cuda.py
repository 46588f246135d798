"""Every case of the pretended accelerator on a card: `make test-gpu`; skipped where there is none."""

import device_cases
import pytest
import torch
from device_cases import CASES, DeviceRun, data_of, settings_of, trained
from sklearn.metrics import normalized_mutual_info_score
from users_small import parts_in

from ops.device import KERNELS
from trainers import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    return parts_in(tmp_path_factory.mktemp("users"))


@pytest.mark.parametrize("case", CASES, ids=device_cases.names())
def test_a_training_on_the_card_agrees_with_the_cpus_and_keeps_to_the_plan(case, users, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))
    torch.cuda.reset_peak_memory_stats()
    on_card = trained(case, users, DeviceRun(5, device="cuda"))
    peak = torch.cuda.max_memory_allocated()
    cpu = trained(case, users, DeviceRun(5))
    # float32 sums in another order: a row on a border may change sides, bf16 (HaDis) moves more of them
    assert normalized_mutual_info_score(on_card.assignment, cpu.assignment) > (0.5 if case[0] == "hadis" else 0.9)
    method, words = case
    assert peak < METHODS[method].estimate(settings_of(method, words), data_of(method, words, users), 1) + KERNELS


@pytest.mark.parametrize("case", [CASES[0], CASES[15]], ids=["hsan", "twhin"])
def test_a_training_on_the_card_ends_in_the_same_clusters_again(case, users):
    first, again = (trained(case, users, DeviceRun(5, device="cuda")) for _ in range(2))
    assert (first.assignment == again.assignment).mean() > 0.95
