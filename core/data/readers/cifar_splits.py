"""Read CIFAR-FS and FC100, which split CIFAR-100's classes anew: at random, or by superclass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.listing import Listing
from core.data.readers.cifar100 import (
    CLASSES,
    SUPERCLASSES,
    Pool,
    has_split_pickles,
    listing,
    read_pool,
    read_split_pickles,
)
from core.data.readers.common import ReadOptions
from core.data.readers.split_lists import SplitLists, find_split_lists, listed_classes, lists_in_archive
from core.runtime.errors import UserError

SUPERCLASS_NUMBERS = {
    "train": (1, 2, 3, 4, 5, 6, 9, 10, 15, 17, 18, 19),
    "val": (8, 11, 13, 16),
    "test": (0, 7, 12, 14),
}
"""FC100's split (section 1.1 of the paper's supplement); numbers index the superclasses in alphabetical order."""
_LISTS_IN_ARCHIVE = "splits/bertinetto/"


def read_cifar_fs(path: Path, options: ReadOptions) -> Listing:
    """Read CIFAR-100's images with the class lists of CIFAR-FS (Bertinetto et al. 2019): 64 / 16 / 20 classes.

    The lists come from ``options.splits``, from the authors' archive (``splits/bertinetto/train.txt``), or from files
    beside the data: ``train.json``, ``val.json``, ``test.json`` with ``["fish", "ray"]`` or ``"ray"`` for each class,
    or ``.txt`` with one class per line. Images already sorted into ``processed/train/<class>`` need no lists.

    Raises:
        UserError: there are no images, or no lists.
    """
    if pickled := read_split_pickles(path, "CIFAR_FS", "cifar-fs"):
        _refuse_lists(options, "CIFAR_FS")
        return pickled
    pool = read_pool(path)
    if options.splits is None and pool.own_splits:
        return listing("cifar-fs", pool, pool.own_splits, ["Split by folder."])
    packed = lists_in_archive(pool.tree, _LISTS_IN_ARCHIVE) if options.splits is None and pool.tree else None
    lists = packed or find_split_lists(path, options.splits, "cifar_fs")
    if lists is None:
        raise UserError(
            "CIFAR-FS needs lists of the classes in each split, and there are none beside the images.",
            "Put train.json, val.json and test.json (from torchmeta, torchmeta/datasets/assets/cifar100/cifar-fs) or "
            "train.txt, val.txt and test.txt (from the authors' archive, splits/bertinetto) in a folder cifar_fs "
            "beside the images, or specify their folder with --splits.",
        )
    return _split_by(lists, _cifar_fs_classes, "cifar-fs", pool)


def read_fc100(path: Path, options: ReadOptions) -> Listing:
    """Read CIFAR-100's images with the split of FC100 (Oreshkin et al. 2018, TADAM): 60 / 20 / 20 classes.

    The split is built in; ``options.splits`` overrides it with lists of superclasses or classes. The pickles
    ``FC100_train.pickle``, ``FC100_val.pickle`` and ``FC100_test.pickle`` define their own split.

    Raises:
        UserError: there are no images.
    """
    if pickled := read_split_pickles(path, "FC100", "fc100"):
        _refuse_lists(options, "FC100")
        return pickled
    pool = read_pool(path)
    if options.splits is None:
        names = [*SUPERCLASSES.values()]
        published = {
            name: split for split, numbers in SUPERCLASS_NUMBERS.items() for number in numbers for name in names[number]
        }
        return listing("fc100", pool, published, ["Split by superclass as published with FC100."])
    lists = find_split_lists(path, options.splits, "fc100")
    assert lists is not None  # a given folder is found or raises an error
    return _split_by(lists, _fc100_classes, "fc100", pool)


def is_cifar_fs(names: list[str]) -> bool:
    """Return whether files with these names are CIFAR-FS rather than plain CIFAR-100."""
    return any(_LISTS_IN_ARCHIVE in name for name in names) or has_split_pickles(names, "CIFAR_FS")


def _refuse_lists(options: ReadOptions, prefix: str) -> None:
    if options.splits is not None:
        raise UserError(f"{prefix}_train.pickle and the like are split, and contain no class names.", "Omit --splits.")


def _split_by(lists: SplitLists, class_names: Callable[[Any, str], list[str]], name: str, pool: Pool) -> Listing:
    splits, notes = lists.assign({row[0] for row in pool.rows}, class_names)
    return listing(name, pool, splits, notes)


def _cifar_fs_classes(content: Any, file: str) -> list[str]:
    """Return the class names in a list of any known form."""
    names = listed_classes(content, file)
    if unknown := sorted(set(names) - set(CLASSES)):
        raise UserError(
            f"{file} contains {json.dumps(unknown[0])}, which is not a class of CIFAR-100.", "Use the CIFAR-FS lists."
        )
    return names


def _fc100_classes(content: Any, file: str) -> list[str]:
    names: list[str] = []
    for name in listed_classes(content, file):
        if name not in SUPERCLASSES and name not in CLASSES:
            raise UserError(f"{file} contains {name!r}, which is not a class of CIFAR-100.", "Use the FC100 lists.")
        names += SUPERCLASSES.get(name, (name,))
    return names
