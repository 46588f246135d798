"""Images: views a batch at a time against PIL one by one, and decoding; `python tests/bench/images.py`, a minute.

CPU microseconds an image on one thread, medians of both forms in turn within one process.
"""

import io
import time
from statistics import median

import numpy as np
import torch
from PIL import Image
from pil_reference import augment_each, views

from ops.data.images.decode import decode_all
from ops.data.images.transforms import augment

BAR = 2.0  # how many times less CPU than PIL one by one
SIZES = {32: 256, 96: 128}  # side -> images of a batch
TURNS = 5


def smooth(count, side):
    """Pictures with low frequencies, as photographs have: JPEG of noise is no measure."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, side // 4, side // 4, 3), dtype=np.uint8)
    resized = [np.asarray(Image.fromarray(s).resize((side, side), Image.Resampling.BICUBIC)) for s in small]
    return np.stack(resized).transpose(0, 3, 1, 2).copy()


def views_case(side, batch):
    pixels, view = smooth(batch, side), views(side)
    tensor, index = torch.from_numpy(pixels), torch.arange(batch)
    spent = {"ours": [], "PIL": []}
    for turn in range(TURNS + 1):
        marks = [time.process_time()]
        augment(tensor, 0, turn, index, 0)
        marks.append(time.process_time())
        augment_each(pixels, view)
        marks.append(time.process_time())
        for name, seconds in zip(spent, np.diff(marks), strict=True):
            spent[name].append(1e6 * float(seconds) / batch)
    ours, theirs = (median(s[1:]) for s in spent.values())  # the first one warms up
    word = "met" if theirs / ours >= BAR else "NOT MET"
    print(f"views {side}x{side}, batch {batch}: {ours:.0f} us an image, PIL one by one {theirs:.0f} us: "
          f"{theirs / ours:.1f} times less CPU (bar {BAR:g}: {word})")  # fmt: skip


def decode_case(side, kept, count):
    encoded = []
    for p in smooth(count, side):
        buffer = io.BytesIO()
        Image.fromarray(p.transpose(1, 2, 0)).save(buffer, "JPEG", quality=90)
        encoded.append(buffer.getvalue())
    cpu, wall = time.process_time(), time.monotonic()
    decode_all(lambda: iter([encoded]), kept, io.BytesIO())
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(f"decoding JPEG {side}x{side} to {kept}x{kept}: {1e6 * cpu / count:.0f} us of CPU an image, "
          f"{count / wall:,.0f} images a second")  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size, number in SIZES.items():
        views_case(size, number)
    decode_case(32, 32, 4000)
    decode_case(384, 96, 200)
