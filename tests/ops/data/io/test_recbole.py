"""RecBole's atomic files: relations by rating, features by kind of column, and ml-100k where its files are."""

import numpy as np
import pytest
from refusals import one_line

from ops.data.catalog.movielens import SUMS, read_ml100k
from ops.data.hetero_load import load_hetero
from ops.data.splits import split
from ops.errors import DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = "u1\t10\t5\t100\nu1\t11\t4\t101\nu2\t10\t3\t102\nu2\t12\t1\t103\nu2\t11\t4\t104.7\n"


def write(folder, inter=INTER + ROWS, user=None, item=None):
    folder.mkdir()
    for kind, text in (("inter", inter), ("user", user), ("item", item)):
        if text is not None:
            (folder / f"x.{kind}").write_text(text)
    return str(folder)


def test_ratings_become_relations(tmp_path):
    graph, groups = load_hetero(write(tmp_path / "x"))
    assert (graph.name, groups) == ("x", None)
    assert graph.nodes["user"].ids.tolist() == ["u1", "u2"]
    assert graph.nodes["note"].ids.tolist() == [10, 11, 12]
    edges = {r[1]: (e.src.tolist(), e.dst.tolist(), e.time.tolist()) for r, e in graph.edges.items()}
    assert edges == {
        "share_note": ([0], [0], [100]), "comment_note": ([0, 1], [1, 1], [101, 104]), "follow_note": ([1], [0], [102]),
    }  # fmt: skip
    assert "1 interactions rated below 3 are unused" in graph.notes


def test_without_ratings_all_is_one_relation(tmp_path):
    graph, _ = load_hetero(write(tmp_path / "x", "user_id:token\titem_id:token\n1\t2\n1\t3\n"))
    assert list(graph.edges) == [("user", "interact_note", "note")]
    assert graph.edges["user", "interact_note", "note"].time is None


def test_features_by_kind(tmp_path):
    users = "user_id:token\tjob:token\twage:float\nu2\tcook\t3\nu1\tpilot\t1\n"
    items = 'item_id:token\tname:token_seq\tkinds:token_seq\n10\t"A b\tx y\n11\tC\t\n12\tD\ty\n'
    graph, _ = load_hetero(write(tmp_path / "x", user=users, item=items))
    assert graph.nodes["user"].ids.tolist() == ["u2", "u1"]
    assert graph.nodes["user"].x.tolist() == [[1, 0, 1], [0, 1, -1]]
    assert graph.nodes["user"].names == ("job cook", "job pilot", "wage")
    assert graph.nodes["note"].names[-2:] == ("kinds x", "kinds y")
    # names: "A b, C, D as four words, kinds: x, y
    assert graph.nodes["note"].x[:, -2:].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert graph.edges["user", "share_note", "note"].src.tolist() == [1]


def test_numbers_of_many_values_are_binned(tmp_path):
    users = "user_id:token\tage:token\tcode:token\n" + "".join(f"u{i}\t{i}\tc{i}\n" for i in range(100))
    inter = INTER + "".join(f"u{i}\t1\t5\t{i}\n" for i in range(100))
    graph, _ = load_hetero(write(tmp_path / "x", inter, users))
    assert graph.nodes["user"].x.sum(0).tolist() == [10] * 10
    assert graph.nodes["user"].x.sum(1).tolist() == [1] * 100
    assert graph.nodes["user"].names[:2] == ("age under 9.9", "age 9.9 to 19.8")
    assert graph.nodes["user"].names[-1] == "age from 89.1"
    assert any("user column code: more than" in note for note in graph.notes)


@pytest.mark.parametrize(("inter", "user", "said"), [
    (INTER + "u1\t1\tx\t5\n", None, "row 0: column 'rating' holds 'x', which is no number"),
    (INTER + "u1\t1\t5\n", None, "row 0: 3 values where the first line names 4 columns"),
    (INTER, None, "has no rows"),
    ("user_id\titem_id\n1\t2\n", None, "'user_id:': must be NAME:TYPE"),
    ("user:token\titem_id:token\n1\t2\n", None, "no column user_id:token"),
    (INTER + ROWS, "user_id:token\nu1\n", "row 2: user_id 'u2' is not among the 1 user ids"),
    (INTER + ROWS, "user_id:token\nu1\nu2\nu1\n", "row 2: user id 'u1' stands twice"),
    (INTER + "u1\t1\t5\t\n", None, "row 0: timestamp is nan"),
    (INTER + "u1\t1\t\t3\n", None, "row 0: rating is missing"),
])  # fmt: skip
def test_bad_files_are_one_line(tmp_path, inter, user, said):
    text = one_line(DataError, load_hetero, write(tmp_path / "x", inter, user))
    assert said in text
    assert str(tmp_path) in text


def test_two_data_sets_in_one_folder(tmp_path):
    place = write(tmp_path / "x")
    (tmp_path / "x" / "y.inter").write_text(INTER + ROWS)
    with pytest.raises(DataError, match="give a folder with one data set"):
        load_hetero(place)


def test_ml100k_that_is_another_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_DATA", str(tmp_path))
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    with pytest.raises(DataError, match=r"ml-100k\.inter: no such file"):
        read_ml100k()
    for kind in SUMS:
        (folder / f"ml-100k.{kind}").write_text("x")
    with pytest.raises(DataError, match=r"is not the file of recbole==1\.2\.1"):
        load_hetero("ml-100k")


def test_ml100k_without_a_network(tmp_path, monkeypatch):
    monkeypatch.delenv("TESSERA_DATA", raising=False)
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        DataError, match=r"ml-100k: the download of recbole==1.2.1 failed .*; pip install recbole==1.2.1"
    ):
        load_hetero("ml-100k")


def test_ml100k(monkeypatch):
    """943 users, 1,682 films, 82,520 ratings of 3 and more."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    try:
        graph, _ = load_hetero("ml-100k")
    except DataError as error:
        pytest.skip(f"the files of ml-100k are not here: {error}")
    assert (graph.nodes["user"].count, graph.nodes["note"].count) == (943, 1682)
    assert {r[1]: e.count for r, e in graph.edges.items()} == {
        "share_note": 21201, "comment_note": 34174, "follow_note": 27145,
    }  # fmt: skip
    hidden = split(graph)
    assert hidden.how == "user"
    assert hidden.counts["test sources"] == 943
    assert hidden.counts["sources left out"] == 0
    assert np.isfinite(graph.nodes["user"].x).all()
