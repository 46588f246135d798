"""What decoding must never do silently: lose depth, trust odd tags, start other programs, take all memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import encoded, load_images, picture, table
from PIL import Image

from ops.data.images import cache, decode
from ops.data.images.load import read_images
from ops.errors import DataError


def deep_png(values):
    """A PNG of 16 bits a channel, of uint16 [H, W] or [H, W, C]; Pillow writes none of several channels."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    rows = values.astype(">u2").reshape(len(values), -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def loaded(places, *contents, **words):
    return load_images(str(table(places / "x.parquet", list(contents))), size=16, **words)[0]


RAMP = np.arange(256, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize(
    ("values", "depth"),
    [
        (np.minimum(RAMP, 240), 8),
        (RAMP * 16, 12),
        (RAMP * 257, 16),
        (np.stack([np.minimum(RAMP, 240)] * 3, 2), 8),
        (np.stack([RAMP * 4] * 3, 2), 10),
        (np.stack([RAMP * 16, RAMP * 0 + 0xFFFF], 2), 12),
    ],
    ids=["grey 8 of 16", "grey 12 of 16", "grey 16", "colours 8 of 16", "colours 10 of 16", "grey with transparency"],
)
def test_16_bits_are_read_by_the_sets_largest_value(places, values, depth):
    """The depth is the whole set's: a darker image beside it stays darker."""
    grey = values if values.ndim == 2 else values[..., 0]
    darker = np.where(values == 0xFFFF, values, values // 2) if depth == 12 else values // 2
    data = loaded(places, deep_png(values), deep_png(darker))
    assert data.pixels[0, 0].tolist() == (grey >> (depth - 8)).tolist()
    assert data.pixels[1, 0].max() == (grey // 2 >> (depth - 8)).max()
    assert data.depth == depth
    assert f"the upper 8 of {depth} were taken, as {grey.max():,} is their largest value" in " ".join(data.notes)


def test_the_depth_of_training_is_kept_for_new_images(places, monkeypatch):
    path = str(table(places / "x.parquet", [deep_png(RAMP)]))
    alone, as_trained = read_images(path, size=16).data, read_images(path, size=16, depth=12).data
    assert (alone.pixels.max(), as_trained.pixels.max()) == (255, 15)
    monkeypatch.setattr(cache, "IN_MEMORY", 0)
    assert read_images(path, size=16, depth=12).data.digest() == as_trained.digest()
    assert read_images(path, size=16).data.digest() == alone.digest()


def test_16_bits_in_other_files(places):
    tiff = encoded(Image.fromarray(RAMP * 16), "TIFF")
    pgm = b"P5 16 16 4095\n" + (RAMP * 16).astype(">u2").tobytes()
    assert loaded(places, tiff).pixels[0, 0].tolist() == RAMP.tolist()
    assert np.abs(loaded(places, pgm).pixels[0, 0].astype(int) - RAMP).max() <= 1
    colours = encoded(Image.new("RGB", (16, 16), "red"), "TIFF")
    at = colours.index(struct.pack("<HHI", 258, 3, 3))  # BitsPerSample
    where = struct.unpack_from("<I", colours, at + 8)[0]
    deep = bytearray(colours)
    deep[where : where + 6] = struct.pack("<HHH", 16, 16, 16)
    with pytest.raises(DataError, match="row 0: has 16 bits a colour, which are read from PNG only; save it as PNG"):
        loaded(places, bytes(deep))


def half(turn, kind, odd=False):
    """A picture whose left half is white, with an orientation tag; `odd`: and a rational of denominator 0."""
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (0, 0, 16, 32))
    tags = Image.Exif()
    tags[0x0112] = turn
    content = encoded(image, kind, exif=tags.tobytes())
    if not odd:
        return content
    head, order = b"Exif\0\0", "<"
    ifd = struct.pack(order + "HHHIHHHHIIIII", 2, 0x0112, 3, 1, turn, 0, 0x011A, 5, 1, 38, 0, 0, 0)
    body = head + b"II*\0\x08\0\0\0" + ifd
    plain = encoded(image, kind)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


@pytest.mark.parametrize(
    ("content", "white"),
    [
        (half(1, "JPEG"), "left"), (half(3, "JPEG"), "right"), (half(6, "JPEG"), "top"), (half(8, "JPEG"), "bottom"),
        (half(2, "PNG"), "right"), (half(5, "PNG"), "top"), (half(6, "WEBP"), "top"), (half(6, "JPEG", True), "top"),
        (half(99, "JPEG"), "left"),
    ],
)  # fmt: skip
def test_only_the_orientation_tag_turns_an_image(places, content, white):
    pixels = load_images(str(table(places / "x.parquet", [content])), size=32)[0].pixels[0, 0].astype(int)
    sides = {"left": pixels[:, :12], "right": pixels[:, 20:], "top": pixels[:12], "bottom": pixels[20:]}
    assert {name: side.min() > 200 for name, side in sides.items()} == {name: name == white for name in sides}


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n",
        encoded(picture(), "ICO"),
        encoded(picture(), "PCX"),
        encoded(picture(), "TGA"),
    ],
    ids=["eps", "ico", "pcx", "tga"],
)
def test_only_the_documented_formats_are_tried(places, content):
    (places / "set").mkdir()
    (places / "set" / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x.png: is no image of a known kind \(PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM\)"):
        load_images(str(places / "set"))


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("PNG", (200, 200), "has 200 x 200 pixels, more than the 10,000 that are decoded; make it smaller"),
        ("GIF", (101, 100), "has 101 x 100 pixels"),
        ("PNG", (100, 100), None),
        ("JPEG", (200, 200), None),  # decoded at a fraction of its size
    ],
)
def test_pixels_are_limited(places, monkeypatch, kind, size, words):
    monkeypatch.setattr(decode, "LIMIT", 10_000)
    monkeypatch.setattr(decode, "LARGE", 100)
    content = encoded(picture(0, size), kind)
    if words is None:
        assert loaded(places, content, content).n_rows == 2
        return
    with pytest.raises(DataError, match=f"row 0: {words}"):
        loaded(places, content)


def test_a_bomb_is_a_damaged_image(places):
    """A header that claims 20,000 x 20,000 pixels costs nothing."""
    header = bytearray(encoded(picture()))
    header[16:24] = struct.pack(">II", 20_000, 20_000)
    header[29:33] = struct.pack(">I", zlib.crc32(bytes(header[12:29])))
    with pytest.raises(DataError, match="row 0: has too many pixels to be decoded safely"):
        loaded(places, bytes(header))
    buffer = io.BytesIO()
    assert decode.decode_all(lambda: iter([[bytes(header), encoded(picture())]]), 16, buffer).kept == 1
    assert decode.as_pixels(buffer, 16).shape == (1, 3, 16, 16)
