"""Features of images by a network of torchvision, for `--backbone frozen:FILE`.

python workflows/features.py --dataset FOLDER --network resnet50 --out features.parquet
"""

import json
import os
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.config.cli import parser, read_settings
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.config.settings import Settings, setting
from ops.data.types.images import ImageSet
from ops.errors import SettingsError

TOLD_S = 20  # between lines of progress


class FeatureSettings(Settings):
    """What `workflows/features.py` takes."""

    dataset: str = setting("digits", "images: a name, a folder or Parquet; the latter two also as s3://BUCKET/PATH")
    out: str = setting("", "file to write, .parquet: id where the images have names, and vector")
    network: str = setting("resnet50", "a network of torchvision for pictures; its last linear layer is left out")
    weights: str = setting(
        "default", "default or a name of torchvision's, which it downloads, or a file: .safetensors, .pth, .pt"
    )
    image_size: int | None = setting(
        None, "side at which images are decoded; default: their own, at most the network's", ge=4, le=1024
    )
    batch: int = setting(64, "images at a time", ge=1, le=1_000_000)
    skip_damaged: bool = setting(False, "leave damaged images out instead of stopping; they are counted and named")
    device: str = setting("auto", "cpu, cuda, or auto: a GPU where there is one")
    threads: int = setting(0, "CPU threads; 0: all cores there are", ge=0, le=1024)
    json_output: bool = setting(False, "print a JSON summary and nothing else on standard output", alias="json")
    quiet: bool = setting(False, "print errors only")


EXAMPLES = (
    "--dataset photos/ --out features.parquet",
    "--dataset cifar10 --network vit_b_16 --weights vit_b_16.safetensors --out features.parquet",
)


def flags(program: str) -> ArgumentParser:
    """The parser of this command."""
    return parser(program, "Features of images by a trained network.", FeatureSettings, examples=EXAMPLES)


def main(argv: list[str], program: str = "workflows/features.py") -> None:
    """Parse, read the images, compute their features, print; `program` is what the user typed before `argv`."""
    import torch

    from ops.data.images.backbones import load_backbone
    from ops.data.images.load import read_images
    from ops.device import device_on
    from ops.storage.parquet import check_file, write_pieces

    _, settings = read_settings(flags(program), argv, FeatureSettings, "")
    if Path(settings.out).suffix.lower() != ".parquet":
        raise SettingsError(f"--out {settings.out or 'is missing'}: give a file to write, FILE.parquet")
    check_file(settings.out, inputs=[settings.dataset])
    console, device = Console(settings.quiet, settings.json_output), device_on(settings.device)
    torch.set_num_threads(settings.threads or len(os.sched_getaffinity(0)))
    backbone = load_backbone(settings.network, settings.weights)
    data = read_images(
        settings.dataset, size=settings.image_size, skip_damaged=settings.skip_damaged, largest=backbone.side
    ).data
    height, width = data.size
    console.say(f"{data.n_rows:,} images of {height} x {width} pixels, seen at {backbone.side} on {device}")
    for note in data.notes:
        console.say(note)
    assert data.pixels is not None, "a table of features is refused where no backbone is frozen"
    began = time.monotonic()
    write_pieces(settings.out, _columns(data, backbone.features(data.pixels, settings.batch, device), console))
    used = {"rows": data.n_rows, "seconds": round(time.monotonic() - began, 2)}
    if settings.json_output:
        print(json.dumps(used))
    console.say(f"{settings.out}: features of {data.n_rows:,} images, written in {used['seconds']} s; now give "
                f"train hadis --backbone frozen:{settings.out} with the same --dataset")  # fmt: skip


def _columns(data: ImageSet, features: Iterator[NDArray[np.float32]], console: Console) -> Iterator[dict[str, Any]]:
    """The columns of every batch: id where the images have one, and vector."""
    import pyarrow as pa

    first, began, said = 0, time.monotonic(), 0.0
    for x in features:
        last = first + len(x)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
        yield ({} if data.ids is None else {"id": data.ids[first:last]}) | {"vector": vectors}
        first, passed = last, time.monotonic() - began
        if passed > said + TOLD_S:
            said = passed
            left = passed / first * (data.n_rows - first)
            console.progress(f"{first:,} of {data.n_rows:,} images, {left:,.0f} s left", milestone=False)


if __name__ == "__main__":
    entry(main)
