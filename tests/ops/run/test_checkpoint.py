"""A checkpoint loads exactly or not at all: round trips, damage at any place, kills in mid-save, a full disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ops.errors import ResourceError, SettingsError
from ops.run.checkpoint import KEEP, atomic_write, load_latest, save, save_model, write_json
from ops.run.types import State

PROJECT = Path(__file__).parents[3]
DTYPES = [
    torch.bfloat16, torch.float16, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64, torch.bool,
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def tensor(dtype, shape=(3, 4), seed=0):
    """Random bits of any type; NaN payloads included."""
    count = torch.Size(shape).numel() * (torch.empty(0, dtype=dtype).element_size())
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


def bits(value):
    return value.contiguous().flatten().view(torch.uint8).tolist(), value.dtype, value.shape


def same(left, right):
    assert left.epoch == right.epoch
    assert left.shared.keys() == right.shared.keys()
    assert left.parts.keys() == right.parts.keys()
    pairs = [(v, right.shared[k]) for k, v in left.shared.items()]
    for part, arrays in left.parts.items():
        assert arrays.keys() == right.parts[part].keys()
        pairs += [(v, right.parts[part][k]) for k, v in arrays.items()]
    for a, b in pairs:
        if isinstance(a, torch.Tensor):
            assert bits(a) == bits(b)
        else:
            assert (a, type(a)) == (b, type(b))


def small(epoch):
    return State(
        epoch,
        {"w": tensor(torch.float32, seed=epoch), "half": tensor(torch.bfloat16, seed=epoch), "note": {"epoch": epoch}},
        {0: {"tile": tensor(torch.uint16, seed=epoch)}, 7: {"tile": tensor(torch.int64, seed=epoch)}},
    )


def hidden(folder):
    return [p.name for p in folder.rglob("*") if p.name.startswith(".") or p.name.endswith(".tmp")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 4), (), (0,), (2, 0, 3), (1,)], ids=str)
def test_tensors_of_every_type_and_shape_come_back_bit_for_bit(tmp_path, dtype, shape):
    state = State(3, {"t": tensor(dtype, shape)}, {12345: {"t": tensor(dtype, shape, seed=1)}})
    save(tmp_path, state)
    same(load_latest(tmp_path), state)


@settings(max_examples=40, deadline=None)
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
    found = load_latest(tmp_path)
    assert torch.equal(found.shared["t"], base.t())
    assert torch.equal(found.shared["s"], base[:, ::2])
    assert torch.equal(found.shared["p"], base)
    assert torch.equal(found.parts[0]["t"], base.t())
    assert torch.equal(found.parts[0]["s"], base[::2])
    assert torch.equal(found.parts[0]["p"], base)
    assert not found.shared["p"].requires_grad


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


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    save(folder, small(1))
    save(folder, small(2))
    return folder


FILES = ["checksums.json", "part-00000.safetensors", "part-00007.safetensors", "shared.json", "shared.safetensors"]


def test_what_a_checkpoint_consists_of(sound):
    assert sorted(p.name for p in (sound / "epoch-00000002").iterdir()) == FILES


def check_passed_over(sound, damage):
    """With `damage` done to the newest, the older one is loaded and a warning names the newest."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "c"
        shutil.copytree(sound, folder)
        damage(folder / "epoch-00000002")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = load_latest(folder)
        same(found, small(1))
        assert [str(w.message).startswith(f"{folder / 'epoch-00000002'} is damaged (") for w in caught] == [True]
        assert "\n" not in str(caught[0].message)


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed(sound, name, place, bit):
    def flip(folder):
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        (folder / name).write_bytes(content)

    check_passed_over(sound, flip)


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_off_anywhere_is_noticed(sound, name, place):
    check_passed_over(sound, lambda f: os.truncate(f / name, int(place * (f / name).stat().st_size)))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(sound, name):
    check_passed_over(sound, lambda f: (f / name).unlink())


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_checkpoint_is_noticed(sound, name):
    check_passed_over(sound, lambda f: shutil.copy(f.parent / "epoch-00000001" / name, f / name))


@pytest.mark.parametrize("content", ["{}", "[]", "null", "3", '"x"', '{"shared.json": 3}', '{"../x": "y"}'])
def test_a_replaced_list_of_checksums_is_noticed(sound, content):
    check_passed_over(sound, lambda f: (f / "checksums.json").write_text(content))


def test_a_file_in_the_place_of_a_checkpoint_is_passed_over(sound):
    def replace(folder):
        shutil.rmtree(folder)
        folder.write_text("x")

    check_passed_over(sound, replace)


def test_with_all_damaged_there_is_none(tmp_path):
    save(tmp_path, small(1))
    (tmp_path / "epoch-00000001" / "shared.json").write_text("{}")
    with pytest.warns(UserWarning, match="epoch-00000001 is damaged"):
        assert load_latest(tmp_path) is None


