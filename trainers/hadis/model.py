"""HaDis' networks: encoder and projector, online and as the target that follows them, and the predictor.

Axes: B images or feature rows, H x W pixels, F features, E encoder width, D projection width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize as unit

from ops.data.images.transforms import normalise
from ops.distributed.batch_norm import BatchNorm
from ops.distributed.process_group import ProcessGroup
from ops.rng import torch_generator
from trainers.hadis.settings import Settings
from trainers.shared import linear_start

Norm = Callable[[int], nn.Module]
LAYERS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
SMALL_SIDE = 24  # the first convolution of `small` halves images from this side on


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016); the first convolution halves the image."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), norm(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), norm(outputs)
        self.conv3, self.bn3 = nn.Conv2d(inputs, outputs, 1, 2, bias=False), norm(outputs)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """The halved image with `outputs` channels."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.bn3(self.conv3(x)))


class Standardise(nn.Module):
    """Features of a frozen backbone, centred, with a mean square of 1; columns keep their relative sizes."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, mean: Float[Tensor, "F"], deviation: Float[Tensor, "F"]) -> None:
        """Take the mean and the scale from the moments of the training's features."""
        self.mean.copy_(mean)
        self.scale.copy_(deviation.square().mean().clamp_min(1e-12).rsqrt())

    def forward(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        """(x - mean) * scale."""
        return (x - self.mean) * self.scale


def encoder(settings: Settings, shape: tuple[int, ...], norm: Norm) -> tuple[nn.Module, int]:
    """The backbone for inputs of `shape` (H, W) or (F,) and its width E."""
    if settings.frozen is not None:
        return Standardise(shape[0]), shape[0]
    if settings.backbone == "small":
        stem = nn.Conv2d(3, 32, 3, 2 if min(shape) >= SMALL_SIDE else 1, 1, bias=False)
        second = nn.Conv2d(32, 32, 3, 1, 1, bias=False)
        begin = stem, norm(32), nn.ReLU(), second, norm(32), nn.ReLU()
        return nn.Sequential(
            *begin, Block(32, 64, norm), Block(64, 128, norm), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        ), 128  # fmt: skip
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    block: Any = Bottleneck if settings.backbone == "resnet50" else BasicBlock
    network: Any = ResNet(block, list(LAYERS[settings.backbone]), num_classes=1, norm_layer=norm)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)  # the stem for small images
    network.maxpool, network.fc = nn.Identity(), nn.Identity()
    return network, 512 * block.expansion


class Network(nn.Module):
    """Encoder and projector: from normalised images or features to projections of any length."""

    def __init__(self, settings: Settings, shape: tuple[int, ...], group: ProcessGroup | None = None) -> None:
        super().__init__()
        norm: Norm = partial(BatchNorm, group=group, sync=settings.batch_norm == "sync")
        self.encoder, width = encoder(settings, shape, norm)
        self.projector = head(width, settings, norm)

    def forward(self, x: Float[Tensor, "B *S"]) -> Float[Tensor, "B D"]:
        """q or k before normalisation."""
        projected: Tensor = self.projector(self.encoder(x))
        return projected


def head(width: int, settings: Settings, norm: Norm) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, and Linear to D."""
    hidden = settings.hidden
    return nn.Sequential(
        nn.Linear(width, hidden), norm(hidden), nn.ReLU(), nn.Linear(hidden, settings.embedding_dim)
    )  # fmt: skip


class Model(nn.Module):
    """Online network, its target, and the predictor; first weights are keyed by the seed."""

    def __init__(
        self, settings: Settings, shape: tuple[int, ...], group: ProcessGroup | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the weights that torch draws here are drawn again below
            self.online = Network(settings, shape, group)
            self.target = Network(settings, shape, group).requires_grad_(False)
            norm: Norm = partial(BatchNorm, group=group, sync=settings.batch_norm == "sync")
            self.predictor = head(settings.embedding_dim, settings, norm)
        begin(self.online, torch_generator(seed, "hadis/network"))
        begin(self.predictor, torch_generator(seed, "hadis/predictor"), deviation=0.01)
        self.target.load_state_dict(self.online.state_dict())
        self.to(memory_format=torch.channels_last)  # faster than NCHW on CPUs too: tests/bench/hadis.py

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the target's weights towards the online ones by 1 - momentum; its statistics stay its own."""
        targets: list[Tensor] = list(self.target.parameters())
        online: list[Tensor] = list(self.online.parameters())
        torch._foreach_lerp_(targets, online, 1 - momentum)


@torch.no_grad()
def begin(module: nn.Module, g: torch.Generator, deviation: float | None = None) -> None:
    """First weights: convolutions by He et al. (fan out), linear layers as torch's own or N(0, deviation), biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=g)
        elif isinstance(layer, nn.Linear):
            if deviation is None:
                for parameter in (layer.weight, layer.bias):
                    parameter.copy_(linear_start(parameter.shape, layer.in_features, g))
            else:
                layer.weight.normal_(0, deviation, generator=g)
                layer.bias.zero_()


def shape_of(pixels: Any, features: Any) -> tuple[int, ...]:
    """(H, W) of pixels [N 3 H W], else (F,) of features [N F]."""
    return tuple(pixels.shape[2:]) if features is None else tuple(features.shape[1:])


def as_input(rows: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B F"]) -> Float[Tensor, "B *S"]:
    """Rows as the network takes them, without augmentation."""
    if rows.dtype == torch.uint8:
        return normalise(rows).contiguous(memory_format=torch.channels_last)
    return rows


@torch.no_grad()
def project(network: Network, rows: Float[Tensor, "B *S"]) -> Float[Tensor, "B D"]:
    """Projections of unit length."""
    return unit(network(rows).float())


def stored(model: Model) -> dict[str, Tensor]:
    """What `predict` needs: the target network's weights and statistics."""
    return {f"target.{name}": value.detach().cpu().contiguous() for name, value in model.target.state_dict().items()}


def restored(settings: Settings, tensors: Mapping[str, Tensor]) -> Network:
    """The target network of a stored model, for evaluation."""
    network = Network(settings, tuple(tensors["input.shape"].tolist())).requires_grad_(False)
    prefix = "target."
    network.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    return network.to(memory_format=torch.channels_last).eval()
