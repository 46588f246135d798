"""The report of a run or a study: one file, its headline, tables, pictures and sections."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricate import AUTO, make_run, make_study, spread

from ops.errors import DataError
from ops.evaluation.explain import explain
from ops.reporting import html as reports
from ops.reporting.answer import answer
from ops.reporting.drawings import tsne
from ops.reporting.html import render, try_report, write_report
from ops.reporting.tables import summary_table, trials_table
from ops.results.arrays import read_sample
from ops.results.schema import RunResult
from ops.results.search_schema import SearchResult
from ops.results.statistics import over_seeds
from workflows.report import main

pytestmark = pytest.mark.usefixtures("unrendered")  # but for the report of `run`
PICTURES = {"tsne", "similarity", "curves", "scores", "sizes", "hard"}


def result_of(run: Path) -> RunResult:
    return RunResult.read(run / "result.json")


def drawn(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "figures").iterdir()}


def headings(html: str) -> list[str]:
    return re.findall(r"<h[123]>(.*?)</h[123]>", html)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("report") / "run")
    (folder / "auto.json").write_text(json.dumps(AUTO))
    write_report(folder)
    return folder


def test_report_is_one_file_that_needs_nothing_else(run):
    html = (run / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", html)
    assert not re.findall(r"<script src|<link|@import|url\(|https?://", html)
    assert html.count("<figure") == len(PICTURES) + 1  # each once
    assert len(html) < 3_000_000
    assert drawn(run) == PICTURES | {"auto"}
    assert not list(run.rglob("*.tmp"))


def test_first_lines_tell_what_was_run_and_the_headline(run):
    html = (run / "report.html").read_text()
    head, _, rest = re.sub(r"<[^>]+>", "", html[html.index("<h1>") :]).partition("Scores")
    for part in ("hsan on digits", "Training beat filter + k-means here (ACC 85.8 against 77.8): use these clusters.",
                 "1,797 rows", "3f2a91c0d4e5", "K = 10, chosen by --n-clusters auto", "85.8", "0.717"):  # fmt: skip
        assert part in head
    for part in ("83.2 s", "151.7 s", "0.91 GiB (planned 0.88 GiB)", "at epoch 120", "--dataset digits"):
        assert part in rest[rest.index("Provenance") :]


def test_warnings_notes_and_the_reasons_of_the_choice_are_told(tmp_path):
    changes = {
        "warnings": ["seed 0 collapsed"],
        "stability": 0.9,
        "dataset": {"name": "mine", "notes": ["3 self loops"]},
    }
    folder = bare(tmp_path, **changes)
    (folder / "seed-0").mkdir()
    (folder / "seed-0" / "result.json").write_text('{"selected_by": "indices DISAGREE"}')
    html = write_report(folder).read_text()
    for part in ("Warning: seed 0 collapsed", "0.900", "3 self loops", "indices DISAGREE", "K = 10, from default"):
        assert part in html


def test_tables_stand_in_the_fixed_order(run):
    html = (run / "report.html").read_text()
    rows = re.findall(r'<th scope="row">(.*?)<small>(.*?)</small>', html)
    assert [name for name, _ in rows] == ["last", "selected", "oracle", "k-means on X", "filter + k-means"]
    assert rows[2][1].startswith("uses labels, not a result")
    assert rows[1][1].endswith("(epochs 150, 150)")
    assert re.search(r"<td>beta</td>\s*<td[^>]*>2</td>\s*<td[^>]*>preset</td>", html)


def test_without_labels_no_label_column_and_no_oracle(tmp_path):
    folder = make_run(tmp_path / "run", labels=False, seeds=1, baselines={})
    html = write_report(folder).read_text()
    assert drawn(folder) == PICTURES - {"scores"}
    assert "ACC %" not in html
    assert "oracle" not in html[html.index("<body>") :]
    assert "No labels were given" in html
    table = summary_table(result_of(folder))
    assert "ACC" not in table.splitlines()[1]
    assert "No labels were given" in table
    assert "±" not in table  # one seed has no spread


def test_tsne_is_kept_and_renewed_when_its_rows_change(run):
    sample, path = read_sample(run / "seed-0"), run / "seed-0" / "tsne.npz"
    cached, written = tsne(sample, path), path.stat().st_mtime_ns
    again = tsne(sample, path)
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"damaged")
    fresh = tsne(sample, path)
    assert cached is not None
    assert cached[1].shape == (60, 2)
    np.testing.assert_array_equal(cached, again)
    np.testing.assert_array_equal(cached, fresh)
    other = tsne(sample | {"after": sample["before"]}, path)
    assert other is not None
    np.testing.assert_array_equal(other[0], other[1])


@pytest.mark.parametrize("width", [1, 3])
def test_constant_embeddings_and_one_column_have_coordinates(tmp_path, width):
    before = np.random.default_rng([0, 2]).standard_normal((12, width)).astype(np.float32)
    sample = {"before": before, "after": np.zeros_like(before), "cluster": np.zeros(12, np.int64)}
    assert np.isfinite(tsne(sample, tmp_path / "tsne.npz")).all()


def bare(folder: Path, **changes: object) -> Path:
    """A run of which only result.json is left: quick to report."""
    whole = make_run(folder / "whole", rows=20, seeds=1, **changes)
    (folder / "bare").mkdir()
    shutil.copy(whole / "result.json", folder / "bare")
    return folder / "bare"


def test_optional_keys_may_be_absent(tmp_path):
    least = {"method": "hsan", "dataset": {}, "settings": {"lr": {"value": 1}}, "seeds": [0], "last": {"acc": None}}
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "result.json").write_text("{}")
    (tmp_path / "result.json").write_text(json.dumps(least))
    assert "unnamed data" in write_report(tmp_path).read_text()
    assert summary_table(result_of(tmp_path)).startswith("hsan on unnamed data, 1 seed")


def test_markup_in_names_and_values_is_escaped(tmp_path):
    dataset = {"name": "<script>alert(1)</script>", "hash": "ab", "rows": 3}
    html = write_report(bare(tmp_path, dataset=dataset)).read_text()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.slow
def test_study_report_has_the_trials_and_the_best_run(tmp_path):
    study = make_study(tmp_path / "study")
    html = write_report(study).read_text()
    assert headings(html)[0] == "hsan on digits"
    assert {"Trials", "Settings against the score"} <= set(headings(html))
    assert "Spearman 0.93" in html
    assert "not used to choose" in html
    assert drawn(study) == PICTURES | {"trials"}
    assert drawn(study / "best") == PICTURES
    assert "Tessera run" in (study / "best" / "report.html").read_text()


def test_study_without_its_best_training_says_so(tmp_path):
    html = write_report(make_study(tmp_path / "study", best=False)).read_text()
    assert "no finished training" in html
    assert "Results" not in html


def test_summary_table(run):
    lines = summary_table(result_of(run)).splitlines()
    assert lines[0] == "hsan on digits, mean ± std over 2 seeds"
    assert lines[1].replace(" %", "").split() == ["ACC", "NMI", "ARI", "F1", "modularity", "silhouette"]
    starts = ["last", "selected", "oracle *", "k-means on X", "filter + k-means"]
    assert all(line.startswith(start) for line, start in zip(lines[3:-1], starts, strict=True))
    assert lines[-1] == "* oracle: uses labels, not a result"
    assert lines[3].split("  ")[-1] == "0.317 ± 0.007"
    assert "85.8 ± 0.7" in lines[3]


def test_the_consensus_says_how_far_its_single_clusterings_agree(run):
    asked = result_of(run).model_copy(update={"consensus": over_seeds([{"acc": 0.7, "ari_of_each": 0.78}])})
    words = (
        "consensus: what the evaluations (or draws of k-means) agree on; single ones agree with it by an ARI of 0.78"
    )
    assert f"{words} (mean)" in summary_table(asked).splitlines()


@pytest.mark.parametrize(("changes", "words"), [
    ({}, "seed 0 (ACC 85.3 %), chosen without labels"),
    ({"model_seed": 1}, "seed 1 (ACC 86.3 %), chosen without labels"),
    ({"seeds": [0]}, ""),
])  # fmt: skip
def test_a_run_of_several_seeds_says_whose_clusters_it_has_written(run, changes, words):
    text = summary_table(result_of(run).model_copy(update={"model_seed": 0} | changes))
    assert (words in text) if words else "written" not in text


def test_tables_fit_the_terminal_and_say_what_they_leave_out(run, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "72")
    lines = summary_table(result_of(run)).splitlines()
    assert max(map(len, lines[1:8])) <= 72
    assert lines[1].replace(" %", "").split() == ["ACC", "NMI", "ARI", "F1"]
    assert "The terminal is too narrow for modularity, silhouette: see result.json." in lines


def test_trials_table_is_sorted_and_marks_the_labelled_column(tmp_path):
    study = SearchResult.read(make_study(tmp_path / "study", best=False) / "trials.json")
    lines = trials_table(study).splitlines()
    assert "(uses labels," in lines[0]
    assert lines[1].endswith("not used to choose)")
    assert "tune/score" in lines[1]
    assert lines[3].startswith(f"{study.best} (best)")
    ranks = [line.split()[-2] for line in lines[3:12]]
    assert ranks == ["1", "2", "3", "4", "5", "6", "-", "-", "-"]
    assert lines[-1] == study.agreement


def test_trials_tuned_with_labels_are_marked_so_and_unlabelled_ones_have_no_column():
    trial = {"trial": "a", "settings": {"lr": 1e-5}, "status": "finished", "epochs": 3, "score": 0.5, "rank": 1.5}
    search = {"method": "hsan", "dataset": "x", "trials": [trial]}
    assert "ACC" not in trials_table(SearchResult.model_validate(search))
    search |= {"trials": [trial | {"metrics": {"acc": 0.7}}], "objective": "last/acc"}
    marked = trials_table(SearchResult.model_validate(search))
    assert "Tuned with labels" in marked
    assert "not used to choose" not in marked
    assert "1e-05" in marked


@pytest.mark.parametrize("error", [DataError("x.npz: is damaged"), MemoryError("no room")])
def test_a_report_that_fails_is_a_warning_and_the_result_stays(tmp_path, monkeypatch, error):
    folder, warned = bare(tmp_path), []
    assert try_report(folder, warned.append) == folder / "report.html"
    before = (folder / "result.json").read_bytes()

    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(reports, "run_drawings", fail)
    assert try_report(folder, warned.append) is None
    assert f"({type(error).__name__}: {error})" in warned[0]
    assert f"report.py {folder} draws it again" in warned[0]
    assert (folder / "result.json").read_bytes() == before


def test_any_text_and_picture_can_be_a_page_in_the_reports_look():
    drawings = {"Sizes of the parts": [b"png"]}
    html = render("page.html.j2", title="4 parts <i>", heading="Cut", text="a < b", drawings=drawings)
    assert "<title>4 parts &lt;i&gt;</title>" in html
    assert "<h2>Cut</h2><pre>a &lt; b</pre>" in html
    assert re.findall('<a href="#(.+?)"', html) == re.findall('<section id="(.+?)"', html) == ["text", "pictures"]
    assert 'alt="Sizes of the parts" width="auto" src="data:image/png;base64,cG5n"' in html


def test_workflow_prints_where_the_report_is(tmp_path, capsys):
    folder = bare(tmp_path)
    main([str(folder)])
    assert capsys.readouterr().out.strip() == str(folder / "report.html")


def test_what_sets_clusters_apart_is_on_their_cards_and_its_absence_is_said(tmp_path, capsys):
    folder = make_run(tmp_path / "run")
    main([str(folder)])
    assert "no " + str(folder / "explain.json") in capsys.readouterr().err
    assert "Clusters" not in headings((folder / "report.html").read_text())
    x = np.zeros((60, 2), dtype=np.float32)
    x[:20, 0], x[:, 1] = 1, 7
    clusters = explain(x, np.repeat([0, 1], [20, 40]), 3, ["word <b>", "constant"])
    (folder / "explain.json").write_text(json.dumps({"seed": 0, "clusters": [asdict(each) for each in clusters]}))
    main([str(folder)])
    assert not capsys.readouterr().err
    html = (folder / "report.html").read_text()
    section = html.split('id="clusters"')[1].split("</section>")[0]
    cards = re.findall(r"<h3>Cluster (\d)</h3>\s*<p><b>(\d+) rows</b>", section)
    assert cards == [("1", "40"), ("0", "20"), ("2", "0")]
    assert section.count("word &lt;b&gt;") == 2
    assert re.findall(r"</span>([+-][\d.]+)", section) == ["-2.1", "+2.1"]
    assert section.count("100\u00a0%") == 2
    assert section.count("No feature differs") == 1
    assert "constant" not in section
    (folder / "explain.json").write_text('{"clusters": [1]}')
    with pytest.raises(DataError, match="the file is damaged"):
        write_report(folder)


def test_all_numbers_of_clusters_are_the_models_seeds(tmp_path):
    folder = make_run(tmp_path / "run", model_seed=1, stability=0.2, links=None)
    (folder / "seed-0" / "figures.npz").rename(folder / "seed-1" / "figures.npz")
    mine = np.repeat([0, 1, 2], 20)
    other = np.where(np.arange(60) == 0, 2, (mine + 1) % 3)  # other numbers, and one row elsewhere
    columns = {"seed": np.repeat([0, 1], 60), "id": [f"r{i}" for i in range(60)] * 2,
               "cluster": np.concatenate([other, mine]), "confidence": np.tile(np.linspace(0, 1, 60), 2)}  # fmt: skip
    pd.DataFrame(columns).to_parquet(folder / "assignments.parquet")
    html = write_report(folder).read_text()
    section = html.split('id="clusters"')[1].split("</section>")[0]
    shown = re.findall(r"stability (\d+)", section)
    assert shown == ["95", "100", "100"]
    assert "r19, r18, r17, r16, r15" in section
    assert "r0, r1, r2, r3, r4" in section
    assert "The seeds disagree (mean ARI 0.20)" in html
    assert "least confident first: r0 (cluster 0, 0.00), r1 (cluster 0, 0.02), r2 (cluster 0, 0.03)." in html
    data = json.loads(html.split('id="map-data">')[1].split("</script>")[0])
    assert (data["n"], data["ids"][:2]) == (60, ["r0", "r1"])
    assert [each["name"] for each in data["channels"]] == ["cluster", "label", "confidence"]
    assert "Seed 1, last epoch" in html
    assert "Seed 0" not in html


@pytest.mark.parametrize(("changes", "words"), [
    ({"baselines": {"kmeans": spread({"acc": 0.9}, [0, 1])}}, "did not beat k-means on X here (ACC 85.8 against 90.5)"),
    ({"baselines": {"kmeans": spread({"acc": 0.853}, [0, 1])}}, "The result equals that of k-means on X"),
    ({"baselines": {}}, "Nothing compares this training to a simpler one"),
    ({"links": spread({"auc": 0.51}, [0, 1])}, "no better than by chance (AUC 0.52)"),
    ({"last": spread({"acc": 0.8, "agreement": 0.01}, [0])}, "two views of the same rows agree no better than"),
])  # fmt: skip
def test_the_first_sentence_says_what_to_do(changes, words, tmp_path):
    result = result_of(make_run(tmp_path / "run", rows=5, **changes))
    assert words in " ".join(answer(result))


def test_a_search_that_brought_nothing_says_so(tmp_path):
    study = make_study(tmp_path / "study", rows=5)
    search = SearchResult.read(study / "trials.json")
    result = result_of(study / "best")
    assert "brought nothing" not in " ".join(answer(result, search))
    search.start = dict(search.trials[0].settings)
    assert "brought nothing" in answer(result, search)[-1]
