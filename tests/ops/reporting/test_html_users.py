"""The report of a run on users: recall of hidden notes, links, the map."""

import json
import re

import pytest
from fabricate import make_study, make_users_run

from ops.evaluation.recall import SPREAD_AT
from ops.reporting.answer import answer
from ops.reporting.drawings import curve_titles
from ops.reporting.html import write_report
from ops.reporting.tables import RECALL_LEGEND, recall_text, result_text
from ops.results.schema import Interval, RecallTable, RunResult, Scores
from ops.results.stored_run import read_run

pytestmark = pytest.mark.usefixtures("unrendered")  # but for the report of `run`


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_users_run(tmp_path_factory.mktemp("users") / "run")
    write_report(folder)
    return folder


def plain(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ")


def section(html):
    return html.split("<h2>Recall of hidden notes</h2>")[1].split("</section>")[0]


def test_recall_is_a_table_with_the_methods_row_marked(run):
    recall = section((run / "report.html").read_text())
    rows = re.findall(r'<tr( class="last")?><th scope="row">(.*?)(?:<small>(.*?)</small>)?</th>(.*?)</tr>', recall)
    assert [(name, bool(marked), note) for marked, name, note, _ in rows] == [
        ("popularity", False, ""),
        ("hgt + SOM", True, ""),
        ("hgt, all users", False, ""),
        ("hgt, all users, boosted", False, "b = 0.5"),
    ]
    cells = [re.findall(r"<td>(.*?)(?:<small>(.*?)</small>)?</td>", row[3]) for row in rows]
    assert cells[0][:2] == [("20.0", ""), ("20.0", "")]  # popularity has no seeds
    assert cells[1][0] == ("21.5", "± 0.7")
    assert all(len(each) == 9 for each in cells)
    text = plain(recall)
    for part in ("Recall@10 %", "users scanned", "Gini", "± standard deviation over 2 seeds", "Coverage: share of all",
                 "Asked: 90 of 100 users with training and hidden notes; left out: 3 without",
                 "AUC 0.805 ± 0.007", "Hits@10 0.405 ± 0.007"):  # fmt: skip
        assert part in text


def test_the_first_lines_have_recall_and_say_where_embeddings_are(run):
    html = (run / "report.html").read_text()
    head = plain(html[html.index("<h1>") : html.index("<h2>")])
    assert re.search(r"21\.5 ± 0\.7 test Recall@50 % 0\.805 ± 0\.007 link AUC", head)
    assert "embeddings.parquet: id, vector, cluster, confidence of every row" in plain(html)
    assert "quantisation 0.705 ± 0.007, topographic 0.025 ± 0.007" in plain(html)
    assert "validation Recall@50 %" in plain(html)


def test_the_map_is_drawn_with_its_errors(run):
    html = (run / "report.html").read_text()
    figure = html.split("<h3>Self-organising map of the users</h3>")[1].split("</figure>")[0]
    assert figure.count("data:image/png") == 1
    assert "Quantisation error 0.710" in figure
    assert "topographic error 0.025" in figure
    assert (run / "figures" / "som.png").read_bytes().startswith(b"\x89PNG")


def test_validation_recall_is_drawn_over_epochs_and_not_twice(run):
    titles = curve_titles(read_run(run))
    assert titles["cluster/recall_at_50"] == "Validation Recall@50 (%)"
    assert "tune/score" not in titles  # of users it is the same


def test_the_terminal_has_both_tables(run):
    lines = result_text(RunResult.read(run / "result.json")).splitlines()
    assert "45.5 ± 0.7" in lines[4]
    row = next(line for line in lines if line.startswith("hgt + SOM"))
    assert row.split()[3:6] == ["21.5", "±", "0.7"]
    assert row.split()[21:24] == ["1,234", "90.5", "±"]  # the number of users scanned has no spread
    assert "hgt, all users, boosted: b = 0.5" in lines
    assert lines[-2] == "asked: 90 of 100 users with training and hidden notes; left out: 3 without training notes"
    assert lines[-1].startswith("links: hidden edges against 100 drawn ones each: AUC 0.805 ± 0.007")
    assert f"the first {SPREAD_AT} of" in RECALL_LEGEND


def test_a_value_that_is_missing_is_a_dash_and_all_who_could_be_asked_are_told():
    metrics = {"recall@10": {"values": [None, 0.5], "mean": 0.5, "std": None}, "gini": {"values": [], "mean": None}}
    table = {"rows": [{"name": "x", "note": "", "metrics": metrics}], "queries": 7, "users": 7, "left_out": 0}
    lines = recall_text(RecallTable.model_validate(table)).splitlines()
    assert lines[2].split() == ["x", "50.0", *["-"] * 8]
    assert lines[-1].startswith("asked: all 7 users")
    table["rows"][0]["gain"] = {"mean": 0.02, "low": -0.01, "high": 0.05}
    lines = recall_text(RecallTable.model_validate(table)).splitlines()
    assert lines[3].split() == ["x", "+2.0", "(-1.0", "to", "+5.0)", "50.0", *["-"] * 8]
    assert lines[4].startswith("@50 less the clusters': ")


@pytest.mark.parametrize(("low", "high", "said"), [(0.01, 0.05, "EASE finds more hidden notes than hgt + SOM"),
                                                   (-0.05, -0.01, "hgt + SOM finds more hidden notes than EASE"),
                                                   (-0.01, 0.05, "hgt + SOM and EASE find as many")])  # fmt: skip
def test_the_answer_follows_the_interval_of_the_strongest_simpler_row(run, low, high, said):
    result = RunResult.read(run / "result.json")
    line = result.recall.rows[0].model_copy(update={"name": "EASE", "gain": Interval(mean=0.02, low=low, high=high)})
    result.recall.rows.append(line)
    result.recall.rows[0].metrics = Scores()  # popularity, below
    assert answer(result)[1].startswith(said)  # after the sentence on labels


def test_k_means_and_nothing_hidden_leave_the_sections_out(tmp_path):
    runs = [
        make_users_run(tmp_path / "a", seeds=1, cluster="kmeans"),
        make_users_run(tmp_path / "b", seeds=1, cluster="kmeans", recall=None, links=None),
    ]
    for run in runs:
        (run / "seed-0" / "history.jsonl").unlink()  # curves take most of a report's time
    html = write_report(runs[0]).read_text()
    assert "hgt + k-means" in section(html)
    assert "Self-organising map" not in html
    assert not (tmp_path / "a" / "figures" / "som.png").exists()
    html = write_report(runs[1]).read_text()
    assert "Recall of hidden notes" not in html


def test_a_search_on_users_says_what_ranked_its_trials(tmp_path):
    study = make_study(tmp_path / "study", best=False)
    ranked = "pruned and ranked by tune/score, here Recall@50 of the validation pairs"
    assert ranked not in plain(write_report(study).read_text())
    trials = json.loads((study / "trials.json").read_text())
    for trial in trials["trials"]:
        trial["metrics"] = trial.get("metrics", {}) | {"recall_at_50": 0.1}
    (study / "trials.json").write_text(json.dumps(trials))
    assert ranked in plain(write_report(study).read_text())
