"""Folders of planted graphs: the same rows in any number of files, complete or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ops.data.chunked import read_edges, tables
from ops.data.hetero_load import load_hetero
from ops.data.synthetic import stream, user_item
from ops.data.synthetic.legacy_fake import original_blocks
from ops.data.synthetic.stream import Order, generate
from ops.data.synthetic.user_item import Planted, planted_communities
from ops.errors import DataError, SettingsError

SMALL = Planted(users=150, notes=90, clusters=3, mean_edges=4, features=3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks a table."""
    monkeypatch.setattr(user_item, "BLOCK", 64)
    monkeypatch.setattr("ops.data.synthetic.legacy_fake.BLOCK", 64)


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_rows_do_not_depend_on_files(tmp_path, parts):
    graph, groups = planted_communities(SMALL)
    told: list[str] = []
    rows = generate(Order(SMALL, parts), tmp_path / "out", tell=told.append)
    found, labels = load_hetero(str(tmp_path / "out"))
    assert found.digest() == graph.digest()
    assert {k: v.tolist() for k, v in labels.items()} == {k: v.tolist() for k, v in groups.items()}
    assert rows == {"user": 150, "note": 90} | {f"user__{r[1]}__note": e.count for r, e in graph.edges.items()}
    assert len(told) == 5
    assert len(list((tmp_path / "out" / "nodes").glob("user/*" if parts > 1 else "user.*"))) == parts


def test_each_file_holds_its_range_of_users(tmp_path):
    generate(Order(SMALL, 4), tmp_path / "out")
    chunks = tables(str(tmp_path / "out")).edges["user", "follow_note", "note"]
    for part in range(4):
        users = np.concatenate([read_edges(c)[0] for c in chunks if f"part-{part:05}" in c.uri])
        assert 150 * part // 4 <= users.min()
        assert users.max() < 150 * (part + 1) // 4


def test_more_files_than_edges_of_a_relation(tmp_path):
    tiny = Planted(users=12, notes=12, clusters=2, mean_edges=3, features=0)
    generate(Order(tiny, 12), tmp_path / "out")
    assert len(list((tmp_path / "out/edges/user__share_note__note").iterdir())) == 12
    assert load_hetero(str(tmp_path / "out"))[0].digest() == planted_communities(tiny)[0].digest()


def test_a_homogeneous_folder(tmp_path):
    one = Planted(users=200, clusters=4, mean_edges=8, features=2, homogeneous=True)
    generate(Order(one, 3), tmp_path / "out")
    assert load_hetero(str(tmp_path / "out"))[0].digest() == planted_communities(one)[0].digest()
    assert tables(str(tmp_path / "out")).symmetric == (("node", "edge", "node"),)


def test_the_originals_preset(tmp_path):
    order = Order(Planted(users=300, notes=200), 1, original=True)
    generate(order, tmp_path / "out")
    graph, groups = load_hetero(str(tmp_path / "out"))
    assert groups is None
    for kind, (low, high) in {"user": (10, 50), "note": (200, 1000)}.items():
        assert graph.nodes[kind].x.min() >= low
        assert graph.nodes[kind].x.max() <= high
    for name, (low, high) in {"follow_note": (10, 20), "share_note": (3, 8)}.items():
        per_user = np.bincount(graph.edges["user", name, "note"].src, minlength=300)
        assert (per_user.min(), per_user.max()) == (low, high)
    assert [b.first for b in original_blocks("user", 300, 200, 0)] == [0, 64, 128, 192, 256]


def stopped(*_):
    raise KeyboardInterrupt


def test_what_is_half_written_is_refused_and_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(stream, "label_rows", stopped)
        with pytest.raises(KeyboardInterrupt):
            generate(Order(SMALL), folder)
    with pytest.raises(DataError, match="is half-written"):
        load_hetero(str(folder))
    assert not [p for p in folder.rglob("*") if p.suffix == ".tmp"]
    assert generate(Order(SMALL), folder) is not None
    assert load_hetero(str(folder))[0].digest() == planted_communities(SMALL)[0].digest()


def test_a_folder_that_holds_something(tmp_path):
    folder = tmp_path / "out"
    generate(Order(SMALL), folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert generate(Order(SMALL), folder) is None
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    with pytest.raises(SettingsError, match="is not empty; give another folder, or --fresh"):
        generate(Order(SMALL, 2), folder)
    assert generate(Order(SMALL, 3), folder, fresh=True) is not None
    assert not (folder / "nodes" / "user.parquet").exists()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match=r"holds thesis\.tex, which no graph has"):
        generate(Order(SMALL), folder, fresh=True)
    assert (folder / "thesis.tex").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="is a file; give a folder"):
        generate(Order(SMALL), tmp_path / "file")


@pytest.mark.parametrize(("parts", "kind", "said"), [(0, SettingsError, ">= 1"), (91, DataError, "<= 90")])
def test_parts_out_of_range(tmp_path, parts, kind, said):
    with pytest.raises(kind, match=f"--parts {parts} must be {said}"):
        generate(Order(SMALL, parts), Path(tmp_path) / "out")
    assert not (tmp_path / "out").exists()


def test_a_relation_without_edges_has_no_table(tmp_path):
    tiny = Planted(users=12, notes=12, clusters=2, mean_edges=1, features=0)
    generate(Order(tiny, 12), tmp_path / "out")
    graph = planted_communities(tiny)[0]
    assert len(graph.edges) == 2
    assert load_hetero(str(tmp_path / "out"))[0].digest() == graph.digest()
