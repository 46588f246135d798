"""Users to place as files and data frames tell them: every form, ids as numbers and words, what is left out, errors."""

import numpy as np
import pandas as pd
import pytest
from refusals import one_line

from ops.data.user_requests import Vocabulary, read_new
from ops.data.user_requests_frame import users_from_frame
from ops.errors import DataError

FOLLOW, BACK = ("user", "follow_note", "note"), ("note", "rev_follow_note", "user")
SHARE, SHARED = ("user", "share_note", "note"), ("note", "rev_share_note", "user")
ABOUT, OF = ("note", "about", "topic"), ("topic", "rev_about", "note")
MODEL = Vocabulary(
    "runs/a", "user", "note", (BACK, SHARED, OF, ABOUT, FOLLOW, SHARE),
    {"user": np.array([10, 11, 12]), "note": np.array(["x", "y", "7"])}, 0,
)  # fmt: skip
SAME = Vocabulary("runs/b", "node", "node", (("node", "edge", "node"),), {"node": np.array([5, 6, 7])}, 2)
TRUSTS = Vocabulary(
    "runs/c", "user", "user", (("user", "trust", "user"), ("user", "rev_trust", "user")), {"user": np.arange(4)}, 0
)


def put(folder, **files):
    """`edges__user__follow_note__note="src,dst\\n..."` as edges/user__follow_note__note.csv; returns the folder."""
    for name, text in files.items():
        top, _, rest = name.partition("__")
        (folder / top).mkdir(exist_ok=True)
        (folder / top / f"{rest}.csv").write_text(text)
    return str(folder)


def edges_of(new, relation):
    """[(row, number)] of a relation."""
    links = new.rows.edges[relation]
    return list(zip(links.rows.tolist(), links.numbers.tolist(), strict=True))


def test_edges_lead_from_new_and_known_users_to_known_notes(tmp_path):
    spec = put(
        tmp_path, nodes__user="id\n12\nnew\n10\n", edges__note__about__topic="src,dst\nx,t\n",
        edges__user__follow_note__note="src,dst\nnew,7\n12,x\nnew,x\nnew,7\n",
    )  # fmt: skip
    new = read_new(spec, MODEL)
    assert new.ids.tolist() == ["12", "new", "10"]
    assert new.rows.numbers.tolist() == [2, -1, 0]
    assert edges_of(new, BACK) == [(0, 0), (1, 0), (1, 2)]
    assert edges_of(new, SHARED) == []
    assert new.notes == ("note__about__topic: left out, the model places no user by it",)


def test_without_a_table_users_are_those_of_the_edges(tmp_path):
    new = read_new(put(tmp_path, edges__user__share_note__note="src,dst\n12,y\n4,x\n12,x\n"), MODEL)
    assert new.ids.tolist() == [4, 12]
    assert new.rows.numbers.tolist() == [-1, 2]
    assert edges_of(new, SHARED) == [(0, 0), (1, 0), (1, 1)]


def test_the_originals_files_are_read_too(tmp_path):
    (tmp_path / "user_node_0.txt").write_text("id:int64\tfeature:string\n10\t1.0:2.0\n99\t3.0:4.0\n")
    (tmp_path / "follow_note_edge_0.txt").write_text("src_id:int64\tdst_id:int64\tweight:float\n99\t7\t1.0\n")
    model = Vocabulary("runs/a", "user", "note", (BACK, FOLLOW), MODEL.ids, 0)
    new = read_new(str(tmp_path), model)
    assert edges_of(new, BACK) == [(1, 2)]
    assert new.notes == ("features of users are not used: the model places them by their edges",)
    assert new.rows.x is None


def test_a_symmetric_relation_counts_from_both_ends_and_not_between_new_nodes(tmp_path):
    spec = put(
        tmp_path, nodes__node="id,a,b\n1,0,0\n2,0,1\n6,1,1\n",
        edges__node__edge__node="src,dst\n1,5\n7,1\n5,1\n2,6\n1,2\n6,7\n",
    )  # fmt: skip
    new = read_new(spec, SAME)
    assert edges_of(new, ("node", "edge", "node")) == [(0, 0), (0, 2), (1, 1), (2, 2)]
    assert new.rows.x.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert new.notes == ("1 edge between new nodes left out: the model knows neither end",)
    with pytest.raises(
        DataError, match=r"row 0: dst 8 is not among the 1 users given here, nor among those that runs/c"
    ):
        read_new(put(tmp_path / "..", nodes__user="id\n9\n", edges__user__trust__user="src,dst\n9,8\n"), TRUSTS)


