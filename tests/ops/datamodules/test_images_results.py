"""What is made of clusters of images, from arrays alone: scores, verdict, baseline and pictures."""

import json

import numpy as np
import pytest
from fabricate import make_study
from pixel_method import METHOD, Settings
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ops.api import Experiment
from ops.config.cli import Request
from ops.config.console import Console
from ops.config.settings import LaunchSettings
from ops.data.types.images import ImageSet
from ops.datamodules.images import ImageData
from ops.datamodules.images_results import CLUSTERS, NEAREST, confusion, pictures
from ops.errors import DataError
from ops.reporting import tables
from ops.reporting.html import write_report
from ops.results import summary
from ops.results.stored_images import read_pictures


def test_without_labels_nothing_compares_to_pixels():
    entry = {"mean": 0.4, "std": None, "values": [0.4]}
    result = {"last": {"score": entry}, "baselines": {"k-means on pixels": {"size_min": entry}}}
    assert summary.verdict(result).startswith("without labels nothing compares last to k-means on the input")


def test_images_are_judged_in_their_projections():
    rng = np.random.default_rng(0)
    clusters = np.repeat([0, 1], 30)
    z = (rng.normal(0, 0.3, (60, 4)) + np.where(clusters[:, None] == 0, 1, -1)).astype(np.float32)
    request = Request(Settings(n_clusters=2), LaunchSettings(), {}, "")
    data = ImageSet("x", np.zeros((60, 3, 4, 4), np.uint8))
    experiment = Experiment(METHOD, request, data, None, None, Console(quiet=True), 1)
    scored = ImageData().judge(experiment)
    found = scored(clusters, {"embedding": 5 * z, "copy_a": clusters, "copy_b": np.roll(clusters, 3)})
    silhouette = silhouette_score(z, clusters, metric="cosine")
    agreement = adjusted_rand_score(clusters, np.roll(clusters, 3))
    assert found["silhouette"] == pytest.approx(silhouette, abs=1e-5)
    assert found["agreement"] == agreement
    assert found["score"] == pytest.approx((silhouette + agreement) / 2, abs=1e-5)
    assert found["size_max"] == 30
    assert "score" not in scored(clusters, {"embedding": z})
    assert set(scored(clusters, {})) == {"size_min", "size_max", "size_gini", "empty"}


def test_a_search_over_images_says_what_it_is_scored_by(tmp_path):
    folder = make_study(tmp_path / "study", best=False)
    study = json.loads((folder / "trials.json").read_text())
    for trial in study["trials"]:
        if trial.get("metrics"):
            trial["metrics"] = {"silhouette": 0.2, "agreement": 0.5}
    assert tables.by_views(study)
    assert not tables.by_recall(study)
    (folder / "trials.json").write_text(json.dumps(study))
    assert "the ARI between the clusterings of two augmented copies" in write_report(folder).read_text()


def test_many_clusters_and_small_ones_are_drawn():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, 3, 200, 120), dtype=np.uint8)
    clusters = np.concatenate([np.arange(40), np.zeros(50, np.int64)])
    made = pictures(pixels, {"last": clusters, "confidence": rng.random(90, dtype=np.float32)})
    assert made["near"].shape == (CLUSTERS, NEAREST, 3, 67, 40)
    assert made["near_cluster"][0] == 0
    assert made["near_count"].tolist() == [NEAREST, *[1] * (CLUSTERS - 1)]
    assert "pair" not in made
    table = confusion(np.array([2, 2, 0, 1]), np.array([0, 0, 1, 1]), 4)
    assert table["confusion_order"].tolist()[:2] == [2, 0]
    assert table["confusion"].tolist() == [[2, 0, 0, 0], [0, 1, 1, 0]]


def test_damaged_pictures_are_named(tmp_path):
    (tmp_path / "pictures.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"pictures.npz: is not readable; the file is damaged, run it again with --fr"):
        read_pictures(tmp_path / "pictures.npz")
    assert read_pictures(tmp_path / "none.npz") is None
