"""Which folders are splits and which are classes: layouts of public data sets, and refusals where readings differ."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.readers.common import split_word
from core.data.readers.layout import Layout, LayoutError, infer_layout

THREE = range(3)
TWO = ("cat", "dog")


def names(*levels: object, ending: str = "jpg") -> list[str]:
    """Return the product of the levels, which are a name or several, as paths of three images each."""
    choices = [[level] if isinstance(level, str) else level for level in (*levels, THREE)]
    return [f"{'/'.join(map(str, parts))}.{ending}" for parts in product(*choices)]


def classes(layout: Layout) -> list[str]:
    return sorted({row.name for row in layout.rows})


def splits(layout: Layout) -> dict[str, int]:
    return dict(Counter(row.split for row in layout.rows))


@pytest.mark.parametrize(
    ("files", "expected", "sizes"),
    [
        (names(TWO), TWO, {"": 6}),
        (names(("Training", "Testing"), TWO), TWO, {"train": 6, "test": 6}),
        (names(("train_images", "val_images", "test_images"), TWO), TWO, {"train": 6, "val": 6, "test": 6}),
        (names(("seg_train/seg_train", "seg_test/seg_test"), TWO), TWO, {"train": 6, "test": 6}),
        (names(("fruits-360_Training", "fruits-360_Test"), TWO), TWO, {"train": 6, "test": 6}),
        (names(("TrainSet", "TestSet"), TWO), TWO, {"train": 6, "test": 6}),
        (names("base", ("a", "b")) + names("val", ("c", "d")) + names("novel", ("e", "f")), tuple("abcdef"), None),
        (names(("dev", "eval"), TWO), TWO, {"val": 6, "test": 6}),
        (names("archive/data/images", TWO), TWO, {"": 6}),
        (names("archive", ("train/train", "val/val"), TWO), TWO, {"train": 6, "val": 6}),
        (names("images", ("train", "val"), TWO), TWO, {"train": 6, "val": 6}),
        (names(TWO, ("train", "test")), TWO, {"train": 6, "test": 6}),
        (names(TWO, "images"), TWO, {"": 6}),
        (names(("train", "test"), TWO, "images"), TWO, {"train": 6, "test": 6}),
        (["cat/cat_images/1.jpg", "cat/cat_images/2.jpg", "dog/other/1.jpg"], TWO, {"": 3}),
        (names(("bus", "train")), ("bus", "train"), {"": 6}),
        (names(("acid", "base")), ("acid", "base"), {"": 6}),
        (names(("test1", "test2")), ("test1", "test2"), {"": 6}),
        (names(("mask", "no_mask")), ("mask", "no_mask"), {"": 6}),
        (names("train", TWO), TWO, {"train": 6}),
        (names("train", ("raw", "dog")) + names("test", "raw"), ("dog", "raw"), {"train": 6, "test": 3}),
        (names(("mask", "no_mask", "other")), ("mask", "no_mask", "other"), {"": 9}),
        (names(("1", "2")), ("1", "2"), {"": 6}),
    ],
)
def test_layouts_without_doubt(files: list[str], expected: tuple[str, ...], sizes: dict[str, int] | None) -> None:
    layout = infer_layout(files, "here")
    assert classes(layout) == list(expected)
    assert sizes is None or splits(layout) == sizes
    assert not layout.left_out


@pytest.mark.parametrize(
    ("files", "aside"),
    [
        (names("CUB/images", TWO) + names("CUB/segmentations", TWO, ending="png"), "CUB/segmentations/"),
        (names("images", TWO) + names("annotations/trimaps", ending="png"), "annotations/"),
        (names("CUB", TWO) + names("segmentations", TWO, ending="png"), "segmentations/"),
        (names(TWO, "images") + names(TWO, "masks", ending="png"), "/masks/"),
        (["cat/c0.jpg", "dog/d0.jpg", "masks/c0.png", "masks/d0.png"], "masks/"),
        (names(TWO) + [f"{name}/{n}_mask{k}.png" for name in TWO for n in THREE for k in ("", "_1")], "_mask"),
        (names(("train", "test"), TWO) + names("masks", ending="png"), "masks/"),
        (names(("seg_train", "seg_test"), TWO) + names("seg_pred"), "seg_pred/"),
        (names(("train", "test"), TWO) + names("unlabeled"), "unlabeled/"),
        (names("train", TWO) + names("test"), "test/"),
        (names("train", TWO, "images") + names("test/images"), "test/images/"),
        (names("train", TWO) + names("test/test"), "test/test/"),
        ([*names(TWO), "logo.png"], "logo"),
        (names(TWO) + names(TWO, "masks"), "/masks/"),
        (names(TWO) + names(TWO, "thumbs"), "/thumbs/"),
        (names(TWO) + names("unsorted"), "unsorted/"),
        (names("data", TWO) + [f"data/{name}/{n}mask.png" for name in TWO for n in THREE], "mask"),
        (names(("train", "test"), TWO) + names("ground_truth", TWO, ending="png"), "ground_truth/"),
        ([*names("data", TWO), "logo.png"], "logo"),
    ],
)
def test_masks_unlabelled_and_loose_images_are_left_out_by_name(files: list[str], aside: str) -> None:
    layout = infer_layout(files, "here")
    left_out = [file for group in layout.left_out.values() for file in group]
    assert classes(layout) == list(TWO)
    assert sorted(left_out) == sorted(file for file in files if aside in file)


@pytest.mark.parametrize(
    ("files", "readings"),
    [
        (names(("Greek", "Latin"), ("character01", "character02", "character03")), {1: 2, 2: 3, (1, 2): 6}),
        (names("animal", TWO) + names("vehicle", ("bus", "car", "bike")), {1: 2, 2: 5}),
        (names(("photo", "sketch", "cartoon"), TWO), {1: 3, 2: 2, (1, 2): 6}),
        (names(("train", "val"), ("photo", "sketch"), ("a", "b", "c")), {1: 2, 2: 3, (1, 2): 6}),
        (names("cat") + names("dog", ("first", "second")), {1: 2}),
        (names(("a", "b"), ("x", "y"), ("u", "v", "w")), {1: 2, 2: 2, 3: 3, (1, 2): 4, (1, 3): 12}),
        (names(("support", "query"), TWO), {1: 2, 2: 2, (1, 2): 4}),
    ],
)
def test_ambiguous_levels_are_refused_until_one_is_chosen(
    files: list[str], readings: dict[int | tuple[int, int], int]
) -> None:
    with pytest.raises(LayoutError) as error:
        infer_layout(files, "here")
    for choice, count in readings.items():
        first, last = choice if isinstance(choice, tuple) else (choice, choice)
        option = f"{first}-{last}" if first != last else str(first)
        assert f"--class-level {option} for {count}" in error.value.fix
        assert len(classes(infer_layout(files, "here", (first, last)))) == count


@pytest.mark.parametrize(
    "files",
    [
        names(("train", "test")),
        names(("train_images", "test_images")),
        names(("images", "masks")),
        names(("images", "annotations")),
        names("photos"),
        [f"train/{name}.{n}.jpg" for name in TWO for n in THREE],
        names(("train", "test", "more"), TWO),
        names("train", TWO) + names("more"),
        names(("images", "labels"), ("train", "val")),
        ["1.jpg", "2.jpg"],
        names(("cars_train/cars_train", "cars_test/cars_test")),
        names(("images_001/images", "images_002/images")),
        names(("JPEGImages", "SegmentationClass", "SegmentationObject")),
        names(("jpg", "segmim")),
        names(("batch1", "batch2", "batch3")),
        names("DCIM", ("100CANON", "101CANON")),
        names(("input", "target")),
        names(("trainA", "trainB", "testA", "testB")),
        names("train", "x") + names("test", "y"),
    ],
)
def test_folders_that_name_no_classes_are_refused(files: list[str]) -> None:
    with pytest.raises(LayoutError):
        infer_layout(files, "here")


def test_masks_of_masks_are_left_out_once() -> None:
    layout = infer_layout(names(TWO) + names(TWO, "masks") + names(TWO, "masks", "thumbs"), "here")
    left_out = [file for group in layout.left_out.values() for file in group]
    assert len(left_out) == len(set(left_out)) == 12


def test_levels_among_folders_called_like_splits_are_said() -> None:
    layout = infer_layout(names(("train", "test", "more"), TWO), "here", (2, 2))
    assert classes(layout) == list(TWO)
    assert any("'test', 'train'" in note for note in layout.notes)


def test_file_names_that_begin_with_classes_are_recognised() -> None:
    with pytest.raises(LayoutError, match=r"'cat', 'dog'"):
        infer_layout([f"train/{name}.{n}.jpg" for name in TWO for n in THREE], "here")


def test_folders_inside_class_folders_with_images_are_part_of_the_class_and_said() -> None:
    layout = infer_layout([*names(TWO), "cat/more/9.jpg"], "here")
    assert classes(layout) == list(TWO)
    assert any("'cat/more/9.jpg'" in note for note in layout.notes)


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LayoutError, match="1 level"):
        infer_layout(names(TWO), "here", (1, 2))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"),
        ("TRAINING", "train"),
        ("train_images", "train"),
        ("imgs-train", "train"),
        ("TestSet", "test"),
        ("metatrain", "train"),
        ("val2017", "val"),
        ("valid", "val"),
        ("dev", "val"),
        ("novel", "test"),
        ("trainer", ""),
        ("train_cat", ""),
        ("test_train", ""),
        ("database", ""),
        ("", ""),
    ],
)
def test_names_of_splits(name: str, split: str) -> None:
    assert split_word(name) == split


words = st.sampled_from(
    ["cat", "dog", "train", "test", "val", "images", "masks", "a", "Training", "unlabeled", "seg_train", "mask", "raw"]
)
paths = st.builds(
    lambda folders, stem: "/".join([*folders, stem]), st.lists(words, max_size=4), st.sampled_from("12345")
)
files = st.lists(paths.map(lambda path: f"{path}.png"), max_size=14, unique=True)


@given(files, st.sampled_from([None, (1, 1), (2, 2), (1, 2)]))
def test_every_image_is_used_once_or_left_out(files: list[str], levels: tuple[int, int] | None) -> None:
    try:
        layout = infer_layout(files, "here", levels)
    except LayoutError:
        return
    used = [row.file for row in layout.rows]
    assert sorted(used + [file for group in layout.left_out.values() for file in group]) == sorted(files)
    assert len(classes(layout)) > 1
    assert all(row.name and all(part in row.file.split("/") for part in row.name.split("/")) for row in layout.rows)


@given(files)
def test_the_order_of_names_and_a_folder_around_them_do_not_matter(files: list[str]) -> None:
    def read(names: list[str]) -> object:
        try:
            layout = infer_layout(names, "here")
        except LayoutError:
            return None
        return [(row.name, row.split) for row in layout.rows]

    expected = read(files)
    assert read(files[::-1]) == expected
    assert read([f"around/{file}" for file in files]) == expected
