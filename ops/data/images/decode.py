"""Encoded images (JPEG, PNG ...) to pixels of one size, in threads: Pillow lets others work while it decodes.

Whatever an image is (grey, with transparency, of 16 bits, turned by its camera, of another shape), it becomes red,
green and blue of one square size, and what was changed is counted; one that cannot be read is named.
Besides the pixels it writes, decoding needs at most about 16 bytes for each of LIMIT pixels (0.5 GiB), and of LARGE
pixels in every thread (64 MiB).

Axes: N images, B images of a piece, S the side, K kept images (not damaged), C channels.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.validate import count

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = bytes | Path | NDArray[np.uint8] | None  # content, a file, pixels [H W 3], or nothing at all
Blocks = Callable[[], Iterator[list[Encoded]]]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # what Pillow tries; its EPS reader starts Ghostscript
PIECE = 64  # images a thread takes at a time
LIMIT = 1 << 25  # pixels of an image that is decoded; a large JPEG is first reduced by up to 8 in each direction
LARGE = 1 << 22  # images of more pixels are decoded one at a time
DEPTH = 16  # bits that images of more than 8 bits a channel are taken to use until their largest value is seen
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation -> PIL.Image.Transpose
WORDS = {  # what may be changed, in the order of the notes
    "grey": "in grey",
    "clear": "with transparency: laid on white",
    "deep": "of more than 8 bits a channel: the upper 8 of {depth} were taken, as {peak:,} is their largest value",
    "turned": "turned upright, as their camera says",
    "frames": "with several frames: the first was taken",
    "sized": "of another size or shape: resized and cut to the middle {size} x {size}",
}
_one_large = threading.Lock()


@dataclass
class Tally:
    """What happened to images: how many were kept and changed in which way, number and reason of the damaged ones.

    `peak` is the largest value of those of more than 8 bits a channel, `depth` the bits that were taken for them;
    `repeated` counts the images that are the same as an earlier one.
    """

    kept: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    damaged: dict[int, str] = field(default_factory=dict)
    peak: int = 0
    depth: int = DEPTH
    repeated: int = 0

    def notes(self, size: int) -> list[str]:
        """What was changed, counted, one sentence each."""
        words = {key: text.format(size=size, depth=self.depth, peak=self.peak) for key, text in WORDS.items()}
        said = [f"{count(self.changed[key], 'image')} {text}" for key, text in words.items() if self.changed[key]]
        same = f"{count(self.repeated, 'image')} the same as an earlier one, pixel for pixel: {self.kept:,} images, "
        return [*said, *([f"{same}{self.kept - self.repeated:,} different ones"] if self.repeated else [])]


def decode_all(blocks: Blocks, size: int, file: io.BufferedIOBase, depth: int | None = None, threads: int = 0) -> Tally:
    """Every image of `blocks()`, in order, to `file` as uint8 [K, 3, S, S] without the damaged ones.

    `depth`: how many bits images of more than 8 bits a channel use; None: as many as the largest value of all needs,
    which takes a second reading where it is not DEPTH.
    """
    tally = _decode_once(blocks(), size, file, depth or DEPTH, threads)
    needed = max(8, tally.peak.bit_length())
    if depth is None and tally.changed["deep"] and needed != DEPTH:
        file.seek(0)
        file.truncate()
        tally = _decode_once(blocks(), size, file, needed, threads)
    return tally


def as_pixels(buffer: io.BytesIO, size: int) -> NDArray[np.uint8]:
    """What `decode_all` wrote into memory: uint8 [K, 3, S, S]."""
    return np.frombuffer(buffer.getbuffer(), np.uint8).reshape(-1, 3, size, size)


def _decode_once(
    blocks: Iterator[list[Encoded]], size: int, file: io.BufferedIOBase, depth: int, threads: int
) -> Tally:
    tally, first = Tally(depth=depth), 0
    digests = [np.empty(0, np.uint64)]
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool, warnings.catch_warnings(action="ignore"):
        for block in blocks:
            pieces = [block[i : i + PIECE] for i in range(0, len(block), PIECE)]
            for pixels, part in pool.map(lambda piece: _piece(piece, size, depth), pieces):
                tally.changed.update(part.changed)
                tally.damaged |= {first + i: why for i, why in part.damaged.items()}
                tally.peak = max(tally.peak, part.peak)
                first += len(pixels) + len(part.damaged)
                file.write(pixels.data)
                hashes = b"".join(blake2b(each.data, digest_size=8).digest() for each in pixels)
                digests.append(np.frombuffer(hashes, np.uint64))
    joined = np.concatenate(digests)
    tally.kept, tally.repeated = len(joined), len(joined) - len(np.unique(joined))
    return tally


def _piece(piece: list[Encoded], size: int, depth: int) -> tuple[NDArray[np.uint8], Tally]:
    """The pixels [B, 3, S, S] of the sound images of a piece, and what happened to them."""
    pixels, tally = np.empty((len(piece), 3, size, size), np.uint8), Tally()
    for i, each in enumerate(piece):
        try:
            decoded, changed, peak = decode(each, size, depth)
        # Pillow's readers raise a dozen classes (OSError, SyntaxError, struct.error ...), all of them about the image
        except Exception as error:
            tally.damaged[i] = _reason(error)
            continue
        pixels[i - len(tally.damaged)] = decoded.transpose(2, 0, 1)
        tally.changed.update(changed)
        tally.peak = max(tally.peak, peak)
    return pixels[: len(piece) - len(tally.damaged)], tally


def _reason(error: Exception) -> str:
    words = {
        "UnidentifiedImageError": f"is no image of a known kind ({', '.join(FORMATS)})",
        "FileNotFoundError": "no such file",
        "PermissionError": "may not be read",
        "DecompressionBombError": "has too many pixels to be decoded safely",
    }
    return words.get(type(error).__name__) or " ".join(str(error).split())[:160] or type(error).__name__


def open_image(encoded: bytes | Path) -> Image:
    """The image of a file or its content, by the readers of FORMATS alone; only its header is read."""
    from PIL import Image

    return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded, formats=FORMATS)


def decode(encoded: Encoded, size: int, depth: int) -> tuple[NDArray[np.uint8], set[str], int]:
    """One image as uint8 [S, S, 3], what was changed (keys of WORDS), and its largest value if it has over 8 bits.

    Raises what Pillow raises, and ValueError.
    """
    from PIL import Image, ImageOps

    if isinstance(encoded, np.ndarray):
        if encoded.shape[:2] == (size, size):
            return encoded, set(), 0
        return np.asarray(ImageOps.fit(Image.fromarray(encoded), (size, size))), {"sized"}, 0
    if not encoded or (isinstance(encoded, Path) and encoded.stat().st_size == 0):
        raise ValueError("is empty")
    with open_image(encoded) as opened:
        changed = {"sized"} if opened.size != (size, size) else set()
        changed |= {"frames"} if getattr(opened, "n_frames", 1) > 1 else set()
        opened.draft("RGB", (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
        pixels = opened.width * opened.height
        if pixels > LIMIT:
            raise ValueError(f"has {opened.width} x {opened.height} pixels, more than the {LIMIT:,} that are decoded; "
                             "make it smaller")  # fmt: skip
        with _one_large if pixels > LARGE else nullcontext():
            image, peak = _eight_bits(opened, encoded, depth, changed)
            image = _turned(opened, image, changed)
            image = _coloured(image, changed)
            return np.asarray(image if image.size == (size, size) else ImageOps.fit(image, (size, size))), changed, peak


def _turned(opened: Image, image: Image, changed: set[str]) -> Image:
    """`image` upright, by the orientation tag of the file `opened` alone: other tags may be odd."""
    try:
        turn = TURNS.get(opened.getexif().get(0x0112, 1))
    except Exception:  # tags that cannot be read turn nothing
        return image
    if turn is None:
        return image
    changed.add("turned")
    return image.transpose(turn)  # type: ignore[arg-type]


def _eight_bits(opened: Image, encoded: bytes | Path, depth: int, changed: set[str]) -> tuple[Image, int]:
    """The image with its channels of 8 bits: the upper 8 of `depth` where it has more; and their largest value."""
    from PIL.Image import fromarray

    tiles = getattr(opened, "tile", None)
    layout = tiles[0][3] if tiles else ""  # how pixels lie in the file, until it is read
    layout = str(layout[0] if isinstance(layout, tuple) and layout else layout)
    alpha: list[NDArray[Any]] = []
    if opened.mode == "F":
        raise ValueError("has floating-point pixels")
    if opened.mode.startswith("I"):
        values = np.asarray(opened)
        changed.add("grey")
    elif opened.format in ("PNG", "TIFF") and re.search(r";16[BLN]?$", layout):  # Pillow drops the lower 8 bits
        values = _deep_colours(opened, encoded)
        if values.shape[2] in (2, 4):
            values, alpha = values[..., :-1], [values[..., -1:] >> 8]
    else:
        opened.load()
        return opened, 0
    changed.add("deep")
    upper = np.clip(values, 0, min((1 << depth) - 1, np.iinfo(values.dtype).max)) >> (depth - 8)
    upper = np.concatenate([upper, *alpha], axis=2) if alpha else upper
    return fromarray(upper.astype(np.uint8)), int(values.max())


def _deep_colours(opened: Image, encoded: bytes | Path) -> NDArray[np.integer[Any]]:
    """The values [H, W, C] of a PNG of 16 bits a channel."""
    if opened.format != "PNG":
        raise ValueError("has 16 bits a colour, which are read from PNG only; save it as PNG, or with 8 bits")
    import torch
    from torchvision.io import decode_png

    content = encoded if isinstance(encoded, bytes) else encoded.read_bytes()
    values = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8)).numpy()
    return np.asarray(values.transpose(1, 2, 0))


def _coloured(image: Image, changed: set[str]) -> Image:
    """Red, green and blue, on white where it is transparent; what was changed is added to `changed`."""
    from PIL.Image import alpha_composite, new

    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if image.mode in ("LA", "La") or (image.mode in ("1", "L") and not clear):
        changed.add("grey")
    if not clear:
        return image if image.mode == "RGB" else image.convert("RGB")
    full = image.convert("RGBA")
    if np.asarray(full)[..., 3].min() < 255:
        changed.add("clear")
        full = alpha_composite(new("RGBA", full.size, "white"), full)
    return full.convert("RGB")


def common_size(sample: Iterator[Encoded], largest: int) -> int:
    """The side at which images like the `sample` are decoded.

    Square images of one size up to `largest` stay as they are; otherwise the median shorter side, in 32 ... `largest`.
    """
    sides: list[tuple[Any, ...]] = []
    with warnings.catch_warnings(action="ignore"):
        for each in sample:
            try:
                if isinstance(each, np.ndarray):
                    sides.append(each.shape[:2])
                elif each:
                    with open_image(each) as opened:
                        sides.append(opened.size)
            except Exception:  # noqa: S112  # a damaged one is named when it is decoded
                continue
    if len(set(sides)) == 1 and sides[0][0] == sides[0][1] <= largest:
        return int(sides[0][0])
    return int(np.clip(np.median([min(s) for s in sides]), 32, largest)) if sides else 32
