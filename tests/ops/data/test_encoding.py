"""A table with words in it: one message names all that is missing, categories and left-out columns are the model's."""

import json

import numpy as np
import pandas as pd
import pytest
from refusals import one_line

from ops.data.load import load, table_file
from ops.errors import DataError, SettingsError
from workflows.predict import main as predict
from workflows.train import main as train

N = 60


@pytest.fixture
def table(tmp_path):
    rng, group = np.random.default_rng(0), np.arange(N) % 3
    columns = {"name": [f"p{i}" for i in range(N)], "city": np.array(["Bern", "Oslo", "007"])[group]}
    columns |= {"born": pd.date_range("2000-01-01", periods=N), "age": 10 * group + rng.normal(0, 1, N)}
    path = tmp_path / "table.csv"
    pd.DataFrame(columns | {"plan": np.where(np.arange(N) % 5, "a", "")}).to_csv(path, index=False)
    return path


def test_one_message_names_all_that_is_missing_and_its_flags_are_enough(untracked, table, tmp_path, capsys):
    argv = ["ssgc", "--dataset", str(table), "--out", str(tmp_path / "runs"), "--no-report", "--name", "s"]
    message = one_line(DataError, train, argv)
    for said in ("row 0: column 'name' holds 'p0'", "'city' (3 values)", "'born' (60 values)", "'plan' (1 value)",
                 "no edges", "no labels to count"):  # fmt: skip
        assert said in message
    flags = message.partition("Add: ")[2]
    assert flags == "--one-hot --ignore name,born --knn 10 --n-clusters auto"
    train([*argv, *flags.replace("auto", "3").split(), "--threads", "1"])
    assert "column 'plan': 12 rows without a value, in no category" in capsys.readouterr().out
    stored = json.loads((tmp_path / "runs" / "s" / "result.json").read_text())["dataset"]
    assert (stored["one_hot"], stored["ignore"]) == (True, "name,born")
    _predictions_read_rows_as_the_training(table, tmp_path / "runs" / "s", capsys)


def _predictions_read_rows_as_the_training(table, run, capsys):
    predict([str(run), "--data", str(table), "--out", str(run.parent / "same.csv")])
    assert f"0 of the {N} known rows are in another cluster" in capsys.readouterr().out
    new = pd.read_csv(table, dtype={"city": str}).drop(columns="name").head(6).assign(city=["Bern", "7", "Rome"] * 2)
    new.to_csv(run.parent / "new.csv", index=False)
    predict([str(run), "--data", str(run.parent / "new.csv"), "--out", str(run.parent / "clusters.csv")])
    assert "column 'city': 2 values that training did not have ('7', 'Rome'), in no category" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_categories_stand_in_the_place_of_their_column_as_written(table, tmp_path, suffix):
    frame = pd.read_csv(table, dtype={"city": str})
    path = tmp_path / f"again.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    graph, _ = load(str(path), knn=3, one_hot=True, ignore="name, born")
    assert graph.feature_names == ("city=007", "city=Bern", "city=Oslo", "age", "plan=a")
    assert np.array_equal(graph.x[:, :3], np.eye(3)[[1, 2, 0] * 20])
    assert graph.x[:, 4].tolist() == frame["plan"].notna().tolist()
    assert table_file(str(path)) == path
    (tmp_path / "g").mkdir()
    path.rename(tmp_path / "g" / f"features.{suffix}")
    (tmp_path / "g" / "edges.csv").write_text("source,target\n0,1\n")
    assert load(str(tmp_path / "g"), one_hot=True, ignore="name,born")[0].feature_names == graph.feature_names


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"ignore": "nme"}, DataError, "--ignore nme: no such column; it has name, city, born, age, plan"),
    ({"one_hot": True}, DataError, "--ignore name,born leaves them out. Add: --one-hot --ignore name,born$"),
    ({"ignore": "name,born,plan"}, DataError, "column 'city' holds 'Bern', which is no number; only ids and"),
])  # fmt: skip
def test_what_cannot_be_encoded_is_one_line(table, options, error, words):
    with pytest.raises(error, match=words):
        load(str(table), knn=3, **options)


def test_only_tables_have_columns(tmp_path):
    np.save(tmp_path / "x.npy", np.eye(5))
    with pytest.raises(SettingsError, match=r"--ignore a: .* is no table of named columns"):
        load(str(tmp_path / "x.npy"), knn=2, ignore="a")
