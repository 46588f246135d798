import json
import re

import pandas as pd
import pytest
from fabricate import SETTINGS, make_run, make_study, make_users_run

from ops.errors import DataError, SettingsError
from ops.reporting.compare import compare, comparison_table, write_compare
from workflows.compare import main


def settings(**changes: object) -> dict[str, dict[str, object]]:
    return {key: {"value": value, "source": "flag"} for key, value in (SETTINGS | changes).items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return [
        make_run(folder / "first", rows=5),
        make_run(folder / "second", rows=5, settings=settings(temperature=1.0)),
        make_run(
            folder / "other", rows=5, labels=False, dataset={"name": "bat", "hash": "77aa", "rows": 131}, baselines={}
        ),
    ]


def test_table_has_each_run_in_the_fixed_order_and_shared_baselines_once(runs):
    table = comparison_table(compare(runs[:2]))
    kinds = re.findall(r"(?m)^.*?(last|selected|oracle \*|k-means on X|filter \+ k-means)  .*$", table)
    assert kinds == [*("last", "selected", "oracle *") * 2, "k-means on X", "filter + k-means"]
    assert "* oracle: uses labels, not a result" in table
    assert "85.8 ± 0.7" in table
    assert re.search(r"seconds +CPU s +GiB", table)
    assert "Warning" not in table


def test_only_differing_settings_are_listed(runs):
    listed = comparison_table(compare(runs[:2])).split("Settings that differ\n")[1].splitlines()[2:]
    assert [line.split() for line in listed] == [["temperature", "0.5", "1"]]


KNN = "edges: {} nearest neighbours of every row ({}), symmetrised"


@pytest.mark.parametrize(("changes", "row"), [
    ([{"knn": 5}, {"knn": 15}], ["edges", "5 nearest (euclidean)", "15 nearest (euclidean)"]),
    ([{"knn": 5, "knn_metric": "cosine"}, {"knn": 5}], ["edges", "5 nearest (cosine)", "5 nearest (euclidean)"]),
    ([{"knn": 5}, {}], ["edges", "5 nearest (euclidean)", "of the data"]),
    # digits takes 10 by itself
    ([{"knn": 0, "notes": [KNN.format(10, "euclidean")]}, {"knn": 10}], None),
])  # fmt: skip
def test_how_the_graph_was_made_is_compared(tmp_path, changes, row):
    dataset = {"name": "digits", "hash": "3f", "rows": 5}
    runs = [make_run(tmp_path / str(i), rows=5, dataset=dataset | each) for i, each in enumerate(changes)]
    table = comparison_table(compare(runs))
    if row is None:
        assert "No setting differs." in table
    else:
        listed = table.split("Settings that differ\n")[1].splitlines()[2:]
        assert [re.split("  +", line.strip()) for line in listed] == [row]


def test_other_labels_and_a_warm_start_are_said(tmp_path):
    dataset = {"name": "digits", "hash": "3f", "rows": 5}
    warm = {"run": "runs/old", "known": 3, "new": 2, "gone": 0, "kept": [1.0]}
    runs = [make_run(tmp_path / each, rows=5, dataset=dataset | {"given": {"labels": each}}) for each in "ab"]
    assert comparison_table(compare(runs)).startswith("Warning: the runs are scored by different labels")
    runs = [make_run(tmp_path / "c", rows=5), make_run(tmp_path / "d", rows=5, warm=warm)]
    assert re.search(r"warm start +- +runs/old", comparison_table(compare(runs)))


def test_users_have_recall_and_links_of_the_last_epoch(tmp_path):
    som = make_users_run(tmp_path / "som", rows=5)
    means = make_users_run(tmp_path / "means", rows=5, cluster="kmeans")
    lines = comparison_table(compare([som, means])).splitlines()
    heads = [line.split() for line in lines[1:3]]
    assert heads[0] == ["test", "test", "validation"]
    assert heads[1][:3] == ["run", "method", "figures"]
    titles = "NMI % ARI % F1 % Recall@10 % Recall@50 % link AUC Recall@50 % modularity silhouette seconds"
    assert titles in " ".join(heads[1])
    last = [line for line in lines if re.search("(som|means) +hgt", line)]
    assert [line.split()[1:4] for line in last] == [["hgt", "+", "SOM"], ["hgt", "+", "k-means"]]
    assert all("21.5 ± 0.7 21.5 ± 0.7 0.805 ± 0.007 45.5 ± 0.7" in " ".join(line.split()) for line in last)
    selected = next(line for line in lines if " selected " in line)
    assert "21.5" not in selected  # test scores are of the last epoch
    popularity = next(line for line in lines if "popularity" in line)
    assert popularity.split().count("20.0") == 2
    html = write_compare(compare([som, means]), tmp_path / "page.html").read_text()
    assert "link\u00a0AUC" in html
    assert html.count("<figure") == 1


def test_other_baselines_are_named_by_run(tmp_path, runs):
    mine = make_run(tmp_path / "mine", rows=5, seeds=1)
    lines = [line.split() for line in comparison_table(compare([runs[0], mine])).splitlines() if "baseline" in line]
    assert [line[0] for line in lines] == ["first", "mine", "first", "mine"]


def test_runs_on_other_data_stand_apart_with_a_warning(runs):
    table = comparison_table(compare(runs))
    assert table.startswith("Warning: the runs are not on the same data (digits 3f2a91c0d4e5, bat 77aa)")
    other = table[table.index("\nbat, 131 rows") :]
    assert "ACC" not in other.split("\n\n")[0]


def test_page_is_one_file_with_the_differences_marked(runs, tmp_path):
    page = write_compare(compare(runs), tmp_path / "new" / "page.html")
    html = page.read_text()
    assert page == tmp_path / "new" / "page.html"
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)|<script|<link|@import|https?://""", html)
    assert re.search(r"<td>temperature</td><td>0.5</td><td class=\"differs\">1</td><td>0.5</td>", html)
    assert "not on the same data" in html
    assert re.findall('<a href="#(.+?)"', html) == re.findall('<section id="(.+?)"', html)
    assert html.count("<figure") == 1  # one group with more than one run
    assert write_compare(compare(runs[:1]), tmp_path).name == "compare.html"


