"""The planted graphs: what was asked for is in them, and they are the same however they are made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.data.hetero_load import load_hetero
from ops.data.synthetic import user_item
from ops.data.synthetic.draws import Shuffle, degrees, distinct, group_sizes, ranks
from ops.data.synthetic.user_item import Planted, parse_user_item, planted_communities
from ops.errors import DataError, SettingsError


@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_shuffle_is_one_to_one_both_ways(n, seed):
    shuffle, rows = Shuffle(n, seed, "x"), np.arange(n)
    places = shuffle.place(rows)
    assert sorted(places.tolist()) == rows.tolist()
    assert shuffle.back(places).tolist() == rows.tolist()


def test_groups_tell_nothing_of_ids():
    """Neither neighbouring ids nor ids of one residue share a group more often than chance."""
    groups = Shuffle(20_000, 0, "user").place(np.arange(20_000)) % 10
    assert abs((groups[1:] == groups[:-1]).mean() - 0.1) < 0.01
    for parts in (2, 4, 8, 20):
        counts = np.array([np.bincount(groups[p::parts], minlength=10) for p in range(parts)])
        expected = 20_000 / parts / 10
        # a chi-square of (parts - 1) * 9 degrees of freedom stays within six deviations
        chi, free = ((counts - expected) ** 2 / expected).sum(), (parts - 1) * 9
        assert chi < free + 6 * np.sqrt(2 * free)


def test_draws_follow_their_laws():
    rng = np.random.default_rng(0)
    drawn = degrees(50_000, 15.0, 750.0, 1.5, rng)
    assert drawn.mean() == pytest.approx(15, rel=0.05)
    assert drawn.min() >= 1
    assert drawn.max() <= 750
    assert (drawn > 60).mean() == pytest.approx((drawn > 15).mean() * 4**-1.5, rel=0.25)
    rank = ranks(np.full(200_000, 1000), 0.8, rng)
    share = np.bincount(rank, minlength=1000) / rank.size
    assert share[9:29].sum() / share[99:299].sum() == pytest.approx(10**-0.2, rel=0.1)
    assert group_sizes(11, 3).tolist() == [4, 4, 3]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 99))
def test_distinct_draws_differ(owners, seed):
    rng = np.random.default_rng(seed)
    codes = distinct(np.array(owners), lambda o: rng.integers(-1, 12, size=o.size), 12)
    assert codes.tolist() == sorted(set(codes.tolist()))
    per_owner = np.bincount(codes // 12, minlength=5)
    assert (per_owner <= np.bincount(owners, minlength=5)).all()


def test_what_was_asked_for_is_planted():
    graph, groups = planted_communities("users=3000,notes=2000,clusters=10,mixing=0.3,features=4,feature_noise=0.5")
    assert {k: np.bincount(g).tolist() for k, g in groups.items()} == {"user": [300] * 10, "note": [200] * 10}
    assert sum(e.count for e in graph.edges.values()) / 3000 == pytest.approx(15, rel=0.05)
    for (_, name, _), share in user_item.RELATIONS.items():
        edges = graph.edges["user", name, "note"]
        assert edges.count / 45_000 == pytest.approx(share, rel=0.06)
        assert (groups["user"][edges.src] != groups["note"][edges.dst]).mean() == pytest.approx(0.32, abs=0.04)
        assert edges.weight.min() > 0
        assert edges.time.min() >= user_item.START
    popular = np.sort(np.bincount(np.concatenate([e.dst for e in graph.edges.values()]), minlength=2000))[::-1]
    assert popular[:200].sum() > 3 * popular[1000:1200].sum()
    x = graph.nodes["user"].x
    centres = np.stack([x[groups["user"] == g].mean(0) for g in range(10)])
    assert (x - centres[groups["user"]]).std() == pytest.approx(0.5, rel=0.05)


def test_blocks_do_not_change_with_the_number_of_nodes_around_them(monkeypatch):
    monkeypatch.setattr(user_item, "BLOCK", 64)
    p = Planted(users=200, notes=100, clusters=4, mean_edges=4, features=3)
    blocks = list(user_item.blocks(p, "user"))
    assert [b.first for b in blocks] == [0, 64, 128, 192]
    again = list(user_item.blocks(p, "user"))[2]
    assert again.x.tolist() == blocks[2].x.tolist()
    for relation, edges in again.edges.items():
        assert edges.src.tolist() == blocks[2].edges[relation].src.tolist()
        assert edges.src.min() >= 128
    other = next(user_item.blocks(Planted(users=200, notes=100, clusters=4, mean_edges=4, features=3, seed=1), "user"))
    assert other.x.tolist() != blocks[0].x.tolist()


def test_a_homogeneous_graph_has_both_directions_once():
    graph, groups = planted_communities("homogeneous=true,users=2000,clusters=5,mean_edges=16")
    edges = graph.edges["node", "edge", "node"]
    pairs = set(zip(edges.src.tolist(), edges.dst.tolist(), strict=True))
    assert len(pairs) == edges.count
    assert {(b, a) for a, b in pairs} == pairs
    assert not any(a == b for a, b in pairs)
    assert edges.count / 2000 == pytest.approx(16, rel=0.05)
    assert (groups["node"][edges.src] != groups["node"][edges.dst]).mean() == pytest.approx(0.3, abs=0.03)


def test_friends_are_a_side_relation_that_leaves_all_else_as_it_was():
    words = "users=800,notes=300,clusters=5,mean_edges=4,features=2"
    plain, groups = planted_communities(words)
    graph, same = planted_communities(f"{words},friends=6,friend_mixing=0.2")
    friends = graph.edges.pop(user_item.FRIENDS)
    assert {r: e.dst.tolist() for r, e in graph.edges.items()} == {r: e.dst.tolist() for r, e in plain.edges.items()}
    assert same["user"].tolist() == groups["user"].tolist()
    pairs = set(zip(friends.src.tolist(), friends.dst.tolist(), strict=True))
    assert len(pairs) == friends.count == pytest.approx(6 * 800, rel=0.05)
    assert not any(a == b for a, b in pairs)
    assert (groups["user"][friends.src] != groups["user"][friends.dst]).mean() == pytest.approx(0.2, abs=0.03)
    assert friends.time is None


def test_names():
    assert parse_user_item("bench") == Planted(users=100_000, notes=50_000, clusters=100)
    assert parse_user_item("bench, seed=3").seed == 3
    assert parse_user_item("homogeneous=0").homogeneous is False
    graph, groups = load_hetero("planted:users=40,notes=30,clusters=2,features=0,mean_edges=3")
    assert (graph.name, sorted(groups)) == ("planted", ["note", "user"])
    assert graph.nodes["user"].x is None
    one, labels = load_hetero("planted:nodes=40,clusters=2")
    assert (list(one.nodes), labels["node"].size) == (["node"], 40)


@pytest.mark.parametrize(("parameters", "kind", "said"), [
    ("user=3", SettingsError, "unknown 'user'; allowed: bench, users"),
    ("users=x", SettingsError, "users=x: Input should be a valid integer"),
    ("mixing=2", SettingsError, "mixing=2: .* less than or equal to 1"), ("users=1", SettingsError, "users=1: .* to 2"),
    ("clusters=700", DataError, "clusters=700 must be <= 600"), ("mean_edges=80", SettingsError, "must be in"),
    ("mixing=nan", SettingsError, "mixing=nan: .*finite"), ("homogeneous=maybe", SettingsError, "valid boolean"),
    ("features=-1", SettingsError, "features=-1: .* to 0"),
    ("friends=20", SettingsError, r"friends=20 must be 0 or in \[1, 12.5\]"),
    ("homogeneous,friends=2", SettingsError, "friends=2 of a homogeneous graph must be 0"),
])  # fmt: skip
def test_wrong_parameters_are_one_line(parameters, kind, said):
    with pytest.raises(kind, match=said):
        planted_communities(parameters)
