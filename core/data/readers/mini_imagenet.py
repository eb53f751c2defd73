"""Read mini-ImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle (2017)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.data.archive import FolderTree, Tree, file_stamp, open_tree
from core.data.decode import CROP, Raw, UnreadableError
from core.data.listing import SPLITS, Listing, TargetFormat, make_table
from core.data.readers.common import DOWNLOAD_AGAIN, ReadOptions, is_image
from core.data.readers.split_lists import list_folders
from core.data.readers.tables import Table, read_table
from core.data.safe_pickle import read_plain
from core.runtime.errors import UserError
from core.runtime.progress import format_count, format_names
from core.runtime.reading import check_location

FORM = TargetFormat(size=(84, 84), channels=3, fit=CROP)
COLUMNS = ("filename", "label")

_FIRST_LINES = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*filename\s*,\s*label\s*\r?\n[^,\n]*,[^\n]*\bn\d+\s", re.IGNORECASE
)  # WordNet ids
_CACHE_WORDS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}  # the last one found counts
_EXPECTED = (
    "It must contain the images (in images/) and train.csv, val.csv, test.csv with the columns filename and label, "
    "or mini-imagenet-cache-train.pkl, -validation.pkl and -test.pkl."
)


def read_mini_imagenet(path: Path, options: ReadOptions) -> Listing:
    """Read the csv layout, in a folder or zip, or the pickled caches of learn2learn and others.

    With csv files (``filename,label``): images are found by name, first in ``images``; ids are the file names, classes
    the labels (WordNet ids), rows in the order of the files. The csv files may be in ``options.splits`` or in a folder
    ``mini_imagenet`` or ``splits/mini_imagenet`` beside the data. With caches (``image_data``, ``class_dict``): ids are
    ``train/00000``. Splits without a file are skipped.

    Raises:
        UserError: there is neither, a row is invalid, or no image is found.
    """
    caches = {
        split: file
        for split, words in _CACHE_WORDS.items()
        for word in words
        if (file := path / f"mini-imagenet-cache-{word}.pkl").is_file()
    }
    if caches:
        if options.splits or options.encoding:
            option = "--splits" if options.splits else "--encoding"
            raise UserError(f"{option} has no effect on mini-imagenet-cache-train.pkl and the like.", "Omit it.")
        return _read_caches(caches)
    tree = open_tree(path)
    lists = _find_lists(tree, path, options)
    if not lists:
        raise UserError(f"There is no mini-ImageNet in {path}.", _EXPECTED)
    seen: dict[str, str] = {}
    rows = [(*row, split) for split, list_ in lists.items() for row in _rows(list_, seen)]
    if not rows:
        raise UserError(f"The csv files in {path} have no rows.", "Use the published files.")
    table = make_table(*zip(*rows, strict=True))
    where = _locate(tree, [file for file, _, _ in rows])
    missing = [file for file, _, _ in rows if file not in where]
    if len(missing) == len(rows):
        raise UserError(
            f"None of the {format_count(len(rows), 'image')} listed in the csv files is in {path}; "
            f"the first is {format_names(missing[:1])}.",
            "Put them in a folder images beside the csv files.",
        )
    notes = [
        f"Split by {', '.join(list_.name for list_ in lists.values())}.",
        "Images of another shape are scaled to cover 84 x 84 and cropped around the centre; --fit changes that.",
    ]
    notes += _split_notes(lists, table)
    if missing:
        notes.append(f"{format_count(len(missing), 'image')} of {len(rows):,} missing: {format_names(missing)}.")

    def read(position: int) -> Raw:
        if (file := where.get(rows[position][0])) is None:
            raise UnreadableError("the file is missing")
        return tree.read(file)

    return Listing("mini-imagenet", table, read, [tree.stamp(), rows], form=FORM, notes=tuple(notes))


def is_mini_imagenet(tree: Tree) -> bool:
    """Return whether this folder or archive is for :func:`read_mini_imagenet`."""
    if any(name.startswith("mini-imagenet-cache-") and name.endswith(".pkl") for name in tree.files):
        return True
    names = [name for name in tree.files if name.rpartition("/")[2] in {f"{split}.csv" for split in SPLITS}]
    if not names or not any(is_image(name) for name in tree.files):
        return False
    try:
        return bool(_FIRST_LINES.match(tree.read(names[0])[:1000]))
    except UnreadableError:
        return False


def _find_lists(tree: Tree, path: Path, options: ReadOptions) -> dict[str, Table]:
    """Return the csv file of each split."""
    if options.splits is None and (names := _lists_in_tree(tree)):
        return {split: read_table(tree, name, options.encoding) for split, name in names.items()}
    if options.splits is not None:
        check_location(options.splits)
    for folder in list_folders(path, options.splits, "mini_imagenet"):
        try:
            found = [split for split in SPLITS if (folder / f"{split}.csv").is_file()]
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
        if found:
            return {split: read_table(FolderTree(folder), f"{split}.csv", options.encoding) for split in found}
    if options.splits is not None:
        what = f"There are no csv files of splits in {options.splits}."
        raise UserError(what, "Put train.csv, val.csv or test.csv there.")
    return {}


def _lists_in_tree(tree: Tree) -> dict[str, str]:
    """Return the name of the csv file of each split, the one in the fewest folders."""
    found: dict[str, str] = {}
    for name in sorted(tree.files, key=lambda name: name.count("/")):
        file = name.rpartition("/")[2]
        if file in {f"{split}.csv" for split in SPLITS}:
            found.setdefault(file.removesuffix(".csv"), name)
    return {split: found[split] for split in SPLITS if split in found}


def _rows(table: Table, seen: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the file name and label of every row; ``seen`` maps a file name to the place of its earlier occurrence."""
    files, labels = (table.find((name,)) for name in COLUMNS)
    if not files or not labels:
        what = f"{table.description} does not have the columns filename and label."
        raise UserError(what, "Use the published file.")
    stripped = [table.columns[column[0]] for column in (files, labels)]
    for place, file, label in zip(table.places, *([v.strip() for v in values] for values in stripped), strict=True):
        if not file or not label:
            raise UserError(f"{place}: {'filename' if not file else 'label'} is empty.", "Correct it.")
        if first := seen.get(file):
            raise UserError(f"{place}: {file[:200]!r} occurs already in {first}.", "Keep one of the rows.")
        seen[file] = place
        yield file, label


