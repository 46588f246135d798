"""The panel: ranks, ties, missing values, agreement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.evaluation.model_selection import PANEL, panel

UP = {"a": True, "b": True, "c": True}


def rows(*values, names=("a", "b", "c")):
    return [dict(zip(names, v, strict=False)) for v in values]


def test_ranks_by_hand():
    """Ranks by column: a 3 1 2, b (less is better) 1 3 2, so all means are 2 and the last wins."""
    verdict = panel(rows((1, 0.1), (3, 0.9), (2, 0.5)), {"a": True, "b": False})
    assert verdict.ranks.tolist() == [2, 2, 2]
    assert verdict.chosen == 2
    assert verdict.voters == ()


def test_the_panels_own_directions():
    good = {"silhouette": 0.6, "davies_bouldin": 0.5, "modularity": 0.7, "conductance": 0.1}
    bad = {"silhouette": 0.1, "davies_bouldin": 2.0, "modularity": 0.2, "conductance": 0.6}
    verdict = panel([bad, good, bad])
    assert verdict.chosen == 1
    assert verdict.ranks.tolist() == [2.5, 1, 2.5]
    assert set(verdict.voters) == set(PANEL)


def test_ties_take_the_later_one():
    assert panel(rows((1, 1), (1, 1), (0, 0)), {"a": True, "b": True}).chosen == 1
    assert panel(rows((5,), (5,), (5,)), {"a": True}).chosen == 2


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("more_is_better", [True, False])
def test_values_that_are_not_finite_rank_last(missing, more_is_better):
    verdict = panel(rows((missing,), (2,), (3,), (missing,)), {"a": more_is_better})
    assert verdict.chosen == (2 if more_is_better else 1)
    assert verdict.ranks[0] == verdict.ranks[3] == 3.5


def test_only_common_indices_vote():
    verdict = panel([{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 9.0, "c": 1.0}], UP)
    assert verdict.ranks.tolist() == [1.5, 1.5]
    assert panel([{"a": 1.0, "b": 0.0}, {"a": 0.0}], UP).chosen == 0


@pytest.mark.parametrize("candidates", [[], [{}], [{"a": 1.0}, {"b": 1.0}], [{"x": 1.0}]])
def test_nothing_to_choose_from(candidates):
    with pytest.raises(ValueError, match=f"nothing to choose from: {len(candidates)} candidates"):
        panel(candidates, UP)


def test_full_agreement():
    verdict = panel(rows((1, 10, 5), (2, 20, 6), (3, 30, 7)), UP)
    assert verdict.agreement == 1
    assert verdict.chosen == 2
    assert verdict.sentence() == (
        "the indices order the candidates alike (Kendall's W 1.00), the chosen one first by a, b, c"
    )


def test_no_agreement():
    verdict = panel(rows((1, 3), (2, 2), (3, 1)), {"a": True, "b": True})
    assert verdict.agreement == 0
    assert verdict.sentence().endswith("differently (Kendall's W 0.00), the chosen one first by a")


def test_agreement_by_hand():
    """Three judges over three candidates, rank sums 4, 5, 9: S = 14, W = 12 * 14 / (9 * 24)."""
    verdict = panel(rows((3, 3, 2), (2, 2, 3), (1, 1, 1)), UP)
    assert verdict.agreement == pytest.approx(12 * 14 / (9 * 24))
    assert "candidates alike (" in verdict.sentence()
    partly = panel(rows((3, 3, 1), (2, 2, 3), (1, 1, 2)), UP)  # sums 5, 5, 8: S = 6
    assert partly.agreement == pytest.approx(12 * 6 / (9 * 24))
    assert "differently" in partly.sentence()


def test_one_candidate_or_one_index_cannot_disagree():
    assert panel(rows((1, 2, 3)), UP).sentence() == "only one candidate"
    assert panel(rows((1,), (2,)), {"a": True}).agreement == 1


@given(data=st.data(), c=st.integers(1, 7), j=st.integers(1, 3))
def test_any_panel(data, c, j):
    names = list(UP)[:j]
    value = st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")))
    table = [dict(zip(names, data.draw(st.lists(value, min_size=j, max_size=j)), strict=True)) for _ in range(c)]
    verdict = panel(table, UP)
    assert verdict.ranks.mean() == pytest.approx((c + 1) / 2)
    assert verdict.ranks[verdict.chosen] == verdict.ranks.min()
    assert (verdict.ranks[verdict.chosen + 1 :] > verdict.ranks.min()).all()
    assert 0 <= verdict.agreement <= 1
    # a monotone change of one index moves no rank
    moved = [{k: v**3 + 5 for k, v in row.items()} for row in table]
    assert np.array_equal(panel(moved, UP).ranks, verdict.ranks)
