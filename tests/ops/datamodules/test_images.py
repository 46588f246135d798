"""Runs on images from the command to the report and to prediction, with the smallest of methods."""

import io
import json
import re

import numpy as np
import pandas as pd
import pixel_method
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from experiments import experiment_of
from PIL import Image
from pixel_method import METHOD
from sklearn.metrics import adjusted_rand_score

from ops.api import PlainRun
from ops.clustering.owners import Owners
from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.settings import LaunchSettings, PredictSettings, flat
from ops.data.types.images import ImageSet
from ops.datamodules import images
from ops.datamodules.images import OWN_SPACE, ClassNames, ImageData
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError, SettingsError
from ops.evaluation.labelled import LABELLED, evaluator
from ops.inference.images import images_from_frame
from ops.inference.placement import Prediction
from ops.inference.predict import predict, run_prediction
from ops.reporting.tables import summary_table
from ops.results.arrays import read_pictures
from ops.results.feature_scale import statistics_of
from ops.results.model_store import describe, read_model, save_model
from ops.training.experiment import Hooks, Judges, Worker, build_experiment
from ops.training.seed_run import SeedRun
from ops.training.trainer import run_experiment
from trainers import hadis

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


def contents(count=60, seed=0, size=16):
    """Noisy pictures of three colours, encoded, and which colour each has."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, count)
    encoded = []
    for kind in kinds:
        pixels = np.clip(np.array(COLOURS[kind]) + rng.normal(0, 25, (size, size, 3)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded, kinds


def table(path, encoded, labels=None, ids=None):
    columns = {"image": encoded} | ({} if labels is None else {"label": labels}) | ({} if ids is None else {"id": ids})
    pq.write_table(pa.table(columns), path)
    return path


def resolved(places, *flags):
    argv = [*flags, "--out", str(places / "runs"), "--name", "run", "--workers", "0", "--quiet"]
    return resolve(argv, METHOD, LaunchSettings, places, "train.py pixel")


def trained(places, *flags):
    """Folder and result of a run as part of a study, which would send its records: no MLflow is needed."""
    experiment = build_experiment(METHOD, resolved(places, *flags), Console(quiet=True))
    return run_experiment(experiment, places / "runs", places)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder, result and data of one run, with its report; tests leave it as it is."""
    places = tmp_path_factory.mktemp("pixels")
    encoded, kinds = contents()
    names = np.array(["red", "green", "blue"])[kinds].tolist()
    path = table(places / "shades.parquet", encoded, names, [f"p{i}" for i in range(60)])
    return *trained(places, "--dataset", str(path)), path


@pytest.mark.slow
def test_a_run_leaves_scores_pictures_and_a_report(finished):
    folder, result, _ = finished
    assert result.dataset.name == "shades"
    assert OWN_SPACE in result.dataset.notes
    assert result.settings["n_clusters"].plain() == {"value": 3, "source": "labels (number of classes)"}
    assert result.last.means["acc"] == 1.0
    assert {"silhouette", "agreement", "score"} <= set(result.last.metrics)
    assert set(result.baselines) == {"k-means on pixels"}
    assert result.baselines["k-means on pixels"].means["acc"] == 1.0
    words = "last is as good as the strongest baseline (k-means on pixels) in ACC"
    assert result.verdict.startswith(words)
    assert result.selected.indices == ["silhouette", "davies_bouldin"]
    assert result.embeddings == "embeddings.parquet"
    vectors = pq.read_table(folder / "embeddings.parquet")
    assert vectors["id"].to_pylist()[:2] == ["p0", "p1"]
    assert vectors["vector"].type.list_size == pixel_method.D
    text = summary_table(result)
    assert "k-means on pixels" in text
    assert "two views" in text
    html = (folder / "report.html").read_text()
    titles = [t for t in re.findall(r"<h3>(.*?)</h3>", html) if not t.startswith("Cluster ")]
    assert set(titles) >= {"Images nearest to each centre", "Classes and clusters", "Hardest pairs",
                           "t-SNE before and after training", "Similarity of the embedding"}  # fmt: skip
    assert "What sets each cluster apart" not in html


@pytest.mark.slow
def test_pictures_are_those_of_the_clusters(finished):
    folder, _, _ = finished
    actual = read_pictures(folder)
    last = pq.read_table(folder / "assignments.parquet")["cluster"].to_numpy()
    assert actual["near_cluster"].tolist() == [0, 1, 2]
    assert actual["near_size"].tolist() == np.bincount(last).tolist()
    shade = actual["near"].mean((1, 3, 4))  # of each cluster's images together
    assert sorted(shade.argmax(1).tolist()) == [0, 1, 2]
    assert actual["pair"].shape == (5, 2, 3, 16, 16)
    assert (actual["pair_cluster"][:, 0] != actual["pair_cluster"][:, 1]).all()
    assert actual["classes"].tolist() == ["blue", "green", "red"]
    assert np.array_equal(actual["confusion"], np.diag(np.diag(actual["confusion"])))


