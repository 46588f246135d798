"""What is made of clusters of images, from arrays alone: scores, verdict, baseline and pictures."""

import json

import numpy as np
import pytest
from experiments import experiment_of
from fabricate import make_study
from pixel_method import METHOD, Settings
from sklearn.metrics import adjusted_rand_score, silhouette_score

from ops.data.types.images import ImageSet
from ops.datamodules.images import ImageData
from ops.datamodules.images_results import CLUSTERS, NEAREST, class_counts, pictures
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError
from ops.reporting.html import write_report
from ops.results.arrays import read_pictures
from ops.results.search_schema import SearchResult


def test_images_are_judged_in_their_projections():
    rng = np.random.default_rng(0)
    clusters = np.repeat([0, 1], 30)
    z = (rng.normal(0, 0.3, (60, 4)) + np.where(clusters[:, None] == 0, 1, -1)).astype(np.float32)
    scored = ImageData().judge(
        experiment_of(METHOD, Settings(n_clusters=2), ImageSet("a", np.zeros((2, 3, 4, 4), np.uint8))),
        ProcessGroup(),
    )
    result = scored(clusters, {"embedding": 5 * z, "copy_a": clusters, "copy_b": np.roll(clusters, 3)})
    silhouette = silhouette_score(z, clusters, metric="cosine")
    agreement = adjusted_rand_score(clusters, np.roll(clusters, 3))
    assert result["silhouette"] == pytest.approx(silhouette, abs=1e-5)
    assert result["agreement"] == agreement
    assert result["score"] == pytest.approx((silhouette + agreement) / 2, abs=1e-5)
    assert result["size_max"] == 30
    assert "score" not in scored(clusters, {"embedding": z})
    assert set(scored(clusters, {})) == {"size_min", "size_max", "size_gini", "empty"}


def test_a_search_over_images_says_what_it_is_scored_by(tmp_path):
    folder = make_study(tmp_path / "study", best=False)
    study = json.loads((folder / "trials.json").read_text())
    for trial in study["trials"]:
        if trial.get("metrics"):
            trial["metrics"] = {"silhouette": 0.2, "agreement": 0.5}
    (folder / "trials.json").write_text(json.dumps(study))
    search = SearchResult.read(folder / "trials.json")
    assert search.scored_by("agreement")
    assert not search.scored_by("recall_at_50")
    assert "the ARI between the clusterings of two augmented copies" in write_report(folder).read_text()


def test_many_clusters_and_small_ones_are_drawn():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (90, 3, 200, 120), dtype=np.uint8)
    clusters = np.concatenate([np.arange(40), np.zeros(50, np.int64)])
    stored = pictures(pixels, {"last": clusters, "confidence": rng.random(90, dtype=np.float32)})
    assert stored["near"].shape == (CLUSTERS, NEAREST, 3, 67, 40)
    assert stored["near_cluster"][0] == 0
    assert stored["near_count"].tolist() == [NEAREST, *[1] * (CLUSTERS - 1)]
    assert "pair" not in stored
    table = class_counts(np.array([2, 2, 0, 1]), np.array([0, 0, 1, 1]), 4)
    assert table["confusion_order"].tolist()[:2] == [2, 0]
    assert table["confusion"].tolist() == [[2, 0, 0, 0], [0, 1, 1, 0]]


def test_damaged_pictures_are_named(tmp_path):
    (tmp_path / "pictures.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"pictures.npz: is not a readable npz file"):
        read_pictures(tmp_path)
    assert read_pictures(tmp_path / "none") == {}
