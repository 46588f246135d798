"""The console command: help, version, the plan alone, settings to a file; every command of the pages parses."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from commands import TINY, Shell

from workflows import auto, compare, features, generate_graph, main, partition_graph, predict, report, train, tune

PROJECT = Path(__file__).parents[2]
TUTORIALS = PROJECT / "workflows" / "tutorials"
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "trainers").glob("*/README.md")), *sorted(TUTORIALS.glob("*.md"))]
ENDS = ("ops.training.experiment.build_experiment", "ops.tuning.tuner.run_search", "workflows.predict.run_prediction",
        "workflows.partition_graph.run_partition", "workflows.generate_graph.generate", "workflows.compare.fetched",
        "workflows.report.fetched", "ops.data.images.backbones.load_backbone")  # fmt: skip


class Reached(Exception):
    """The command was understood; its work would begin."""


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path):
    inner = Shell(capsys, monkeypatch, tmp_path)
    return lambda line: inner(line, main.main, "/bin/tessera")


def test_help_names_every_command_and_version_says_which_it_is(shell):
    text = shell("--help").out
    assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in main.MODULES)
    assert re.fullmatch(r"tessera \d+\.\d+\.\d+\n", shell("--version").out)
    wrong = shell("trian")
    assert (wrong.code, wrong.errors) == (2, [f"error: tessera trian: is no command of {', '.join(main.MODULES)}; did "
                                              "you mean train?"])  # fmt: skip


@pytest.mark.parametrize("name", sorted(main.MODULES))
def test_every_command_has_help_with_examples(shell, name):
    text = shell(f"{name} --help").out
    assert text.startswith(f"usage: tessera {name} ")
    assert text.count(f"\n  tessera {name} ") == 2, "two examples"


def test_tab_completes_commands_methods_and_flags(shell, tmp_path):
    pytest.importorskip("shtab")  # of the extra [completion]
    (tmp_path / "script").write_text(shell("completion bash").out)
    words = {"tr": "train", "train hs": "hsan", "tune hgt --tri": "--trials", "predict --da": "--data"}
    for typed, completed in words.items():
        line = f"COMP_WORDS=(tessera {typed}); COMP_CWORD={len(typed.split())}; _shtab_tessera"
        command = ["/bin/bash", "-c", f'source ./script; {line}; echo "${{COMPREPLY[@]}}"']
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert completed in done.stdout.split()


def test_completion_without_its_package_is_one_line(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    ended = shell("completion zsh")
    assert (ended.code, ended.errors) == (
        2, ["error: completion: needs shtab; pip install 'tessera[completion]'"])  # fmt: skip


def test_flags_stand_in_sections_and_each_once(shell):
    text = shell("tune hgt --help").out
    titles = [line[:-1] for line in text.splitlines() if re.fullmatch(r"[a-z][^:]*:|MLflow:", line)]
    assert titles == ["options", "data", "clustering", "search", "results", "the method's own settings", "machine",
                      "MLflow", "examples"]  # fmt: skip


def test_a_dry_run_says_the_plan_and_leaves_nothing(shell, tmp_path):
    ended = shell(f"train {TINY} --dry-run")
    assert ended.code == 0
    assert "planned peak" in ended.out
    assert "nothing was trained" in ended.out
    assert "trials" not in ended.out
    assert list(tmp_path.iterdir()) == []
    assert shell(f"train {TINY} --dry-run --memory-limit 0.01").code == 4
    assert "nothing was trained" in shell(f"tune {TINY} --trials 2 --dry-run").out


def test_a_dry_run_of_users_says_where_it_leaves_their_parts(shell, tmp_path):
    ended = shell("train twhin --dataset planted:users=60,clusters=3 --parts 2 --dry-run")
    (parts,) = (tmp_path / "runs" / "partitions").glob("*/manifest.json")
    assert f"the training will take the parts in {parts.parent.relative_to(tmp_path)}" in ended.out


def test_settings_go_to_a_file_and_back(shell, tmp_path, monkeypatch):
    ended = shell(f"train {TINY} --lr 0.02 --dump-config all.yaml --tracking-uri postgresql://u:secret@h/db")
    assert ended.code == 0
    assert "--config all.yaml takes them" in ended.out
    assert "secret" not in (tmp_path / "all.yaml").read_text()
    (tmp_path / "run.json").write_text(json.dumps({"method": "hsan", "settings": {"lr": 0.02}, "data": "a"}))
    for flags, launch in (("--config all.yaml", 1), ("--config run.json", 0)):
        with patch(ENDS[0], side_effect=KeyboardInterrupt) as reached:
            assert shell(f"train hsan {flags}").code == 130
        request = reached.call_args.args[1]
        assert request.settings.lr == 0.02
        assert request.sources["lr"] == flags.split()[1]
        assert (request.launch.dataset == "planted:nodes=60,clusters=3") == bool(launch)
    wrong = shell("train caegcn --config run.json")
    assert (wrong.code, wrong.errors[0]) == (
        2, "error: --config run.json: is a run of hsan, not of caegcn; give a run of caegcn")  # fmt: skip


def test_an_interrupted_command_says_how_to_go_on(shell, monkeypatch):
    monkeypatch.setenv("TESSERA_DATA", "/a folder")
    with patch(ENDS[0], side_effect=KeyboardInterrupt):
        lines = shell(f"train {TINY} --fresh").err.splitlines()
    assert lines[-2:] == ["with TESSERA_DATA='/a folder' in the environment,", f"resume with: tessera train {TINY}"]


def commands():
    """(page, command) of every line of a shell block that starts one of ours."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.replace("...", "X"), comments=True)
                at = next((i for i, w in enumerate(words) if w == "tessera" or w.startswith("workflows/")), None)
                if at is not None and "docs.py" not in words[at]:
                    yield pytest.param(words[at:], id=f"{page.parent.name}: {shlex.join(words[at:])}"[:90])


