"""Small images in clear groups, short trainings on them and a run that keeps every state, for the tests of HaDis."""

import numpy as np
import torch
from small import Recorder, Worker

from ops.data.types.images import ImageSet
from ops.distributed.process_group import ProcessGroup
from trainers.hadis import Settings, train
from trainers.hadis.clusters import cluster as clusters_of
from trainers.hadis.clusters import projected
from trainers.hadis.source import batches
from trainers.hadis.training import HadisTrainer

SMALL = {
    "n_clusters": 3, "backbone": "small", "hidden": 32, "embedding_dim": 16, "batch": 24, "epochs": 4,
    "warmup_epochs": 1, "eval_every": 2, "kmeans_starts": 3, "crop_min": 0.5, "ema_momentum": 0.9, "lr": 0.1,
}  # fmt: skip
VARIANTS = {
    "plain": {},
    "accumulated": {"accumulate": 2, "decay": "weights"},
    "resampled": {"resample": True, "ema_schedule": "cosine", "sigma": 0.1},
    "mixture": {"cluster": "gmm"},
    "frozen": {"backbone": "frozen:features.npy"},
}


def small_images(n=72, side=8, seed=0):
    """Three kinds of patterns: stripes across, stripes down, squares; (images, labels)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    y, x = np.mgrid[:side, :side] // 2 % 2
    kinds = np.stack([y, x, x ^ y])
    pixels = kinds[labels][:, None] * 150 + rng.integers(0, 100, (n, 3, side, side))
    return ImageSet("patterns", pixels=pixels.astype(np.uint8)), labels


def small_features(n=72, width=12, seed=0):
    """Features of three kinds far apart, one column constant."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.standard_normal((3, width))[labels] * 4 + rng.standard_normal((n, width))
    x[:, 0] = 7
    return ImageSet("features", features=x.astype(np.float32)), labels


def small_data(words):
    return small_features()[0] if str(words.get("backbone", "")).startswith("frozen:") else small_images()[0]


def settings_of(**values):
    return Settings.model_validate(SMALL | values)


class Everything(Recorder):
    """Also keeps the embeddings that were reported."""

    def __init__(self, seed=0, start=None):
        super().__init__(seed)
        self.start, self.embeddings = start, {}

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        super().report(epoch, metrics, assignment, state)
        if embeddings is not None:
            self.embeddings[epoch] = embeddings


def trained(words, seed=0, start=None):
    run = Everything(seed, start)
    return train(settings_of(**words), small_data(words), run), run


def shares_of(training, epoch, number, index):
    """Loss shares and this worker's gradients of one part, summed over the workers."""
    training.model.train()
    shares, _ = training._learn(epoch, number, index, 1)
    group = training.group
    actual = {}
    for name, p in training.model.named_parameters():
        if p.grad is not None:
            actual[name] = group.sum_(p.grad.clone()).numpy()
    return group.sum_(shares).numpy(), actual


def equal_states(a, b):
    assert a.shared.keys() == b.shared.keys()
    for name, value in a.shared.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(b.shared[name])), name


STEPS = {
    "first": ({}, 0),
    "prototypes": ({"sigma": 0.05}, 1),
    "uneven": ({"batch": 23}, 1),
    "frozen": ({"backbone": "frozen:features.npy"}, 1),
    "local": ({"batch_norm": "local"}, 1),
    "shuffled": ({"batch_norm": "shuffled"}, 1),
}


def one_step(rank, world, name):
    """Loss shares, gradients, and statistics after one part in epoch 0 or 1 with given pseudo labels."""
    words, epoch = STEPS[name]
    data = small_data(words)
    training = HadisTrainer(settings_of(**words), data, Worker(rank, world))
    training.pseudo = torch.arange(data.n_rows) % 3
    index = batches(training.settings, data.n_rows, 3, epoch)[0][0]
    shares, gradients = shares_of(training, epoch, 0, index)
    return shares, gradients, {k: b.numpy() for k, b in training.model.named_buffers()}


def whole(rank, world, words):
    """A training: history, assignments, result."""
    run = Worker(rank, world)
    result = train(settings_of(**words), small_data(words), run)
    return run.history, run.assignments, result.assignment, result.embedding, result.confidence


def labelled(rank, world, cluster):
    """Clusters of 9,000 rows that the workers share, by k-means or a mixture."""
    g = torch.Generator().manual_seed(0)
    z = torch.nn.functional.normalize(torch.randn(9000, 5, generator=g) + 2 * torch.eye(5)[torch.arange(9000) % 5])
    rows, local = projected(9000, ProcessGroup(rank, world), torch.zeros(0, 5), lambda at: z[at])
    settings = settings_of(n_clusters=5, cluster=cluster)
    actual, pseudo = clusters_of(local, rows, settings, 0, 7, ProcessGroup(rank, world))
    return actual.labels.numpy(), pseudo.numpy(), actual.confidence.numpy()
