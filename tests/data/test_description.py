"""What is said of every listing: the first classes, images per class, the split, and names that look alike."""

from __future__ import annotations

import pytest

from core.data.decode import Raw
from core.data.description import describe_listing
from core.data.listing import Listing, make_table


def described(classes: list[str], splits: list[str] | None = None) -> str:
    def read(position: int) -> Raw:
        raise AssertionError("no image is read")

    table = make_table([str(n) for n in range(len(classes))], classes, splits or ())
    return "\n".join(describe_listing(Listing("mine", table, read, "stamp")))


def test_first_classes_and_images_per_class() -> None:
    text = described([f"c{n}" for n in range(9)] + ["c8"] * 4 + ["c7"] * 2)
    for part in (
        "15 images of 9 classes",
        "'c0', 'c1', 'c2', 'c3', 'c4' and 4 more",
        "1 ('c0')",
        "median 1",
        "5 ('c8')",
    ):
        assert part in text


def test_the_split_and_images_in_none() -> None:
    text = described(["a", "b", "a", "c"], ["train", "test", "", "test"])
    for part in ("train 1 class, 1 image", "test 2 classes, 2 images", "1 image in none"):
        assert part in text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("caf\u00e9", "cafe\u0301"),
        ("great dane", "great_dane"),
        ("cat ", "cat"),
        ("cat (1)", "cat"),
        ("dog - Copy", "dog"),
    ],
)
def test_names_that_look_alike_are_named(one: str, other: str) -> None:
    text = described([one, other, "elk"])
    assert f"{min(one, other)!r} and {max(one, other)!r}" in text
    assert "3 classes" in text


def test_names_that_do_not_look_alike() -> None:
    assert " and " not in described(["cat", "cats", "1", "2", "!", "?"]).partition("\n")[2].replace("'!' and", "")


@pytest.mark.parametrize("name", ["nan", "None", "N/A", "NULL", "-1"])
def test_names_that_may_mean_a_missing_label_are_named(name: str) -> None:
    assert described(["cat", name]).count(repr(name)) == 2