def test_what_a_method_gets_has_no_labels(places):
    encoded, kinds = contents(20)
    actual = []
    for name, labels in (("a", kinds), ("b", np.roll(kinds, 7)), ("c", None)):
        path = table(places / f"{name}.parquet", encoded, labels)
        launch = LaunchSettings(dataset=str(path))
        actual.append(ImageData().load(launch, pixel_method.Settings()))
    assert len({data.digest() for data, _, _ in actual}) == 1
    assert all(vars(data)["notes"] == (OWN_SPACE,) for data, _, _ in actual)
    assert actual[2][1] is None
    assert actual[0][2].classes is None


@pytest.mark.slow
def test_labels_change_no_result(tmp_path):
    """Other labels or none: the same model, clusters, scores without labels, and pictures."""
    encoded, kinds = contents(30)
    actual = []
    for name, labels in (("a", kinds), ("b", np.roll(kinds, 7)), ("c", None)):
        (tmp_path / name).mkdir()
        path = table(tmp_path / name / "x.parquet", encoded, labels)
        folder, result = trained(tmp_path / name, "--dataset", str(path), "--n-clusters", "3", "--no-report")
        with np.load(folder / "pictures.npz", allow_pickle=False) as stored:
            pictures = {k: stored[k].tobytes() for k in stored.files if not k.startswith(("confusion", "classes"))}
        model = (folder / "model" / "model.safetensors").read_bytes()
        assignments = (folder / "assignments.parquet").read_bytes()
        indices = {k: v for k, v in result.last.metrics.items() if k not in LABELLED}
        actual.append((model, assignments, indices, pictures))
        assert ("acc" in result.last.metrics) == (labels is not None)
    assert actual[0] == actual[1] == actual[2]


def test_features_of_a_frozen_backbone_need_no_images(places):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 0.1, (20, 12)) for m in (-1, 1)]).astype(np.float32)
    np.save(places / "x.npy", x)
    spec = str(places / "x.npy")
    settings = pixel_method.Settings(n_clusters=2, backbone=f"frozen:{spec}")
    data, labels, _ = ImageData().load(LaunchSettings(dataset=spec), settings)
    assert labels is None
    assert ImageData().describe(data) == "40 images, 12 features of a frozen backbone"
    judge = evaluator(np.repeat([0, 1], 20))
    rows = list(ImageData().baselines(experiment_of(METHOD, settings, data, seeds=2), ProcessGroup()))
    assert [(name, judge(clusters)["acc"]) for name, clusters, _ in rows] == [("k-means on features", 1.0)] * 2 + [
        ("linear head on features", 1.0)
    ] * 2
    actual = pixel_method.train(settings, data, PlainRun())
    save_model(places / "model", actual.model, describe("pixel", data, statistics_of(data.features)) | flat(settings))
    model = read_model(places / "model")
    np.save(places / "new.npy", x[15:25] + 0.01)
    request = PredictSettings(data=str(places / "new.npy"), out=str(places / "out.parquet"))
    quiet = Console(quiet=True)
    summary = predict(Prediction("run", model, None, request, METHOD), quiet)
    assert summary["sizes"] == [5, 5]
    assert (summary["known"], summary["new"], summary["changed"]) == (0, 10, None)
    assert images_from_frame(pd.DataFrame(x), model).n_rows == 40
    np.save(places / "wide.npy", np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"wide.npy: 4 features, the model was trained on 12; give the same"):
        predict(Prediction("run", model, None, request, METHOD).on(str(places / "wide.npy")), quiet)


def test_the_baseline_of_a_large_table_clusters_a_sample(monkeypatch):
    monkeypatch.setattr(images, "LARGE", 30_000)
    monkeypatch.setattr(images, "SAMPLED", 10_000)  # values: 13 of 60 images
    kinds = np.random.default_rng(0).integers(0, 3, 60)
    pixels = np.random.default_rng(1).integers(0, 50, (60, 3, 16, 16)) + np.array(COLOURS)[kinds][:, :, None, None]
    settings = hadis.Settings(n_clusters=3, backbone="small", epochs=1)
    data = ImageSet("shades", pixels=pixels.astype(np.uint8))
    ((_, clusters, _),) = ImageData().baselines(experiment_of(hadis.METHOD, settings, data), ProcessGroup())
    assert evaluator(kinds)(clusters)["acc"] == 1.0


