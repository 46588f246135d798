"""The split against a brute-force reading of its own words, pair by pair in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.data.io.validate import make_hetero
from ops.data.splits import split
from ops.data.synthetic.user_item import planted_communities
from ops.data.types.hetero import Edges, Nodes, find_relations
from ops.errors import DataError, SettingsError

A, B, BACK, KNOWS = ("user", "a", "note"), ("user", "b", "note"), ("note", "back", "user"), ("user", "knows", "user")
CITES = ("note", "cites", "note")


@st.composite
def raw_graphs(draw, times=True):
    """Sizes, and by relation a list of (source, target, time)."""
    users, notes = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    sizes = {"user": users, "note": notes}
    edges = {}
    for relation in [A, *draw(st.sets(st.sampled_from([B, BACK, KNOWS, CITES])))]:
        pairs = st.tuples(st.integers(0, sizes[relation[0]] - 1), st.integers(0, sizes[relation[2]] - 1))
        drawn = draw(st.sets(pairs, min_size=1, max_size=14))
        edges[relation] = [(*p, draw(st.integers(0, 12))) for p in sorted(drawn)]
    return sizes, edges


def built(sizes, edges, times=True):
    arrays = {}
    for relation, rows in edges.items():
        s, t, at = np.array(rows, dtype=np.int64).T
        arrays[relation] = Edges(s, t, None, at if times else None)
    return make_hetero("g", {k: Nodes(np.arange(n)) for k, n in sizes.items()}, arrays)


def latest(edges, labels):
    """{pair: its latest time over the label relations}."""
    last = {}
    for relation in labels:
        for s, t, at in edges[relation]:
            last[s, t] = max(at, last.get((s, t), at))
    return last


def brute(edges, labels, how, valid, test):
    """(training edges by relation, validation pairs, test pairs), by the words of `split`."""
    time = latest(edges, labels)
    part = {}
    cut_of = {}
    if how == "time":
        ordered = sorted(time.values())
        cuts = [
            ordered[min(math.floor(len(ordered) * s + 1e-9), len(ordered) - 1)] for s in (1 - valid - test, 1 - test)
        ]
        part = {p: 2 if at >= cuts[1] else 1 if at >= cuts[0] else 0 for p, at in time.items()}
    else:
        for user in {p[0] for p in time}:
            of_user = sorted((p for p in time if p[0] == user), key=lambda p: (time[p], p))
            first = max(math.floor(len(of_user) * (1 - valid - test) + 1e-9), 1)
            second = max(math.floor(len(of_user) * (1 - test) + 1e-9), first)
            for place, pair in enumerate(of_user):
                part[pair] = 2 if place >= second else 1 if place >= first else 0
            cut_of[user] = min((time[p] for p in of_user if part[p]), default=math.inf)
    hidden = {p for p, where in part.items() if where}
    train = {}
    for relation, rows in edges.items():
        train[relation] = []
        for s, t, at in rows:
            pair = (s, t) if relation != BACK else (t, s)
            joins = relation not in (KNOWS, CITES)
            cut = cuts[0] if how == "time" else math.inf
            for kind, row in ((relation[0], s), (relation[2], t)):
                cut = min(cut, cut_of.get(row, math.inf) if kind == "user" else math.inf)
            late = relation not in labels and at >= cut
            if not (joins and pair in hidden) and not late:
                train[relation].append((s, t, at))
    trained = {s for r, rows in train.items() for s, _, _ in rows if r[0] == "user"}
    trained |= {t for r, rows in train.items() for _, t, _ in rows if r[2] == "user"}
    hidden = [sorted(p for p, where in part.items() if where == i and p[0] in trained) for i in (1, 2)]
    return train, *hidden, sum(where == 0 for where in part.values())


@given(raw_graphs(), st.sampled_from(["time", "user"]), st.sampled_from([(0.1, 0.2), (0.0, 0.5), (0.25, 0.25)]),
       st.booleans())  # fmt: skip
def test_it_is_what_its_words_say(raw, how, shares, both):
    sizes, edges = raw
    labels = [r for r in (A, B) if r in edges and (both or r == A)]
    graph = built(sizes, edges)
    train, valid, test, kept = brute(edges, labels, how, *shares)
    if not kept or not test:
        with pytest.raises(DataError, match="both are needed"):
            split(graph, how, *shares, label_relations=[r[1] for r in labels])
        return
    result = split(graph, how, *shares, label_relations=[r[1] for r in labels])
    assert result.valid.tolist() == [list(p) for p in valid]
    assert result.test.tolist() == [list(p) for p in test]
    for relation, rows in train.items():
        now = result.train.edges[relation]
        assert sorted(zip(now.src.tolist(), now.dst.tolist(), now.time.tolist(), strict=True)) == sorted(rows)
    assert result.counts["train pairs"] == kept
    assert result.counts["test pairs"] == len(test)


READ = [(0, n, n) for n in range(10)] + [(1, n, 20 + n) for n in range(10)]


def test_nothing_is_cut_by_time_where_the_label_relation_has_none():
    graph = built({"user": 2, "note": 10}, {A: READ, KNOWS: [(0, 1, 3), (1, 0, 99)], CITES: [(0, 1, 99)]})
    plain = make_hetero("g", graph.nodes, graph.edges | {A: Edges(graph.edges[A].src, graph.edges[A].dst)})
    for how in ("time", "user"):
        result = split(plain, how, label_relations=["a"]).train
        assert [result.edges[r].count for r in (KNOWS, CITES)] == [2, 1]


@given(raw_graphs(), st.sampled_from(["time", "user"]))
@settings(max_examples=15)
def test_no_hidden_pair_is_left_in_any_relation(raw, how):
    graph = built(*raw, times=False)
    try:
        result = split(graph, how)
    except DataError:
        return
    hidden = {tuple(p) for p in [*result.valid.tolist(), *result.test.tolist()]}
    assert len(hidden) == len(result.valid) + len(result.test)
    for relation, edges in result.train.edges.items():
        pairs = set(zip(edges.src.tolist(), edges.dst.tolist(), strict=True))
        if (relation[0], relation[2]) == ("user", "note"):
            assert not pairs & hidden
        elif relation == BACK:
            assert not {(b, a) for a, b in pairs} & hidden


def test_without_times_it_is_random_but_keyed():
    graph, _ = planted_communities("users=60,notes=60,clusters=2,mean_edges=4")
    plain = make_hetero("g", graph.nodes, {r: Edges(e.src, e.dst) for r, e in graph.edges.items()})
    one, same, other = split(plain), split(plain), split(plain, seed=1)
    assert one.test.tolist() == same.test.tolist() != other.test.tolist()
    assert one.cuts is None
    assert "edges without times: split at random (seed 0)" in one.train.notes
    assert [split(plain, how).hidden for how in ("time", "user")] == [
        "at random (no times)", "at random for each source (no times)",
    ]  # fmt: skip


def test_shares_of_a_global_split_and_its_cuts():
    graph, _ = planted_communities("users=400,notes=300,clusters=3")
    result = split(graph, "time")
    pairs = result.counts["train pairs"], result.counts["valid pairs"], result.counts["test pairs"]
    total = sum(pairs) + result.counts["pairs left out"]
    assert [round(p / total, 2) for p in pairs] == [0.7, 0.1, 0.2]
    assert result.cuts is not None
    assert max(int(e.time.max()) for e in result.train.edges.values() if e.time is not None) < result.cuts[0]
    assert result.train.nodes["user"] is graph.nodes["user"]
    assert result.train.digest() != graph.digest()


def test_the_default_follows_the_data_set():
    graph, _ = planted_communities("users=50,notes=50,clusters=2,mean_edges=5")
    assert (split(graph).how, split(graph).hidden) == ("time", "by time")
    assert split(graph, "user").hidden == "by each source's time"
    assert split(make_hetero("ml-100k", graph.nodes, graph.edges)).how == "user"


@pytest.mark.parametrize(("arguments", "said"), [
    ({"test": 0.0}, "shares must be"), ({"valid": 0.8, "test": 0.3}, "shares must be"),
    ({"label_relations": ["liked"]}, "liked: no such relation; the graph has: comment_note"),
])  # fmt: skip
def test_wrong_settings_are_one_line(arguments, said):
    graph, _ = planted_communities("users=50,notes=50,clusters=2,mean_edges=5")
    with pytest.raises(SettingsError, match=said):
        split(graph, **arguments)


def test_relations_by_short_names():
    relations = [("user", "follow_note", "note"), ("user", "share", "note"), ("user", "knows", "user")]
    assert find_relations(relations, ["follow"]) == (relations[0],)
    assert find_relations(relations, ["share_note", "user__follow_note__note"]) == (relations[0], relations[1])
    assert find_relations(relations, []) == tuple(relations)
