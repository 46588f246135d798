"""`make fuzz`: drawn and damaged input ends in a result or in one clear line, within its memory, and soon.

Every kind takes its share of FUZZ_SECONDS. What fails is kept in tests/fuzz/examples and drawn first the next time.
"""

import json
import os
import shutil
import signal
import string
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from image_files import encoded, picture
from small_run import experiment, without_tracking

from ops import memory
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.data.hetero_load import load_hetero
from ops.data.images.load import read_images
from ops.data.load import load
from ops.errors import TesseraError
from ops.inference.predict import run_prediction
from ops.reporting import html
from ops.reporting.compare import compare, comparison_table
from ops.storage.run_copy import local_folder
from ops.training.trainer import run_experiment
from trainers import METHODS

pytestmark = pytest.mark.fuzz
KINDS = 4
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20")) / KINDS
HANG = 60  # seconds that nothing drawn here may take
PLAN = 0.125  # GiB
database = DirectoryBasedExampleDatabase(Path(__file__).parent / "examples")
EACH = settings(
    max_examples=30, deadline=None, database=database, suppress_health_check=list(HealthCheck), print_blob=True
)
NAMES = st.sampled_from(
    ["features.csv", "features.npy", "features.npz", "features.parquet", "edges.csv", "edges.npy", "edges.parquet",
     "labels.csv", "labels.npy", "graph.yaml", "nodes/user.csv", "nodes/note.parquet", "edges/user__follow__note.csv",
     "x_feat.npy", "x_adj.npy", "x_label.npy", "data.npz", "train/a/0.png", "b/1.png"]
)  # fmt: skip
FILES = ["t.csv", "t.npy", "t.npz", "t.parquet", "t.gml", "t.graphml", "t.edgelist"]
WAYS: list[dict[str, Any]] = [
    {}, {"knn": 3}, {"knn": 3, "one_hot": True}, {"make_features": "degree"}, {"make_features": "spectral"},
    {"ignore": "a", "scale": "standard"},
]  # fmt: skip
CELLS = st.one_of(
    st.integers(-3, 40).map(str), st.floats().map(str), st.text(st.characters(codec="utf-8"), max_size=6),
    st.sampled_from(["", "nan", "-1", "1e30", "18446744073709551615", "1e309", "0x10", "2026-01-01", "id", "source"]),
)  # fmt: skip


def until_the_time_is_over(draw_once: Callable[[], None]) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        draw_once()


def _too_long(*_: object) -> None:
    raise AssertionError(f"nothing has ended after {HANG} s")


@contextmanager
def a_result_or_one_line() -> Iterator[None]:
    """What is done inside ends well or in a TesseraError of one line, within twice the plan and HANG seconds."""
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(HANG)
    memory.reset_peak()
    start = memory.resident()
    try:
        with memory.loading_within(PLAN), warnings.catch_warnings(action="ignore"):
            yield
    except TesseraError as error:
        if error.code not in (2, 3, 4, 5) or len(str(error)) > 2000:
            raise AssertionError("no clear line of settings, data, resources or a collapse") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert memory.peak() - start < 2 * PLAN * 2**30


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes replaced, left out, doubled, or cut off."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        length = draw(st.sampled_from([1, 2, 4, 64]))
        new = draw(st.sampled_from([b"", b"\0" * length, b"\xff" * length, content[at : at + length] * 2]))
        content = content[:at] + new + content[at + length :]
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content


@st.composite
def csv_text(draw: st.DrawFn) -> bytes:
    width, comma = draw(st.integers(1, 5)), draw(st.sampled_from([",", ",", ",", ";", "\t"]))
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=12))
    if draw(st.booleans()):
        rows.insert(
            0, draw(st.sampled_from([["id", "a", "b", "c", "label"], ["source", "target", "w", "time", "x"]]))[:width]
        )
    codec = draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "cp1252"]))
    return "\n".join(comma.join(row) for row in rows).encode(codec, "replace")


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = tuple(draw(st.lists(st.integers(0, 8), max_size=3)))
    kind = draw(st.sampled_from(["<f4", "<f8", "<i8", "<u8", "|u1", "|b1", "<U4", "|S3", "<c8"]))
    seed = np.random.default_rng(draw(st.integers(0, 9)))
    return seed.integers(-2 if kind[1] in "if" else 0, 9, shape).astype(kind)


