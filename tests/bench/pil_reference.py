"""Views as the released code makes them: torchvision's transforms of one PIL image after the other."""

import torch
from PIL import Image

from ops.data.images.transforms import MEAN, STD


def views(side):
    """A function from one PIL image to a random normalised view."""
    from torchvision.transforms import v2

    return v2.Compose([
        v2.RandomResizedCrop(side, (0.08, 1.0)), v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), v2.RandomGrayscale(0.2),
        v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
    ])  # fmt: skip


def augment_each(pixels, view):
    """Views of uint8 [B, 3, H, W], image by image."""
    return torch.stack([view(Image.fromarray(p.transpose(1, 2, 0))) for p in pixels])
