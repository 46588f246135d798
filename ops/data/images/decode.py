"""Encoded images (JPEG, PNG ...) to pixels of one size, in threads: Pillow lets others work while it decodes.

Whatever an image is (grey, with transparency, of 16 bits, turned by its camera, of another shape), it becomes red,
green and blue of one square size, and what was changed is counted; one that cannot be read is named.

Axes: N images, B images of a block, S the side, K kept images (not damaged).
"""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.validate import count

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = bytes | Path | NDArray[np.uint8] | None  # content, a file, pixels [H W 3], or nothing at all
PIECE = 64  # images a thread takes at a time
WORDS = {  # what may be changed, in the order of the notes
    "grey": "in grey",
    "clear": "with transparency: laid on white",
    "deep": "of more than 8 bits a channel: the upper 8 were taken",
    "turned": "turned upright, as their camera says",
    "frames": "with several frames: the first was taken",
    "sized": "of another size or shape: resized and cut to the middle SIZE",
}


@dataclass
class Tally:
    """What happened to the images: how many were changed in which way, and the number and reason of damaged ones."""

    changed: Counter[str] = field(default_factory=Counter)
    damaged: dict[int, str] = field(default_factory=dict)

    def notes(self, size: int) -> list[str]:
        """What was changed, counted, one sentence each."""
        said = [f"{count(self.changed[key], 'image')} {words}" for key, words in WORDS.items() if self.changed[key]]
        return [each.replace("SIZE", f"{size} x {size}") for each in said]


def decode_all(
    blocks: Iterable[list[Encoded]], size: int, write: Callable[[NDArray[np.uint8]], Any], threads: int = 0
) -> Tally:
    """Every image of `blocks`, in order, to `write` as uint8 [B, 3, S, S] without the damaged ones."""
    tally, first = Tally(), 0
    threads = threads or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(threads) as pool, _quiet():
        for block in blocks:
            pieces = [block[i : i + PIECE] for i in range(0, len(block), PIECE)]
            for pixels, changed, damaged in pool.map(lambda piece: _piece(piece, size), pieces):
                tally.changed.update(changed)
                tally.damaged |= {first + i: why for i, why in damaged.items()}
                first += len(pixels) + len(damaged)
                write(pixels)
    return tally


def _piece(piece: list[Encoded], size: int) -> tuple[NDArray[np.uint8], Counter[str], dict[int, str]]:
    pixels = np.empty((len(piece), 3, size, size), np.uint8)
    changed: Counter[str] = Counter()
    damaged: dict[int, str] = {}
    for i, each in enumerate(piece):
        try:
            found, what = decode(each, size)
        # Pillow's readers raise a dozen classes (OSError, SyntaxError, struct.error ...), all of them about the image
        except Exception as error:
            damaged[i] = _reason(error)
            continue
        pixels[i - len(damaged)] = found.transpose(2, 0, 1)
        changed.update(what)
    return pixels[: len(piece) - len(damaged)], changed, damaged


def _reason(error: Exception) -> str:
    words = {
        "UnidentifiedImageError": "is no image of a known kind",
        "FileNotFoundError": "no such file",
        "PermissionError": "may not be read",
    }
    if "DecompressionBomb" in type(error).__name__:
        return "has too many pixels to be decoded safely"
    return words.get(type(error).__name__) or " ".join(str(error).split())[:120] or type(error).__name__


def decode(encoded: Encoded, size: int) -> tuple[NDArray[np.uint8], set[str]]:
    """One image as uint8 [S, S, 3], and what was changed (keys of WORDS). Raises what Pillow raises, and ValueError."""
    from PIL import Image, ImageOps

    if encoded is None or (isinstance(encoded, bytes) and not encoded):
        raise ValueError("is empty")
    if isinstance(encoded, Path) and encoded.stat().st_size == 0:
        raise ValueError("is empty")
    if isinstance(encoded, np.ndarray):
        if encoded.shape[:2] == (size, size):
            return encoded, set()
        return np.asarray(ImageOps.fit(Image.fromarray(encoded), (size, size))), {"sized"}
    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as opened:
        changed = {"sized"} if opened.size != (size, size) else set()
        changed |= {"frames"} if getattr(opened, "n_frames", 1) > 1 else set()
        opened.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
        image = ImageOps.exif_transpose(opened) if opened.getexif().get(0x0112, 1) != 1 else opened
        changed |= {"turned"} if image is not opened else set()
        image = _plain(image, changed)
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size))
        return np.asarray(image), changed


def _plain(image: Image, changed: set[str]) -> Image:
    """Red, green, blue of 8 bits; what was changed is added to `changed`."""
    from PIL.Image import alpha_composite, fromarray, new

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("has floating-point pixels")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        changed |= {"deep", "grey"}
        image = fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        full = image.convert("RGBA")
        changed |= {"grey"} if image.mode in ("LA", "La") else set()
        if np.asarray(full)[..., 3].min() < 255:
            changed.add("clear")
            return alpha_composite(new("RGBA", full.size, "white"), full).convert("RGB")
        return full.convert("RGB")
    if image.mode in ("1", "L"):
        changed.add("grey")
    return image.convert("RGB")


class _quiet(warnings.catch_warnings):  # noqa: N801  # a context manager, used as a function
    """Pillow's remarks on odd metadata are no business of the user's; a bomb is an error of its image."""

    def __enter__(self) -> Any:
        from PIL import Image

        made = super().__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return made


def common_size(sample: Iterator[Encoded]) -> int:
    """The side at which images like the `sample` are decoded.

    Square images of one size up to 96 stay as they are; otherwise the median shorter side, in 32 ... 96.
    """
    from PIL import Image

    sides = []
    with _quiet():
        for each in sample:
            if isinstance(each, np.ndarray):
                sides.append((each.shape[1], each.shape[0]))
                continue
            try:
                with Image.open(io.BytesIO(each) if isinstance(each, bytes) else each) as opened:  # type: ignore[arg-type]
                    sides.append(opened.size)
            except Exception:  # noqa: S112  # a damaged one is named when it is decoded
                continue
    if not sides:
        return 32
    if len(set(sides)) == 1 and sides[0][0] == sides[0][1] <= 96:
        return int(sides[0][0])
    return int(np.clip(np.median([min(s) for s in sides]), 32, 96))
