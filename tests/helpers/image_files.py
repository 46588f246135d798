"""Small images as files, folders and Parquet, for the tests of reading them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ops.data.images.load import read_images


def picture(number=0, size=(32, 32), mode="RGB"):
    """A picture whose middle has a colour of its own."""
    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return image.convert(mode)


def encoded(image, kind="PNG", **words):
    buffer = io.BytesIO()
    image.save(buffer, kind, **words)
    return buffer.getvalue()


def folder(root, classes=("cat", "dog"), each=3):
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            picture(10 * c + i).save(root / name / f"{i}.png")
    return root


def table(path, contents, labels=None, paths=None):
    paths = paths or [f"{i}.png" for i in range(len(contents))]
    rows = [c if c is None else {"bytes": c, "path": p} for c, p in zip(contents, paths, strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(rows, type=kind)} | ({} if labels is None else {"label": labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def load_images(spec, **words):
    """The images and their labels, without the classes' names."""
    loaded = read_images(spec, **words)
    return loaded.data, loaded.labels