def test_a_search_stands_for_its_best_run(tmp_path, runs):
    table = comparison_table(compare([make_study(tmp_path / "study", rows=5), runs[0]]))
    assert re.search(r"(?m)^study +hsan +last", table)


def test_equal_folder_names_are_told_apart(tmp_path):
    table = comparison_table(compare([make_run(tmp_path / part / "run", rows=5) for part in ("a", "b")]))
    assert "a/run" in table
    assert "b/run" in table
    assert "No setting differs." in table


def test_bad_input_is_one_line(tmp_path, runs, capsys):
    with pytest.raises(SettingsError, match="no run given"):
        comparison_table(compare([]))
    with pytest.raises(SettingsError, match="given twice"):
        comparison_table(compare([runs[0], runs[0] / ".." / "first"]))
    with pytest.raises(DataError, match="is not a run"):
        comparison_table(compare([tmp_path]))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match="cannot be written"):
        write_compare(compare(runs), tmp_path / "file" / "page.html")
    with pytest.raises(DataError, match="no such folder"):
        main([str(runs[0]), str(tmp_path / "missing"), "--out", str(tmp_path / "page.html")])
    assert not capsys.readouterr().out


def test_workflow_prints_table_and_page(tmp_path, runs, capsys):
    out = tmp_path / "page.html"
    main([str(runs[0]), str(runs[1]), "--out", str(out)])
    assert capsys.readouterr().out == f"{comparison_table(compare(runs[:2]))}\n\n{out}\n"
    assert json.loads((runs[0] / "result.json").read_text())["method"] == "hsan"


def test_how_far_the_clusters_of_two_runs_agree_is_said(tmp_path):
    pairs = [make_run(tmp_path / "a", rows=4), make_run(tmp_path / "b", rows=4)]
    for run, clusters in zip(pairs, ([0, 0, 1, 1], [1, 1, 0, 2]), strict=True):
        columns = {"seed": [0] * 4, "id": list("wxyz"), "cluster": clusters, "confidence": [1.0] * 4}
        pd.DataFrame(columns).to_parquet(run / "assignments.parquet")
    assert "Clusters of a and b: adjusted Rand index 0.57 (1: the same, 0: by chance)" in comparison_table(
        compare(pairs)
    )
