"""Read lists of the classes in each split, as few-shot papers and their code publish them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.data.archive import Tree
from core.data.decode import UnreadableError
from core.data.listing import SPLITS
from core.data.readers.common import format_count, format_names
from core.runtime.errors import UserError
from core.runtime.files import read_json

ENDINGS = (".json", ".txt")


@dataclass(frozen=True)
class SplitLists:
    """A set of class lists, one per split.

    Attributes:
        where: Name of their folder in notes and errors.
        lists: Maps each split to the content of its JSON file or the lines of its text file; splits without a list are
            omitted.
    """

    where: str
    lists: dict[str, Any]

    def file(self, split: str) -> str:
        """Return the name of a split's list for errors."""
        return f"{self.where}: the list of {split}"

    def assignment(self, members: Callable[[Any, str], Iterable[str]]) -> dict[str, str]:
        """Return the split of every class; ``members(content, file)`` extracts the class names from one list.

        Raises:
            UserError: a class is in two of them.
        """
        found: dict[str, str] = {}
        for split, content in self.lists.items():
            for name in members(content, self.file(split)):
                if found.setdefault(name, split) != split:
                    raise UserError(
                        f"{self.where}: {name!r} is in the lists of {found[name]} and of {split}.", "Keep one of them."
                    )
        return found


def find_split_lists(path: Path, given: Path | None, key: str) -> SplitLists | None:
    """Find the lists in ``given``, else beside the data at ``path``: in ``splits`` or ``key``, in its folder or above.

    Raises:
        UserError: ``given`` contains no lists, or a list is not valid JSON.
    """
    if given is not None:
        for folder in (given, given / key):
            if lists := _read(folder):
                return SplitLists(str(folder), lists)
        raise UserError(
            f"There are no lists of splits in {given}.", f"It must hold {_wanted()}, with the names of classes."
        )
    base = path if path.is_dir() else path.parent
    for above in (base, base.absolute().parent):
        for folder in (above / "splits" / key, above / key, above / "splits"):
            if lists := _read(folder):
                return SplitLists(str(folder), lists)
    return None


def lists_in_archive(tree: Tree, folder: str) -> SplitLists | None:
    """Return the text lists inside the archive of the data.

    Raises:
        UserError: a list is not text.
    """
    lists = {}
    for split in SPLITS:
        name = f"{folder}/{split}.txt"
        if name in tree.files:
            try:
                lists[split] = tree.read(name).decode().split()
            except (UnreadableError, UnicodeDecodeError) as error:
                raise UserError(f"{name} in {tree.path} cannot be read: {error}.", "Download it again.") from error
    return SplitLists(folder, lists) if lists else None


def texts(content: Any, file: str) -> list[str]:
    """Return the content as a list of strings.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(content, list) or not all(isinstance(one, str) for one in content):
        raise UserError(f"{file} is no list of class names: {json.dumps(content)[:80]}.", "Use the published files.")
    return content


def unmatched_notes(found: Iterable[str], listed: Iterable[str], where: str) -> list[str]:
    """Return notes on classes that are only in the data or only in the lists."""
    have, want = set(found), set(listed)
    notes = []
    if extra := sorted(have - want):
        classes = format_count(len(extra), "class is", "classes are")
        notes.append(f"{classes} in none of the lists in {where} and left out: {format_names(extra)}.")
    if absent := sorted(want - have):
        classes = format_count(len(absent), "class", "classes")
        notes.append(f"There are no images of {classes} of the lists in {where}: {format_names(absent)}.")
    return notes


def _read(folder: Path) -> dict[str, Any]:
    lists: dict[str, Any] = {}
    for split in SPLITS:
        for ending in ENDINGS:
            file = folder / f"{split}{ending}"
            try:
                is_there = file.is_file()
            except OSError as error:
                raise UserError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
            if split not in lists and is_there:
                lists[split] = read_json(file) if ending == ".json" else _lines(file)
    return lists


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.", "Save it as UTF-8, a class name a line.") from error


def _wanted() -> str:
    return ", ".join(f"{split}.json" for split in SPLITS) + " (or .txt)"
