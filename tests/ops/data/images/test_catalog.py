"""Images by name: digits, the data folder, ImageNet's classes, torchvision's sets; what cannot be is one line."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encoded, folder, load_images, picture, table

from ops.data.catalog import fetch
from ops.data.images import catalog
from ops.data.images.catalog import canonical_images
from ops.errors import DataError, SettingsError


@pytest.mark.usefixtures("places")
def test_digits_are_embedded():
    data, labels = load_images("digits")
    assert (data.name, data.n_rows, data.size) == ("digits", 1797, (16, 16))
    assert np.bincount(labels).min() > 170
    assert data.pixels.max() == 255
    assert load_images("digits", size=32)[0].size == (32, 32)
    assert (
        load_images("Digits", size=8)[0].pixels[0, 0].tolist() == load_images("digits", size=8)[0].pixels[0, 1].tolist()
    )


def test_a_known_name_is_found_in_the_data_folder(places, monkeypatch):
    table(places / "data" / "cifar10" / "test.parquet", [encoded(picture(i), "JPEG") for i in range(3)], [1, 0, 1])
    monkeypatch.setenv("TESSERA_DATA", str(places / "data"))
    data, labels = load_images("CIFAR-10")
    assert data.name == "cifar10 (JPEG)"
    assert labels.tolist() == [1, 0, 1]
    assert "train and test images together" in data.notes[0]
    folder(places / "data" / "mine")
    assert load_images("mine")[0].name == "mine"


def test_classes_of_imagenet_come_from_a_file(places):
    names = [f"n{i:04}" for i in range(12)]
    folder(places / "train", names, each=1)
    listed = places / "ten.txt"
    listed.write_text("# the ten\n" + "".join(f"{n} some words\n" for n in names[1:11]))
    data, labels = load_images(f"imagenet10:{places / 'train'},classes={listed}")
    assert (data.name, data.n_rows, labels.tolist()) == ("imagenet10", 10, list(range(10)))
    assert data.ids[0] == "n0001/0.png"
    with pytest.raises(DataError, match=r"ten.txt: names 10 classes in 10 lines; imagenet-dogs has 15"):
        load_images(f"imagenet-dogs:{places / 'train'},classes={listed}")
    listed.write_text("\n".join([*names[:9], "n9999"]))
    with pytest.raises(DataError, match=r"has no class folder n9999 \(1 of .*ten.txt's are missing\)"):
        load_images(f"imagenet10:{places / 'train'},classes={listed}")
    assert canonical_images("imagenet_dogs:a,classes=b") == "imagenet-dogs"
    for spec in ("imagenet10", f"imagenet10:{places / 'train'}"):
        with pytest.raises(SettingsError, match=r"one a line: imagenet10:FOLDER,classes=FILE"):
            load_images(spec)


def test_what_cannot_be_is_one_line(places):
    (places / "empty").mkdir()
    mixed = folder(places / "mixed")
    picture().save(mixed / "stray.png")
    (places / "x.png").write_bytes(encoded(picture()))
    pq.write_table(pa.table({"image": ["a.png"], "label": [1]}), places / "names.parquet")
    cases = {
        "nowhere": r"'nowhere': no such data set, file or folder; known names: cifar10, ",
        "http://host/x": "only local files, folders and s3:// can be read",
        str(places / "empty"): "empty: holds no images",
        str(mixed): r"mixed: cat/ holds images and stray.png lies beside it: put all images into sub-folders",
        str(places / "x.png"): r"x.png: is neither Parquet nor a table of features",
    }
    for spec, words in cases.items():
        with pytest.raises(DataError, match=words):
            load_images(spec)
    with pytest.raises(DataError, match=r"names.parquet: holds features, not images"):
        load_images(str(places / "names.parquet"))
    with pytest.raises(SettingsError, match="--image-size 0: allowed are 1 to 1024"):
        load_images("digits", size=0)
    with pytest.raises(SettingsError, match="digits takes no parameters"):
        load_images("digits:3")
    with pytest.raises(SettingsError, match="give a file of features: frozen:FILE"):
        load_images("digits", backbone="frozen:")


def test_torchvisions_sets_become_ours(places):
    """CIFAR-100's fine classes as 20 super-classes of five; STL-10's channels behind its rows."""
    assert np.bincount(fetch.SUPER).tolist() == [5] * 20
    part = SimpleNamespace(data=np.zeros((2, 32, 32, 3), np.uint8), targets=[95, 0])  # whale, apple
    pixels, labels = fetch.to_arrays("cifar20", [part, part])
    assert pixels.shape == (4, 32, 32, 3)
    assert labels.tolist() == [0, 4, 0, 4]  # whale: aquatic mammals; apple: fruit
    part = SimpleNamespace(data=np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 2, 2), labels=np.array([1, 0]))
    pixels, labels = fetch.to_arrays("stl10", [part])
    assert pixels[0, 0, 0].tolist() == [0, 4, 8]
    (places / "cache" / "stl10-images").mkdir(parents=True)
    np.save(places / "cache" / "stl10-images" / "pixels.npy", pixels)
    np.save(places / "cache" / "stl10-images" / "labels.npy", labels)
    data, labels = load_images("stl10", size=8)
    assert labels.tolist() == [1, 0]
    assert data.notes[0].startswith("the 13,000 labelled images; train and test images together")


def test_a_download_that_cannot_be_reached(places, monkeypatch):
    """The download itself, by a real process: tests/ops/data/catalog/test_graphs.py."""
    monkeypatch.setattr(catalog, "download", lambda name, product, target: f"URLError: no way to {name}/{product}")
    said = (
        r"^cifar20: not in .*cifar20-images, and the download failed \(URLError: no way to cifar20/arrays\).*--dataset"
    )
    with pytest.raises(DataError, match=said):
        load_images("cifar20")