# For every line it reads: forks a process that saves states whose tensors all hold their epoch, as fast as it can, from
# the epoch after the newest; tells its id, and that it has been killed. (Forked, as importing torch takes a second.)
SAVER = """
import os, sys, warnings
from pathlib import Path
import torch
from ops.run.checkpoint import load_latest, save
from ops.run.types import State
warnings.simplefilter("ignore")
torch.set_num_threads(1)
folder = Path(sys.argv[1])
for line in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)
        continue
    newest = load_latest(folder)
    epoch = newest.epoch + 1 if newest else 0
    while True:
        full = torch.full((60_000,), epoch, dtype=torch.int64)
        save(folder, State(epoch, {"w": full, "n": [epoch] * 500}, {0: {"t": full.clone()}, 1: {"t": full.clone()}}))
        epoch += 1
"""


@pytest.mark.slow
def test_a_kill_in_mid_save_never_leaves_one_that_loads_wrongly(tmp_path):
    draws, newest = random.Random(0), -1
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], env=environment, **pipes) as saver:
        for _ in range(20):
            saver.stdin.write("go\n")
            saver.stdin.flush()
            child = int(saver.stdout.readline())
            time.sleep(draws.uniform(0.01, 0.2))
            os.kill(child, signal.SIGKILL)
            assert saver.stdout.readline() == "gone\n"
            newest = check_newest(tmp_path, newest)
        saver.stdin.close()
    assert newest >= 3  # it did save between the kills, also on a slow disk


def check_newest(folder, before):
    """The newest checkpoint holds what was saved for its epoch, which is not before `before`; its epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one half removed by the kill is passed over
        found = load_latest(folder)
    if found is None:
        assert before == -1
        return -1
    assert found.epoch >= before
    assert found.shared["n"] == [found.epoch] * 500
    for each in (found.shared["w"], found.parts[0]["t"], found.parts[1]["t"]):
        assert torch.equal(each, torch.full((60_000,), found.epoch, dtype=torch.int64))
    return found.epoch


@contextmanager
def full_disk(folder, kib, left_kib):
    """A real file system of `kib` KiB on `folder`; yields a function that leaves `left_kib` free on it."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tessera-test", str(folder)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.strip()}")
    try:

        def fill():
            free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
            (folder / "filler").write_bytes(bytes(max(free - left_kib * 1024, 0)))

        yield fill
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("left_kib", [0, 4, 8, 12, 16, 20, 24, 28, 64, 300, 312, 316, 320, 324])
def test_a_full_disk_is_one_clear_error_and_leaves_the_checkpoint_before(tmp_path, left_kib):
    big = State(2, {"w": torch.zeros(40_000), "n": list(range(500))}, {0: {"t": torch.zeros(40_000)}})
    with full_disk(tmp_path, 2048, left_kib) as fill:
        folder = tmp_path / "checkpoints"
        save(folder, small(1))
        fill()
        with pytest.raises(ResourceError) as caught:
            save(folder, big)
        text = str(caught.value)
        assert text.startswith(f"{folder / 'epoch-00000002'}")
        assert "No space left on device" in text
        assert "\n" not in text
        assert caught.value.code == 4
        assert [p.name for p in folder.iterdir()] == ["epoch-00000001"]
        same(load_latest(folder), small(1))
        (tmp_path / "filler").unlink()
        save(folder, big)
        same(load_latest(folder), big)


@pytest.mark.parametrize("left_kib", [0, 4, 8, 156, 160])
def test_a_full_disk_under_a_model_leaves_the_model_before(tmp_path, left_kib):
    with full_disk(tmp_path, 2048, left_kib) as fill:
        folder = tmp_path / "model"
        save_model(folder, {"w": torch.ones(3)}, {"method": "hsan"})
        fill()
        with pytest.raises(ResourceError) as caught:
            save_model(folder, {"w": torch.zeros(40_000)}, {"method": "hsan", "long": "x" * 5000})
        assert "\n" not in str(caught.value)
        assert "No space left on device" in str(caught.value)
        assert sorted(p.name for p in folder.iterdir()) == ["model.safetensors", "settings.json"]
        assert torch.equal(load_file(folder / "model.safetensors")["w"], torch.ones(3))
        assert json.loads((folder / "settings.json").read_text()) == {"method": "hsan"}


@pytest.mark.parametrize("write", [lambda p: save_model(p, {"w": torch.ones(3)}, {}), lambda p: save(p, small(1)),
                                   lambda p: atomic_write(p / "a.json", "x")],
                         ids=["save_model", "save", "atomic_write"])  # fmt: skip
def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path, write):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError) as caught:
        write(tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


def test_save_model_writes_what_safetensors_and_json_read(tmp_path):
    turned = torch.arange(6.0).reshape(2, 3).t()
    tensors = {"w": tensor(torch.float32), "t": turned, "p": torch.nn.Parameter(torch.ones(2))}
    save_model(tmp_path / "model", tensors, {"method": "hsan", "epochs": 3})
    found = load_file(tmp_path / "model" / "model.safetensors")
    assert {k: bits(v) for k, v in found.items()} == {k: bits(v.detach()) for k, v in tensors.items()}
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
    found = json.loads(text, parse_constant=pytest.fail)
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert found == finite


def test_write_json_makes_null_of_what_json_has_not(tmp_path):
    write_json(tmp_path / "a.json", {"a": [float("nan"), (float("inf"), 1.5)], 3: {"b": float("-inf")}})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, [None, 1.5]], "3": {"b": None}}
