"""The command of every RayJob is one that the workflows accept, and there is one for every training and search."""

import importlib
import shlex
from pathlib import Path

import pytest
from manifests import K8S, OVERLAYS, one

from ops.config.cli import resolve
from ops.config.settings import LaunchSettings, SearchSettings
from trainers import METHODS

WORKFLOWS = K8S.parent / "workflows"
JOBS = [name for name in OVERLAYS if name.startswith("rayjob-")]


@pytest.mark.parametrize("overlay", JOBS)
def test_the_workflow_takes_it(overlay):
    job = one(overlay, "RayJob")
    assert job["metadata"]["name"] == overlay
    program, *argv = shlex.split(job["spec"]["entrypoint"].replace("$TESSERA_OUT", "s3://tessera/runs"))[1:]
    path = K8S.parent / program
    if path.name == "train.py":
        name, launch = argv.pop(0), LaunchSettings
    else:
        name, launch = path.stem.removeprefix("tune_"), SearchSettings
    resolved = resolve(argv, METHODS[name], launch, WORKFLOWS / "presets", program)
    assert resolved.launch.out == "s3://tessera/runs"
    assert importlib.import_module(f"workflows.{path.stem}").main


def test_there_is_one_for_every_search_script_and_none_for_what_is_no_method():
    tunes = {p.stem.removeprefix("tune_") for p in Path(WORKFLOWS).glob("tune_*.py")}
    assert {f"rayjob-tune-{name}" for name in tunes} <= set(JOBS)
    assert {name.split("-")[2] for name in JOBS} <= set(METHODS)


def test_the_weekly_command_is_one_of_the_workflows():
    (container,) = one("weekly", "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    command = container["args"][0].rpartition("-- python ")[2].replace("$(date +%G-%V)", "2026-48")
    program, name, *argv = shlex.split(command)
    at = argv.index("--warm-start")
    assert argv.pop(at + 1) == "$WARM"
    assert argv.pop(at) == "--warm-start"
    resolved = resolve(argv, METHODS[name], LaunchSettings, WORKFLOWS / "presets", program)
    assert "warm_start" in LaunchSettings.model_fields
    assert resolved.launch.out == "$TESSERA_OUT"
