"""What a run on users left: read back whole, or one line that says what is wrong."""

import re

import numpy as np
import pytest
from fabricate import MAP, make_users_run

from ops.errors import DataError
from ops.results.schema import read_result, read_run
from ops.results.stored_users import hidden_scores, method_row, read_map


def test_the_map_lies_on_its_grid(tmp_path):
    np.savez(tmp_path / "more.npz", **MAP, embedding=np.ones((5, 2)))
    found = read_map(tmp_path / "more.npz", 3)
    assert found is not None
    assert (found.seed, found.quantisation, found.topographic) == (3, 0.71, 0.025)
    np.testing.assert_array_equal(found.hits, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(found.clusters[1], [0, 0, 1, 1])


def test_runs_without_a_map_have_none(tmp_path):
    np.savez(tmp_path / "more.npz", embedding=np.ones((5, 2)))
    assert read_map(tmp_path / "more.npz", 0) is None
    assert read_map(tmp_path / "missing.npz", 0) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"map_hits": None}, "lacks map_hits; the file is damaged"),
        ({"map_hits": np.arange(11)}, r"do not fit each other \(map_umatrix \[3, 4\], map_hits \[11\]"),
        ({"map_unit_clusters": np.zeros(12)}, "do not fit each other"),  # no whole numbers
        ({"map_errors": np.zeros(3)}, "do not fit each other"),
        ({"map_umatrix": np.full((3, 4), np.nan)}, "NaN or infinity"),
        ({"map_hits": np.array([{}], dtype=object)}, "not a readable npz"),
    ],
)
def test_a_damaged_map_is_one_line(tmp_path, changes, told):
    arrays = {name: array for name, array in (MAP | changes).items() if array is not None}
    np.savez(tmp_path / "more.npz", **arrays)
    with pytest.raises(DataError, match=told):
        read_map(tmp_path / "more.npz", 0)


def test_a_cut_file_is_one_line(tmp_path):
    run = make_users_run(tmp_path / "run", seeds=1)
    path = run / "seed-0" / "more.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"more\.npz: is not a readable npz file; the file is damaged"):
        read_run(run)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"recall": 3}, "recall lacks rows"),
        ({"recall": {"rows": []}}, "recall lacks rows"),
        ({"recall": {"rows": [{"name": "x"}], "queries": 1, "users": 1, "left_out": 0}}, "recall lacks rows"),
        ({"links": {"auc": 0.5}}, "links lacks values and mean"),
        ({"map": {"quantisation": {"mean": 1.0}}}, "map lacks values and mean"),
    ],
)
def test_damaged_results_are_one_line(tmp_path, changes, told):
    with pytest.raises(DataError, match=told):
        read_result(make_users_run(tmp_path / "run", seeds=1, **changes))


def test_scores_of_hidden_edges_have_names_that_mlflow_takes(tmp_path):
    result = read_result(make_users_run(tmp_path / "run"))
    row = method_row(result)
    assert row is not None
    assert row["name"] == "hgt + SOM"
    found = hidden_scores(result)
    assert found["test/recall_at_50"]["mean"] == pytest.approx(0.215)  # the method's row, not the first
    assert found["links/hits_at_10"]["mean"] == pytest.approx(0.405)
    assert {"test/ndcg_at_50", "links/auc"} <= set(found)
    assert all(re.fullmatch(r"[\w/. :-]+", name) for name in found)
    assert hidden_scores({"method": "hsan"}) == {}
