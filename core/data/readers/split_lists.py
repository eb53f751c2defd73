"""Read lists of the classes in each split, as few-shot papers and their code publish them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.data.archive import Tree
from core.data.decode import UnreadableError
from core.data.listing import SPLITS, Listing
from core.data.readers.common import DOWNLOAD_AGAIN, SPLIT_WORDS, split_word
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.progress import format_count, format_names
from core.runtime.reading import check_input, check_location, read_input

_MAX_BYTES = 16_000_000
"""Maximum size of a list of classes."""


@dataclass(frozen=True)
class SplitLists:
    """A set of class lists, one per split.

    Attributes:
        where: Name of their folder in notes and errors.
        files: Names of the lists in the archive or folder of the images.
        lists: Maps each split to the content of its JSON file or the lines of its text file; splits without a list are
            omitted.
    """

    where: str
    lists: dict[str, Any]
    files: tuple[str, ...] = ()

    def assign(
        self, existing: Iterable[str], class_names: Callable[[Any, str], Iterable[str]]
    ) -> tuple[dict[str, str], list[str]]:
        """Return the split of every listed class, and notes on classes that are only in the data or only in the lists.

        Args:
            existing: Names of the classes in the data.
            class_names: Extracts the class names from the content of a list; its second argument names the list.

        Raises:
            UserError: a class is in two lists.
        """
        splits: dict[str, str] = {}
        for split, content in self.lists.items():
            for name in class_names(content, f"{self.where}: the list of {split}"):
                if splits.setdefault(name, split) != split:
                    what = f"{self.where}: {name!r} is in the lists of {splits[name]} and of {split}."
                    raise UserError(what, "Keep it in one of them.")
        notes = [f"Split by the lists in {self.where}."]
        if unlisted := sorted(set(existing) - set(splits)):
            classes = format_count(len(unlisted), "class is", "classes are")
            notes.append(f"{classes} not in the lists in {self.where} and skipped: {format_names(unlisted)}.")
        if missing := sorted(set(splits) - set(existing)):
            classes = format_count(len(missing), "class", "classes")
            notes.append(f"{classes} in the lists in {self.where} without images: {format_names(missing)}.")
        return splits, notes


def list_folders(path: Path, option: Path | None, key: str) -> list[Path]:
    """Return where to look for lists: in ``option``, or else beside the data at ``path``, in ``splits`` or ``key``."""
    if option is not None:
        return [option, option / key]
    base = path if path.is_dir() else path.parent
    parents = (base, base.absolute().parent)
    return [folder for up in parents for folder in (up / "splits" / key, up / key, up / "splits")]


def find_split_lists(path: Path, option: Path | None, key: str) -> SplitLists | None:
    """Read the lists in the first folder of :func:`list_folders` that contains any.

    Raises:
        UserError: ``option`` contains no lists, or a list is not valid JSON.
    """
    if option is not None:
        check_location(option)
    for folder in list_folders(path, option, key):
        if lists := _read(folder):
            return SplitLists(str(folder), lists)
    if option is not None and option.is_file():
        raise UserError(f"{option} is a file.", f"Give the folder of the lists: --splits {option.parent}.")
    if option is not None:
        files = ", ".join(f"{split}.json" for split in SPLITS)
        raise UserError(
            f"There are no lists of splits in {option}.",
            f"It must contain {files} (or .txt), with the names of classes.",
        )
    return None


def lists_in_archive(tree: Tree, inside: str) -> SplitLists | None:
    """Return the text lists of the first folder in the archive of the data whose path contains ``inside``.

    Raises:
        UserError: a list is not text.
    """
    for folder in sorted({name.rpartition("/")[0] for name in tree.files if inside in name}):
        lists = {}
        for split in SPLITS:
            name = f"{folder}/{split}.txt"
            if name in tree.files:
                try:
                    lists[split] = _lines(tree.read(name).decode("utf-8-sig"))
                except (UnreadableError, UnicodeDecodeError) as error:
                    raise UserError(f"{name} in {tree.path} cannot be read: {error}.", DOWNLOAD_AGAIN) from error
        if lists:
            return SplitLists(folder, lists)
    return None


def apply_lists(listing: Listing, lists: SplitLists) -> Listing:
    """Return the listing with the split of every class by the lists; classes that are in none are left out.

    Raises:
        UserError: a list has an unknown form, or no class of the listing is in a list.
    """
    classes = set(listing.table["class"])
    by_last_part: dict[str, list[str]] = defaultdict(list)
    for name in sorted(classes):
        by_last_part[name.rpartition("/")[2]].append(name)

    def in_listing(content: Any, file: str) -> list[str]:
        listed = listed_classes(content, file)
        return [name if name in classes or len(found := by_last_part[name]) != 1 else found[0] for name in listed]

    splits, notes = lists.assign(classes, in_listing)
    if not classes & set(splits):
        raise UserError(
            f"The lists in {lists.where} contain no class of {listing.name}: they have {format_names(sorted(splits))}, "
            f"the images {format_names(sorted(classes))}.",
            "Use lists with the names of these classes.",
        )
    kept = np.flatnonzero(listing.table["class"].isin(splits))
    table = listing.table.iloc[kept].reset_index(drop=True)
    return replace(
        listing,
        table=table.assign(split=[splits[name] for name in table["class"]]),
        read=lambda position: listing.read(int(kept[position])),
        stamp=[listing.stamp, lists.lists],
        notes=(*listing.notes, *notes),
    )


def lists_in_tree(tree: Tree, root: str, classes: set[str]) -> tuple[SplitLists, list[str]]:
    """Return the lists of classes that lie beside the images, and a note if they are not used.

    Lists are called ``train.json`` or ``base.txt`` and so on, and lie in the folder of the classes or above it. They
    are used only if every class is in one list.
    """
    lists: dict[str, Any] = {}
    files: list[str] = []
    splits_of: dict[str, set[str]] = defaultdict(set)
    for name in tree.files:
        folder = name.rpartition("/")[0]
        if not root.startswith(f"{folder}/" if folder else "") or (read := _read_class_list(tree, name)) is None:
            continue
        split, content, names = read
        if not classes.isdisjoint(names):
            files.append(name)
            lists[split] = content
            for one in names:
                splits_of[one].add(split)
    problem = ""
    if unlisted := sorted(classes - splits_of.keys()):
        problem = f"in which the class {unlisted[0]!r} is not; --splits with their folder leaves such classes out"
    elif shared := sorted(one for one, splits in splits_of.items() if len(splits) > 1):
        problem = f"in which the class {shared[0]!r} has several splits"
    elif len(files) > len(lists):
        problem = "of which several are for one split"
    if files and problem:
        return SplitLists(str(tree.path), {}), [f"Not used: {format_names(files)}, {problem}."]
    return SplitLists(str(tree.path), lists, tuple(files)), []


def is_class_list(tree: Tree, name: str) -> bool:
    """Return whether a file has the name and the form of a list of the classes of a split, in JSON."""
    return name.lower().endswith(".json") and _read_class_list(tree, name) is not None


def _read_class_list(tree: Tree, name: str) -> tuple[str, Any, list[str]] | None:
    """Return the split, the content and the classes of a list, or None for another kind of file."""
    stem, _, ending = name.rpartition("/")[2].lower().rpartition(".")
    split = split_word(stem)
    if ending not in ("json", "txt") or not split:
        return None
    try:
        text = tree.read(name).decode("utf-8-sig")
        content = json.loads(text) if ending == "json" else _lines(text)
        return split, content, listed_classes(content, name)
    except (UnreadableError, UserError, ValueError, RecursionError):
        return None


def _lines(text: str) -> list[str]:
    """Return the lines that are not empty, without blanks around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def listed_classes(content: Any, file: str) -> list[str]:
    """Return the class names in a list.

    The forms are a list of names, or of pairs of superclass and class (torchmeta); ``{"class_names": [...]}`` of
    easyfsl; and ``{"label_names": [...], "image_labels": [...]}`` of CloserLookFewShot, whose names are those of all
    classes, and whose labels are numbers of some of them.
    """
    if isinstance(content, dict) and "class_names" in content:
        return check_class_names(content["class_names"], file)
    if isinstance(content, dict) and "label_names" in content:
        names, numbers = check_class_names(content["label_names"], file), content.get("image_labels")
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < len(names) for n in numbers):
            raise UserError(f"{file}: image_labels are not numbers of label_names.", "Use the published files.")
        return [names[number] for number in sorted(set(numbers))]
    if isinstance(content, list):
        content = [item[1] if isinstance(item, list) and len(item) == 2 else item for item in content]
    return check_class_names(content, file)


def check_class_names(content: Any, file: str) -> list[str]:
    """Return the content if it is a list of strings; raise UserError if it is something else."""
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{file} is not a list of class names: {json.dumps(content)[:80]}.", "Use the published files.")
    return content


def _read(folder: Path) -> dict[str, Any]:
    lists: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for word, split in SPLIT_WORDS.items():
        json_file, text_file = folder / f"{word}.json", folder / f"{word}.txt"
        try:
            file = next((one for one in (json_file, text_file) if one.exists()), None)
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
        if file is None:
            continue
        if split in files:
            what = f"{folder} has two lists of {split}: {files[split].name} and {file.name}."
            raise UserError(what, "Keep one of them, or unite them.")
        files[split] = file
        check_input(file, _MAX_BYTES)
        if file == json_file:
            lists[split] = read_json(file)
            continue
        try:
            lists[split] = _lines(read_input(file, _MAX_BYTES).decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UserError(f"{file} cannot be read: {error}.", "Save it as UTF-8, one class name per line.") from error
    return lists
