"""A file that is not what its name says, or does not fit: one line that names it, whatever the reader tripped over."""

import os
import pickle
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line
from scipy import sparse

from ops.data.load import load
from ops.errors import DataError, ResourceError

EDGES = np.array([[0, 1], [1, 2]])


def _message(path, knn=0):
    text = one_line(DataError, load, str(path), knn=knn)
    return text


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.npz", b"hello,world\n1,2\n", "is named .npz but holds text; a .npz file must hold a zip archive"),
    ("a.npz", b"", "is named .npz but holds nothing (an empty file); a .npz file must hold a zip archive"),
    ("a.npz", pickle.dumps([1]), "is named .npz but holds a Python pickle; a .npz file must hold a zip archive"),
    ("a.npz", b"PK\x03\x04 cut off", "cannot be read: File is not a zip file"),
    ("a.npy", b"PK\x03\x04", "is named .npy but holds a zip archive; a .npy file must hold an npy array"),
    ("a.npy", b"\x93NUMPY\x01\x00", "cannot be read: EOF: reading array header length, expected 2 bytes got 0"),
    ("a.parquet", b"id,a\n1,2\n", "is named .parquet but holds text; a .parquet file must hold parquet"),
    ("a.parquet", b"PAR1 cut off", "cannot be read: "),
    ("a.csv", b"PAR1\x00\x01", "is named .csv but holds parquet; a .csv file must hold comma-separated text"),
    ("a.csv", b"\xff\x00\xfe", "is named .csv but holds unknown binary data; a .csv file must hold comma-separate"),
    ("a.csv", b"\n\n", "is empty; its first line must name the columns"),
    ("a.csv", b"a,b\n1,2\n1,2,3\n", ", row 1: 3 values where the first line names 2 columns"),
    ("a.csv", b"a,b\n1,2,3\n", ", row 0: 3 values where the first line names 2 columns"),
    ("a.csv", b"a,b\n1,2\n3\n", ", row 1: 1 values where the first line names 2 columns"),
    ("a.csv", b"a,b\n1,2\n3,\n", "features hold 1 NaN values, the first at row 1, column 1 ('b'); only finite"),
    ("a.csv", b"a,b\nnan,2\n3,NA\n", "features hold 2 NaN values, the first at row 0, column 0 ('a'); only finite"),
    ("a.csv", b"a,b\n1,inf\n", "features hold 1 infinite values, the first at row 0, column 1 ('b'); only finite"),
    ("a.csv", b"a,b\n1,2\n3,x\n", ", row 1: column 'b' holds 'x', which is no number; only ids and labels may be "),
    ("a.csv", b"a;b\n1;2\n", "its columns are separated by semicolons (Excel with decimal commas); save it with c"),
    ("a.csv", b"0.5,0.25\n1,2\n", "the first line (0.5, 0.25) is data; it must name the columns"),
    ("a.csv", b",a\n0,1\n1,2\n", "column 0 has no name (a row index?); name it id or leave it out"),
    ("a.csv", b"a,a\n0,1\n", "column 'a' stands twice; column names must differ"),
    ("a.csv", b"id,a\nu,1\nu,2\n", ", row 1: id 'u' stands twice; ids must differ: one row a node"),
    ("a.csv", b"id,a\nu,1\n,2\n", ", row 1: the id is missing (1 in all); every row needs its ids"),
    ("a.csv", b"id,Id,a\nu,u,1\n", "columns id, Id could all be the id; keep one"),
    ("a.csv", b"id,label\nu,1\n", "empty graph (1 nodes, 0 features); at least one of each is needed"),
    ("a.csv", b"a,b\n", "the table has no rows; every table needs at least one"),
    ("a.csv", b"a,label\n1,\n2,\n", "all labels are -1, NaN, empty or 'unknown'; label some rows"),
    ("a.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16 text (Excel's 'Unicode Text'); save it as UTF-8"),
    ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "is UTF-16 text (Excel's 'Unicode Text'); save it as UTF-8"),
    ("a.csv", "id,größe\nu,2\n".encode("cp1252"), "cannot be read: it is not UTF-8 text (Windows-1252, as Excel"),
    ("a.csv", "id,a\né,2\n".encode("cp1252"), "cannot be read: it is not UTF-8 text (Windows-1252, as Excel"),
    ("a.csv", b"id;a\nu;1,5\n", "its columns are separated by semicolons (Excel with decimal commas); save"),
    ("a.csv", b'id,a\nu,"1,5"\n', ", row 0: column 'a' holds '1,5', which is no number; its decimal mark"),
    ("a.txt", b"1 2", "unknown kind of file '.txt'; allowed: .npz, .npy, .csv, .parquet"),
])  # fmt: skip
def test_a_file_that_is_not_what_its_name_says(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert _message(path, knn=1).startswith(f"{path}{message}" if message[0] == "," else f"{path}: {message}")


GOOD = {"x": np.eye(3), "edge_index": EDGES, "y": [0, 1, 1]}
CSR = {"x_indptr": [0, 1, 2, 3], "x_indices": [0, 1, 2], "x_shape": [3, 3], "edge_index": EDGES}


@pytest.mark.parametrize(("arrays", "message"), [
    ({"edge_index": EDGES}, "no features; give some, or --make-features degree (or spectral)"),
    ({k: v for k, v in CSR.items() if k != "x_shape"}, "features as CSR need x_shape beside x_indptr"),
    (CSR | {"x_data": [1.0]}, "CSR data must be one value for each of 3 indices, found (1,)"),
    (CSR | {"x_shape": [4, 3]}, "CSR indptr must have 5 entries for 4 rows, found (4,)"),
    (CSR | {"x_shape": [3]}, "CSR features need two sizes and numbers, found 1 sizes"),
    (CSR | {"x_data": [1, np.nan, 1]}, "features hold 1 NaN values, the first at row 1, column 1; only finite"),
    ({"x": np.eye(3), "edges": EDGES}, "no edges; give edges, or --knn 10 to link every row to its 10 nearest"),
    (GOOD | {"edge_index": [[0, 1], [1, 3]]}, "edge 1 is (1, 3): ids must be in 0..2 (N = 3)"),
    (GOOD | {"y": [0, 1]}, "2 labels for 3 rows; there must be one per row, in the same order"),
    (GOOD | {"ids": ["a", "b"]}, "2 ids for 3 rows"),
    (GOOD | {"x": np.array([[None] * 3] * 3)}, "array 'x': cannot be read: it holds Python objects (pickle)"),
])  # fmt: skip
def test_a_npz_that_does_not_fit(tmp_path, arrays, message):
    path = tmp_path / "g.npz"
    np.savez(path, **arrays)
    assert _message(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize(("member", "content", "message"), [
    ("x", b"plain bytes", "'x' is no array of NumPy"),
    ("x.npy", b"plain bytes", "'x' is no array of NumPy"),
    ("x.npy", b"\x93NUMPY\x01\x00", "array 'x': cannot be read: "),
])  # fmt: skip
def test_a_zip_archive_of_other_things(tmp_path, member, content, message):
    path = tmp_path / "g.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    assert _message(path).startswith(f"{path}: {message}")


def test_ids_of_bytes_are_text_and_those_that_are_none_are_said(tmp_path):
    np.savez(tmp_path / "g.npz", **GOOD, ids=np.array([b"a", "é".encode(), b"c"]))
    assert load(str(tmp_path / "g.npz"))[0].ids.tolist() == ["a", "é", "c"]
    np.savez(tmp_path / "g.npz", **GOOD, ids=np.array([b"a", b"\xe9", b"c"]))
    assert "is not UTF-8 text" in _message(tmp_path / "g.npz")


def test_features_beyond_the_memory(tmp_path):
    path = tmp_path / "g.npz"
    np.savez(path, **(CSR | {"x_shape": [3, 10**14]}))
    assert one_line(ResourceError, load, str(path)).startswith(f"{path}: loading it is planned to need ")


@given(cut=st.floats(0, 1), junk=st.binary(max_size=8), suffix=st.sampled_from([".npz", ".npy", ".parquet"]))
def test_a_file_cut_anywhere_is_one_line(tmp_path, cut, junk, suffix):
    path = tmp_path / f"g{suffix}"
    x = np.random.default_rng(0).standard_normal((20, 5))
    if suffix == ".npz":
        np.savez_compressed(path, x=x, edge_index=EDGES)
    elif suffix == ".npy":
        np.save(path, x)
    else:
        pd.DataFrame(x).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * (len(whole) - 1))] + junk)
    message = _failure(path, knn=0 if suffix == ".npz" else 2)
    if message is None:  # junk in the place of the last bytes of an array, which .npy has no checksum for
        assert path.stat().st_size >= len(whole)
    else:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


