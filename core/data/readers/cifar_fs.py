"""Read CIFAR-FS (Bertinetto et al. 2019): CIFAR-100's classes split at random, 64 / 16 / 20."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.data.listing import Listing
from core.data.readers.cifar100 import CLASSES, PICKLES, Pool, listing, read_pool, read_split_pickles
from core.data.readers.common import ReadOptions
from core.data.readers.split_lists import (
    SplitLists,
    check_class_names,
    find_split_lists,
    lists_in_archive,
    unmatched_notes,
)
from core.runtime.errors import UserError

_LISTS_IN_ARCHIVE = "splits/bertinetto/"


def read_cifar_fs(path: Path, options: ReadOptions) -> Listing:
    """Read CIFAR-100's images (:func:`core.data.readers.cifar100.read_pool`) with the class lists of CIFAR-FS.

    The lists come from ``options.splits``, from the authors' archive (``splits/bertinetto/train.txt``), or from files
    beside the data: ``train.json``, ``val.json``, ``test.json`` with ``["fish", "ray"]`` or ``"ray"`` for each class,
    or ``.txt`` with one class per line. Images already sorted into ``processed/train/<class>`` need no lists.

    Raises:
        UserError: there are no images, or no lists.
    """
    if pickled := read_split_pickles(path, "CIFAR_FS", "cifar-fs"):
        return pickled
    pool = read_pool(path)
    if options.splits is None and pool.own_splits:
        return listing("cifar-fs", pool, pool.own_splits, ["Split by folder."])
    lists = _lists(path, pool, options)
    splits = lists.assignment(_class_names)
    notes = [f"Split by the lists in {lists.where}.", *unmatched_notes(pool.classes, splits, lists.where)]
    return listing("cifar-fs", pool, splits, notes)


def is_cifar_fs(names: list[str]) -> bool:
    """Return whether files with these names are CIFAR-FS rather than plain CIFAR-100."""
    return any(
        _LISTS_IN_ARCHIVE in name or ((match := PICKLES.search(name)) is not None and match[1] == "CIFAR_FS")
        for name in names
    )


def _lists(path: Path, pool: Pool, options: ReadOptions) -> SplitLists:
    if options.splits is None and pool.tree is not None:
        folders = {name.rpartition("/")[0] for name in pool.tree.files if _LISTS_IN_ARCHIVE in name}
        for folder in sorted(folders):
            if lists := lists_in_archive(pool.tree, folder):
                return lists
    lists = find_split_lists(path, options.splits, "cifar_fs")
    if lists is None:
        raise UserError(
            "CIFAR-FS needs lists of the classes in each split, and there are none beside the images.",
            "Put train.json, val.json and test.json (from torchmeta, torchmeta/datasets/assets/cifar100/cifar-fs) or "
            "train.txt, val.txt and test.txt (from the authors' archive, splits/bertinetto) in a folder cifar_fs "
            "beside the images, or specify their folder with --splits.",
        )
    return lists


def _class_names(content: Any, file: str) -> list[str]:
    """Return the class names in a list; torchmeta's lists contain pairs of superclass and class."""
    if isinstance(content, list):
        content = [item[1] if isinstance(item, list) and len(item) == 2 else item for item in content]
    names = check_class_names(content, file)
    if unknown := sorted(set(names) - set(CLASSES)):
        raise UserError(
            f"{file} contains {json.dumps(unknown[0])}, which is not a class of CIFAR-100.", "Use the CIFAR-FS lists."
        )
    return names
