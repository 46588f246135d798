"""Every method trains on the pretended accelerator, ends with the CPU's assignments, and does not wait in a step."""

from functools import cache

import device_cases
import numpy as np
import pytest
from accelerator import NAME, accelerator
from device_cases import CASES, TRAINERS, DeviceRun, data_of, on_ranks, placed, settings_of, trained
from gloo import run_in_processes
from small import small_graph
from users_small import parts_in

import tessera
from ops.clustering.owners import Owners
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.distributed.process_group import ProcessGroup
from ops.inference.predict import run_prediction
from trainers import METHODS
from trainers.shared import TileSettings

# of an epoch of the method's largest case: kernels and views, as the table of its page has them
STARTS = {"hsan": 650, "caegcn": 1_290, "hadis": 5_000, "ns4gc": 470, "dmon": 300, "hgt": 11_000, "twhin": 3_300}
FEW = [
    case if case[0] not in [other[0] for other in CASES[:i]] else pytest.param(case, marks=pytest.mark.slow)
    for i, case in enumerate(CASES)
]  # one of each method where seconds count


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    return parts_in(tmp_path_factory.mktemp("users"))


@pytest.fixture(scope="module")
def on_cpu(users):
    """The result of a case's training on the CPU, computed once."""
    return cache(lambda number: trained(CASES[number], users, DeviceRun(5)))


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))  # CaEGCN's pre-training


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=device_cases.names())
def test_a_training_ends_with_the_cpus_assignments(number, users, on_cpu):
    case, cpu = CASES[number], on_cpu(number)
    with accelerator() as count:
        run = DeviceRun(5, device=NAME)
        on_device = trained(case, users, run)
        again = placed(case, users, {name: tensor.to(NAME) for name, tensor in cpu.model.items()})
    assert np.array_equal(again, placed(case, users, cpu.model))
    assert count["kernels"] > 100
    assert (on_device.assignment == cpu.assignment).mean() == 1.0
    assert np.allclose(on_device.embedding, cpu.embedding, rtol=0, atol=1e-3)
    assert all(tensor.device.type == "cpu" for tensor in on_device.model.values())
    assert on_device.model.keys() == cpu.model.keys()


@pytest.mark.parametrize(("name", "words"), [
    ("HSAN", {"epochs": 2, "embedding_dim": 8, "precision": "float32"}), ("SSGC", {"components": 3}), ("SAGSC", {}),
    ("S2CAG", {"variant": "s2cag"}), ("S2CAG", {"variant": "m-s2cag"}), ("Degree", {}),
])  # fmt: skip
def test_an_estimator_fits_and_predicts_on_its_device(name, words, tmp_path):
    data = small_graph("hsan")[0]
    x = data.x - data.x.min()  # S2CAG takes no features below 0
    kind = getattr(tessera, name)
    cpu = kind(n_clusters=3, **words).fit(x, data.edge_index)
    with accelerator() as count:
        on_device = kind(n_clusters=3, device=NAME, **words).fit(x, data.edge_index)
        count.clear()
        again = on_device.predict(x, data.edge_index)
        assert count["kernels"] > 1
        assert on_device.transform(x, data.edge_index).shape == on_device.embedding_.shape
        if name == "HSAN":
            np.savez(tmp_path / "rows.npz", x=x, edge_index=data.edge_index)
            rows, out = f"{tmp_path}/rows.npz", f"{tmp_path}/out.npy"
            request = PredictSettings(data=rows, known=rows, out=out, device=NAME)
            run_prediction(str(on_device.save(tmp_path / "run")), request, METHODS, Console(quiet=True))
            assert np.array_equal(np.load(out), again)
    assert np.array_equal(on_device.labels_, cpu.labels_)
    assert np.array_equal(again, cpu.predict(x, data.edge_index))


@pytest.mark.parametrize("case", FEW, ids=lambda case: device_cases.names()[CASES.index(case)])
def test_the_host_waits_once_an_epoch_and_starts_as_few_kernels_as_the_pages_say(case, users):
    method, words = case
    settings = settings_of(method, words)
    if isinstance(settings, TileSettings):
        settings = settings.model_copy(update={"tile_rows": "auto"})
    with accelerator() as count:
        trainer = TRAINERS[method](settings, data_of(method, words, users), DeviceRun(5, device=NAME))
        trainer.epoch(0)
        trainer.evaluate(0)
        # the joint mode of HGT makes a map before the steps, as an update would
        vars(trainer)["_refresh_map"] = lambda: None
        count.clear()
        trainer.epoch(1)
        assert count["kernels"] + count["views"] <= STARTS[method]
        assert count["host syncs"] == 1


@pytest.mark.slow
def test_two_ranks_end_with_the_cpus_assignments(users, on_cpu):
    cases = [[method for method, _ in CASES].index(name) for name in TRAINERS]
    cases = [case + 2 * (CASES[case][0] == "hadis") for case in cases]  # frozen features: the cheapest of its networks
    alone = [on_cpu(case).assignment for case in cases]
    folder = str(users.place).rsplit("/", 1)[0]
    for rank, assignments in enumerate(run_in_processes(2, on_ranks, folder, cases)):  # starts are what takes time
        owned = Owners(users.manifest.nodes[users.rows].offsets, ProcessGroup(rank, 2)).shard.numbers()
        for name, here, there in zip(TRAINERS, alone, assignments, strict=True):
            assert np.array_equal(here[owned] if name in ("hgt", "twhin") else here, there)
