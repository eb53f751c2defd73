"""The pixel format is chosen by all images: sizes as shown, colours, brightness, and shapes that would be cut."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from core.data.decode import CROP, PAD, REFUSE, ImageSpec, Raw, UnreadableError
from core.data.listing import Listing, TargetFormat, make_table, with_rotations
from core.data.survey import Survey, resolve_format, survey_images
from core.runtime.errors import UserError
from tests.data.pictures import picture
from tests.data.test_decode import encoded


def listing_of(images: Sequence[Raw | None], form: TargetFormat | None = None) -> Listing:
    def read(position: int) -> Raw:
        if (image := images[position]) is None:
            raise UnreadableError("gone")
        return image

    ids = [f"{position:03d}.png" for position in range(len(images))]
    table = make_table(ids, [f"c{position % 2}" for position in range(len(images))])
    return Listing("mine", table, read, "stamp", form or TargetFormat())


def spec_of(images: Sequence[Raw | None], form: TargetFormat | None = None, **requested: object) -> ImageSpec:
    listing = listing_of(images, form)
    return resolve_format(listing, TargetFormat(**requested), survey_images(listing))[0]  # type: ignore[arg-type]


def notes_of(images: Sequence[Raw | None], **requested: object) -> list[str]:
    listing = listing_of(images)
    return resolve_format(listing, TargetFormat(**requested), survey_images(listing))[1]  # type: ignore[arg-type]


def test_all_images_are_looked_at() -> None:
    images = [picture(1)] * 500
    assert spec_of(images) == ImageSpec(5, 6, 1, fit=REFUSE)
    for position in (1, 77, 499):
        odd = [*images[:position], picture(2, (9, 9)), *images[position + 1 :]]
        with pytest.raises(UserError, match=rf"{position:03d}\.png has 9 x 9"):
            spec_of(odd)
        colour = [*images[:position], picture(2, mode="RGB"), *images[position + 1 :]]
        assert spec_of(colour).channels == 3
        assert any(f"{position:03d}.png" in note for note in notes_of(colour))


def test_the_most_frequent_sizes_are_named_with_their_number() -> None:
    images = [picture(1)] * 5 + [picture(2, (9, 9))] * 3 + [picture(3, (7, 7)), picture(3, (8, 7)), picture(3, (9, 7))]
    with pytest.raises(UserError) as error:
        spec_of(images)
    for part in ("000.png has 6 x 5, as 4 more", "005.png has 9 x 9, as 2 more", "2 more sizes", "--size", "--fit"):
        assert part in str(error.value)


def turned(width: int, height: int, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.new("RGB", (width, height)), "JPEG", exif=exif)


def test_sizes_are_those_after_the_camera_orientation() -> None:
    upright = encoded(Image.new("RGB", (30, 40)), "JPEG")
    assert spec_of([upright, turned(40, 30, 6), turned(40, 30, 8), turned(30, 40, 3)])[:2] == (40, 30)
    with pytest.raises(UserError, match=r"30 x 40.*40 x 30"):
        spec_of([upright, turned(30, 40, 6)])


@pytest.mark.parametrize("size", [(4, 4), (10, 10)])
def test_other_shapes_are_refused_until_asked_for(size: tuple[int, int]) -> None:
    images = [picture(1, (6, 6)), picture(2, (12, 12)), picture(3, (6, 5))]
    with pytest.raises(UserError, match=r"1 image of 3 .*002\.png has 6 x 5.*--fit crop"):
        spec_of(images, size=size)
    assert spec_of(images, size=size, fit=PAD) == ImageSpec(*size, 1, fit=PAD)
    assert any("--fit pad" in note for note in notes_of(images, size=size, fit=PAD))
    (scaled,) = notes_of(images[:2], size=size)
    assert "000.png has 6 x 6" in scaled


def test_a_format_may_say_what_happens_to_other_shapes() -> None:
    form = TargetFormat((4, 4), 3, fit=CROP)
    assert spec_of([picture(1)], form).fit == CROP
    assert spec_of([picture(1)], form, fit=PAD).fit == PAD


def test_colours_are_not_lost_without_a_word() -> None:
    images = [picture(1), picture(2, mode="RGB"), picture(3)]
    assert spec_of(images).channels == 3
    assert any("1 image in colour" in note and "001.png" in note and "2 in grey" in note for note in notes_of(images))
    assert any("001.png" in note for note in notes_of(images, channels=1))
    assert notes_of(images[::2]) == notes_of(images[1:2]) == []


def grid(highest: float, kind: type) -> bytes:
    return encoded(Image.fromarray((np.linspace(0, 1, 16).reshape(4, 4) * highest).astype(kind)), "TIFF")


@pytest.mark.parametrize(("kind", "values"), [(np.float32, (1, 0.5)), (np.int32, (400, 200)), (np.uint16, (4095, 900))])
def test_one_scale_for_all_images_of_more_than_8_bits(kind: type, values: tuple[float, float]) -> None:
    images = [grid(values[1], kind), grid(values[0], kind), picture(9, (4, 4))]
    spec = spec_of(images)
    assert spec.value_range == (0, values[0])
    assert any("2 images" in note and "8 bits" in note for note in notes_of(images))


def test_negative_values_and_a_single_value_have_a_range() -> None:
    negative = encoded(Image.fromarray(np.array([[-2, 0], [1, 2]], np.float32)), "TIFF")
    assert spec_of([negative]).value_range == (-2, 2)
    assert spec_of([encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")]).value_range == (0, 1)


def test_unreadable_images_are_counted_and_do_not_decide() -> None:
    listing = listing_of([None, picture(1), b"no picture", picture(2)])
    survey = survey_images(listing)
    assert list(survey.unreadable) == [0, 2]
    assert resolve_format(listing, TargetFormat(), survey)[0][:2] == (5, 6)
    with pytest.raises(UserError, match=r"000\.png: gone"):
        spec_of([None, None])


def test_kinds_of_images_that_lose_something_are_named() -> None:
    frames = [Image.new("L", (6, 5), value) for value in (50, 200)]
    animated = encoded(frames[0].convert("RGB"), "GIF", save_all=True, append_images=frames[1:])
    notes = notes_of([picture(1, mode="RGB"), picture(2, mode="RGBA"), animated, deep_colour()])
    for name, what in (("001.png", "transparency"), ("002.png", "frames"), ("003.png", "16 bits")):
        assert any(name in note and what in note for note in notes), what


def deep_colour() -> bytes:
    """Return a PNG image of 16 bits per channel, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + bytes(6 * 6) for _ in range(5))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_a_single_bright_image_is_reported() -> None:
    images = [grid(100, np.float32)] * 5 + [grid(60_000, np.float32)]
    assert any("dark" in note for note in notes_of(images))
    assert not any("dark" in note for note in notes_of(images[:5]))


def test_rotated_copies_need_square_images() -> None:
    listing = with_rotations(listing_of([picture(1), picture(2)]))
    with pytest.raises(UserError, match=r"6 x 5.*--size"):
        resolve_format(listing, TargetFormat(), survey_images(listing))


def test_rotated_copies_are_not_looked_at_again() -> None:
    seen: list[int] = []
    listing = listing_of([picture(1, (5, 5)), picture(2, (5, 5))])

    def read(position: int) -> Raw:
        seen.append(position)
        return listing.read(position)

    counted = Listing("mine", listing.table, read, "stamp")
    assert isinstance(survey_images(with_rotations(counted)), Survey)
    assert sorted(seen) == [0, 1]