@pytest.mark.slow
def test_new_images_get_clusters(finished, places):
    folder, _, path = finished
    out = str(places / "out.parquet")
    methods, quiet = {"pixel": METHOD}, Console(quiet=True)

    def asked(spec, **words):
        return run_prediction(str(folder), PredictSettings(data=str(spec), out=out, **words), methods, quiet)

    summary = asked(path, batch_rows=7)
    assert (summary["rows"], summary["known"], summary["changed"]) == (60, 60, 0)
    last = pq.read_table(folder / "assignments.parquet")
    assert pq.read_table(out)["cluster"].equals(last["cluster"])
    assert pq.read_table(out).column_names == ["id", "cluster", "confidence"]
    new = places / "new"
    new.mkdir()
    encoded, kinds = contents(9, seed=5, size=40)  # of another size
    for i, content in enumerate(encoded):
        (new / f"{i}.png").write_bytes(content)
    summary = asked(new)
    assert (summary["known"], summary["new"]) == (0, 9)
    assert adjusted_rand_score(pq.read_table(out)["cluster"].to_numpy(), kinds) == 1.0
    assert pq.read_table(out)["id"].to_pylist()[0] == "0.png"
    (new / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"new/0.png: is empty; remove or replace what is damaged, or give --skip-dam"):
        asked(new)
    assert asked(new, skip_damaged=True)["rows"] == 8
    with pytest.raises(SettingsError, match="--known: is for attributed graphs; pixel does not take it"):
        asked(new, known="digits")


@pytest.mark.slow
def test_a_data_frame_of_images_gets_clusters(finished):
    folder, _, _ = finished
    model = read_model(folder / "model")
    assert model.about.pixels == [16, 16]
    encoded, kinds = contents(6, seed=6, size=20)
    frame = pd.DataFrame({"image": [encoded[0], *({"bytes": m, "path": None} for m in encoded[1:])]})
    data = images_from_frame(frame, model)
    assert data.size == (16, 16)
    clusters, _ = pixel_method.predict(model.tensors, model.settings, data)
    assert adjusted_rand_score(clusters, kinds) == 1.0
    with pytest.raises(DataError, match=r"predict: image of row 1: is empty \(1 damaged\); leave it out"):
        images_from_frame(pd.DataFrame({"image": [encoded[0], b""]}), model)
    with pytest.raises(DataError, match=r"needs a column image of encoded images .* has a, b"):
        images_from_frame(pd.DataFrame({"a": [1], "b": [2]}), model)


def test_what_images_do_not_take_is_one_line(places):
    path = str(table(places / "x.parquet", contents(12)[0]))
    cases = {
        ("--n-clusters", "auto"): "--n-clusters auto: is for attributed graphs; give --n-clusters K for x",
        ("--knn", "3"): "--knn 3: is for attributed graphs and feature tables; images have",
        (): "x has no labels to count: give --n-clusters K",
    }
    for flags, words in cases.items():
        with pytest.raises(SettingsError, match=words):
            build_experiment(METHOD, resolved(places, "--dataset", path, *flags), Console(quiet=True))


def test_known_names_find_their_presets(places):
    (places / "pixel-imagenet-dogs.yaml").write_text("n_clusters: 15\n")
    argv = ["--dataset", "ImageNet_Dogs:/somewhere,classes=/a/list"]
    assert resolve(argv, METHOD, LaunchSettings, places, "").settings.n_clusters == 15


def test_projections_that_point_one_way_are_told(places, capsys):
    judges = Judges(lambda clusters, embeddings: {"size_max": 5.0, "empty": 0.0}, evaluator(None), 2, Owners.alone(10))
    cure, console = hadis.METHOD.avoid_collapse, Console(quiet=True)
    with SeedRun(places / "seed", 0, 5, judges, console, Hooks(), Worker(), cure=cure) as run:
        for epoch in range(4):
            run.report(epoch, {"collapse/std": 0.02}, np.repeat([0, 1], 5), None)
    assert run.warnings == [
        "seed 0: the projections collapsed by epoch 2 (collapse/std 0.020, 1 is healthy); lower --lr, or raise "
        "--warmup-epochs or --ema-momentum"
    ]
    assert "collapsed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 1, 1], ("cat", "dog"), ["2 classes by the labels: cat (1), dog (2)"]),
        ([0, 0, 1], None, ["2 classes by the labels: 0 (2), 1 (1)"]),
        (range(14), None, [f"14 classes by the labels: {', '.join(f'{i} (1)' for i in range(12))} and 2 more"]),
        (None, None, []),
    ],
)
def test_the_plan_names_the_classes(labels, classes, expected):
    given = None if labels is None else np.array(labels)
    assert ImageData().describe_labels(given, ClassNames(classes)) == expected


def test_image_sets_say_their_size():
    data = ImageSet("a", np.zeros((5, 3, 4, 6), np.uint8))
    assert ImageData().describe(data) == "5 images, 4 x 6 pixels"
    assert ImageData().features(data).shape == (5, 72)
    assert np.shares_memory(ImageData().features(data), data.pixels)
    both = ImageSet("a", data.pixels, np.zeros((5, 9), np.float32))
    assert ImageData().describe(both) == "5 images, 4 x 6 pixels, 9 features of a frozen backbone"
    assert json.dumps(both.notes) == "[]"
