"""Sparse matrices from files whose index arrays point outside: refused in one line, by a process that lives on."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line
from scipy import sparse

from ops.data.io.csr import check_csr, check_offsets
from ops.data.load import load, read_rows
from ops.errors import DataError

EDGES = np.array([[0, 1], [1, 2]])
LOWEST, HIGHEST = -(2**63), 2**63 - 1
BAD = [
    ([0, 1, 2, LOWEST], [0, 1, 2], f"CSR indptr holds {LOWEST}; its entries must be in 0..3"),
    ([0, HIGHEST, LOWEST, 3], [0, 1, 2], f"CSR indptr holds {LOWEST}; its entries must be in 0..3"),
    ([0, 4, 4, 3], [0, 1, 2], "CSR indptr holds 4; its entries must be in 0..3"),
    ([0, 3, 1, 3], [0, 1, 2], "CSR indptr falls from 3 to 1 in row 1; it must not fall"),
    ([1, 1, 2, 3], [0, 1, 2], "CSR indptr must begin with 0, found [1]"),
    ([-1, 1, 2, 3], [0, 1, 2], "CSR indptr must begin with 0, found [-1]"),
    ([0, 1, 2, 2], [0, 1, 2], "CSR indptr must end with 3, the number of entries, found 2"),
    (np.array([0, 1, 2**64 - 1, 3], np.uint64), [0, 1, 2], f"CSR indptr holds {2**64 - 1}; its entries must be in 0.."),
    ([0, 1, 3], [0, 1, 2], "CSR indptr must have 4 entries for 3 rows, found (3,)"),
    ([[0, 1, 2, 3]], [0, 1, 2], "CSR indptr must have 4 entries for 3 rows, found (1, 4)"),
    ([0.0, 1.0, 2.0, 3.0], [0, 1, 2], "the CSR array indptr must be whole numbers [n], found float64 (4,)"),
    ([0, 1, 2, 3], [0, 1, 3], "CSR column 3 is not in 0..2"),
    ([0, 1, 2, 3], [0, -1, 2], "CSR column -1 is not in 0..2"),
    ([0, 1, 2, 3], np.array([0, 1, 2**64 - 1], np.uint64), f"CSR column {2**64 - 1} is not in 0..2"),
    ([0, 1, 2, 3], [True, False, True], "the CSR array indices must be whole numbers [n], found bool (3,)"),
]


@pytest.mark.parametrize("shape", [(-1, 3), (3, -1)])
def test_sizes_below_zero(shape):
    with pytest.raises(DataError, match="sizes must be 0 or more"):
        check_csr("FILE", np.array([0]), np.array([], np.int64), shape)


LAYOUT = ("x_indptr", "x_indices", "x_shape", "x_data")


def saved(path, indptr, indices, form):
    """The same arrays as the layout's, and as SciPy's save_npz writes them."""
    values = np.ones(3, np.float32)
    shape = np.array([3, 3])
    if form == "layout":
        np.savez(path, edge_index=EDGES, **dict(zip(LAYOUT, (indptr, indices, shape, values), strict=True)))
    else:
        arrays = {"indptr": indptr, "indices": indices, "shape": shape, "data": values}
        np.savez(path, format=np.array(form.encode()), edge_index=EDGES, **arrays)


@pytest.mark.parametrize("form", ["layout", "csr", "csc"])
@pytest.mark.parametrize(("indptr", "indices", "message"), BAD)
def test_a_npz_in_every_form_and_place(tmp_path, form, indptr, indices, message):
    saved(tmp_path / "g.npz", indptr, indices, form)
    (tmp_path / "folder").mkdir()
    saved(tmp_path / "folder" / "features.npz", indptr, indices, form)
    np.save(tmp_path / "folder" / "edges.npy", EDGES)
    for path, file in (("g.npz", "g.npz"), ("folder", "folder/features.npz")):
        for read in (load, read_rows):  # a training's and predict's
            assert one_line(DataError, read, str(tmp_path / path)).startswith(f"{tmp_path / file}: {message}")


def test_a_program_that_reads_one_ends_with_a_line_not_with_a_signal(tmp_path):
    saved(tmp_path / "g.npz", [0, 1, 2, LOWEST], [0, 1, 2], "layout")
    code = f"from ops.data.load import load; load({str(tmp_path / 'g.npz')!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "DataError" in ended.stderr


@given(st.integers(0, 6), st.integers(1, 6), st.data())
def test_what_scipy_makes_is_taken_and_read_as_it_is(rows, columns, data):
    dense = np.array(data.draw(st.lists(st.integers(0, 1), min_size=rows * columns, max_size=rows * columns)))
    matrix = sparse.csr_array(dense.reshape(rows, columns))
    for kind in (np.int32, np.int64, np.uint8, np.uint64):
        check_csr("FILE", matrix.indptr.astype(kind), matrix.indices.astype(kind), (rows, columns))


@given(st.lists(st.integers(LOWEST, HIGHEST), max_size=6), st.integers(0, 3))
def test_offsets_are_taken_only_where_plain_python_takes_them(offsets, count):
    small = [o % 5 - 1 if i % 2 else o for i, o in enumerate(offsets)]
    for each in (offsets, small, [0, *[o % (count + 1) for o in offsets], count], [0, count]):
        sound = each[:1] == [0] and each[-1:] == [count] and each == sorted(each)
        try:
            check_offsets("FILE", "offsets", np.array(each, dtype=np.int64), count)
        except DataError:
            assert not sound
        else:
            assert sound