@pytest.mark.parametrize("words", list(commands()))
def test_every_command_of_the_pages_parses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    modules = {"auto": auto, "train": train, "predict": predict, "compare": compare, "report": report, "tune": tune,
               "partition_graph": partition_graph, "generate_graph": generate_graph, "features": features}  # fmt: skip
    program, *argv = words
    name = Path(program).stem
    if name.startswith("tune_"):
        name, argv = "tune", [name.removeprefix("tune_"), *argv]
    call = main.main if program == "tessera" else modules[name].main

    with ExitStack() as patched:
        patched.enter_context(patch("ops.results.finished_run.settings_of_run", return_value={}))
        for end in ENDS:
            patched.enter_context(patch(end, side_effect=Reached))
        with pytest.raises(Reached):
            call(argv)


@pytest.mark.slow
def test_the_tutorial_of_a_table_runs(shell, tmp_path, capsys):
    codes = []
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", (TUTORIALS / "table.md").read_text(), re.DOTALL):
        if kind == "python":
            exec(block, {})
        codes += [
            shell(line.removeprefix("tessera ")).code for line in block.splitlines() if line.startswith("tessera ")
        ]
    assert codes == [3, 0, 0], "the file alone lacks something, then it is clustered and predicted"
    assert (tmp_path / "clusters.csv").read_text().splitlines()[1].startswith('"wine-000",')


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".parquet"])
def test_predictions_are_written_as_the_suffix_says(suffix, tmp_path):
    import pandas as pd

    from ops.storage.parquet import write_pieces

    pieces = [{"id": np.array(ids), "cluster": np.array([i, 1]), "vector": list(np.eye(2))}
              for i, ids in enumerate((["a", "b"], ["c", "d"]))]  # fmt: skip
    write_pieces(str(tmp_path / f"new{suffix}"), pieces)
    path = tmp_path / f"new{suffix}"
    if suffix == ".npy":
        assert np.load(path).tolist() == [0, 1, 1, 1]
        return
    table = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert table["id"].tolist() == ["a", "b", "c", "d"]
    assert table["cluster"].tolist() == [0, 1, 1, 1]
    assert ("vector" in table) == (suffix == ".parquet")
