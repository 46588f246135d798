import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from refusals import one_line

from ops.data.catalog import download, graphs
from ops.data.catalog.fetch import one_hot_degree
from ops.data.load import load
from ops.errors import DataError

DATA = Path(os.environ.get("TESSERA_DATA") or Path(__file__).parents[4] / ".." / "shared" / "data")
SMALL = {"x": np.eye(3), "edge_index": [[0, 1], [1, 2]], "y": [0, 1, 1]}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """(TESSERA_DATA, TESSERA_CACHE), two empty folders."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    cache.mkdir()
    monkeypatch.setenv("TESSERA_DATA", str(data))
    monkeypatch.setenv("TESSERA_CACHE", str(cache))
    return data, cache


def test_first_the_data_folder_then_the_cache(places):
    data, cache = places
    np.savez(cache / "amap.npz", **SMALL)
    assert load("photo")[0].n_nodes == 3
    np.savez(data / "amap.npz", **(SMALL | {"x": np.eye(3, 7)}))
    for name in ("amap", "photo", "AMAP"):
        graph, labels = load(name)
        assert (graph.name, graph.n_features) == ("amap", 7)
        assert labels.tolist() == [0, 1, 1]


def test_own_files_in_the_data_folder_go_by_name_too(places):
    np.savez(places[0] / "mine.npz", **SMALL)
    assert load("mine")[0].name == "mine"


def test_a_data_folder_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("TESSERA_DATA", str(tmp_path / "no"))
    with pytest.raises(DataError, match=r"^TESSERA_DATA=.*/no: no such folder$"):
        load("cora")


def test_a_spoilt_cache_is_named(places):
    (places[1] / "cora.npz").write_text("<html>")
    assert one_line(DataError, load, "cora").startswith(f"{places[1]}/cora.npz: is named .npz but holds text")


def test_names_without_a_download(places):
    assert one_line(DataError, load, "acm") == (
        f"acm: no file {places[0]}/acm.npz or {places[1]}/acm.npz, and torch_geometric offers no download of it: "
        "make it by numpy.savez('acm.npz', x=FEATURES, edge_index=EDGES, y=CLASSES); put acm.npz in a folder and set "
        "TESSERA_DATA to it, or give the data as --dataset PATH"
    )
    with pytest.raises(DataError, match=r"numpy.savez\('hhar.npz', x=FEATURES, y=CLASSES\); put hhar.npz in a folder"):
        load("hhar", knn=5)


def test_a_cache_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "file"))
    monkeypatch.delenv("TESSERA_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"file/cora.npz: cannot be written \(.*\); set TESSERA_CACHE to another folder$"
    ):
        load("cora")


@pytest.mark.slow
def test_a_download_that_cannot_be_reached(places, monkeypatch):
    # a proxy nobody listens at: the real download fails in the same way with and without a network
    for key in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(key, "http://127.0.0.1:9")
    monkeypatch.setenv("TESSERA_DATA", "")
    text = one_line(DataError, load, "amap")
    assert text.startswith(f"amap: no file {places[1]}/amap.npz (TESSERA_DATA is not set), and the download failed (")
    assert text.endswith("; put amap.npz in a folder and set TESSERA_DATA to it, or give the data as --dataset PATH")
    assert list(places[1].iterdir()) == []


def test_a_download_from_which_nothing_arrives_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "FIRST_BYTE_S", 0.3)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"]) as child:
        reason = download._wait(child, tmp_path)
        assert child.poll() is None, "it was not waited for"
        child.kill()
    assert reason == "nothing arrived in 0.3 s"


def test_one_hot_degrees_count_a_self_loop_once():
    assert one_hot_degree(np.array([[0, 0, 1], [0, 1, 0]]), 3).tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]]


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "bat.npz").is_file(), reason="real data: set TESSERA_DATA")
def test_torch_geometrics_airports_become_hsans_bat(places, tmp_path):
    """From the raw files torch_geometric would have downloaded: its own parsing, our features, our file."""
    stored = np.load(DATA / "bat.npz")
    raw = tmp_path / "pyg" / "brazil" / "raw"
    raw.mkdir(parents=True)
    pairs = stored["edge_index"][:, stored["edge_index"][0] <= stored["edge_index"][1]]
    (raw / "brazil-airports.edgelist").write_text("".join(f"{i} {j}\n" for i, j in pairs.T))
    rows = "".join(f"{i} {label}\n" for i, label in enumerate(stored["y"]))
    (raw / "labels-brazil-airports.txt").write_text("node label\n" + rows)
    root = str(Path(graphs.__file__).parents[3])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ops.data.catalog.fetch", "bat", str(tmp_path)],
        check=True,
        cwd=root,
        capture_output=True,
    )
    (tmp_path / "graph.npz").rename(places[1] / "bat.npz")
    graph, labels = load("bat")
    expected, codes = load(str(DATA / "bat.npz"))
    assert graph.digest() == expected.digest()
    assert np.array_equal(labels, codes)


@pytest.mark.slow
def test_every_source_names_a_class_of_torch_geometric():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_geometric.datasets as datasets
    for name, source in graphs.SOURCES.items():
        assert source is None or hasattr(datasets, source.dataset), name
    assert set(graphs.ALIASES.values()) <= set(graphs.SOURCES)
