"""The readers on the real data sets; tests/needs.py says where these are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from core.data.decode import decode
from core.data.listing import Listing
from core.data.readers import ReadOptions, detect, read_listing
from tests.data.pictures import column
from tests.needs import real


def classes(listing: Listing) -> dict[str, int]:
    return listing.table.groupby("split")["class"].nunique().to_dict()


def test_omniglot() -> None:
    path = real("omniglot")
    assert detect(path) == "omniglot"
    listing = read_listing(path, options=ReadOptions(splits=real("splits")))
    assert len(listing) == listing.table["id"].nunique() == 32_460
    assert listing.table["class"].nunique() == 1623
    assert classes(listing) == {"train": 1028, "val": 172, "test": 423}
    assert sorted(set(column(listing, "group"))) == [f"{drawer:02d}" for drawer in range(1, 21)]
    shown = decode(listing.read(0), 28, 28, 1, invert=listing.form.invert)
    assert np.median(shown) == 0
    assert shown.max() > 150


@pytest.mark.parametrize(("part", "characters"), [("images_background", 964), ("images_evaluation", 659)])
def test_a_single_part_of_omniglot(part: str, characters: int) -> None:
    listing = read_listing(real("omniglot") / f"{part}.zip")
    assert listing.table["class"].nunique() <= characters
    assert any("is missing" in note for note in listing.notes)


def test_mnist() -> None:
    path = real("mnist")
    assert detect(path) == "mnist"
    listing = read_listing(path)
    assert listing.notes == ()  # its checksums are the original ones
    assert listing.table.groupby("split").size().to_dict() == {"train": 60_000, "test": 10_000}
    pixels = np.stack([listing.read(position) for position in range(60_000, 70_000)])
    header = bytes.fromhex("00000803000027100000001c0000001c")
    digest = hashlib.md5(header + pixels.tobytes(), usedforsecurity=False).hexdigest()
    assert digest == "2646ac647ad5339dbf082846283269ea"
    assert np.median(pixels) == 0


@pytest.mark.parametrize(
    ("format", "expected"),
    [("fc100", {"train": 60, "val": 20, "test": 20}), ("cifar-fs", {"train": 64, "val": 16, "test": 20})],
)
def test_cifar100_under_both_splits(format: str, expected: dict[str, int]) -> None:
    path = real("cifar100")
    lists = read_listing(path, format, ReadOptions(splits=real("splits")))
    own = read_listing(path, format)
    for listing in (lists, own):
        assert len(listing) == 10_000
        assert set(listing.table.groupby("class").size()) == {100}
        assert classes(listing) == expected
    assert column(lists, "split") == column(own, "split")
    assert decode(own.read(9_999), 32, 32, 3).std() > 1
