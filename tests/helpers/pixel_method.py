"""The smallest method of images: k-means of principal components; what the kind and prediction are tested with."""

import numpy as np
import torch

from ops.api import Method, Result, State
from ops.clustering.kmeans import kmeans
from ops.clustering.lloyd import squared_distances
from ops.config.data_settings import ImageSettings
from ops.config.settings import setting

D = 8


class Settings(ImageSettings):
    """Only what the kind asks of a method's settings."""

    epochs: int = setting(3, "training epochs", ge=1)
    image_size: int | None = setting(None, "side of the images")
    backbone: str = setting("small", "small or frozen:FILE")


def estimate(settings, data, world):
    return 1 << 20


def exchanged(settings, data, world):
    return 0


def remarks(settings, data):
    return []


def rows_of(data):
    x = data.pixels if data.features is None else data.features
    return torch.from_numpy(x.reshape(len(x), -1).astype(np.float32))


def train(settings, data, run):
    x = rows_of(data)
    middle = x.mean(0)
    basis = torch.linalg.svd(x - middle, full_matrices=False)[2][:D]
    z = (x - middle) @ basis.T
    first = run.start.epoch + 1 if run.start else 0
    for epoch in range(first, settings.epochs):
        result = kmeans(z, settings.k, (run.seed, epoch))
        labels = result.labels.numpy()
        copies = {"copy_a": labels, "copy_b": np.roll(labels, epoch)}
        state = State(epoch, {"middle": middle})
        run.report(
            epoch, {"train/loss": 1.0 / (epoch + 1), "collapse/std": 0.9}, labels, lambda state=state: state,
            {"embedding": z.numpy(), **copies},
        )  # fmt: skip
    model = {"middle": middle, "basis": basis.contiguous(), "centres": result.centres}
    far = torch.cdist(z, z)
    far[result.labels[:, None] == result.labels[None]] = np.inf
    nearest, other = far.min(1)
    order = nearest.argsort()[:5]
    pairs = torch.stack([order, other[order]], dim=1)
    more = {"hard_pairs": pairs.numpy(), "hard_values": nearest[order].numpy()}
    sure = np.linspace(0.5, 1, len(z), dtype=np.float32)
    return Result(labels, sure, z.numpy(), model, more)


def predict(tensors, settings, data):
    z = (rows_of(data) - tensors["middle"]) @ tensors["basis"].T
    distance = squared_distances(z, tensors["centres"])
    return distance.argmin(1).numpy(), np.full(len(z), 0.5, np.float32)


METHOD = Method(
    name="pixel", summary="k-means of principal components", kind="images", settings=Settings, train=train,
    predict=predict, estimate=estimate, exchanged=exchanged, remarks=remarks, fixed=("image_size",),
    new_rows="they are projected as any other image", save_memory="take fewer images",
    avoid_collapse="take other images",
)  # fmt: skip