@st.composite
def file_content(draw: st.DrawFn, name: str) -> bytes:
    """What a file of that name might hold, damaged perhaps."""
    with tempfile.TemporaryFile() as file:
        if name.endswith(".npy"):
            np.save(file, draw(arrays()), allow_pickle=False)
        elif name.endswith(".npz"):
            keys = draw(
                st.lists(st.sampled_from(["x", "edge_index", "y", "ids", "x_indptr", "x_indices"]), unique=True)
            )
            np.savez(file, **{key: draw(arrays()) for key in keys})
        elif name.endswith(".parquet"):
            columns = {key: draw(st.lists(st.integers() if key == "id" else st.floats(), min_size=3, max_size=3))
                       for key in ("id", "a", "b")}  # fmt: skip
            pq.write_table(pa.table({k: [v if abs(v) < 2**62 else 0 for v in c] for k, c in columns.items()}), file)
        elif name.endswith((".graphml", ".gml")):
            graph = nx.gnm_random_graph(6, draw(st.integers(0, 9)), seed=0)
            nx.set_node_attributes(
                graph, {n: {"a": n / 2, draw(st.sampled_from(["b", "x", "label"])): n} for n in graph}
            )
            (nx.write_gml if name.endswith(".gml") else nx.write_graphml)(graph, file)
        elif name.endswith(".png"):
            file.write(encoded(picture(size=(8, 8)), draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "TIFF"]))))
        else:
            file.write(draw(csv_text()))
        file.seek(0)
        return draw(damaged(file.read()))


def write(place: Path, name: str, content: bytes) -> Path:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(content)
    return place / name


def test_tables():
    @EACH
    @given(st.data(), st.sampled_from(FILES), st.sampled_from(WAYS))
    def once(data: st.DataObject, name: str, way: dict[str, Any]) -> None:
        with folder() as place, a_result_or_one_line():
            load(str(write(place, name, data.draw(file_content(name)))), **way)

    until_the_time_is_over(once)


def test_folders():
    @EACH
    @given(st.data(), st.lists(NAMES, min_size=1, max_size=4, unique=True), st.sampled_from(WAYS))
    def once(data: st.DataObject, names: list[str], way: dict[str, Any]) -> None:
        with folder() as place:
            for name in names:
                if not any((place / name).is_relative_to(place / other) for other in names if other != name):
                    write(place, name, data.draw(file_content(name)))
            with a_result_or_one_line():
                load(str(place), **way)
            with a_result_or_one_line():
                load_hetero(str(place))

    until_the_time_is_over(once)


def test_images():
    @EACH
    @given(st.data(), st.lists(st.text(string.printable, min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
    def once(data: st.DataObject, names: list[str]) -> None:
        with folder() as place:
            for i, name in enumerate(names):
                part = name.replace("/", "_").replace(".", "_")
                write(place, f"{part}/{i}.png", data.draw(file_content("x.png")))
            for skip in (False, True):
                with a_result_or_one_line():
                    read_images(str(place), size=8, skip_damaged=skip)

    until_the_time_is_over(once)


def json_damage(value: object, draw: Callable[..., object]) -> object:
    """The value with something in it replaced by a thing of another kind."""
    strange = st.sampled_from([None, [], {}, "x", -7, 1e300, True, [None], {"a": 1}])
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or draw(st.integers(0, 3)) == 0:
        return draw(strange)
    key = draw(st.sampled_from(inside))
    new = dict(value) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
    new[key] = json_damage(new[key], draw)
    return new


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Where a finished run is, and a table for it to place."""
    out = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        without_tracking(patch)
        patch.setattr(html, "run_drawings", lambda *arguments: {})  # of figures the tests of figures know more
        patch.setattr(html, "coordinates", lambda run: None)
        run_experiment(experiment(out), out)
        np.savetxt(out / "new.csv", np.ones((3, 4)), header="a,b,c,d", comments="", delimiter=",")
        yield out


def test_run_folders(run, capsys):
    files = sorted(p.relative_to(run) for p in (run / "a").rglob("*") if p.is_file())

    @EACH
    @given(st.data(), st.sampled_from(files))
    def once(data: st.DataObject, name: Path) -> None:
        with folder() as place:
            shutil.copytree(run, place, dirs_exist_ok=True)
            content = (place / name).read_bytes()
            if name.suffix == ".json" and data.draw(st.booleans()):
                (place / name).write_text(json.dumps(json_damage(json.loads(content), data.draw)))
            else:
                (place / name).write_bytes(data.draw(damaged(content)))
            request = PredictSettings(data=str(place / "new.csv"), out=str(place / "o.parquet"))
            local_folder.cache_clear()
            for act in (
                lambda: html.write_report(place / "a"),
                lambda: comparison_table(compare([place / "a"])),
                lambda: run_prediction(str(place / "a"), request, METHODS, Console(quiet=True)),
                lambda: run_experiment(experiment(place), place),
            ):
                with a_result_or_one_line():
                    act()
            capsys.readouterr()

    until_the_time_is_over(once)
