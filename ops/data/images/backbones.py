"""Features of images by a trained network of torchvision without its last linear layer, for `--backbone frozen:FILE`.

Axes: N images, B of a batch, S the side at which images are kept, F features.
"""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ops import memory
from ops.data.catalog.download import download
from ops.data.io.readers import cache_file, reading
from ops.device import send
from ops.errors import DataError, SettingsError

FILES = (".safetensors", ".pth", ".pt")
PRODUCT = "weights.safetensors"  # what `ops.data.catalog.fetch` leaves of torchvision's weights


@dataclass(frozen=True)
class Backbone:
    """A network that makes F features, the side that it was trained at, and how its pixels are scaled and resized."""

    network: nn.Module
    side: int
    mean: Float[Tensor, "3 1 1"]
    deviation: Float[Tensor, "3 1 1"]
    mode: str

    @torch.inference_mode()
    def features(
        self, pixels: NDArray[np.uint8], batch: int, device: torch.device
    ) -> Iterator[Float[np.ndarray, "B F"]]:
        """float32 features of pixels [N 3 S S], `batch` rows at a time; whole images are brought to the side."""
        network = self.network.to(device)
        mean, deviation = self.mean.to(device), self.deviation.to(device)
        for first in range(0, len(pixels), batch):
            x = send(np.array(pixels[first : first + batch]), device).float() / 255
            memory.release(pixels)
            if x.shape[-1] != self.side:
                x = interpolate(x, (self.side, self.side), mode=self.mode, antialias=True).clamp(0, 1)
            x = ((x - mean) / deviation).contiguous(memory_format=torch.channels_last)
            yield network(x).flatten(1).float().cpu().numpy()


def load_backbone(name: str, weights: str) -> Backbone:
    """torchvision's network `name`, ready for evaluation, with `weights`: a file of them, or which of torchvision's.

    Only tensors are read: of .safetensors, and of .pth and .pt, which are pickles, by torch's `weights_only`.
    Raises SettingsError for names that torchvision does not have, DataError for weights that cannot be had or of
    another network.
    """
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        raise SettingsError(f"--network {name}: torchvision has none of this name{'; nearest: '.join(['', *close])}")
    versions = {each.name: each for each in models.get_model_weights(name)}
    path = Path(weights).expanduser()
    if path.suffix not in FILES and weights not in ("default", *versions):
        raise SettingsError(f"--weights {weights}: allowed for {name} are default, {', '.join(versions)}, or a file "
                            f"({', '.join(FILES)})")  # fmt: skip
    chosen: Any = versions.get(weights, models.get_model_weights(name).DEFAULT)
    path = path if path.suffix in FILES else _downloaded(name, chosen.name)
    preset = chosen.transforms()
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (preset.mean, preset.std))
    network = _with_weights(models.get_model(name, weights=None), name, path)
    return Backbone(network, int(preset.crop_size[0]), mean, deviation, str(preset.interpolation.value))


def _downloaded(name: str, version: str) -> Path:
    """The cached file of torchvision's weights, downloaded by a process of its own where it is missing."""
    path = cache_file(name).with_name(f"{name}-{version}.safetensors")
    reason = "" if path.is_file() else download(f"weights:{name}:{version}", PRODUCT, path)
    if reason:
        raise DataError(
            f"{name}: weights {version} are not in {path}, and the download failed ({reason}); copy torchvision's file "
            "from a machine that can and give --weights FILE.pth"
        )
    return path


def _with_weights(network: nn.Module, name: str, path: Path) -> nn.Module:
    """The network with the file's weights and without its last linear layer, whose weights need not be there."""
    linear = [each for each, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise SettingsError(f"--network {name}: has no linear layer that features could be taken before; take another")
    above, _, last = linear[-1].rpartition(".")
    setattr(network.get_submodule(above), last, nn.Identity())
    with reading(path):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = network.state_dict()
    unfit = [key for key, value in wanted.items() if "num_batches" not in key
             and getattr(state.get(key), "shape", None) != value.shape]  # fmt: skip
    if unfit:
        raise DataError(
            f"{path}: is not of torchvision's {name}: {len(unfit)} of {len(wanted)} tensors are missing or of another "
            f"shape, the first {unfit[0]}; give the --network that it is of"
        )
    network.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
