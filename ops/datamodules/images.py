"""Runs on images: judged in the trial's own target projections, as images have no fixed space.

Axes: N images, C = 3 channels, S the side, D projection width, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ops.api import Experiment, Judge
from ops.atomic_io import Arrays
from ops.clustering.kmeans import START_ROWS
from ops.clustering.temi import temi
from ops.config.data_settings import ImageSettings
from ops.config.settings import LaunchSettings
from ops.data.images.load import read_images
from ops.data.load import refuse_preparation
from ops.data.types.images import ImageSet
from ops.datamodules.base import ALL, Baseline, DataModule, Extras, Integers, unit_rows
from ops.distributed.process_group import ProcessGroup
from ops.evaluation.baselines import kmeans_clusters
from ops.evaluation.unlabelled import feature_indices, size_indices
from ops.graph.partition.executors import RunTasks
from ops.results.seed_rows import SeedRows

ImageExperiment = Experiment[ImageSettings, ImageSet]
OWN_SPACE = "indices are taken in the trial's own projections: they compare epochs and trials of one backbone only"
NAMED = 12  # classes that the plan names
LARGE, SAMPLED = 1 << 29, 1 << 27  # values of a table whose k-means works on a sample, and values of the sample
LINEAR_SEEDS = 3  # of the linear head, which takes seconds each


@dataclass(frozen=True)
class ClassNames:
    """What only the reader of a report sees besides the labels: the classes' names [C], where they have any."""

    classes: tuple[str, ...] | None


class ImageData(DataModule[ImageSettings, ImageSet]):
    """Images, or features of images."""

    def load(self, launch: LaunchSettings, settings: ImageSettings) -> tuple[ImageSet, Integers | None, ClassNames]:
        """The images, at the method's `image_size` and with the features of its frozen `backbone`; labels apart."""
        refuse_preparation(launch, "is for attributed graphs and feature tables; images have neither edges nor columns")
        images = read_images(
            launch.dataset, size=settings.image_size, backbone=settings.backbone, skip_damaged=launch.skip_damaged
        )
        return images.data.with_notes(OWN_SPACE), images.labels, ClassNames(images.classes)

    def describe(self, data: ImageSet) -> str:
        """How many, and of which size; the width of given features."""
        words = [f"{data.n_rows:,} images"]
        words += [f"{data.size[0]} x {data.size[1]} pixels"] if data.pixels is not None else []
        words += [f"{data.n_features:,} features of a frozen backbone"] if data.features is not None else []
        return ", ".join(words)

    def describe_labels(self, labels: Integers | None, hidden: ClassNames) -> list[str]:
        """The classes by name and number of images: the K that they stand for is then seen to be right."""
        if labels is None:
            return []
        counts = np.bincount(labels[labels >= 0])
        names = hidden.classes or tuple(map(str, range(len(counts))))
        words = [f"{name} ({number:,})" for name, number in zip(names, counts, strict=True)]
        more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
        return [f"{len(words)} classes by the labels: {', '.join(words[:NAMED])}{more}"]

    def judge(self, experiment: ImageExperiment, group: ProcessGroup) -> Judge:
        """Indices in the method's projections; `agreement`: ARI between the clusterings of two augmented copies.

        `score` is the mean of the cosine silhouette and that agreement. Embeddings: `embedding` [N, D], and where they
        are given the clusters `copy_a`, `copy_b` of the same augmented images.
        """
        from sklearn.metrics import adjusted_rand_score

        k = experiment.k

        def scored(clusters: NDArray[np.int64], embeddings: Arrays) -> dict[str, float]:
            indices = size_indices(clusters, k)
            if "embedding" in embeddings:
                indices |= feature_indices(unit_rows(embeddings["embedding"]), clusters, metric="cosine")
            if "copy_a" in embeddings and "silhouette" in indices:
                indices["agreement"] = float(adjusted_rand_score(embeddings["copy_a"], embeddings["copy_b"]))
                indices["score"] = (indices["silhouette"] + indices["agreement"]) / 2
            return indices

        return scored

    def features(self, data: ImageSet, rows: Integers | slice = ALL) -> NDArray[np.number]:
        """The features [N, F], or the pixels as they are, uint8 [N, 3 S S] without a copy."""
        if data.features is not None:
            return data.features[rows]
        assert data.pixels is not None
        return data.pixels.reshape(data.n_rows, -1)[rows]

    def baselines(self, experiment: ImageExperiment, group: ProcessGroup) -> Iterator[Baseline]:
        """k-means on pixels, and where the backbone is frozen k-means and TEMI's linear head on the features.

        Only their sizes and scores by labels count: indices would be of other spaces than the method's.
        """
        data = experiment.data
        pixels = None if data.pixels is None else data.pixels.reshape(data.n_rows, -1)
        for name, space in (("k-means on pixels", pixels), ("k-means on features", data.features)):
            if space is not None:
                for seed in experiment.seeds:
                    yield name, kmeans_clusters(space, experiment.k, seed, LARGE, SAMPLED, START_ROWS), {}
        if data.features is not None:
            for seed in experiment.seeds[:LINEAR_SEEDS]:
                yield "linear head on features", temi(data.features, experiment.k, seed), {}

    def finish(self, experiment: ImageExperiment, rows: SeedRows, seed: int, run: RunTasks) -> Extras:
        """The pictures of the report and the embeddings as Parquet (`images_results.py`)."""
        from ops.datamodules.images_results import finish

        return finish(experiment, rows, seed)
