"""What a checkpoint withstands: damage at any place, kills in mid-save, a full disk."""

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
from checkpoint_states import same, small
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ops.api import State
from ops.errors import ResourceError
from ops.results.model_store import save_model
from ops.training.checkpoint import load_latest, save

PROJECT = Path(__file__).parents[3]


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
            result = load_latest(folder)
        same(result, small(1))
        assert [str(w.message).startswith(f"{folder / 'epoch-00000002'} is damaged (") for w in caught] == [True]
        assert "\n" not in str(caught[0].message)


@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_noticed(sound, name, place, bit):
    def flip(folder):
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= 1 << bit
        (folder / name).write_bytes(content)

    check_passed_over(sound, flip)


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
from ops.training.checkpoint import load_latest, save
from ops.api import State
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
        result = load_latest(folder)
    if result is None:
        assert before == -1
        return -1
    assert result.epoch >= before
    assert result.shared["n"] == [result.epoch] * 500
    for each in (result.shared["w"], result.parts[0]["t"], result.parts[1]["t"]):
        assert torch.equal(each, torch.full((60_000,), result.epoch, dtype=torch.int64))
    return result.epoch


@contextmanager
def full_disk(folder, kib, left_kib):
    """A real file system of `kib` KiB on `folder`; yields a function that leaves `left_kib` free on it."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tessera-test", str(folder)]
    completed = subprocess.run(command, check=False, capture_output=True, text=True)
    if completed.returncode:
        pytest.skip(f"cannot mount a small file system here: {completed.stderr.strip()}")
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