def _locate(tree: Tree, files: list[str]) -> dict[str, str]:
    """Return the location of each image: in a folder ``images``, else anywhere if its name is unique."""
    by_name: dict[str, list[str]] = {}
    for name in filter(is_image, tree.files):
        by_name.setdefault(name.rpartition("/")[2], []).append(name)
    found = {}
    for file in files:
        hits = [name for name in by_name.get(file.rpartition("/")[2], ()) if f"/{name}".endswith(f"/{file}")]
        if len(hits) > 1:
            hits = [name for name in hits if f"/{name}".endswith(f"/images/{file}")] or hits
        if len(hits) > 1:
            raise UserError(f"{tree.path} has several images {file!r}: {format_names(hits)}.", "Keep one of them.")
        if hits:
            found[file] = hits[0]
    return found


def _split_notes(found: Collection[str], table: pd.DataFrame) -> list[str]:
    """Return notes on splits that were not found, and on classes that occur in more than one."""
    notes = [f"The split {split} has no list and no images." for split in SPLITS if split not in found]
    counts = table.groupby("class")["split"].nunique()
    if shared := sorted(counts.index[counts > 1]):
        notes.append(f"{format_count(len(shared), 'class', 'classes')} in more than one split: {format_names(shared)}.")
    return notes


def _read_caches(caches: dict[str, Path]) -> Listing:
    images: list[np.ndarray] = []
    rows: list[tuple[str, str, str]] = []
    for split, file in caches.items():
        pixels, classes = _check_cache(read_plain(file), file.name)
        images.extend(pixels)
        rows += [(f"{split}/{number:05d}", name, split) for number, name in enumerate(classes)]
    table = make_table(*zip(*rows, strict=True))
    stamp = [file_stamp(file) for file in caches.values()]
    notes = [f"Split by {', '.join(file.name for file in caches.values())}.", *_split_notes(caches, table)]
    return Listing("mini-imagenet", table, images.__getitem__, stamp, form=FORM, notes=tuple(notes))


def _check_cache(content: Any, name: str) -> tuple[np.ndarray, list[str]]:
    """Return the images ``(n, height, width, 3)`` and the class of each."""
    what = f"{name} does not contain image_data (colour images) and class_dict (their positions by class)."
    wrong = UserError(what, DOWNLOAD_AGAIN)
    if not isinstance(content, dict):
        raise wrong
    images, positions = content.get("image_data"), content.get("class_dict")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise wrong
    if not images.size:
        raise UserError(f"{name} contains no images.", DOWNLOAD_AGAIN)
    if not isinstance(positions, dict):
        raise wrong
    classes = [""] * len(images)
    for class_name, members in positions.items():
        numbers = members.tolist() if isinstance(members, np.ndarray) and members.ndim == 1 else members
        if not isinstance(class_name, str) or not isinstance(numbers, list | tuple):
            raise wrong
        for number in numbers:
            if type(number) is not int or not 0 <= number < len(images):
                what = f"class {class_name!r} contains image {number!r}, but there are {len(images)} images"
            elif classes[number]:
                what = f"image {number} is in {classes[number]!r} and {class_name!r}"
            else:
                classes[number] = class_name
                continue
            raise UserError(f"{name}: {what}.", DOWNLOAD_AGAIN)
    if "" in classes:
        raise UserError(f"{name}: image {classes.index('')} is in no class.", DOWNLOAD_AGAIN)
    return images, classes
