"""Small files that would cost much, values nobody can train on, names that no record could hold: one line each."""

import os

import numpy as np
import pandas as pd
import pytest
from image_files import folder as image_folder
from image_files import load_images
from refusals import one_line

from ops import memory
from ops.data.hetero_load import load_hetero
from ops.data.io.plain_yaml import load_yaml
from ops.data.load import load, read_rows
from ops.errors import DataError, ResourceError

EDGES = [[0, 1], [1, 2]]


def zeros(path):
    np.savez_compressed(path / "g.npz", x=np.zeros((3000, 3000)), edge_index=EDGES)
    return str(path / "g.npz")


def equal_rows(path):
    pd.DataFrame({f"f{i}": np.zeros(200_000) for i in range(20)}).to_parquet(path / "g.parquet")
    return str(path / "g.parquet")


def sparse(path):
    np.savez(path / "g.npz", x_indptr=[0, 0], x_indices=np.empty(0, int), x_shape=[1, 10**7], edge_index=[[0], [0]])
    return str(path / "g.npz")


@pytest.mark.parametrize("write", [zeros, equal_rows, sparse, lambda path: "planted:nodes=20000000"])
def test_loading_is_planned_before_it_takes_the_memory(tmp_path, write):
    spec = write(tmp_path)
    assert (tmp_path / spec).stat().st_size < 1e6 if "/" in spec else True
    with memory.loading_within(0.02):
        said = one_line(ResourceError, load, spec, knn=0 if spec.endswith("npz") or "planted" in spec else 1)
    assert said.startswith(f"{spec}: loading it is planned to need ")
    assert "there are 0.02 GiB; give fewer rows or columns, or a larger --memory-limit" in said


def test_edges_are_planned_as_well(tmp_path):
    np.save(tmp_path / "acm_feat.npy", np.eye(2000, 2))
    np.save(tmp_path / "acm_adj.npy", np.ones((2000, 2000), np.int8))
    with memory.loading_within(0.05):
        said = one_line(ResourceError, load, str(tmp_path))
        assert said.startswith(f"{tmp_path}/acm_adj.npy: 2,048,000 edges and more: loading it is planned to need")
        (tmp_path / "acm_adj.npy").unlink()
        said = one_line(ResourceError, load, str(tmp_path), knn=1500)
        assert said.startswith(f"{tmp_path}: --knn 1500: loading it is planned to need 0.13 GiB")
        said = one_line(ResourceError, load_hetero, "planted:users=20000000")
        assert said.startswith("planted:users=20000000: loading it is planned to need")


@pytest.mark.parametrize("value", [1e30, -1e16, np.float32(3e38)])
@pytest.mark.parametrize("form", ["csv", "npy"])
def test_values_whose_squares_do_not_fit(tmp_path, value, form):
    x = np.arange(12.0).reshape(4, 3)
    x[2, 1] = value
    if form == "npy":
        np.save(tmp_path / "t.npy", x)
    else:
        pd.DataFrame(x).to_csv(tmp_path / "t.csv", index=False)
    path = tmp_path / f"t.{form}"
    assert one_line(DataError, load, str(path), knn=1).startswith(
        f"{path}: 1 values are beyond 1e+15, the first at row 2, column 1"
    )


