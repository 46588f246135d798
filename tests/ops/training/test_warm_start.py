import numpy as np
import pytest

from ops.api import Warm
from ops.clustering.label_matching import matched_ids
from ops.training.warm_start import sentence


def warm(rows, clusters) -> Warm:
    return Warm("runs/a", {}, np.array(rows), np.array(clusters), "")


def test_new_clusters_take_the_ids_of_the_old_ones_they_share_most_nodes_with():
    start = warm([0, 1, 2, 3, 4, 5, -1, -1], [2, 2, 0, 0, 1, 1])
    result = np.array([0, 0, 1, 1, 2, 1, 0, 2])
    ids = matched_ids(*start.shared(result), 3)
    assert ids.tolist() == [2, 0, 1]
    assert start.kept(ids[result]) == pytest.approx(5 / 6)
    assert start.kept(result) == pytest.approx(1 / 6)
    assert sentence(start) == "warm start from runs/a: 6 known nodes (matched by id), 2 new"


def test_the_best_table_is_found_not_the_greedy_one():
    # new 0 shares 5 with old 0 and 4 with old 1; new 1 shares 4 with old 0 only: 4 + 4 beats 5 + 0
    start = warm(np.arange(13), [0] * 5 + [1] * 4 + [0] * 4)
    assert matched_ids(*start.shared(np.array([0] * 9 + [1] * 4)), 2).tolist() == [1, 0]


def test_another_number_of_clusters():
    start = warm([0, 1, 2, 3, -1], [1, 1, 0, 0])
    assert matched_ids(*start.shared(np.array([2, 2, 3, 3, 0])), 4).tolist() == [2, 3, 1, 0]
    shrunk = warm([0, 1, 2, 3], [3, 1, 1, 3])
    assert sorted(matched_ids(*shrunk.shared(np.array([0, 1, 1, 0])), 2).tolist()) == [0, 1]
    assert matched_ids(*shrunk.shared(np.array([0, 1, 1, 0])), 2)[1] == 1  # old 3 is no id any more


def test_gone_nodes_and_row_numbers_are_said():
    start = Warm("r", {}, np.array([0, -1]), np.array([0, 1, 1]), "", by_number=True)
    assert sentence(start).endswith("1 known nodes (matched by row number, as the data has no ids), 1 new, 2 gone")
