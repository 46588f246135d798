"""Data from a real S3 server: a file, a folder, what is missing, and a cache that is never stale."""

import io

import numpy as np
import pytest
from refusals import one_line

from ops.data.load import load
from ops.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def packed(save, *args, **kwargs) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **kwargs)
    return buffer.getvalue()


def graph(value: float) -> bytes:
    return packed(np.savez, x=np.eye(4, dtype=np.float32) * value, edge_index=[[0, 1, 2], [1, 2, 3]], y=[0, 0, 1, 1])


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_a_file_is_read_and_found_again(s3, cache):
    s3.put("data/x.npz", graph(1))
    data, labels = load("s3://tessera/data/x.npz")
    assert data.name == "x"
    assert data.x.tolist() == np.eye(4).tolist()
    assert labels is not None
    kept = [(p, p.stat().st_mtime_ns) for p in files(cache)]
    assert [p.name for p, _ in kept] == ["x.npz"]
    assert load("s3://tessera/data/x.npz")[0].digest() == data.digest()
    assert [(p, p.stat().st_mtime_ns) for p in files(cache)] == kept, "read again from the server"
    s3.put("data/x.npz", graph(2))  # the same size
    assert load("s3://tessera/data/x.npz")[0].x.tolist() == (2 * np.eye(4)).tolist()


def test_a_folder_is_read(s3, tmp_path):
    table = b"id,a,b\nu,1,0\nv,0,1\nw,1,1\n"
    s3.put("data/people/features.csv", table)
    s3.put("data/people/edges.csv", b"source,target\nu,v\nv,w\n")
    s3.put("data/people/notes/big.bin", b"not ours")
    s3.put("data/people/target.csv", b"id,label\nu,1\n")
    data, labels = load("s3://tessera/data/people/")
    assert (data.name, data.n_nodes, labels) == ("people", 3, None)
    assert "files not read: target.csv" in data.notes
    assert data.ids is not None
    assert data.ids.tolist() == ["u", "v", "w"]
    assert [p.name for p in files(tmp_path / "cache")] == ["edges.csv", "features.csv"]


@pytest.mark.parametrize(("spec", "message"), [
    ("data/none.npz", ": no such object or folder (endpoint 127.0.0.1:"),
    ("data/odd", ": holds b.txt, but no features.* (endpoint 127.0.0.1:"),
    ("data/bad.npz", ": "),
    ("data/wrong.npz", ": "),
    ("data/half", ": no features; give some, or --make-features degree"),
    ("data/text.txt", ": unknown kind of file '.txt'"),
])  # fmt: skip
def test_errors_name_the_place_on_s3(s3, tmp_path, spec, message):
    s3.put("data/odd/b.txt", b"")
    s3.put("data/bad.npz", b"PK\x03\x04 no zip")
    s3.put("data/wrong.npz", packed(np.savez, x=np.full((3, 2), np.nan), edge_index=[[0], [1]]))
    s3.put("data/half/edges.csv", b"source,target\n0,1\n")
    s3.put("data/text.txt", b"x")
    text = one_line(DataError, load, f"s3://tessera/{spec}")
    assert text.startswith(f"s3://tessera/{spec}{message}")
    assert str(tmp_path) not in text
