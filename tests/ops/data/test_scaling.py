"""Columns on one scale: as scikit-learn scales them, before neighbours are looked for, and for later rows too."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import preprocessing

from ops.data.load import load
from ops.data.types.scaling import fit_scaling
from ops.errors import SettingsError
from ops.results.model_store import ModelFile
from workflows.predict import main as predict
from workflows.train import main as train

KINDS = {
    "standard": preprocessing.StandardScaler, "robust": preprocessing.RobustScaler, "minmax": preprocessing.MinMaxScaler
}  # fmt: skip


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    columns = {"height": group + rng.normal(0, 0.1, 60), "income": rng.normal(0, 1e5, 60), "constant": np.ones(60)}
    path = tmp_path / "table.csv"
    pd.DataFrame(columns | {"age": 10 * group + rng.normal(0, 1, 60)}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_those_of_scikit_learn_and_survive_json(kind, table):
    x = pd.read_csv(table).to_numpy(np.float32)
    scaling = fit_scaling(x, kind)
    assert np.allclose(scaling(x), KINDS[kind]().fit_transform(x.astype(np.float64)), atol=1e-5)
    again = ModelFile.model_validate_json(json.dumps({"method": "ssgc", "scaling": scaling.plain()})).scaler
    assert np.array_equal(again(x), scaling(x))
    assert fit_scaling(x, "none") is None
    assert ModelFile(method="ssgc").scaler is None


def test_neighbours_are_those_of_the_scaled_columns_and_it_is_said(table):
    plain, scaled = (load(str(table), knn=5, scale=kind)[0] for kind in ("none", "standard"))
    assert not np.array_equal(plain.edge_index, scaled.edge_index)
    assert plain.digest() != scaled.digest()
    assert "features: every column brought to one scale (standard)" in scaled.notes


def test_a_model_scales_new_rows_as_it_was_trained(untracked, table, tmp_path, capsys):
    out = ["--out", str(tmp_path / "runs"), "--no-report", "--no-explain", "--threads", "1"]
    train(
        ["ssgc", "--dataset", str(table), "--knn", "5", "--n-clusters", "3", "--scale", "standard", "--name", "s", *out]
    )
    capsys.readouterr()
    new = tmp_path / "new.csv"
    pd.read_csv(table).iloc[::-1].to_csv(new, index=False)
    predict([str(tmp_path / "runs" / "s"), "--data", str(new), "--out", str(tmp_path / "clusters.csv")])
    assert "another scale" not in capsys.readouterr().err
    predict([str(tmp_path / "runs" / "s"), "--data", str(table), "--out", str(tmp_path / "same.csv")])
    assert "0 of the 60 known rows are in another cluster" in capsys.readouterr().out
    settings = json.loads((tmp_path / "runs" / "s" / "model" / "settings.json").read_text())
    assert settings["scaling"]["kind"] == "standard"
    assert len(settings["scaling"]["centre"]) == 4


@pytest.mark.parametrize("method", ["hadis", "hgt"])
def test_images_and_users_refuse_it(method, tmp_path):
    data = ["--dataset", "planted:users=50,notes=30"] * (method == "hgt")
    with pytest.raises(SettingsError, match="--scale robust: is for attributed graphs and feature tables"):
        train([method, *data, "--n-clusters", "3", "--scale", "robust", "--out", str(tmp_path)])


@pytest.mark.parametrize("kind", ["standard", "robust"])
def test_a_column_of_words_has_the_variance_of_one_number(kind):
    words = np.eye(4, dtype=np.float32)[np.random.default_rng(0).integers(4, size=400)]
    x = np.column_stack([np.random.default_rng(1).standard_normal(400).astype(np.float32) * 50, words])
    scaled = fit_scaling(x, kind, [[1, 2, 3, 4]])(x)
    assert scaled[:, 1:].var(axis=0).sum() == pytest.approx(1, abs=1e-5)
    assert kind == "robust" or scaled[:, 0].var() == pytest.approx(1, abs=1e-5)
