"""Folders of images as people keep them: splits, links, folders around folders; what is a class is said or refused."""

import os

import pytest
from image_files import folder, load_images, picture

from ops.data.images.load import read_images
from ops.errors import DataError


def write(root, *names):
    """Different pictures under these names."""
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(root / name)
    return str(root)


@pytest.mark.parametrize(
    ("names", "classes", "labels", "note"),
    [
        (("train/cat/0.png", "train/dog/0.png", "val/cat/1.png", "val/dog/1.png"), ("cat", "dog"), [0, 1, 0, 1],
         "train/, val/: splits, not classes; all are read together"),
        (("images/cat/0.png", "images/dog/0.png"), ("cat", "dog"), [0, 1],
         "classes are the folders of level 2, such as images/cat"),
        (("set/Train/a/0.png", "set/Test/b/0.png"), ("a", "b"), [1, 0],
         "Test/, Train/: splits, not classes; all are read together"),
        (("train/0.png", "test/0.png"), None, None, "no folders of classes: the images have no labels"),
        (("one/0.png", "one/1.png"), None, None, "no folders of classes: the images have no labels"),
        (("bus/0.png", "train/0.png"), ("bus", "train"), [0, 1], None),  # a train is no split here
        (("cat/train/0.png", "dog/train/0.png"), ("cat", "dog"), [0, 1], None),
    ],
)  # fmt: skip
def test_classes_are_the_first_folders_that_are_no_splits(places, names, classes, labels, note):
    loaded = read_images(write(places / "set", *names))
    assert loaded.classes == classes
    assert (None if loaded.labels is None else loaded.labels.tolist()) == labels
    assert loaded.data.n_rows == len(names)
    assert note in loaded.data.notes if note else not loaded.data.notes


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/cat/0.png", "extra/0.png"), "train/ is the name of a split, and extra/ beside it is not"),
        (("train/0.png", "val/0.png", "cat/0.png"), "train/ is the name of a split, and cat/ beside it is not"),
        (("train/cat/0.png", "train/0.png", "val/cat/1.png"), "train/cat/ holds images and train/0.png lies beside it"),
        (("cat/0.png", "0.png"), "cat/ holds images and 0.png lies beside it"),
    ],
)
def test_what_may_be_a_split_or_a_class_is_refused(places, names, words):
    with pytest.raises(DataError) as caught:
        load_images(write(places / "set", *names))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_linked_class_folders_are_followed_each_once(places):
    """Links to folders elsewhere, to a folder above (a circle), and to one that is read already."""
    store, root = folder(places / "store"), places / "root"
    root.mkdir()
    for name in ("cat", "dog"):
        (root / name).symlink_to(store / name)
    data, labels = load_images(str(root))
    assert (data.ids.tolist()[::3], labels.tolist()) == (["cat/0.png", "dog/0.png"], [0, 0, 0, 1, 1, 1])
    (store / "dog" / "up").symlink_to(root)
    (store / "dog" / "again").symlink_to(store / "cat")
    circular, labels = load_images(str(root))
    assert (circular.digest(), labels.tolist()) == (data.digest(), [0, 0, 0, 1, 1, 1])
    assert circular.notes == (
        f"2 linked folders left out, as their images are read already: {root}/dog/again ...",
    )  # fmt: skip


def test_a_link_to_nothing_is_damaged_and_a_pipe_is_no_image(places):
    root = folder(places / "pets")
    os.mkfifo(root / "dog" / "pipe.png")
    assert load_images(str(root))[0].n_rows == 6
    (root / "cat" / "lost.png").symlink_to(places / "nowhere.png")
    with pytest.raises(DataError, match=r"pets/cat/lost.png: no such file; remove or replace what is damaged"):
        load_images(str(root))
    assert load_images(str(root), skip_damaged=True)[0].n_rows == 6


@pytest.mark.parametrize(("copies", "note"), [(0, None), (1, "1 image the same"), (3, "3 images the same")])
def test_identical_images_are_counted(places, copies, note):
    root = folder(places / "pets")
    for i in range(copies):
        (root / "dog" / f"copy{i}.png").write_bytes((root / "cat" / "0.png").read_bytes())
    notes = load_images(str(root))[0].notes
    expected = f"{note} as an earlier one, pixel for pixel: {6 + copies} images, 6 different ones"
    assert notes == ((expected,) if note else ())
