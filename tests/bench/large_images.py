"""HaDis on more pixels than its memory: `python tests/bench/large_images.py [IMAGES]`; minutes, 3.5 GB of disk.

200,000 JPEG images of 64x64 (2.4 GB of pixels) in Parquet files, as a user with so many would have them, are trained by
the command with `--memory-limit 2`: decoded once to a mapped file, some steps, clusters of all, baselines, report.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SIDE, CLASSES, FILE_ROWS, LIMIT = 64, 10, 20_000, 2  # pixels, classes, images of a file, GiB


def write(folder, images):
    """Planted classes: a coarse picture each, under coarse noise keyed by the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    middle = np.random.default_rng(0).integers(40, 216, (CLASSES, 8, 8, 3)).repeat(2, 1).repeat(2, 2)
    for first in range(0, images, FILE_ROWS):
        rng = np.random.default_rng([1, first])
        labels = rng.integers(0, CLASSES, min(FILE_ROWS, images - first))
        encoded = []
        for label in labels:
            coarse = np.clip(middle[label] + rng.integers(-40, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            picture.save(content := io.BytesIO(), "JPEG")
            encoded.append(content.getvalue())
        pq.write_table(pa.table({"image": encoded, "label": labels}), folder / f"{first:07d}.parquet")


def memory_of(pid):
    """(private, resident) bytes of a process: the latter counts mapped files too, which lie in the page cache."""
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    size = {name: int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem", "VmHWM")}
    return size["RssAnon"] + size["RssShmem"], size["VmHWM"]


def trained(folder):
    """(private peak, resident peak, wall seconds, exit code, its result) of the command."""
    out = folder / "out"
    command = [
        sys.executable, str(ROOT / "workflows" / "train.py"), "hadis", "--dataset", str(folder / "images"), "--out",
        str(out), "--name", "run", "--preset", "none", "--backbone", "small", "--hidden", "512", "--embedding-dim",
        "64", "--epochs", "1", "--epoch-steps", "8", "--memory-limit", str(LIMIT), "--threads", "1",
    ]  # fmt: skip
    began, private, whole = time.monotonic(), 0, 0
    environment = os.environ | {"TESSERA_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment)
    while process.poll() is None:
        with suppress(OSError, KeyError, ValueError):
            now = memory_of(process.pid)
            private, whole = max(private, now[0]), max(whole, now[1])
        time.sleep(0.1)
    result = json.loads((out / "run" / "result.json").read_text()) if process.returncode == 0 else {}
    return private, whole, time.monotonic() - began, process.returncode, result


def main(images=200_000):
    """What it takes, and whether the bar is kept."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        (folder / "images").mkdir()
        write(folder / "images", images)
        stored = sum(file.stat().st_size for file in (folder / "images").iterdir())
        private, whole, seconds, code, result = trained(folder)
        pixels = sum(file.stat().st_size for file in (folder / "cache").rglob("*.pixels"))
    kept = "kept" if code == 0 and private <= LIMIT * 2**30 else "BROKEN"
    print(f"HaDis, {images:,} images of {SIDE}x{SIDE}: {stored / 1e9:.2f} GB of JPEG, {pixels / 1e9:.2f} GB of pixels "
          f"in the mapped file, {seconds:.0f} s in all, exit code {code}")  # fmt: skip
    print(f"private peak {private / 2**30:.2f} GiB (bar {LIMIT} GiB {kept}); with mapped pages of files "
          f"{whole / 2**30:.2f}; planned {result.get('planned_memory_gib', 0):.2f}, of the training by itself "
          f"{result.get('peak_memory_gib', 0):.2f}")  # fmt: skip


if __name__ == "__main__":
    main(*(int(float(a)) for a in sys.argv[1:2]))
