"""`--precision`: what a device may be asked for, what a resumed run keeps, what rounding does to a gradient."""

from unittest import mock

import pytest
import torch
from accelerator import NAME, accelerator
from device_cases import CASES, TRAINERS, DeviceRun, data_of, settings_of
from users_small import parts_in

from ops.api import State
from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.settings import LaunchSettings
from ops.device import precision_on, products
from ops.errors import SettingsError
from ops.training.checkpoint import FOLDER, save
from ops.training.experiment import Hooks, Worker, build_experiment, plan
from ops.training.seed_run import SeedRun
from trainers import METHODS

# the difference of a step's gradient, of its length: stated in ops/README.md
TOLERANCE = {"tf32": 0.002, "bf16": 0.04}
HADIS = {"tf32": 0.04, "bf16": 0.15}  # BatchNorm over a few images, and hardest pairs that may be others


def gradient(method, users, precision):
    """That of the first step of a case on the accelerator, all parameters in one vector."""
    case = next(words for name, words in CASES if name == method)
    taken, real = [], torch.autograd.grad

    def seen(gradients):
        taken.append(torch.cat([g.flatten().float() for g in gradients if g is not None]).cpu())
        return gradients

    with accelerator():
        run = DeviceRun(5, device=NAME, precision=precision)
        trainer = TRAINERS[method](settings_of(method, case), data_of(method, case, users), run)
        if method == "twhin":
            patch = mock.patch.object(torch.autograd, "grad", lambda *a, **k: seen(real(*a, **k)))
        else:
            parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
            patch = mock.patch.object(trainer.optimizer, "step", side_effect=lambda: seen([p.grad for p in parameters]))
        with patch, products(run.device, precision):
            trainer.epoch(0)
    return taken[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINERS)
def test_a_gradient_keeps_to_the_tolerance_in_every_precision_that_a_method_takes(method, tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))
    users = parts_in(tmp_path)
    exact = gradient(method, users, "float32")
    for precision, bar in (HADIS if method == "hadis" else TOLERANCE).items():
        if precision in METHODS[method].precisions:
            error = (gradient(method, users, precision) - exact).norm() / exact.norm()
            assert bar / 50 < error < bar, precision


@pytest.mark.parametrize(("device", "asked", "choices", "expected"), [
    ("cpu", "auto", ("tf32", "float32"), "float32"),
    ("cpu", "float32", ("bf16", "float32"), "float32"),
    ("cuda", "auto", ("bf16", "tf32", "float32"), "bf16"),
    ("cuda", "float32", ("tf32", "float32"), "float32"),
    ("cpu", "bf16", ("bf16", "float32"), "--precision bf16: is not for products on CPUs; allowed are auto, float32"),
    ("cuda", "bf16", ("tf32", "float32"), "is not for this method's products; allowed are auto, tf32, float32"),
])  # fmt: skip
def test_what_is_asked_for_or_suits_the_device(device, asked, choices, expected):
    if " " not in expected:
        assert precision_on(device, asked, choices) == expected
        return
    with pytest.raises(SettingsError, match=expected):
        precision_on(device, asked, choices)


@pytest.mark.parametrize("cuda", [False, True])
def test_the_plan_names_a_gpus_precision_and_refuses_it_on_cpus(cuda, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("ops.training.experiment.check_card", lambda *_: "")
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--precision", "tf32", "--out", str(tmp_path)]
    request = resolve(argv, METHODS["hsan"], LaunchSettings, tmp_path, "train.py hsan")
    experiment = build_experiment(METHODS["hsan"], request, Console())
    if cuda:
        plan(experiment, None)
        assert "products in tf32 (from flag)" in capsys.readouterr().out
    else:
        with pytest.raises(SettingsError, match="--precision tf32: is not for products on CPUs"):
            plan(experiment, None)


@pytest.mark.parametrize(("device", "goes_on", "words"), [
    ("cuda", "bf16", "seed 0 began with products in bf16 and goes on in bf16: not in tf32"),
    ("cpu", "float32", "seed 0 began with products in bf16 and goes on in float32: CPUs have float32 only"),
])  # fmt: skip
def test_a_resumed_run_keeps_its_precision_where_the_device_has_it(device, goes_on, words, tmp_path, capsys):
    shared = {"run.history": [], "run.threads": [0, 1], "run.warnings": [], "run.collapsed": 0, "run.precision": "bf16",
              "run.spent": {"seconds": 1.0, "cpu_seconds": 1.0, "peak": 0.0},
              "run.assignment_epochs": torch.zeros(1, dtype=torch.int64)}  # fmt: skip
    save(tmp_path / FOLDER, State(0, shared))
    asked = precision_on(device, "auto", ("tf32", "float32"))
    worker = Worker(device=torch.device(device))
    with SeedRun(tmp_path, 0, 9, None, Console(), Hooks(), worker, precision=asked) as run:
        pass
    assert run.precision == goes_on
    assert words in capsys.readouterr().err
