"""Folders of planted graphs: the same rows in any number of files, complete or refused."""

from pathlib import Path

import numpy as np
import pytest

from ops.data.hetero_load import load_hetero, open_graph
from ops.data.io.chunks import read_edge_table
from ops.data.synthetic import stream, user_item
from ops.data.synthetic.original import original_blocks
from ops.data.synthetic.stream import generate
from ops.data.synthetic.user_item import Planted, planted_communities
from ops.errors import DataError, SettingsError

SMALL = Planted(users=150, notes=90, clusters=3, mean_edges=4, features=3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks a table."""
    monkeypatch.setattr(user_item, "BLOCK", 64)


@pytest.mark.parametrize("parts", [1, 7])
def test_the_rows_do_not_depend_on_files(tmp_path, parts):
    graph, groups = planted_communities(SMALL)
    lines: list[str] = []
    rows = generate(SMALL, tmp_path / "out", parts, say=lines.append)
    read, labels = load_hetero(str(tmp_path / "out"))
    assert read.digest() == graph.digest()
    assert {k: v.tolist() for k, v in labels.items()} == {k: v.tolist() for k, v in groups.items()}
    assert rows == {"user": 150, "note": 90} | {f"user__{r[1]}__note": e.count for r, e in graph.edges.items()}
    assert len(lines) == 5
    files = (tmp_path / "out" / "nodes").rglob("*user*/*" if parts > 1 else "user.parquet")
    assert len(list(files)) == parts


def test_each_file_holds_its_range_of_users(tmp_path):
    generate(SMALL, tmp_path / "out", 4)
    chunks = open_graph(str(tmp_path / "out")).edges["user", "follow_note", "note"]
    for part in range(4):
        users = np.concatenate([read_edge_table(c)[0] for c in chunks if f"part-{part:05}" in c.uri])
        assert 150 * part // 4 <= users.min()
        assert users.max() < 150 * (part + 1) // 4


def test_more_files_than_edges_of_a_relation(tmp_path):
    tiny = Planted(users=12, notes=12, clusters=2, mean_edges=3, features=0)
    generate(tiny, tmp_path / "out", 12)
    assert len(list((tmp_path / "out/edges/user__share_note__note").iterdir())) == 12
    assert load_hetero(str(tmp_path / "out"))[0].digest() == planted_communities(tiny)[0].digest()


def test_a_homogeneous_folder(tmp_path):
    one = Planted(users=200, clusters=4, mean_edges=8, features=2, homogeneous=True)
    generate(one, tmp_path / "out", 3)
    assert load_hetero(str(tmp_path / "out"))[0].digest() == planted_communities(one)[0].digest()
    assert open_graph(str(tmp_path / "out")).symmetric == (("node", "edge", "node"),)


def test_the_originals_preset(tmp_path):
    sizes = Planted(users=300, notes=200)
    generate(sizes, tmp_path / "out", original=True)
    graph, groups = load_hetero(str(tmp_path / "out"))
    assert groups is None
    for kind, (low, high) in {"user": (10, 50), "note": (200, 1000)}.items():
        assert graph.nodes[kind].x.min() >= low
        assert graph.nodes[kind].x.max() <= high
    for name, (low, high) in {"follow_note": (10, 20), "share_note": (3, 8)}.items():
        per_user = np.bincount(graph.edges["user", name, "note"].src, minlength=300)
        assert (per_user.min(), per_user.max()) == (low, high)
    assert [b.first for b in original_blocks(sizes, "user")] == [0, 64, 128, 192, 256]


def stopped(*_):
    raise KeyboardInterrupt


def test_what_is_half_written_is_refused_and_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(stream, "label_rows", stopped)
        with pytest.raises(KeyboardInterrupt):
            generate(SMALL, folder)
    with pytest.raises(DataError, match="is half-written"):
        load_hetero(str(folder))
    assert not [p for p in folder.rglob("*") if p.suffix == ".tmp"]
    assert generate(SMALL, folder) is not None
    assert load_hetero(str(folder))[0].digest() == planted_communities(SMALL)[0].digest()


def test_a_folder_that_holds_something(tmp_path):
    folder = tmp_path / "out"
    generate(SMALL, folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert generate(SMALL, folder) is None
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    with pytest.raises(SettingsError, match="is not empty; give another folder, or --fresh"):
        generate(SMALL, folder, 2)
    assert generate(SMALL, folder, 2, fresh=True) is not None
    assert not (folder / "nodes" / "user.parquet").exists()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match=r"holds thesis\.tex, which no graph has"):
        generate(SMALL, folder, fresh=True)
    assert (folder / "thesis.tex").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="is a file; give a folder"):
        generate(SMALL, tmp_path / "file")


@pytest.mark.parametrize(("parts", "kind", "said"), [(0, SettingsError, ">= 1"), (91, DataError, "<= 90")])
def test_parts_out_of_range(tmp_path, parts, kind, said):
    with pytest.raises(kind, match=f"--parts {parts} must be {said}"):
        generate(SMALL, Path(tmp_path) / "out", parts)
    assert not (tmp_path / "out").exists()


def test_a_relation_without_edges_has_no_table(tmp_path):
    tiny = Planted(users=12, notes=12, clusters=2, mean_edges=1, features=0)
    generate(tiny, tmp_path / "out", 12)
    graph = planted_communities(tiny)[0]
    assert len(graph.edges) == 2
    assert load_hetero(str(tmp_path / "out"))[0].digest() == graph.digest()
