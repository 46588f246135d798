"""What may not be read, or cannot be asked for, is one line that names it. Root reads everything: access is taken away
by making the calls fail."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_files import folder, load_images
from refusals import one_line

from ops.data.load import load, table_file
from ops.errors import DataError


def _refusing(monkeypatch, name, closed):
    """`Path.name` and what opens a file fail as they do for who may not read `closed`."""
    real = getattr(Path, name)

    def call(self, *args, **words):
        if closed in (self, *self.parents):
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **words)

    monkeypatch.setattr(Path, name, call)


def test_an_image_that_may_not_be_read_is_a_damaged_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    root = folder(tmp_path / "pets")
    closed = root / "cat" / "1.png"
    _refusing(monkeypatch, "open", closed)
    real = open

    def opened(file, *args, **words):
        if str(file) == str(closed):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **words)

    monkeypatch.setattr("builtins.open", opened)
    assert one_line(DataError, load_images, str(root)).startswith(f"{closed}: may not be read; remove or replace")
    rest, _ = load_images(str(root), skip_damaged=True)
    assert rest.n_rows == 5
    assert rest.notes[0] == f"1 damaged image left out: {closed}: may not be read"


@pytest.mark.parametrize("call", ["stat", "is_file"])
def test_a_folder_of_images_that_may_not_be_entered(tmp_path, monkeypatch, call):
    root = folder(tmp_path / "pets")
    _refusing(monkeypatch, call, root / "cat")
    assert one_line(DataError, load_images, str(root)).startswith(
        f"{root}: cannot be read: [Errno 13] Permission denied"
    )


def test_a_folder_of_a_graph_that_may_not_be_listed(tmp_path, monkeypatch):
    np.save(tmp_path / "features.npy", np.eye(2))
    _refusing(monkeypatch, "iterdir", tmp_path)
    for call in (load, table_file):
        assert one_line(DataError, call, str(tmp_path)).startswith(f"{tmp_path}: cannot be read: [Errno 13] Perm")


def test_names_that_cannot_be_asked_for(tmp_path, monkeypatch):
    long, closed = "x" * 300, tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setenv("TESSERA_DATA", str(tmp_path))
    assert one_line(DataError, load_images, long) == f"{long}: cannot be read: File name too long"
    assert one_line(DataError, load, long).startswith(f"{long!r}: no such data set")
    table = tmp_path / f"{long}.npy"
    assert one_line(DataError, load_images, "digits", backbone=f"frozen:{table}").startswith(
        f"{table}: cannot be read: "
    )
    assert table_file(str(table)) is None
    _refusing(monkeypatch, "exists", closed)
    assert one_line(DataError, load_images, str(closed / "pets")) == f"{closed}/pets: cannot be read: Permission denied"


@pytest.mark.parametrize("column", ["label", "id"])
@pytest.mark.parametrize("lists", [[[1, 2], [3, 4]], [[1], [2, 3]], [[], None]])
def test_lists_are_no_labels_and_no_ids(tmp_path, column, lists):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": [1.0, 2.0], column: lists}).to_parquet(path)
    message = f"{path}, row 0: {'labels' if column == 'label' else 'id'} must be numbers or words, found list<"
    assert one_line(DataError, load, str(path), knn=1).startswith(message)


def test_lists_are_no_ends_of_edges(tmp_path):
    np.save(tmp_path / "features.npy", np.eye(2))
    edges = tmp_path / "edges.parquet"
    pd.DataFrame({"source": [[0], [1]], "target": [1, 0]}).to_parquet(edges)
    message = f"{edges}, row 0: source must be numbers or words, found list<"
    assert one_line(DataError, load, str(tmp_path)).startswith(message)


@pytest.mark.parametrize("value", ["inf", "-inf", "1e200"])
def test_no_warning_of_numpy_beside_the_line(tmp_path, value):
    path = tmp_path / "t.csv"
    path.write_text(f"a,b\n1,{value}\n2,inf\n3,4\n4,5\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "only finite numbers are allowed" in one_line(DataError, load, os.fspath(path), knn=1)
