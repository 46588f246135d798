"""Every case of the pretended accelerator on a card: `make test-gpu`; skipped where there is none."""

import gc

import device_cases
import pytest
import torch
from device_cases import CASES, TRAINERS, DeviceRun, data_of, placed, settings_of, trained
from sklearn.metrics import normalized_mutual_info_score
from users_small import parts_in

from ops.device import KERNELS
from trainers import METHODS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    return parts_in(tmp_path_factory.mktemp("users"))


@pytest.fixture(autouse=True)
def memory_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))  # CaEGCN's pre-training
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


@pytest.mark.parametrize("case", CASES, ids=device_cases.names())
def test_a_training_on_the_card_agrees_with_the_cpus_and_keeps_to_the_plan(case, users):
    on_card = trained(case, users, DeviceRun(5, device="cuda"))
    peak = torch.cuda.max_memory_allocated()
    cpu = trained(case, users, DeviceRun(5))
    # sums in another order: a row on a border may change sides, and a crop's hardest pair may be another one
    agreement = 0.5 if case[0] == "hadis" else 0.9
    assert normalized_mutual_info_score(on_card.assignment, cpu.assignment) > agreement
    again = placed(case, users, {name: tensor.cuda() for name, tensor in on_card.model.items()})
    assert normalized_mutual_info_score(again, placed(case, users, on_card.model)) > agreement
    method, words = case
    assert peak < METHODS[method].estimate(settings_of(method, words), data_of(method, words, users), 1) + KERNELS


@pytest.mark.parametrize("method", TRAINERS)
def test_the_precision_of_auto_trains_on_the_card_and_ends_in_the_same_clusters_again(method, users):
    case = next(case for case in CASES if case[0] == method)
    runs = [DeviceRun(5, device="cuda", precision=METHODS[method].precisions[0]) for _ in range(2)]
    first, again = (trained(case, users, run) for run in runs)
    assert (first.assignment == again.assignment).mean() > 0.9
