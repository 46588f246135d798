"""Predictions with a small trained model, in this process: what is said of their rows, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from ops.api import PlainRun
from ops.config.console import Console
from ops.config.settings import PredictSettings, flat
from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError
from ops.inference.placement import Prediction
from ops.inference.predict import predict
from ops.results.feature_scale import statistics_of
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import describe, read_model, save_model
from ops.results.schema import DataRecord
from trainers import METHODS

NAMES = ("age", "income", "size", "weight")
GRAPH = planted_graph(40, 2, 4, degree=6, seed=1)[0]
RAW = GRAPH.x * [3, 20_000, 0.1, 7] + [40, 50_000, 1.7, 70]
SCALED = ((RAW - RAW.mean(0)) / RAW.std(0)).astype(np.float32)
IDS = np.arange(100, 140)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model of a short training on the scaled columns."""
    method = METHODS["hsan"]
    settings = method.settings(n_clusters=2, epochs=2, embedding_dim=4)
    data = make_graph("scaled", SCALED, GRAPH.edge_index, ids=IDS, feature_names=NAMES)
    result = method.train(settings, data, PlainRun())
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, result.model, describe("hsan", data, statistics_of(data.x)) | flat(settings))
    return folder


def prediction(folder, data, out) -> Prediction:
    source = DataRecord(spec=str(folder))
    nodes = TrainedNodes(len(IDS), IDS, np.zeros(len(IDS), np.int64), None, source, "runs/a")
    object.__setattr__(nodes, "graph", make_graph("scaled", SCALED, GRAPH.edge_index, ids=IDS))
    request = PredictSettings(data=str(data), out=str(out), batch_rows=7)
    return Prediction("runs/a", read_model(folder), nodes, request, METHODS["hsan"])


def table(path, x) -> None:
    pd.DataFrame(x, columns=list(NAMES)).to_csv(path, index=False)


@pytest.mark.parametrize(("x", "column"), [(RAW, "income"), (SCALED, None), (SCALED * [1, 1, 50, 1] + 2, "size")])
def test_rows_of_another_scale_are_warned_of_before_the_result(folder, tmp_path, capsys, x, column):
    table(tmp_path / "new.csv", x)
    summary = predict(prediction(folder, tmp_path / "new.csv", tmp_path / "o.parquet"), Console(json_only=True))
    said = capsys.readouterr().err
    assert len(summary["warnings"]) == (column is not None)
    if column:
        assert f"'{column}'" in said.partition("known rows are in another cluster")[0]
        assert "another scale than in training" in said


def test_a_graph_of_raw_rows_is_warned_of_too(folder, tmp_path, capsys):
    np.savez(tmp_path / "new.npz", x=RAW, edge_index=GRAPH.edge_index)
    predict(prediction(folder, tmp_path / "new.npz", tmp_path / "o.parquet"), Console(json_only=True))
    assert "'income'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edges", "ids"),
    [([[0, 5], [1, 60]], None), ([[0, 5], [1, 40]], IDS + 50), ([[0, -1], [1, 2]], IDS + 50), ([[0], [40]], IDS)],
)
def test_edges_out_of_range_are_refused_as_in_training(folder, tmp_path, edges, ids):
    arrays = {"x": SCALED, "edge_index": np.array(edges)} | ({} if ids is None else {"ids": ids})
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(DataError, match=r"new\.npz: (an )?edge "):
        predict(prediction(folder, tmp_path / "new.npz", tmp_path / "o.parquet"), Console(quiet=True))
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_model_that_is_not_finite_is_refused(folder, tmp_path, value):
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.dtype == torch.float32)
    tensors[name].view(-1)[0] = value
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "settings.json").write_text((folder / "settings.json").read_text())
    with pytest.raises(DataError, match=rf"tensor '{name}' of the model holds NaN or infinity"):
        read_model(tmp_path)


def test_the_model_keeps_means_and_deviations(folder):
    stored = json.loads((folder / "settings.json").read_text())["columns"]
    np.testing.assert_allclose(stored["mean"], SCALED.mean(0), atol=1e-5)
    np.testing.assert_allclose(stored["deviation"], SCALED.std(0), rtol=1e-4)
