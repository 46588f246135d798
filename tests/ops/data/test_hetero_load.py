"""Whatever way a heterogeneous graph is written down, the same graph comes back; damaged, it is a DataError."""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hetero_world import built, graphs, write_folder, write_original
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.data.hetero_load import load_hetero, open_graph
from ops.data.io import chunks
from ops.data.io.chunks import read_edge_table, read_node_table
from ops.data.io.validate import make_hetero
from ops.data.types.hetero import Edges, Nodes, relation_name
from ops.errors import DataError


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of a few lines, so that small files have many."""
    monkeypatch.setattr(chunks, "TEXT_BYTES", 24)
    monkeypatch.setattr(chunks, "ROWS", 2)


@given(graphs(), st.sampled_from(["csv", "tsv", "parquet"]), st.integers(1, 3), st.booleans())
def test_tables_come_back(raw, suffix, parts, listed):
    graph = built(raw)
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place) / "shop", graph, suffix, parts, listed)
        result, groups = load_hetero(f"{place}/shop")
        assert (result.name, groups) == ("shop", None)
        assert result.digest() == graph.digest()
        assert list(result.edges) == list(graph.edges)
        assert [n for n in result.notes if "merged" in n] == []


@given(graphs(words=False, widths=(0, 1, 3)))
@settings(max_examples=10)
def test_the_originals_files_come_back(raw):
    graph = built(raw)
    edges = {r: Edges(e.src, e.dst, np.ones(e.count, np.float32) if e.weight is None else e.weight)
             for r, e in graph.edges.items()}  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        write_original(Path(place), graph)
        assert load_hetero(place)[0].digest() == replace(graph, edges=edges).digest()


@given(graphs(), st.sampled_from(["csv", "tsv", "parquet"]), st.data())
def test_what_is_damaged_is_a_data_error(raw, suffix, data):
    graph = built(raw)
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place), graph, suffix)
        files = sorted(p for p in Path(place).rglob("*") if p.is_file())
        path = data.draw(st.sampled_from(files), "file")
        content = path.read_bytes()
        at = data.draw(st.integers(0, len(content)), "at")
        junk = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"\n", b"\t", b",", b"nan", b"-1", b'"'])))
        end = data.draw(st.sampled_from([at, at + 1, at + 5, len(content)]), "end")
        path.write_bytes(content[:at] + junk + content[end:])
        said = f"{place}: "
        try:
            load_hetero(place)
        except DataError as error:
            said = str(error)
        assert len(said.splitlines()) == 1
        assert said.startswith(place)


def test_the_same_graph_in_chunks(tmp_path):
    graph = make_hetero(
        "g", {"a": Nodes(np.arange(9), np.eye(9, dtype=np.float32))},
        {("a", "r", "a"): Edges(np.arange(8), np.arange(1, 9), np.arange(8, dtype=np.float32), np.arange(8))},
    )  # fmt: skip
    for suffix in ("csv", "parquet"):
        write_folder(tmp_path / suffix, graph, suffix, parts=2)
        result = open_graph(str(tmp_path / suffix))
        assert result.names == {"a": tuple(f"f{i}" for i in range(9))}
        pieces = result.edges["a", "r", "a"]
        assert len(pieces) > 3 if suffix == "csv" else len(pieces) == 2
        parts = [read_edge_table(chunk) for chunk in pieces]
        assert sorted(np.concatenate([p[0] for p in parts]).tolist()) == list(range(8))
        assert np.concatenate([read_node_table(c)[0] for c in result.nodes["a"]]).tolist() == list(range(9))


def test_duplicates_are_merged_and_counted(tmp_path):
    folder = tmp_path / "shop"
    (folder / "nodes").mkdir(parents=True)
    (folder / "edges").mkdir()
    (folder / "nodes" / "user.csv").write_text("id,age\n1,2\n2,4\n")
    (folder / "edges" / "user__knows__user.csv").write_text(
        "src,dst,weight,time\n2,1,1,5\n1,2,0.5,9\n2,1,2,7\n2,1,4,6\n"
    )
    graph, _ = load_hetero(str(folder))
    edges = graph.edges["user", "knows", "user"]
    assert (edges.src.tolist(), edges.dst.tolist()) == ([0, 1], [1, 0])
    assert edges.weight.tolist() == [0.5, 7]
    assert edges.time.tolist() == [9, 7]
    assert "user__knows__user: 2 duplicate edges merged" in graph.notes


def test_dates_are_seconds(tmp_path):
    (tmp_path / "nodes").mkdir()
    (tmp_path / "edges").mkdir()
    (tmp_path / "nodes" / "a.csv").write_text("id\n1\n2\n")
    (tmp_path / "edges" / "a__r__a.csv").write_text("source,target,timestamp\n1,2,1970-01-02 00:00:01\n")
    assert load_hetero(str(tmp_path))[0].edges["a", "r", "a"].time.tolist() == [86401]


def test_graph_yaml_tells_what_names_do_not(tmp_path):
    (tmp_path / "people.tsv").write_text("id:int64\tfeature:string\n7\t1:2\n8\t3:4\n")
    (tmp_path / "things.csv").write_text("id\nx\n")
    (tmp_path / "likes-1.csv").write_text("src,dst\n7,x\n")
    (tmp_path / "likes-2.csv").write_text("src,dst\n8,x\n")
    (tmp_path / "graph.yaml").write_text(
        "name: mine\nnodes: {user: people.tsv, item: [things.csv]}\nedges: {user__likes__item: likes-*.csv}\n"
    )
    graph, _ = load_hetero(str(tmp_path))
    assert graph.name == "mine"
    assert graph.nodes["user"].x.tolist() == [[1, 2], [3, 4]]
    assert graph.edges["user", "likes", "item"].src.tolist() == [0, 1]


@pytest.mark.parametrize(("name", "relation"), [
    ("follow_edge_3", "user__follow__note"), ("user_follow_note_0", "user__follow__note"),
    ("user__a__user", "user__a__user"), ("share_note_edges", "user__share_note__note"),
])  # fmt: skip
def test_names_of_the_originals_files(tmp_path, name, relation):
    (tmp_path / "users.txt").write_text("id:int64\tfeature:string\n1\t10\n")
    (tmp_path / "note_node_00001.tsv").write_text("id:int64\tfeature:string\n1\t10\n")
    (tmp_path / f"{name}.csv").write_text("src_id:int64\tdst_id:int64\tweight:float\tlabel:int32\n1\t1\t0.5\t0\n")
    graph, _ = load_hetero(str(tmp_path))
    assert [relation_name(r) for r in graph.edges] == [relation]
    assert list(graph.nodes) == ["note", "user"]


def test_a_homogeneous_graph_is_one_type(tmp_path):
    np.savez(tmp_path / "g.npz", x=np.eye(3), edge_index=[[0, 1], [1, 2]], y=[0, 1, 1])
    graph, groups = load_hetero(str(tmp_path / "g.npz"))
    assert list(graph.edges) == [("node", "edge", "node")]
    assert graph.edges["node", "edge", "node"].src.tolist() == [0, 1, 1, 2]
    assert groups["node"].tolist() == [0, 1, 1]
    assert open_graph(str(tmp_path / "g.npz")).digest() == graph.digest()


def shop(folder):
    """A sound folder to spoil."""
    for top in ("nodes", "edges", "labels"):
        (folder / top).mkdir(parents=True)
    (folder / "nodes/user.csv").write_text("id,age,size\nu1,1,2\nu2,3,4\n")
    (folder / "nodes/note.tsv").write_text("id\tfeatures\n1\t1:2\n2\t3:4\n3\t5:6\n")
    (folder / "edges/user__likes__note.csv").write_text("src,dst,weight,time\nu1,1,1,1\nu2,3,0.5,2\n")
    (folder / "labels/user.csv").write_text("id,label\nu2,b\nu1,a\n")
    return folder


BAD = {
    "unknown node": ("edges/user__likes__note.csv", "src,dst\nu1,1\nu9,1\n", "csv, row 1: src 'u9' is not among the 2"),
    "unknown note": ("edges/user__likes__note.csv", "src,dst\nu1,77\n", "row 0: dst 77 is not among the 3 note ids"),
    "type missing": ("edges/user__likes__film.csv", "src,dst\nu1,1\n", "joins the node type 'film', which has no"),
    "no relation": ("edges/likes.csv", "src,dst\nu1,1\n", "'likes': is no relation"),
    "ragged": ("nodes/note.tsv", "id\tfeatures\n1\t1:2\n2\t3\n3\t5:6\n", "row 1: ragged features: 1 where"),
    "ragged line": ("nodes/user.csv", "id,age,size\nu1,1,2\nu2,3\n", "row 1: 2 values where the first line names 3"),
    "not finite": ("nodes/user.csv", "id,age,size\nu1,1,2\nu2,inf,4\n", "the first at row 1, column 0 ('age')"),
    "missing": ("nodes/user.csv", "id,age,size\nu1,1,2\nu2,3,\n", "the first at row 1, column 1 ('size')"),
    "a word": ("nodes/user.csv", "id,age,size\nu1,1,2\nu2,old,2\n", "row 1: column 'age' holds 'old'"),
    "twice": ("nodes/user.csv", "id,age,size\nu1,1,2\nu2,1,2\nu1,1,2\n", "row 2: user id 'u1' stands twice"),
    "no id": ("nodes/user.csv", "id,age,size\nu1,1,2\n,3,4\n", "row 1: the id is missing"),
    "negative": ("edges/user__likes__note.csv", "src,dst,weight\nu1,1,1\nu2,1,-1\n", "row 1: weight is -1"),
    "nan weight": ("edges/user__likes__note.csv", "src,dst,weight\nu1,1,1\nu2,1,nan\n", "row 1: weight is nan"),
    "no edges": ("edges/user__likes__note.csv", "src,dst\n", "user__likes__note has no rows"),
    "no nodes": ("nodes/user.csv", "id,age\n", "user has no rows"),
    "column": ("edges/user__likes__note.csv", "source_id,dst\nu1,1\n", "'source_id'; did you mean src_id?"),
    "no column": ("edges/user__likes__note.csv", "from,to\nu1,1\n", "no column src among from, to"),
    "nearly": ("edges/user__likes__note.csv", "src,dst,wieght\nu1,1,1\n", "'wieght'; did you mean weight?"),
    "no header": ("edges/user__likes__note.csv", "1,2\n2,3\n", "is data; it must name the columns"),
    "unprintable": ("nodes/user.csv", "id,a\x0bge\nu1,1\n", "column 'a\\x0bge' has characters that do not print"),
    "a return": ("nodes/user.csv", "id,a\rge\nu1,1\n", "nodes/user.csv: "),
    "a label": ("nodes/user.csv", "id,label\nu1,1\nu2,1\n", "labels stand apart"),
    "empty": ("nodes/user.csv", "", "is empty"),
    "binary": ("nodes/user.csv", "id,age\nu1,\0\n", "holds binary data"),
    "not parquet": ("nodes/extra.parquet", "id,age\n1,2\n", "cannot be read"),
    "unknown kind": ("nodes/extra.json", "{}", "unknown kind of file"),
    "beside": ("nodes/user.tsv", "id\nu1\nu2\n", "stands beside"),
    "half": ("graph.yaml", "complete: false\n", "is half-written"),
    "bad key": ("graph.yaml", "complet: true\n", "unknown key 'complet'; allowed: name"),
    "a date": ("graph.yaml", "symmetric: [2020-01-01]\n", "graph.yaml: symmetric: '2020-01-01': is no relation"),
    "a name": ("graph.yaml", 'name: "a\\eb"\n', "name: 'a\\x1bb' cannot name a graph"),
    "names": ("graph.yaml", "name: [1]\n", "name: [1] cannot name a graph"),
    "no match": ("graph.yaml", "nodes: {user: nobody.csv}\n", "no file matches nobody.csv"),
    "not labelled": ("labels/user.csv", "id,label\nu1,a\n", "1 rows label 1 of 2 nodes"),
    "labels of none": ("labels/film.csv", "id,label\n1,a\n", "labels belong to the node type 'film'"),
    "time": ("edges/user__likes__note.csv", "src,dst,time\nu1,1,soon\n", "row 0: column 'time' holds 'soon'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line(tmp_path, what):
    name, content, said = BAD[what]
    folder = shop(tmp_path / "shop")
    assert load_hetero(str(folder))[1]["user"].tolist() == [0, 1]
    (folder / name).write_text(content)
    with pytest.raises(DataError) as error:
        load_hetero(str(folder))
    assert said in str(error.value)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_known_name_goes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    shop(tmp_path / "planted")
    monkeypatch.chdir(tmp_path)
    assert load_hetero("planted")[0].nodes["user"].count == 1000
    assert load_hetero("./planted")[0].nodes["user"].count == 2


def test_rows_are_counted_in_the_file(tmp_path):
    folder = shop(tmp_path / "shop")
    rows = "".join(f"u1,{1 + i % 3},1,{i}\n" for i in range(30))
    (folder / "edges/user__likes__note.csv").write_text(f"src,dst,weight,time\n{rows}u1,9,1,1\n")
    with pytest.raises(DataError, match=r"user__likes__note\.csv, row 30: dst 9 is not among"):
        load_hetero(str(folder))


@pytest.mark.parametrize("pad", range(24))
def test_quoted_line_breaks_do_not_depend_on_where_chunks_end(tmp_path, pad):
    folder = shop(tmp_path / "shop")
    notes = ["plain", '"two\nlines"', '"a ""word"",\n\n9,9,9"', '""']
    rows = "".join(f"u{1 + i % 2},{1 + i % 3},{notes[i % 4]}\n" for i in range(12))
    (folder / "edges/user__likes__note.csv").write_text(f"src,dst,text{'x' * pad}\n{rows}")
    graph, _ = load_hetero(str(folder))
    edges = graph.edges["user", "likes", "note"]
    assert list(zip(edges.src.tolist(), edges.dst.tolist(), strict=True)) == [(a, b) for a in (0, 1) for b in (0, 1, 2)]
    (folder / "edges/user__likes__note.csv").write_text(f'src,dst,text{"x" * pad}\n{rows}u1,9,"a\nb"\n')
    with pytest.raises(DataError, match="dst 9 is not among"):
        load_hetero(str(folder))


def test_blank_lines_at_the_end_change_nothing(tmp_path):
    folder = shop(tmp_path / "shop")
    before = load_hetero(str(folder))
    for path in [*folder.glob("*/*.csv"), *folder.glob("*/*.tsv")]:
        path.write_text(path.read_text().replace("\n", "\r\n") + "\r\n" * 60)
    after = load_hetero(str(folder))
    assert after[0].digest() == before[0].digest()
    assert after[1]["user"].tolist() == before[1]["user"].tolist()


def test_labels_may_be_unknown_and_files_that_are_not_read_are_named(tmp_path):
    folder = shop(tmp_path / "shop")
    (folder / "labels/user.csv").write_text("id,label\nu2,b\nu1,unknown\n")
    (folder / "target.csv").write_text("id,label\nu2,b\n")
    (folder / "edges/user__likes__note.csv").write_text("src,dst\nu1,1\n")
    graph, groups = load_hetero(str(folder))
    assert groups["user"].tolist() == [-1, 0]
    assert graph.notes[0] == "files not read: target.csv"
    assert graph.notes[1] == "2 note nodes without an edge; that is most of them: do the edges use their ids?"
    assert graph.notes[-1].startswith("user: 1 row of 2 without a label")


def test_yaml_has_no_aliases(tmp_path):
    (tmp_path / "graph.yaml").write_text("name: &a [x, x]\nnodes: {user: *a}\n")
    with pytest.raises(DataError, match=r"graph\.yaml: cannot be read: it has an alias"):
        load_hetero(str(tmp_path))


def test_files_of_a_table_must_agree(tmp_path):
    folder = shop(tmp_path / "shop")
    shutil.move(folder / "nodes/user.csv", folder / "nodes/a.csv")
    (folder / "nodes/user").mkdir()
    shutil.move(folder / "nodes/a.csv", folder / "nodes/user/a.csv")
    (folder / "nodes/user/b.csv").write_text("id,age\nu3,1\n")
    with pytest.raises(
        DataError, match=r"b\.csv: ragged features: the feature columns are age; in .*a\.csv they are age, size"
    ):
        load_hetero(str(folder))


def test_a_file_that_changes_is_refused(tmp_path):
    folder = shop(tmp_path / "shop")
    chunk = open_graph(str(folder)).nodes["user"][0]
    (folder / "nodes/user.csv").write_text("id,age,size\nu1,1,2\nu2,3,4\nu3,3,4\n")
    with pytest.raises(DataError, match="was replaced while it was read"):
        read_node_table(chunk)
