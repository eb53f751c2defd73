"""Every kind of image decodes to the pixels it shows; other bytes are rejected and never crash."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from core.data.decode import (
    CROP,
    PAD,
    REFUSE,
    RESIZE,
    SUFFIXES,
    ImageHeader,
    UnreadableError,
    decode,
    is_cut,
    read_header,
    read_value_range,
)
from core.runtime.errors import Cancelled
from tests.data.pictures import picture

# As core.data.decode asks of the whole process, which pytest undoes.
pytestmark = [pytest.mark.filterwarnings(f"ignore:::{module}") for module in ("PIL.Image", "PIL.TiffImagePlugin")]


def encoded(image: Image.Image, kind: str = "PNG", **save: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **save)
    return stream.getvalue()


def grey(raw: bytes | np.ndarray, height: int = 4, width: int = 4, **how: Any) -> list[int]:
    return np.unique(decode(raw, height, width, 1, **how)).tolist()


def colour(raw: bytes | np.ndarray, height: int = 4, width: int = 4) -> list[list[int]]:
    return np.unique(decode(raw, height, width, 3).reshape(-1, 3), axis=0).tolist()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_lossless_formats_give_the_exact_pixels(kind: str) -> None:
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    raw = encoded(Image.fromarray(pixels), kind)
    assert np.array_equal(decode(raw, 4, 5, 1)[..., 0], pixels)
    assert np.array_equal(decode(raw, 4, 5, 3)[..., 2], pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_give_similar_pixels(kind: str) -> None:
    (shown,) = colour(picture(200, mode="RGB", kind=kind))
    assert np.allclose(shown, [200, 255, 255], atol=4)


def test_one_bit_pictures_are_black_and_white() -> None:
    pixels = np.array([[True, False], [False, True]])
    assert decode(encoded(Image.fromarray(pixels)), 2, 2, 1)[..., 0].tolist() == [[255, 0], [0, 255]]
    assert decode(encoded(Image.fromarray(pixels)), 2, 2, 1, invert=True)[..., 0].tolist() == [[0, 255], [255, 0]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), (10, 0) if mode == "LA" else (10, 10, 10, 0))
    assert grey(encoded(image)) == [255]
    half = Image.new(mode, (4, 4), (0, 128) if mode == "LA" else (0, 0, 0, 128))
    assert grey(encoded(half)) == [127]


def test_transparent_palette_colour_is_composited_on_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert colour(encoded(image)) == [[0, 0, 255]]
    assert colour(encoded(image, transparency=1)) == [[255, 255, 255]]
    assert colour(encoded(image, "GIF", transparency=1)) == [[255, 255, 255]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    pixels = np.array([[0, 257], [128 * 257, 65535]], dtype=np.uint16)
    assert decode(encoded(Image.fromarray(pixels), kind), 2, 2, 1)[..., 0].tolist() == [[0, 1], [128, 255]]


def test_cmyk_is_converted() -> None:
    raw = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")
    (shown,) = colour(raw)
    assert shown[0] > 200
    assert max(shown[1:]) < 60


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5], [0.75, 1]], np.float32), (0.0, 1.0)),
        (np.array([[-1, 0], [0.5, 1]], np.float32), (-1.0, 1.0)),
        (np.array([[0, 1000], [2000, 4095]], np.uint16), (0.0, 4095.0)),
        (np.array([[-1000, 0], [500, 3000]], np.int32), (-1000.0, 3000.0)),
    ],
)
def test_images_of_more_than_8_bits_are_scaled_by_a_given_range(
    values: np.ndarray, expected: tuple[float, float]
) -> None:
    raw = encoded(Image.fromarray(values), "TIFF")
    assert read_header(raw) == ImageHeader(2, 2, grey=True, deep=True)
    assert read_value_range(raw) == expected
    low, high = expected
    shown = decode(raw, 2, 2, 1, value_range=expected)[..., 0]
    assert shown.tolist() == np.rint((values - low) * 255.0 / (high - low)).tolist()
    assert decode(raw, 2, 2, 1, value_range=(low, 2 * high - low))[..., 0].max() == 128


def test_values_that_are_not_finite_count_as_the_lowest() -> None:
    raw = encoded(Image.fromarray(np.array([[np.nan, 1], [2, 3]], np.float32)), "TIFF")
    assert read_value_range(raw) == (1.0, 3.0)
    assert decode(raw, 2, 2, 1, value_range=(0.0, 3.0))[..., 0].tolist() == [[0, 85], [170, 255]]
    with pytest.raises(UnreadableError):
        read_value_range(encoded(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF"))


def test_exif_orientation_is_applied() -> None:
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 255  # bright on the left; the tag says: turn clockwise, so bright on top
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = decode(encoded(Image.fromarray(pixels), "PNG", exif=exif), 16, 8, 1)[..., 0]
    assert shown[:8].min() == 255
    assert shown[8:].max() == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_has_the_size_as_shown(kind: str, orientation: int) -> None:
    if kind == "AVIF" and not features.check("avif"):
        assert ".avif" not in SUFFIXES
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(Image.new("RGB", (40, 30), "red"), kind, exif=exif)
    with Image.open(io.BytesIO(raw)) as opened:
        opened.load()
        width, height = ImageOps.exif_transpose(opened).size
    header = read_header(raw)
    assert (header.width, header.height) == (width, height)
    assert {width, height} == {40, 30}


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (50, 200)]
    for kind in ("GIF", "WEBP", "TIFF"):
        (value,) = grey(encoded(frames[0].convert("RGB"), kind, save_all=True, append_images=frames[1:]))
        assert abs(value - 50) <= 3


def test_what_happens_to_other_shapes() -> None:
    pixels = np.zeros((4, 12), dtype=np.uint8)
    pixels[:, 4:8] = 255
    raw = encoded(Image.fromarray(pixels))
    assert grey(raw, fit=CROP) == [255]
    resized = decode(raw, 4, 4, 1, fit=RESIZE)[..., 0]
    assert resized[:, 0].max() < 100 < resized[:, 1].min()
    padded = decode(raw, 12, 12, 1, fit=PAD)[..., 0]
    assert (padded[4:8] == pixels).all()
    assert padded[:4].max() == padded[8:].max() == 0
    inverted = decode(raw, 12, 12, 1, invert=True, fit=PAD)[..., 0]
    assert (inverted[4:8] == 255 - pixels).all()
    assert inverted[:4].max() == inverted[8:].max() == 0  # the background is dark after inverting, too
    with pytest.raises(UnreadableError, match="12 x 4"):
        decode(raw, 4, 4, 1, fit=REFUSE)
    assert decode(raw, 2, 6, 1, fit=REFUSE).shape == (2, 6, 1)


@pytest.mark.parametrize(
    ("height", "width", "cut"),
    [(84, 84, False), (105, 105, False), (83, 84, True), (100, 99, True), (1000, 999, False), (64, 32, True)],
)
def test_shapes_that_are_cut(height: int, width: int, cut: bool) -> None:
    assert is_cut(height, width, 84, 84) is cut


def test_turns_are_counter_clockwise() -> None:
    pixels = np.array([[1, 2], [3, 4]], dtype=np.uint8)
    assert decode(pixels, 2, 2, 1, turns=1)[..., 0].tolist() == [[2, 4], [1, 3]]


def test_arrays_are_accepted() -> None:
    colours = np.zeros((2, 2, 3), dtype=np.uint8)
    colours[..., 1] = 9
    assert colour(colours, 2, 2) == [[0, 9, 0]]
    assert read_header(colours) == ImageHeader(2, 2, grey=False)
    assert read_header(colours[..., 0]) == ImageHeader(2, 2, grey=True)


def test_header_gives_size_and_colour() -> None:
    assert read_header(picture(size=(6, 5))) == ImageHeader(5, 6, grey=True)
    assert read_header(picture(mode="RGB")) == ImageHeader(5, 6, grey=False)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_truncated_file_is_rejected(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    raw = encoded(Image.fromarray(noise), kind)
    with pytest.raises(UnreadableError):
        decode(raw[: len(raw) // 2], 8, 8, 3)


@pytest.mark.parametrize("raw", [b"", b"path,label\na.png,cat\n", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n"])
def test_other_bytes_are_rejected(raw: bytes) -> None:
    for attempt in (read_header, lambda raw: decode(raw, 2, 2, 1)):
        with pytest.raises(UnreadableError):
            attempt(raw)


def test_huge_images_are_rejected_by_their_header() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    for width, height in ((10_000, 10_000), (100_000, 100_000)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        raw = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
        for attempt in (read_header, lambda raw: decode(raw, 2, 2, 1)):
            with pytest.raises(UnreadableError, match=r"too (many|large)"):
                attempt(raw)


@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]), st.data())
def test_damaged_images_are_read_or_rejected(kind: str, data: st.DataObject) -> None:
    raw = bytearray(picture(90, (9, 7), "RGB", kind))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(UnreadableError):
        assert decode(cut, 4, 4, 3).shape == (4, 4, 3)
    with contextlib.suppress(UnreadableError):
        read_header(cut)


def test_a_cancel_while_an_image_is_read_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(*_: object, **__: object) -> None:
        raise Cancelled

    monkeypatch.setattr(Image, "open", cancel)
    with pytest.raises(Cancelled):
        decode(b"any", 4, 4, 1)
