"""`workflows/features.py`: a network's features beside the images' ids, which a training with `frozen:` takes."""

from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import Shell
from image_files import folder, load_images
from safetensors.torch import save_file
from torch import nn

from ops.data.images.backbones import load_backbone
from workflows import features


class Tiny(nn.Module):
    """Means of three channels, twice, and classes of them; stands for a network of torchvision's."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.pool(x))


@pytest.fixture
def tiny(capsys, monkeypatch, tmp_path):
    """(shell, weights' tensors) in a folder with pets/ and the weights as both kinds of file; no network to ask."""
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    state = {"pool.2.weight": torch.cat([torch.eye(3)] * 2), "pool.2.bias": torch.zeros(6)}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    folder(tmp_path / "pets")
    shell = Shell(capsys, monkeypatch, tmp_path)
    with patch("torchvision.models.get_model", lambda name, weights: Tiny()):
        yield lambda line: shell(line, features.main, "workflows/features.py"), state


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth"])
def test_features_lie_beside_the_ids_and_a_frozen_backbone_takes_them(tiny, tmp_path, file):
    shell, _ = tiny
    ended = shell(f"--dataset pets --network resnet18 --weights {file} --out x.parquet --batch 4 --threads 1")
    assert (ended.code, ended.errors) == (0, [])
    assert "6 images of 32 x 32 pixels, seen at 224 on" in ended.out
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.names == ["id", "vector"]
    data, labels = load_images("pets", backbone="frozen:x.parquet")
    assert data.ids.tolist() == table["id"].to_pylist()
    assert len(labels) == 6
    plain = data.pixels.mean((2, 3)) / 255  # resized and scaled in another order: the same up to the borders
    expected = (plain - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(data.features, np.tile(expected, 2), atol=0.02)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ("--network resnet19", 2, "--network resnet19: torchvision has none of this name; nearest: resnet1"),
        ("--weights v3", 2, "--weights v3: allowed for resnet18 are default, IMAGENET1K_V1, or a file (.safetensors,"),
        ("--weights none.pth", 3, "none.pth: no such file"),
        ("--weights pets/cat/0.pth", 3, "pets/cat/0.pth: "),
        ("--weights other.safetensors", 3, "is not of torchvision's resnet18: 2 of 2 tensors are missing or of another "
         "shape, the first pool.2.weight; give the --network that it is of"),
        ("--weights default", 3, "resnet18: weights IMAGENET1K_V1 are not in "),
        ("--out x.csv", 2, "--out x.csv: give a file to write, FILE.parquet"),
        ("--dataset nowhere", 3, "'nowhere': no such data set, file or folder"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(tiny, tmp_path, flags, code, said):
    shell, _ = tiny
    save_file({"head.weight": torch.zeros(2, 6)}, tmp_path / "other.safetensors")
    (tmp_path / "pets" / "cat" / "0.pth").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")  # a pickle that acts
    with patch("ops.data.images.backbones.download", lambda *_: "no route to host"):
        ended = shell(f"--dataset pets --network resnet18 --weights w.pth --out x.parquet {flags}")
    assert (ended.code, len(ended.errors)) == (code, 1)
    assert said in ended.errors[0]
    assert ("copy torchvision's file" in ended.errors[0]) == (flags == "--weights default")
    assert not (tmp_path / "x.parquet").exists()
    assert not (tmp_path / "hacked").exists()


def test_a_real_network_gives_what_stands_before_its_classes(tmp_path):
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    whole = mobilenet_v3_small().eval()
    save_file({key: value.clone() for key, value in whole.state_dict().items()}, tmp_path / "m.safetensors")
    backbone = load_backbone("mobilenet_v3_small", str(tmp_path / "m.safetensors"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224), np.uint8)
    (x,) = backbone.features(pixels, 2, torch.device("cpu"))
    scaled = (torch.from_numpy(pixels) / 255 - backbone.mean) / backbone.deviation
    with torch.no_grad():
        np.testing.assert_allclose(whole.classifier[3](torch.from_numpy(x)), whole(scaled), atol=1e-5)