def test_a_directed_relation_of_one_type_has_two_ways(tmp_path):
    spec = put(tmp_path, nodes__user="id\n9\n", edges__user__trust__user="src,dst\n9,3\n2,9\n")
    new = read_new(spec, TRUSTS)
    assert edges_of(new, ("user", "rev_trust", "user")) == [(0, 3)]
    assert edges_of(new, ("user", "trust", "user")) == [(0, 2)]
    put(tmp_path, edges__user__trust__user="src,dst\n9,3\n9,8\n")
    with pytest.raises(
        DataError, match="row 1: dst 8 is not among the 1 users given here, nor among those that runs/c"
    ):
        read_new(spec, TRUSTS)


@pytest.mark.parametrize(("files", "said"), [
    ({"nodes__user": "id\n1\n", "edges__user__follow_note__note": "src,dst\n1,z\n"},
     "row 0: dst 'z' is not among the 3 notes that runs/a knows; leave the edge out, or train again with it"),
    ({"nodes__user": "id\n1\n", "edges__user__follow_note__note": "src,dst\n2,x\n"},
     "row 0: src 2 is not among the 1 users given here; add it to their table"),
    ({"nodes__user": "id\n1\n", "edges__user__like_note__note": "src,dst\n1,x\n"},
     "user__like_note__note is no relation of the model, which has note__about__topic, user__follow_note__note"),
    ({"edges__note__about__topic": "src,dst\nx,t\n"}, "has no table of users; give nodes/user.csv with their ids"),
])  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, files, said):
    assert said in one_line(DataError, read_new, put(tmp_path, **files), MODEL)


def frame(**columns):
    return pd.DataFrame(columns)


def test_a_frame_has_one_row_an_edge_and_users_in_order():
    rows = frame(
        user=["new", "10", "new", "z"], note=["y", "x", "7", None], relation=["follow", "share_note", "follow", None]
    )
    new = users_from_frame(rows, MODEL)
    assert new.ids.tolist() == ["new", "10", "z"]
    assert new.rows.numbers.tolist() == [-1, 0, -1]
    assert edges_of(new, BACK) == [(0, 1), (0, 2)]
    assert edges_of(new, SHARED) == [(1, 0)]


def test_a_frames_features_are_those_of_the_first_row_and_one_relation_needs_no_name():
    rows = frame(src=[9, 9, 5], dst=[5.0, 7.0, np.nan], b=[1, 8, 2], a=[3, 8, 4])
    new = users_from_frame(rows, SAME)
    assert new.rows.x.tolist() == [[1, 3], [2, 4]]
    assert edges_of(new, ("node", "edge", "node")) == [(0, 0), (0, 2)]


@pytest.mark.parametrize(("rows", "model", "said"), [
    (frame(user=[1]), MODEL, "has no column note; give one row an edge"),
    (frame(user=[1], note=["x"]), MODEL, "has no column relation; the model has follow_note, share_note"),
    (frame(user=[1, 2], note=["x", "x"], relation=["follow", "like"]), MODEL, "row 1: relation 'like' is none of"),
    (frame(user=[1, None], note=["x", "x"], relation="follow"), MODEL, "row 1: user is missing"),
    (frame(user=[1, 2], note=[None, "q"], relation="follow"), MODEL, "row 1: dst 'q' is not among the 3 notes"),
    (frame(src=[1], dst=[5], a=[1]), SAME, "1 features a node, the model was trained on 2"),
    (frame(src=[1], dst=[5], a=[1], b=["w"]), SAME, "a feature is not a number"),
    (frame(src=[1], dst=[5], a=[1], b=[np.nan]), SAME, "NaN or infinite"),
    (frame(user=[], note=[], relation=[]), MODEL, "has no rows"),
])  # fmt: skip
def test_a_frame_that_does_not_fit_is_named(rows, model, said):
    assert said in one_line(DataError, users_from_frame, rows, model)