@pytest.mark.parametrize("times", ["2020-01-01", "10:00:01", "2020-01-01 10:00:01"])
def test_times_are_no_features_in_any_format(tmp_path, times):
    frame = pd.DataFrame({"id": [1, 2, 3], "when": [times] * 3, "a": [1.0, 2, 3]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    when = pd.to_datetime(frame["when"], format="mixed")
    frame.assign(when=when.dt.time if times[0] == "1" else when).to_parquet(tmp_path / "t.parquet")
    for form in ("csv", "parquet"):
        said = one_line(DataError, load, str(tmp_path / f"t.{form}"), knn=1)
        assert "row 0: column 'when' holds " in said
        assert " values, not numbers (times: write them as seconds)" in said
        assert said.endswith("Add: --ignore when")


@pytest.mark.parametrize(("key", "values", "words"), [
    ("y", np.array([1j, 2, 3]), "labels must be whole numbers or words, found type complex128"),
    ("y", np.zeros(3, [("a", int)]), "labels must be whole numbers or words, found type [('a', '<i8')]"),
    ("ids", np.array([1j, 2, 3]), "ids must be numbers or words, found complex128"),
    ("ids", np.zeros(3, [("a", int)]), "ids must be numbers or words, found [('a', '<i8')]"),
])  # fmt: skip
def test_arrays_that_are_no_labels_and_no_ids(tmp_path, key, values, words):
    np.savez(tmp_path / "g.npz", x=np.eye(3), edge_index=EDGES, **{key: values})
    assert words in one_line(DataError, load, str(tmp_path / "g.npz"))


@pytest.mark.parametrize(("text", "words"), [
    ("9" * 5000, "a number of 5,000 digits"),
    ("0x" + "f" * 5000, "a number of 5,002 digits"),
    ("[" * 3000 + "]" * 3000, "more than 20 levels"),
    ("{a: " * 3000 + "1" + "}" * 3000, "more than 20 levels"),
    ("&x [1, *x]", "an alias"),
    ("!!int x", "invalid literal"),
])  # fmt: skip
def test_yaml_that_costs_more_than_its_length(tmp_path, text, words):
    (tmp_path / "graph.yaml").write_text(f"name: {text}\n")
    said = one_line(DataError, load_hetero, str(tmp_path))
    assert said.startswith(f"{tmp_path}/graph.yaml: cannot be read: ")
    assert words in said


def test_dates_in_yaml_are_text():
    assert load_yaml("{a: 2020-01-01, b: 2020-99-99, c: 12, d: [yes, 1.5]}") == {
        "a": "2020-01-01", "b": "2020-99-99", "c": 12, "d": [True, 1.5],
    }  # fmt: skip


def test_names_that_are_not_utf8(tmp_path):
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9")
    os.mkdir(odd)
    np.save(f"{odd}/features.npy", np.eye(3))
    for call in (load, load_hetero, read_rows, load_images):
        assert one_line(DataError, call, odd) == f"{tmp_path}/caf\\xe9: the name is not UTF-8 text; rename it"
    plain = tmp_path / "plain"
    os.rename(odd, plain)
    np.save(plain / "edges.npy", EDGES)
    with open(os.fsencode(str(plain)) + b"/caf\xe9.txt", "w"):
        pass
    for graph in (load(str(plain))[0], load_hetero(str(plain))[0]):
        assert graph.notes[-1].encode() == b"files not read: caf\\xe9.txt"
    pets = image_folder(tmp_path / "pets")
    os.rename(pets / "cat" / "0.png", os.fsencode(str(pets)) + b"/cat/\xff.png")
    assert one_line(DataError, load_images, str(pets)) == f"{pets}/cat/\\xff.png: the name is not UTF-8 text; rename it"


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", "x" * 255 + "é"])
def test_names_that_no_file_can_have(tmp_path, monkeypatch, name):
    (tmp_path / "train").mkdir()
    (tmp_path / "ten.txt").write_text("\n".join([*"abcdefghi", name.replace("\0", "/")]))
    specs = [f"{tmp_path}/{name}", f"{tmp_path}/{name}.csv", f"./{name}", name]
    images = [f"imagenet10:{tmp_path}/{name},classes={tmp_path}/ten.txt", f"imagenet10:.,classes={tmp_path}/{name}"]
    images += [f"imagenet10:{tmp_path}/train,classes={tmp_path}/ten.txt"]
    for call, given in ((load, specs), (load_hetero, specs), (read_rows, specs), (load_images, specs + images)):
        for spec in given:
            one_line(DataError, call, spec)
    if "\0" not in name:
        for key in ("TESSERA_DATA", "TESSERA_CACHE"):
            monkeypatch.setenv(key, f"{tmp_path}/{name}")
            for call, spec in ((load, "acm"), (load_hetero, "usps")):
                one_line(DataError, call, spec)
            monkeypatch.delenv(key)
