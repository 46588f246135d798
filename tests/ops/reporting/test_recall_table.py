"""The recall table's text."""

import numpy as np
import scipy.sparse as sp

from ops.evaluation.recall import KS, Boosted, RecallRow, make_task
from ops.reporting.recall_table import boost_line, recall_table, stored_cells


def row(name, value, note="", **more):
    metrics = {f"{what}@{k}": value for what in ("recall", "ndcg", "hit_rate") for k in KS}
    return RecallRow(name, metrics | {"scanned": 98_972.4, "coverage": 0.5, "gini": 0.25} | more, 10, 12, note)


def test_one_line_a_name_and_a_spread_over_seeds():
    text = recall_table([row("HGT", 0.1), row("popularity", 0.05, scanned=0.0), row("HGT", 0.2)]).splitlines()
    assert text[0].split()[:2] == ["Recall@10", "%"]
    assert text[2].split() == [
        "HGT", *["15.0", "±", "7.1"] * 6, "98,972", "50.0", "±", "0.0", "0.250", "±", "0.000"
    ]  # fmt: skip
    assert text[3].split() == ["popularity", *["5.0"] * 6, "0", "50.0", "0.250"]
    assert len(text) == 5
    assert "0 alike, 1 one note for all" in text[4]


def test_it_says_who_was_asked_and_what_was_done():
    train = sp.csr_array(np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 0]]))
    pairs = (np.array([0, 1, 2, 1]), np.array([1, 2, 0, 0]))
    every, one = (make_task(train, pairs, max_queries=m) for m in (5, 1))
    text = recall_table([row("x", 0.1, "b = 2"), row("x", 0.2, "b = 2")], every).splitlines()
    said = "users with training and hidden notes; left out: 1 without training notes"
    assert text[-2] == f"asked: all 2 {said}; 1 hidden pairs given twice or known from training"
    assert text[-1] == "x: b = 2"
    assert f"asked: 1 of 2 {said}" in recall_table([row("x", 0.1)], one)


def test_a_missing_value_is_a_dash():
    assert recall_table([RecallRow("x", {"recall@10": 0.5}, 1, 1)]).splitlines()[2].split() == ["x", "50.0", *["-"] * 8]


def test_the_boost_in_one_line():
    found = Boosted(0.5, {0.0: 0.1, 0.5: 0.12}, (row("x", 0.2), row("x, boosted", 0.215)))
    assert boost_line(found) == "boost b = 0.5: Recall@50 20.0 -> 21.5 % (validation by b: 0: 10.0, 0.5: 12.0)"


def test_stored_values_become_cells_and_missing_ones_a_dash():
    cells = stored_cells({"recall@10": {"values": [0.1, 0.2], "mean": 0.15}, "gini": {"values": [0.25], "mean": 0.25},
                          "recall@20": {"values": [None, 0.3], "mean": 0.3}})  # fmt: skip
    assert cells[:3] == [("15.0", "± 7.1"), ("30.0", ""), ("-", "")]
    assert cells[-1] == ("0.250", "")
