"""Read FC100 (Oreshkin et al. 2018, TADAM): CIFAR-100's classes split by superclass, 60 / 20 / 20."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.data.listing import Listing
from core.data.readers.cifar100 import CLASSES, PICKLES, SUPERCLASSES, listing, read_pool, read_split_pickles
from core.data.readers.common import ReadOptions
from core.data.readers.split_lists import check_class_names, find_split_lists, unmatched_notes
from core.runtime.errors import UserError

SUPERCLASS_NUMBERS = {
    "train": (1, 2, 3, 4, 5, 6, 9, 10, 15, 17, 18, 19),
    "val": (8, 11, 13, 16),
    "test": (0, 7, 12, 14),
}
"""The split in section 1.1 of the paper's supplement; numbers index the superclasses in alphabetical order."""


def read_fc100(path: Path, options: ReadOptions) -> Listing:
    """Read CIFAR-100's images (:func:`core.data.readers.cifar100.read_pool`) with the split of FC100.

    The split is built in; ``options.splits`` overrides it with lists of superclasses or classes. The pickles
    ``FC100_train.pickle``, ``FC100_val.pickle`` and ``FC100_test.pickle`` define their own split.

    Raises:
        UserError: there are no images.
    """
    if pickled := read_split_pickles(path, "FC100", "fc100"):
        return pickled
    pool = read_pool(path)
    if options.splits is None:
        return listing("fc100", pool, _published_splits(), ["Split by superclass as published with FC100."])
    lists = find_split_lists(path, options.splits, "fc100")
    assert lists is not None  # a given folder is found or raises an error
    splits = lists.assignment(_class_names)
    notes = [f"Split by the lists in {lists.where}.", *unmatched_notes(pool.classes, splits, lists.where)]
    return listing("fc100", pool, splits, notes)


def is_fc100(names: list[str]) -> bool:
    """Return whether files with these names are FC100 rather than plain CIFAR-100."""
    return any((match := PICKLES.search(name)) is not None and match[1] == "FC100" for name in names)


def _published_splits() -> dict[str, str]:
    superclasses = list(SUPERCLASSES)
    return {
        name: split
        for split, numbers in SUPERCLASS_NUMBERS.items()
        for number in numbers
        for name in SUPERCLASSES[superclasses[number]]
    }


def _class_names(content: Any, file: str) -> list[str]:
    names: list[str] = []
    for name in check_class_names(content, file):
        if name not in SUPERCLASSES and name not in CLASSES:
            raise UserError(f"{file} contains {name!r}, which is not a class of CIFAR-100.", "Use the FC100 lists.")
        names += SUPERCLASSES.get(name, (name,))
    return names
