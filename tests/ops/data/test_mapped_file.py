"""Data whose large arrays lie in files: what other processes get of it, and nodes without the files."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from ops.data.synthetic.planted_partition import planted_graph
from ops.data.types import mapped_file
from ops.data.types.mapped_file import MappedFile, is_mapped
from ops.errors import DataError, SettingsError


@pytest.fixture
def graph():
    """500 nodes of 50 features (100 kB), with ids that are words."""
    return replace(planted_graph(500, features=50)[0], ids=np.array([f"row {i}" for i in range(500)]))


def test_large_arrays_travel_as_the_names_of_their_files(graph, tmp_path):
    mapped = graph.in_files(tmp_path / "arrays", 10_000)
    assert set(mapped.mapped) == {"x", "edge_index", "ids"}
    assert mapped.digest() == graph.digest()
    assert np.array_equal(mapped.ids, graph.ids)
    pickled = pickle.dumps(mapped)
    assert len(pickled) < 3000
    again = pickle.loads(pickled)
    assert again.digest() == graph.digest()
    assert again.mapped == mapped.mapped
    again.x[:] = 0  # stays here
    assert mapped.digest() == graph.digest()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "arrays").glob("*")}
    assert pickle.loads(pickle.dumps(graph.in_files(tmp_path / "arrays", 10_000))).digest() == graph.digest()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "arrays").glob("*")}, "written once"


def test_arrays_that_are_in_files_are_not_written_again(graph, tmp_path):
    mapped = graph.in_files(tmp_path / "arrays", 10_000)
    again = mapped.in_files(tmp_path / "again", 10_000)
    assert again.mapped == mapped.mapped
    assert not (tmp_path / "again").exists()


def test_small_arrays_stay_in_memory(graph, tmp_path):
    small = graph.in_files(tmp_path / "arrays", graph.x.nbytes)
    assert set(small.mapped) == {"x"}
    assert is_mapped(small)
    assert not is_mapped(graph.in_files(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_another_array_in_the_place_of_a_mapped_one_travels_itself(graph, tmp_path):
    mapped = graph.in_files(tmp_path, 10_000).in_pieces(bytes, bytes)
    other = pickle.loads(pickle.dumps(replace(mapped, x=mapped.x * 2)))
    assert np.array_equal(other.x, graph.x * 2)
    half = pickle.loads(pickle.dumps(replace(mapped, x=mapped.x[:250])))
    assert np.array_equal(half.x, graph.x[:250])


def test_a_node_without_the_files_writes_them_of_the_pieces(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped_file, "PIECE", 30_000)
    mapped = graph.in_files(tmp_path, 10_000)
    alone, with_pieces = pickle.dumps(mapped), pickle.dumps(mapped.in_pieces(bytes, bytes))
    for path in tmp_path.glob("*"):
        path.unlink()
    with pytest.raises(DataError, match="this node does not have the data that were read, or not all of them; set"):
        pickle.loads(alone)
    assert pickle.loads(with_pieces).digest() == graph.digest()
    assert pickle.loads(alone).digest() == graph.digest()


def test_a_map_that_begins_behind_a_header_is_no_file_of_an_array(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(10.0))
    assert MappedFile.of(np.asarray(np.load(tmp_path / "x.npy", mmap_mode="r"))) is None


def test_a_folder_that_cannot_be_written_is_named(graph, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file.*: cannot be written .*; set TESSERA_CACHE to another folder"):
        graph.in_files(tmp_path / "file", 0)
