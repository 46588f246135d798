"""Defaults < preset < `--config` < flags, each value with its source; every wrong input is one line that helps."""

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from refusals import one_line

from ops.config.cli import flag, parser, read_yaml, resolve
from ops.config.settings import LaunchSettings, SearchSettings, allowed, fields
from ops.errors import SettingsError
from trainers import METHODS, hsan

PRESETS = Path(__file__).parents[3] / "workflows" / "presets"


@pytest.fixture
def presets(tmp_path):
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "hsan-cora.yaml").write_text("epochs: 11\nlr: 0.5\nbeta: 3\n")
    return folder


def resolved(text, presets, launch=LaunchSettings, method=hsan.METHOD):
    return resolve(shlex.split(text), method, launch, presets, f"workflows/train.py {method.name}")


def refused(text, presets, launch=LaunchSettings):
    with pytest.raises(SettingsError) as caught:
        resolved(text, presets, launch)
    assert "\n" not in str(caught.value)
    assert caught.value.code == 2
    return str(caught.value)


def test_each_source_overrides_the_weaker_ones_and_is_recorded(presets, tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text("lr: 0.25\nbeta: 4\nlow-pass-order: 5\nseeds: 7\n")
    request = resolved(f"--dataset cora --config {config} --beta 2 --embedding-dim 8", presets)
    settings = request.settings
    assert (settings.temperature, settings.epochs, settings.lr, settings.beta) == (1.0, 11, 0.25, 2.0)
    assert (settings.low_pass_order, settings.embedding_dim, request.launch.seeds) == (5, 8, 7)
    assert request.sources == {
        "epochs": "preset hsan-cora",
        "lr": str(config),
        "low_pass_order": str(config),
        "seeds": str(config),
        "beta": "flag",
        "embedding_dim": "flag",
        "dataset": "flag",
        "config": "flag",
    }


def test_frozen_features_take_their_own_preset_whatever_the_data_is_called():
    words = "--dataset cifar10 --backbone frozen:x.npy"
    assert resolved(words, PRESETS, method=METHODS["hadis"]).sources["epochs"] == "preset hadis-frozen"
    assert resolved(f"{words} --preset none", PRESETS, method=METHODS["hadis"]).sources.get("epochs") is None


def test_defaults_alone_have_no_source(presets):
    request = resolved("", presets)
    assert request.settings == hsan.Settings()
    assert request.launch == LaunchSettings()
    assert request.sources == {}


def test_the_environment_is_no_source(presets, monkeypatch):
    for key in ("LR", "EPOCHS", "SEEDS", "TESSERA_EPOCHS", "lr", "epochs"):
        monkeypatch.setenv(key, "0.123")
    assert resolved("", presets).settings == hsan.Settings()


def test_what_a_protocol_derives_is_said_so(presets):
    request = resolved("--protocol published --weights stale", presets)
    assert {k: request.sources[k] for k in hsan.PUBLISHED if k in request.sources} == {
        "ema": "protocol",
        "kmeans": "protocol",
        "weights": "flag",
    }
    assert request.settings.gradients == "accumulate"


@pytest.mark.parametrize(("flags", "epochs"), [
    ("--dataset cora", 11),  # auto: the data set's own
    ("--dataset cora --preset auto", 11),
    ("--dataset cora --preset none", 50),
    ("--dataset bat", 50),  # it has none
    ("--dataset ./cora", 50),  # a path, not the known data set
    ("--preset cora", 11),
    ("--preset hsan-cora", 11),
    ("--preset PRESETS/hsan-cora.yaml", 11),
    ("--dataset cora --preset other.yaml", 12),
])  # fmt: skip
def test_a_preset_is_chosen(presets, tmp_path, monkeypatch, flags, epochs):
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("epochs: 12\n")
    assert resolved(flags.replace("PRESETS", str(presets)), presets).settings.epochs == epochs


def test_config_may_name_data_set_and_preset_and_a_flag_overrides_both(presets, tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text("dataset: cora\n")
    assert resolved(f"--config {config}", presets).settings.epochs == 11
    assert resolved(f"--config {config} --dataset digits", presets).settings.epochs == 50
    config.write_text("dataset: cora\npreset: none\n")
    assert resolved(f"--config {config}", presets).settings.epochs == 50
    assert resolved(f"--config {config} --preset auto", presets).settings.epochs == 11


@pytest.mark.parametrize(("text", "message"), [
    ("--temprature 1", r"^--temprature: unknown flag or value; nearest known: --temperature; --help lists all"),
    ("--temprature=1", r"^--temprature=1: unknown flag or value; nearest known: --temperature; "),
    ("--epoch 1", r"^--epoch: unknown flag or value; nearest known: --epochs; "),  # no abbreviations
    ("stray", r"^stray: unknown flag or value"),
    ("--epochs", r"^argument --epochs: expected one argument; --help lists all flags$"),
    ("--epochs x", r"^--epochs: got 'x'; allowed: whole number in \[1, 1e\+06\]$"),
    ("--epochs 1.5", r"^--epochs: got '1.5'; "),
    ("--epochs 0", r"^--epochs: got '0'; "),
    ("--lr nan", r"^--lr: got 'nan'; allowed: number in \(0, 1\]$"),
    ("--lr 0", r"^--lr: got '0'; allowed: number in \(0, 1\]$"),
    ("--confidence 1.01", r"^--confidence: got '1.01'; allowed: number in \[0, 1\]$"),
    ("--beta -1", r"^--beta: got '-1'; "),
    ("--seeds 0", r"^--seeds: got '0'; "),
    ("--n-clusters many", r"^--n-clusters: got 'many'; allowed: whole number or auto$"),
    ("--n-clusters 2.5", r"^--n-clusters: got '2.5'; "),
    ("--weights old", r"^--weights: got 'old'; allowed: paper or stale$"),
    ("--json yes", r"^yes: unknown flag or value"),
    ("--report=maybe", r"^argument --report/--no-report: ignored explicit argument 'maybe'"),
    ("--protocol published --kmeans euclidean", r"^--protocol published sets kmeans=released: got kmeans='euclid"),
    ("--preset citesier", r"^--preset citesier: no such preset or file; presets: hsan-cora$"),
    ("--preset hsan-corra", r"^--preset hsan-corra: no such preset or file; nearest known: hsan-cora; "),
    ("--config none.yaml", r"^none\.yaml: cannot be read \(No such file or directory\); give an "),
    ("--config .", r"^\.: cannot be read \(Is a directory\); "),
    ("--trials 3", r"^--trials: unknown flag or value"),  # a search's flag, not a training's
])  # fmt: skip
def test_a_wrong_flag_is_one_line(presets, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, refused(text, presets)), refused(text, presets)


@pytest.mark.parametrize(("content", "message"), [
    (b"epoch: 3", r"CONFIG: unknown setting 'epoch'; nearest known: epochs; --help lists all$"),
    (b"temprature: 1", r"CONFIG: unknown setting 'temprature'; nearest known: temperature; "),
    (b"1: 2", r"CONFIG: unknown setting '1'; "),
    (b"json_output: true", r"CONFIG: unknown setting 'json_output'; nearest known: "),
    (b"epochs: [1", r"CONFIG: is not YAML \(while parsing a flow sequence .*\); expected lines such as "),
    (b"epochs: 3\n\tlr: 1", r"CONFIG: is not YAML \("),
    (b"\xff\xfe\x00", r"CONFIG: is not YAML \("),
    (b"a\x00b", r"CONFIG: is not YAML \("),
    (b"!!python/object/apply:os.system ['true']", r"CONFIG: is not YAML \("),
    (b"- epochs", r"CONFIG: holds list, expected lines such as `epochs: 100`$"),
    (b"epochs", r"CONFIG: holds str, expected lines"),
    (b"epochs: true", r"CONFIG: epochs: got True; allowed: whole number in \[1, 1e\+06\]$"),
    (b"epochs: yes", r"CONFIG: epochs: got True; "),
    (b"epochs:", r"CONFIG: epochs: got None; "),
    (b"epochs: 1e3", r"CONFIG: epochs: got '1e3'; "),
    (b"lr: .nan", r"CONFIG: lr: got nan; "),
    (b"lr: -.inf", r"CONFIG: lr: got -inf; "),
    (b"lr: [0.1, 0.2]", r"CONFIG: lr: got \[0.1, 0.2\]; "),
    (b"quiet: 2", r"CONFIG: quiet: got 2; allowed: true or false$"),
    (b"name: 7", r"CONFIG: name: got 7; allowed: text$"),
    (b"n_clusters: no", r"CONFIG: n_clusters: got False; allowed: whole number or auto$"),
    (b"protocol: published\ngradients: standard", r"^--protocol published sets gradients=accumulate: got "),
    (b"preset: corra", r"^--preset corra: no such preset or file; "),
])  # fmt: skip
def test_a_wrong_yaml_is_one_line_naming_the_file(presets, tmp_path, content, message):
    config = tmp_path / "my.yaml"
    config.write_bytes(content)
    pattern = message.replace("CONFIG", "^" + re.escape(str(config)))
    for text in (f"--config {config}", f"--preset {config}"):
        if b"preset" in content and "--preset" in text:
            continue
        request = refused(text, presets).replace("preset my: ", f"{config}: ")  # how a preset's value is named
        assert re.search(pattern, request), request


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n", b"{}"])
def test_an_empty_yaml_changes_nothing(presets, tmp_path, content):
    config = tmp_path / "my.yaml"
    config.write_bytes(content)
    assert resolved(f"--config {config}", presets).settings == hsan.Settings()


def test_yaml_takes_dashes_and_its_own_types(presets, tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text("n-clusters: auto\nlr: 1e-4\nepochs: 20\nreport: false\njson: true\n")
    request = resolved(f"--config {config}", presets)
    assert (request.settings.n_clusters, request.settings.lr, request.settings.epochs) == ("auto", 1e-4, 20)
    assert (request.launch.report, request.launch.json_output) == (False, True)


def test_booleans_are_pairs_of_flags_and_override_yaml(presets, tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text("report: false\nquiet: true\n")
    request = resolved(f"--config {config} --report --no-quiet --json", presets).launch
    assert (request.report, request.quiet, request.json_output, request.fresh) == (True, False, True, False)


@pytest.mark.parametrize("launch", [LaunchSettings, SearchSettings])
def test_help_lists_every_flag_with_what_is_allowed_and_its_default(launch):
    text = parser("train.py", "", hsan.Settings, launch).format_help()
    plain = " ".join(text.split())
    for key, (info, _) in fields(hsan.Settings, launch).items():
        assert re.search(rf"^  {flag(key)}\b", text, re.MULTILINE), key
        for part in (str(info.description), f"[{allowed(info)}; default: {info.default}"):
            # argparse may break a line after a dash
            assert part.replace(" ", "") in plain.replace(" ", ""), (key, part)


def test_help_is_printed_and_ends_with_0(presets, capsys):
    with pytest.raises(SystemExit) as caught:
        resolved("--help", presets)
    assert caught.value.code == 0
    assert "--temperature" in capsys.readouterr().out


def test_a_trial_is_the_strongest_source_and_is_validated(presets):
    request = resolved("--dataset cora --beta 2", presets).with_settings("trial", beta=4.5)
    assert request.settings.beta == 4.5
    assert request.settings.epochs == 11
    assert request.sources["beta"] == "trial"
    with pytest.raises(SettingsError, match=r"^trial: beta: got 99; allowed: number in \(0, 20\]$"):
        request.with_settings("trial", beta=99)


def test_launching_otherwise_leaves_the_settings(presets):
    request = resolved("--beta 2", presets)
    other = request.with_launch(name="best", seeds=3)
    assert (other.launch.name, other.launch.seeds) == ("best", 3)
    assert (other.settings, other.launch.out) == (request.settings, request.launch.out)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_each_shipped_preset_is_valid_and_holds_only_what_differs(path):
    method, _, dataset = path.stem.partition("-")
    local = "--preset " + ("auto" if method == "hsan" else path.stem)
    request = resolved(f"--dataset {dataset} {local}", PRESETS, method=METHODS[method])
    stored = yaml.safe_load(path.read_text())
    default = resolved(f"--dataset {dataset} --preset none", PRESETS, method=METHODS[method])
    assert "WITH labels" in stored.pop("remark")  # the plan and the report say how a preset was chosen
    assert request.remarks
    assert stored
    for key, value in stored.items():
        assert request.sources[key] == f"preset {path.stem}"
        owner = default.settings if key in fields(METHODS[method].settings) else default.launch
        assert getattr(owner, key) != value, f"{key} is the default"


def test_a_pipe_is_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="is no regular file"):
        read_yaml(tmp_path / "pipe", ["epochs"])


@pytest.mark.parametrize("text", ["epochs: " + "9" * 5000, "[" * 3000, "epochs: 2026-01-01", 'name: "a\\0b"'])
def test_strange_yaml_is_one_line(tmp_path, text):
    (tmp_path / "strange.yaml").write_text(text)
    assert len(one_line(SettingsError, resolved, f"--config {tmp_path}/strange.yaml", tmp_path)) < 500