def _failure(path, knn):
    try:
        load(str(path), knn=knn)
    except DataError as error:
        return str(error)
    return None


def _folder(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / name.replace("_", ".")
        if path.suffix == ".npy":
            np.save(path, content)
        else:
            path.write_text(content)
    return tmp_path


@pytest.mark.parametrize(("files", "message"), [
    ({}, ": no features: needs features.{npy,npz,parquet,csv}; found nothing"),
    ({"features_npy": np.ones(3), "labels_csv": "label\n1\n2\n3\n"}, "/features.npy: features must be a table"),
    ({"features_npy": np.ones((2, 3, 4))}, "/features.npy: features must be a table [N, F], found shape (2, 3, 4)"),
    ({"features_npy": np.eye(3)}, ": no edges; give edges, or --knn 10 to link every row to its 10 nearest"),
    ({"features_npy": np.eye(3), "features_csv": "a\n1\n"}, ": more than one features file: features.csv, feature"),
    ({"features_txt": "1"}, "/features.txt: unknown kind of file; allowed: features.{npy,npz,parquet,csv}"),
    ({"features_npy": np.eye(3), "edges_npy": np.zeros((3, 3))}, "/edges.npy: edges must have the shape [2, E] or"),
    ({"features_npy": np.eye(3), "edges_csv": "source,target\na,b\n"}, "/edges.csv, row 0: source is 'a': without"),
    ({"features_npy": np.eye(3), "edges_csv": "source,target\n0,\n"}, "/edges.csv, row 0: the target is missing ("),
    ({"features_npy": np.eye(3), "edges_csv": "source\n0\n"}, "/edges.csv: edges need two columns (source,target)"),
    ({"features_npy": np.eye(3), "edges_csv": "source,to\n0,1\n"}, "/edges.csv: edges need both columns source,ta"),
    ({"features_npy": np.eye(3), "edges_csv": "0,1\n1,2\n"}, "/edges.csv: the first line (0, 1) is data; it must "),
    ({"features_npy": np.eye(3), "edges_csv": "a,b\n0,2\n3,1\n"}, ": edge 1 is (3, 1): ids must be in 0..2 (N = 3"),
    ({"features_npy": np.eye(3), "edges_csv": "a,b\n1,2\n2,3\n1,3\n"}, ": edge 1 is (2, 3): ids must be in 0..2 ("),
    ({"features_csv": "id,a\n5,1\n7,2\n", "edges_csv": "a,b\n5,7\n7,9\n"}, "/edges.csv, row 1: b 9 is not among t"),
    ({"features_csv": "id,a\nann,1\nbob,2\neve,3\n", "edges_csv": "ann,bob\nbob,eve\n"}, "/edges.csv: the first l"),
    ({"features_csv": "id,a\n5,1\n7,2\n", "edges_npy": [[5.0, 5.5], [7.0, 7.0]]}, "/edges.npy, edge 1: source '5."),
    ({"features_csv": "a,label\n1,0\n2,1\n", "edges_csv": "a,b\n0,1\n", "labels_npy": [0, 1]}, ": labels stand tw"),
    ({"features_npy": np.eye(3), "edges_npy": EDGES, "labels_csv": "a,b\n0,1\n"}, "/labels.csv: no column label a"),
    ({"features_npy": np.eye(3), "edges_npy": EDGES, "labels_npy": [0, 1]}, ": 2 labels for 3 rows; there must be"),
    ({"features_npy": np.eye(2), "edges_npy": [[0], [1]], "labels_csv": "id,label\n0,a\n2,b\n"}, "/labels.csv, ro"),
])  # fmt: skip
def test_a_folder_that_does_not_fit(tmp_path, files, message):
    assert _message(_folder(tmp_path, **files)).startswith(f"{tmp_path}{message}")


def test_a_sparse_matrix_of_another_kind(tmp_path):
    sparse.save_npz(tmp_path / "features.npz", sparse.coo_matrix(np.eye(3)))
    assert _message(tmp_path) == (
        f"{tmp_path}/features.npz: a sparse matrix as 'coo'; allowed: csr, csc (save it after .tocsr())"
    )


def test_columns_of_lists_or_images_are_not_features(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"image": [b"jpg", b"jpg"], "label": [0, 1]}).to_parquet(path)
    assert _message(path, knn=1) == f"{path}, row 0: column 'image' holds binary values, not numbers"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    path.chmod(0)
    assert _message(path).startswith(f"{path}: cannot be read: ")


@given(graph_seed=st.integers(0, 1000))
def test_labels_and_the_order_of_edges_never_change_the_digest(tmp_path_factory, graph_seed):
    rng = np.random.default_rng(graph_seed)
    folder = tmp_path_factory.mktemp("g")
    np.save(folder / "features.npy", rng.standard_normal((8, 3)))
    edges = rng.integers(0, 8, size=(2, 12))
    np.save(folder / "edges.npy", edges)
    before = load(str(folder))[0].digest()
    np.save(folder / "edges.npy", edges[:, rng.permutation(12)])
    np.save(folder / "labels.npy", rng.integers(0, 3, size=8))
    graph, labels = load(str(folder))
    assert labels is not None
    assert graph.digest() == before
    edges[0, 0] = (edges[1, 0] + 1) % 8
    edges[:, 1:] = edges[:, :1]
    np.save(folder / "edges.npy", edges)
    assert load(str(folder))[0].digest() != before
