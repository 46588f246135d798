"""A checkpoint loads exactly or not at all: round trips, the newest two; models and JSON beside it are whole files."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from checkpoint_states import bits, same, small, tensor
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line
from safetensors.torch import load_file

from ops.api import State
from ops.atomic_io import atomic_write, write_json
from ops.errors import SettingsError
from ops.results.model_store import save_model
from ops.training.checkpoint import KEEP, load_latest, save

DTYPES = [
    torch.bfloat16, torch.float16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64, torch.bool,
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def hidden(folder):
    return [p.name for p in folder.rglob("*") if p.name.startswith(".") or p.name.endswith(".tmp")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 4), (), (0,), (2, 0, 3), (1,)], ids=str)
def test_tensors_of_every_type_and_shape_come_back_bit_for_bit(tmp_path, dtype, shape):
    state = State(3, {"t": tensor(dtype, shape)}, {12345: {"t": tensor(dtype, shape, seed=1)}})
    save(tmp_path, state)
    same(load_latest(tmp_path), state)


@given(
    epoch=st.integers(0, 10**9),
    values=st.dictionaries(st.text(max_size=6), JSON, max_size=4),
    names=st.dictionaries(st.text(min_size=1, max_size=6), st.sampled_from(DTYPES), max_size=4),
    parts=st.dictionaries(st.integers(0, 99_999), st.sampled_from(DTYPES), max_size=3),
)
def test_any_state_comes_back(epoch, values, names, parts):
    names = {k: v for k, v in names.items() if k != "__metadata__"}  # safetensors' own key
    shared = {k: v for k, v in values.items() if k not in names} | {k: tensor(d) for k, d in names.items()}
    state = State(epoch, shared, {p: {"t": tensor(d)} for p, d in parts.items()})
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), state)
        same(load_latest(Path(folder)), state)


def test_views_gradients_and_transposes_are_saved_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(base.clone())
    parts = {0: {"t": base.clone().t(), "s": base[::2], "p": parameter}}
    state = State(1, {"p": parameter, "t": base.t(), "s": base[:, ::2]}, parts)
    save(tmp_path, state)
    result = load_latest(tmp_path)
    assert torch.equal(result.shared["t"], base.t())
    assert torch.equal(result.shared["s"], base[:, ::2])
    assert torch.equal(result.shared["p"], base)
    assert torch.equal(result.parts[0]["t"], base.t())
    assert torch.equal(result.parts[0]["s"], base[::2])
    assert torch.equal(result.parts[0]["p"], base)
    assert not result.shared["p"].requires_grad


def test_the_newest_two_are_kept(tmp_path):
    for epoch in (0, 10, 20, 100):
        save(tmp_path, small(epoch))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch-00000020", "epoch-00000100"]
    assert KEEP == 2
    same(load_latest(tmp_path), small(100))


def test_saving_an_epoch_again_replaces_it(tmp_path):
    save(tmp_path, small(5))
    other = State(5, {"w": torch.ones(2)})
    save(tmp_path, other)
    same(load_latest(tmp_path), other)
    assert len(list(tmp_path.iterdir())) == 1


def test_no_checkpoint_is_none_without_a_warning(tmp_path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "missing") is None


def test_what_a_killed_save_left_is_neither_loaded_nor_in_the_way(tmp_path):
    save(tmp_path, small(1))
    left = tmp_path / ".epoch-00000002.tmp"
    shutil.copytree(tmp_path / "epoch-00000001", left)
    same(load_latest(tmp_path), small(1))
    save(tmp_path, small(2))
    same(load_latest(tmp_path), small(2))
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("write", [lambda p: save_model(p, {"w": torch.ones(3)}, {}), lambda p: save(p, small(1)),
                                   lambda p: atomic_write(p / "a.json", "x")],
                         ids=["save_model", "save", "atomic_write"])  # fmt: skip
def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, write):
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in one_line(SettingsError, write, tmp_path / "file" / "below")


def test_save_model_writes_what_safetensors_and_json_read(tmp_path):
    turned = torch.arange(6.0).reshape(2, 3).t()
    tensors = {"w": tensor(torch.float32), "t": turned, "p": torch.nn.Parameter(torch.ones(2))}
    save_model(tmp_path / "model", tensors, {"method": "hsan", "epochs": 3})
    result = load_file(tmp_path / "model" / "model.safetensors")
    assert {k: bits(v) for k, v in result.items()} == {k: bits(v.detach()) for k, v in tensors.items()}
    assert json.loads((tmp_path / "model" / "settings.json").read_text()) == {"method": "hsan", "epochs": 3}
    assert hidden(tmp_path) == []


def test_atomic_write_replaces_whole_files_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    atomic_write(path, "first")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]


@given(JSON)
def test_write_json_can_always_be_read(value):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "a.json", value)
        text = (Path(folder) / "a.json").read_text()
    result = json.loads(text, parse_constant=pytest.fail)
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert result == finite


def test_write_json_makes_null_of_what_json_has_not(tmp_path):
    write_json(tmp_path / "a.json", {"a": [float("nan"), (float("inf"), 1.5)], 3: {"b": float("-inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, [None, 1.5]], "3": {"b": None}}
