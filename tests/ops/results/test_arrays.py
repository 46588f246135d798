"""Stored arrays: read back whole, or one line that says what is wrong."""

import numpy as np
import pytest
from fabricate import MAP

from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError
from ops.results.arrays import read_arrays, read_map, read_pictures, read_sample
from ops.results.seed_rows import save_rows

ONES = np.ones((3, 2))
SAMPLE = {"before": ONES, "after": np.ones((3, 4)), "cluster": np.zeros(3, np.int64)}
PICTURES = {
    "seed": np.array(1), "near": np.zeros((2, 3, 3, 4, 5), np.uint8), "near_count": np.array([3, 1]),
    "near_cluster": np.array([0, 2]), "near_size": np.array([9, 1]), "pair": np.zeros((1, 2, 3, 4, 5), np.uint8),
    "pair_cluster": np.array([[0, 2]]), "pair_value": np.array([0.5]), "confusion": np.ones((2, 3), np.int64),
    "confusion_order": np.arange(3), "classes": np.array(["a", "b"]),
}  # fmt: skip
READERS = {
    "figures.npz": (SAMPLE, lambda path: read_sample(path.parent)),
    "more.npz": (MAP, lambda path: read_map(path.parent)),
    "pictures.npz": (PICTURES, lambda path: read_pictures(path.parent)),
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_whole_is_read_and_what_is_not_there_is_nothing(tmp_path, name):
    arrays, read = READERS[name]
    assert not read(tmp_path / name)
    np.savez(tmp_path / name, **arrays)
    assert read(tmp_path / name)


def test_a_seed_without_a_map_has_none(tmp_path):
    np.savez(tmp_path / "more.npz", embedding=ONES)
    assert read_map(tmp_path) == {}
    np.savez(tmp_path / "more.npz", **MAP, embedding=ONES)
    assert set(read_map(tmp_path)) == set(MAP)


@pytest.mark.parametrize(("name", "changes", "problem"), [
    ("figures.npz", {"after": None, "cluster": None}, "lacks after, cluster"),
    ("figures.npz", {"after": np.ones((4, 2))}, r"after is float64 \[4, 2\], expected float n d, where n = 3"),
    ("figures.npz", {"after": ONES * np.nan}, "after holds NaN or infinity"),
    ("figures.npz", {"before": np.array([{}], dtype=object)}, "not a readable npz"),  # and is not unpickled
    ("more.npz", {"map_hits": None}, "lacks map_hits; the file is damaged"),
    ("more.npz", {"map_hits": np.arange(11)}, r"map_hits is int64 \[11\], expected int r\*c, where r = 3, c = 4"),
    ("more.npz", {"map_unit_clusters": np.zeros(12)}, "map_unit_clusters is float64"),
    ("more.npz", {"map_errors": np.zeros(3)}, r"map_errors is float64 \[3\], expected float 2"),
    ("more.npz", {"map_umatrix": np.full((3, 4), np.nan)}, "NaN or infinity"),
    ("pictures.npz", {"near_count": None}, "lacks near_count"),
    ("pictures.npz", {"near": np.zeros((2, 3, 3, 4, 5))}, "near is float64"),
    ("pictures.npz", {"classes": np.array(["a"])}, r"classes is <U1 \[1\], expected text l, where l = 2"),
    ("pictures.npz", {"seed": None}, "lacks seed"),
])  # fmt: skip
def test_damaged_arrays_are_one_line(tmp_path, name, changes, problem):
    arrays, read = READERS[name]
    np.savez(tmp_path / name, **{key: array for key, array in (arrays | changes).items() if array is not None})
    with pytest.raises(DataError, match=problem):
        read(tmp_path / name)


@pytest.mark.parametrize("offsets", [np.array([0, 2, 2, 5]), np.array([0, 5])])
def test_rows_are_read_alike_from_parts_and_from_one_file(tmp_path, offsets):
    z, epochs, shift = np.arange(10.0).reshape(5, 2), np.arange(10).reshape(2, 5), np.ones(2)
    save_rows(tmp_path / "m.npz", ProcessGroup(), lambda n: None if n == "shift" else offsets, {"z": z, "shift": shift})
    save_rows(tmp_path / "e.npz", ProcessGroup(), lambda n: offsets, {"clusters": epochs}, axis=1)
    both = read_arrays(tmp_path / "m.npz")
    assert set(both) == {"z", "shift"}
    assert np.array_equal(both["z"], z)
    assert np.array_equal(read_arrays(tmp_path / "e.npz", axis=1)["clusters"], epochs)
    if len(offsets) > 2:
        (tmp_path / "m" / "part-00001.npz").unlink()
        with pytest.raises(DataError, match=r"part-00001\.npz: this part of the results is missing"):
            read_arrays(tmp_path / "m.npz")
