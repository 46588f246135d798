"""result.json and its sisters: written and read through their models, or one line that says what is wrong."""

import json
import re

import pytest
from fabricate import make_run, make_users_run

from ops.errors import DataError
from ops.results.schema import RunResult, Scores, SeedResult
from ops.results.search_schema import SearchResult
from ops.results.stored_run import read_result, read_run


def test_a_file_is_written_as_it_was_read(tmp_path):
    run = make_users_run(tmp_path / "run", later={"key": [1]})
    for model, path in ((RunResult, run / "result.json"), (SeedResult, run / "seed-0" / "result.json")):
        before = json.loads(path.read_text())
        model.read(path).write(path)
        assert json.loads(path.read_text()) == before


def test_nan_becomes_null_and_what_was_not_set_is_not_written(tmp_path):
    result = SeedResult(seed=3, last={"acc": float("nan"), "epoch": 9})
    assert result.last["acc"] is None
    result.write(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"seed": 3, "last": {"acc": None, "epoch": 9}}


def test_scores_are_their_metrics_and_their_epochs():
    scores = Scores.model_validate({"acc": {"values": [1.0], "mean": 1.0}, "nmi": None, "epochs": [4]})
    assert list(scores.metrics) == ["acc"]
    assert scores.means == {"acc": 1.0}
    assert scores.epochs == [4]


@pytest.mark.parametrize(("changes", "problem"), [
    ({"recall": 3}, "recall: Input should be an object, got 3"),
    ({"recall": {"rows": []}}, "lacks recall.queries, recall.users, recall.left_out"),
    ({"recall": {"rows": [{"name": "x"}], "queries": 1, "users": 1, "left_out": 0}}, "lacks recall.rows.0.note"),
    ({"links": {"auc": 0.5}}, "links.auc: Input should be an object, got 0.5"),
    ({"map": {"quantisation": {"mean": 1.0}}}, "lacks map.quantisation.values"),
    ({"last": {"acc": {"values": [1], "mean": "high"}}}, "last.acc.mean"),
    ({"settings": {"lr": {"source": "flag"}}}, "lacks settings.lr.value"),
])  # fmt: skip
def test_damaged_results_are_one_line_with_file_and_field(tmp_path, changes, problem):
    run = make_run(tmp_path / "run", rows=5, seeds=1, **changes)
    with pytest.raises(DataError, match=re.escape(f"{run / 'result.json'}: {problem}")) as error:
        read_result(run)
    assert "\n" not in str(error.value)


def test_a_damaged_history_and_a_damaged_search_name_their_line_and_field(tmp_path):
    run = make_run(tmp_path / "run", rows=5, seeds=1)
    history = run / "seed-0" / "history.jsonl"
    damages = {"{": "not readable JSON", '{"\udcff": 1}': "not readable JSON", '{"a": 1}': "lacks epoch",
               '{"epoch": "x"}': "epoch"}  # fmt: skip
    for line, problem in damages.items():
        history.write_text('{"epoch": 0}\n' + line + "\n", errors="surrogateescape")
        with pytest.raises(DataError, match=f"line 2: .*{problem}"):
            read_run(run)
    (tmp_path / "trials.json").write_text('{"method": "hsan", "dataset": "x", "trials": [{"status": "failed"}]}')
    with pytest.raises(DataError, match=r"trials\.json: lacks trials\.0\.trial"):
        SearchResult.read(tmp_path / "trials.json")


def test_scores_of_hidden_edges_have_names_that_mlflow_takes(tmp_path):
    result = read_result(make_users_run(tmp_path / "run"))
    assert result.recall_line.name == "hgt + SOM"
    scores = result.hidden_scores
    assert scores["test/recall_at_50"].mean == pytest.approx(0.215)  # the method's row, not the first
    assert scores["links/hits_at_10"].mean == pytest.approx(0.405)
    assert {"test/ndcg_at_50", "links/auc"} <= set(scores)
    assert all(re.fullmatch(r"[\w/. :-]+", name) for name in scores)
    assert read_result(make_run(tmp_path / "other", rows=5)).hidden_scores == {}
