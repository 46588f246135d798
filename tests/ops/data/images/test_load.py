"""Images from folders, Parquet and tables of features; what is odd is converted and counted, or named."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encoded, folder, load_images, picture, table
from PIL import Image

from ops.data.images import cache
from ops.data.types import mapped_file
from ops.data.types.graph import Data
from ops.data.types.mapped_file import MappedFile
from ops.errors import DataError


def test_sub_folders_are_labels_that_the_data_does_not_hold(places):
    root = folder(places / "pets")
    (root / "dog" / "readme.txt").write_text("no image")
    (root / ".thumbs").mkdir()
    data, labels = load_images(str(root))
    assert isinstance(data, Data)
    assert (data.name, data.n_rows, data.size, data.n_features) == ("pets", 6, (32, 32), 3072)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.ids.tolist() == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    assert np.array_equal(data.pixels[4], np.asarray(picture(11)).transpose(2, 0, 1))
    assert data.pixels.flags.c_contiguous
    assert data.notes == ("1 file without a suffix of images left out: dog/readme.txt",)


def test_labels_alone_change_nothing(places):
    """The same pixels in other classes, in a flat folder, and in Parquet: one digest, one training."""
    folder(places / "a", ("cat", "dog"))
    folder(places / "b", ("ant", "bee"))
    (places / "c").mkdir()
    for i, path in enumerate(sorted((places / "a").rglob("*.png"))):
        path.replace(places / "c" / f"{i}.png")
    flat = load_images(str(places / "c"))
    assert flat[1] is None
    contents = [p.read_bytes() for p in sorted((places / "c").glob("*.png"))]
    packed = load_images(str(table(places / "d.parquet", contents, [1, 0, 1, 0, 1, 1])))
    assert packed[1].tolist() == [1, 0, 1, 0, 1, 1]
    assert flat[0].digest() == packed[0].digest() == load_images(str(places / "b"))[0].digest()


def test_odd_images_are_converted_and_counted(places):
    root = places / "odd"
    root.mkdir()
    for i in range(4):
        picture(i).save(root / f"a{i}.png")
    picture(4, mode="L").save(root / "b-grey.png")
    clear = picture(5).convert("RGBA")
    clear.putalpha(0)
    clear.save(root / "c-clear.png")
    picture(6).convert("P").save(root / "d-palette.gif")
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(root / "e-deep.png")
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    wide.save(root / "f-wide.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    half = Image.new("RGB", (32, 32), "black")
    half.paste("white", (0, 0, 16, 32))
    half.save(root / "g-turned.jpg", exif=turned)
    picture(7).convert("CMYK").save(root / "h-print.jpg")
    frames = [Image.new("L", (32, 32), shade) for shade in (250, 10)]
    frames[0].save(root / "i-frames.gif", save_all=True, append_images=frames[1:])
    data, labels = load_images(str(root), size=32)
    at = {name[0]: row for name, row in zip(data.ids, data.pixels, strict=True) if name[0] != "a"}
    assert labels is None
    assert np.array_equal(at["b"][0], at["b"][2])
    assert (at["c"] == 255).all()
    assert (at["e"] == 40_000 >> 8).all()
    assert (at["f"][2] > 250).all()  # the blue middle
    assert at["g"][0, :12].min() > 230  # the white half is on top
    assert at["g"][0, 20:].max() < 25
    assert at["i"].min() > 240
    assert data.notes == (
        "2 images in grey", "1 image with transparency: laid on white",
        "1 image of more than 8 bits a channel: the upper 8 of 16 were taken, as 40,000 is their largest value",
        "1 image turned upright, as their camera says", "1 image with several frames: the first was taken",
        "1 image of another size or shape: resized and cut to the middle 32 x 32",
    )  # fmt: skip


def test_damaged_images_are_named_or_left_out(places):
    good = [encoded(picture(i)) for i in range(4)]
    contents = [good[0], b"", good[1], b"no image at all", good[2][:200], None, good[3]]
    path = table(places / "x.parquet", contents, [0, 0, 1, 1, 0, 1, 1])
    with pytest.raises(DataError) as caught:
        load_images(str(path))
    assert str(caught.value) == (
        f"{path}, row 1: is empty (and 3 more images damaged); remove or replace what is damaged, or give "
        "--skip-damaged"
    )
    data, labels = load_images(str(path), skip_damaged=True)
    assert labels.tolist() == [0, 1, 1]
    assert data.ids.tolist() == [0, 2, 6]  # one has no path: rows are called by their numbers
    assert np.array_equal(data.pixels[1], np.asarray(picture(1)).transpose(2, 0, 1))
    assert data.notes[0].startswith(f"4 damaged images left out: {path}, row 1: is empty; {path}, row 3: is no ")
    with pytest.raises(DataError, match=r"row 0: is no image of a known kind .PNG, JPEG, .*PPM.; remove or"):
        load_images(str(table(places / "y.parquet", [b"nothing"])), skip_damaged=True)
    root = folder(places / "pets", each=1)
    (root / "cat" / "broken.jpg").write_bytes(encoded(picture(), "JPEG")[:300])
    with pytest.raises(DataError, match=r"pets/cat/broken.jpg: (?i:truncated)"):
        load_images(str(root))


def test_decoding_happens_once(places, monkeypatch):
    """Above a size that nobody notices, pixels are kept in a file; another content or size is another file."""
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    good = [encoded(picture(i)) for i in range(4)]
    path = table(places / "x.parquet", [good[0], b"", *good[1:]], [0, 1, 0, 1, 1])
    first, labels = load_images(str(path), skip_damaged=True)
    assert labels.tolist() == [0, 0, 1, 1]
    kept = sorted((places / "cache").rglob("*.pixels"))
    assert len(kept) == 1
    assert first.notes[-1] == f"decoded once to 32 x 32; the pixels are kept in {kept[0]}"
    assert not first.pixels.flags.writeable
    monkeypatch.setattr(cache, "decode_all", None)  # not to be asked again
    again, _ = load_images(str(path), skip_damaged=True)
    assert again.digest() == first.digest()
    assert np.array_equal(again.pixels[3], np.asarray(picture(3)).transpose(2, 0, 1))
    with pytest.raises(DataError, match="row 1: is empty; remove"):
        load_images(str(path))
    os.truncate(kept[0], 5000)  # cut off: not taken for whole
    with pytest.raises(TypeError):  # decode_all is asked
        load_images(str(path), skip_damaged=True)
    monkeypatch.undo()
    monkeypatch.setenv("TESSERA_CACHE", str(places / "cache"))
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    path.rename(places / "moved.parquet")
    table(path, [good[3], b"", *good[1:]], [0, 1, 0, 1, 1])
    load_images(str(path), skip_damaged=True)
    load_images(str(path), size=16, skip_damaged=True)
    assert len(list((places / "cache").rglob("*.pixels"))) == 3
    assert not list((places / "cache").rglob("*tmp*"))


def test_other_processes_map_the_file(places, monkeypatch):
    """Decoded pixels travel as the name of their file; a node without it writes what the object store has."""
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    data, _ = load_images(str(table(places / "x.parquet", [encoded(picture(i, (64, 64))) for i in range(9)])))
    (kept,) = (places / "cache").rglob("*.pixels")
    content, pickled = kept.read_bytes(), pickle.dumps(data)
    assert len(pickled) < 4000
    assert data.resident_bytes == 0
    again = pickle.loads(pickled)
    assert MappedFile.of(again.pixels) == MappedFile(kept, (9, 3, 64, 64), "|u1")
    assert again.digest() == data.digest()
    half = replace(data, pixels=data.pixels[:4])  # of a part of the file the pixels themselves
    assert pickle.loads(pickle.dumps(half)).pixels.tolist() == half.pixels.tolist()
    assert half.resident_bytes == half.pixels.nbytes
    monkeypatch.setattr(mapped_file, "PIECE", 30_000)
    elsewhere = MappedFile.of(data.pixels).in_pieces(bytes, bytes)
    assert len(elsewhere.pieces) == 4
    kept.write_bytes(content[:1000])
    missing = r"pixels: this node does not have the data that were read, or not all of them; set TESSERA_CACHE to"
    with pytest.raises(DataError, match=missing):
        pickle.loads(pickled)
    kept.unlink()
    assert pickle.loads(pickle.dumps(elsewhere)).open().tobytes() == content
    assert kept.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_named(places, monkeypatch):
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    (places / "file").write_text("")
    monkeypatch.setenv("TESSERA_CACHE", str(places / "file"))
    with pytest.raises(
        DataError, match=r"file/images/x-32-.*pixels: cannot be written \(.*\); set TESSERA_CACHE to another"
    ):
        load_images(str(table(places / "x.parquet", [encoded(picture())])))


def test_many_images_are_decoded_in_order(places):
    """More than a block and a piece, some damaged: every image in its place."""
    contents = [encoded(Image.new("RGB", (8, 8), (i % 256, i // 256, 0))) for i in range(2100)]
    for i in (0, 700, 1024, 2099):
        contents[i] = b"?"
    data, _ = load_images(str(table(places / "x.parquet", contents)), skip_damaged=True)
    wanted = [i for i in range(2100) if contents[i] != b"?"]
    assert data.pixels[:, :2, 4, 4].tolist() == [[i % 256, i // 256] for i in wanted]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([(20, 20)] * 3, 20), ([(64, 48)] * 2, 48), ([(300, 200), (500, 400), (90, 100)], 96), ([(10, 12), (9, 9)], 32)],
)
def test_the_size_of_the_images_themselves(places, sizes, expected):
    path = table(places / "x.parquet", [encoded(picture(i, s)) for i, s in enumerate(sizes)])
    data, _ = load_images(str(path))
    assert data.size == (expected, expected)


def test_a_folder_of_parquet_files_is_one_data_set(places):
    for i, name in enumerate(("test", "train0")):
        table(places / "set" / f"{name}.parquet", [encoded(picture(2 * i + j)) for j in range(2)], ["a", "b"])
    data, labels = load_images(str(places / "set"))
    assert labels.tolist() == [0, 1, 0, 1]
    assert data.ids is None  # the files' own names repeat
    table(places / "set" / "extra.parquet", [encoded(picture(9))])
    with pytest.raises(DataError, match=r"extra.parquet: has no column label, other files of the folder have"):
        load_images(str(places / "set"))


def test_features_of_a_frozen_backbone_come_along(places):
    root = folder(places / "pets")
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    np.save(places / "x.npy", x)
    data, labels = load_images(str(root), backbone=f"frozen:{places / 'x.npy'}")
    assert np.array_equal(data.features, x)
    assert (data.n_features, data.size) == (5, (32, 32))
    assert data.digest() != load_images(str(root))[0].digest()
    alone, _ = load_images(str(places / "x.npy"), backbone=f"frozen:{places / 'x.npy'}")
    assert data.digest() == alone.digest(), "so that predict with the features alone knows the rows"
    assert labels is not None
    ids = [*data.ids[::-1]]
    columns = {"id": ids} | {f"f{i}": x[::-1, i] for i in range(5)}
    pq.write_table(pa.table(columns), places / "x.parquet")
    matched, _ = load_images(str(root), backbone=f"frozen:{places / 'x.parquet'}")
    assert np.array_equal(matched.features, x)
    np.save(places / "short.npy", x[:4])
    with pytest.raises(DataError, match=r"short.npy: 4 rows of features for 6 images; give one row an image"):
        load_images(str(root), backbone=f"frozen:{places / 'short.npy'}")
    pq.write_table(pa.table({k: v[1:] for k, v in columns.items()}), places / "lacks.parquet")
    with pytest.raises(DataError, match=r"lacks.parquet: has no row with the id 'dog/2.png'"):
        load_images(str(root), backbone=f"frozen:{places / 'lacks.parquet'}")
    (root / "cat" / "1.png").write_bytes(b"")
    rest, _ = load_images(str(root), backbone=f"frozen:{places / 'x.npy'}", skip_damaged=True)
    assert np.array_equal(rest.features, x[[0, 2, 3, 4, 5]])
    (root / "dog" / "2.png").write_bytes(b"")  # the last one: what is kept does not tell how many there are
    rest, _ = load_images(str(root), backbone=f"frozen:{places / 'x.npy'}", skip_damaged=True)
    assert np.array_equal(rest.features, x[[0, 2, 3, 4]])
    np.save(places / "kept.npy", x[[0, 2, 3, 4]])
    rest, _ = load_images(str(root), backbone=f"frozen:{places / 'kept.npy'}", skip_damaged=True)
    assert np.array_equal(rest.features, x[[0, 2, 3, 4]])
    np.save(places / "short.npy", x[:5])
    with pytest.raises(DataError, match=r"short.npy: 5 rows of features for 4 images; give one row an image"):
        load_images(str(root), backbone=f"frozen:{places / 'short.npy'}", skip_damaged=True)


def test_features_alone_are_a_data_set_too(places):
    x = np.arange(12.0).reshape(4, 3)
    np.save(places / "x.npy", x)
    spec = str(places / "x.npy")
    data, labels = load_images(spec, backbone=f"frozen:{spec}")
    assert (data.pixels, labels) == (None, None)
    assert data.features.tolist() == x.tolist()
    assert (data.n_rows, data.n_features, data.size) == (4, 3, (0, 0))
    pq.write_table(pa.table({"a": [1.0, 2.0], "b": [0.5, 1.5], "label": ["x", "y"]}), places / "t.parquet")
    _, labels = load_images(str(places / "t.parquet"), backbone=f"frozen:{places / 't.parquet'}")
    assert labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"x.npy: holds features, not images; give --backbone frozen:.*x.npy to train"):
        load_images(spec)
    with pytest.raises(DataError, match=r"x.npy: is a table of features, but --backbone names .*t.parquet"):
        load_images(spec, backbone=f"frozen:{places / 't.parquet'}")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel().astype(np.float32)), 3)
    for kind in (vectors.type, pa.list_(pa.float64())):
        pq.write_table(pa.table({"label": [*"xxyy"], "z": vectors.cast(kind), "c": [*"abcd"]}), places / "v.parquet")
        data, labels = load_images(str(places / "v.parquet"), backbone=f"frozen:{places / 'v.parquet'}")
        assert (data.features.tolist(), labels.tolist()) == (x.tolist(), [0, 0, 1, 1])
    pq.write_table(pa.table({"z": [[1.0, 2.0], [3.0]]}), places / "v.parquet")
    with pytest.raises(DataError, match=r"v.parquet, row 1: the vector in 'z' has 1 values, that of row 0 2; give all"):
        load_images(str(places / "v.parquet"), backbone=f"frozen:{places / 'v.parquet'}")
    np.save(places / "cube.npy", np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match=r"cube.npy: features must have two dimensions \(images, features\), found \(2"):
        load_images(str(places / "cube.npy"), backbone=f"frozen:{places / 'cube.npy'}")


@pytest.mark.slow
def test_images_on_s3(s3, places):
    for name, content in (("cat/0.png", encoded(picture(0))), ("dog/1.png", encoded(picture(1)))):
        s3.put(f"data/pets/{name}", content)
    s3.put("data/pets/readme.txt", b"not ours")
    data, labels = load_images("s3://tessera/data/pets")
    assert (data.name, labels.tolist()) == ("pets", [0, 1])
    assert data.ids.tolist() == ["cat/0.png", "dog/1.png"]
    s3.put("data/pets.parquet", table(places / "x.parquet", [encoded(picture(0)), b""], [0, 1]).read_bytes())
    with pytest.raises(DataError, match=r"^s3://tessera/data/pets.parquet, row 1: is empty"):
        load_images("s3://tessera/data/pets.parquet")
    rest, _ = load_images("s3://tessera/data/pets.parquet", skip_damaged=True)
    assert rest.notes[0] == "1 damaged image left out: s3://tessera/data/pets.parquet, row 1: is empty"
    np.save(places / "x.npy", np.eye(2))
    s3.put("data/x.npy", (places / "x.npy").read_bytes())
    both, _ = load_images("s3://tessera/data/pets", backbone="frozen:s3://tessera/data/x.npy")
    assert both.features.tolist() == [[1, 0], [0, 1]]
    alone, _ = load_images("s3://tessera/data/x.npy", backbone="frozen:s3://tessera/data/x.npy")
    assert (alone.pixels, alone.n_features) == (None, 2)
    with pytest.raises(DataError, match=r"s3://tessera/data/none: no such object or folder \(endpoint .*\); give"):
        load_images("s3://tessera/data/none")
