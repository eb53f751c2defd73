"""Read the image file formats that users have on disk: names and classes, without decoding any image."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.data.archive import FolderTree, Tree, file_mode, open_tree
from core.data.listing import Listing
from core.data.readers import cifar100
from core.data.readers.beside import read_images_and_tables
from core.data.readers.cifar_splits import is_cifar_fs, read_cifar_fs, read_fc100
from core.data.readers.common import UNREAD_IMAGES, ReadOptions, is_image
from core.data.readers.folder import read_folder
from core.data.readers.huggingface import is_huggingface, read_huggingface
from core.data.readers.manifest import is_table, read_manifest
from core.data.readers.mini_imagenet import is_mini_imagenet, read_mini_imagenet
from core.data.readers.mnist import is_mnist, read_mnist
from core.data.readers.omniglot import is_omniglot, read_omniglot
from core.data.readers.split_lists import apply_lists, find_split_lists
from core.runtime.errors import UserError
from core.runtime.progress import format_names

__all__ = ["AUTO", "READERS", "ReadOptions", "detect", "read_listing"]

AUTO = "auto"
IMAGES = "folder or manifest"
"""What :func:`detect` returns for images whose classes come from folders, tables beside them, or both."""


@dataclass(frozen=True)
class Reader:
    """A reader of one format.

    Attributes:
        read: Raises UserError if the files have another format.
        options: The fields of :class:`ReadOptions` that it uses; all others are refused if they are given. Lists of
            the classes in each split (``splits``) are applied to the listing of a reader that does not use them.
    """

    read: Callable[[Path, ReadOptions], Listing]
    options: frozenset[str] = frozenset()


READERS = {
    "folder": Reader(read_folder, frozenset({"class_levels"})),
    "manifest": Reader(read_manifest, frozenset({"encoding", "table"})),
    "omniglot": Reader(read_omniglot, frozenset({"splits"})),
    "mnist": Reader(read_mnist),
    "cifar-fs": Reader(read_cifar_fs, frozenset({"splits"})),
    "fc100": Reader(read_fc100, frozenset({"splits"})),
    "mini-imagenet": Reader(read_mini_imagenet, frozenset({"splits", "encoding"})),
    "huggingface": Reader(read_huggingface),
}
"""The readers by the name of their format."""
_IMAGES_OPTIONS = frozenset({"class_levels", "encoding", "table"})
"""The options of :func:`read_images_and_tables`."""
_OPTION_NAMES = {"splits": "--splits", "encoding": "--encoding", "class_levels": "--class-level", "table": "--table"}


def read_listing(path: Path, format: str = AUTO, options: ReadOptions | None = None) -> Listing:
    """Return the names and classes of the images at ``path`` without decoding any image.

    Args:
        format: A name in :data:`READERS`, or ``auto``.

    Raises:
        UserError: the format is unknown, the files match none or several, or the files are invalid; or the reader does
            not use an option that is given.
    """
    file_mode(path)
    options = options or ReadOptions()
    if format not in (AUTO, *READERS):
        raise UserError(f"There is no format {format!r}.", f"Use one of: {AUTO}, {', '.join(READERS)}.")
    tree = None
    if format == AUTO:
        format, tree = _detect(path)
    used = _IMAGES_OPTIONS if format == IMAGES else READERS[format].options
    for field, name in _OPTION_NAMES.items():
        if getattr(options, field) is not None and field not in (*used, "splits"):
            users = ", ".join(format for format, other in READERS.items() if field in other.options)
            raise UserError(
                f"{name} has no effect on {path}, whose format is {format}.",
                f"Omit it, or choose a format that uses it: {users}.",
            )
    if format == IMAGES and tree is not None:
        listing = read_images_and_tables(tree, options)
    else:
        listing = READERS[format].read(path, options)
    if options.splits is None or "splits" in used:
        return listing
    lists = find_split_lists(path, options.splits, "")
    assert lists is not None  # a given folder is found or raises an error
    return apply_lists(listing, lists)


def detect(path: Path) -> str:
    """Return the format of the files at ``path``.

    Raises:
        UserError: the files have no known format (the text says what was found), or match two formats.
    """
    return _detect(path)[0]


def _detect(path: Path) -> tuple[str, Tree | None]:
    """Return the format of the files at ``path``, and their names if these were listed."""
    is_file = stat.S_ISREG(file_mode(path))
    if is_file and is_table(path.name):
        return "huggingface" if is_huggingface(path) else "manifest", None
    if is_file and (advice := _FILE_ADVICE.get(path.suffix.lower(), "")):
        raise UserError(f"{path} is {advice[0]}.", advice[1])
    if is_file and is_image(path.name):
        raise UserError(f"{path} is a single image.", "Give the folder that contains the images of all classes.")
    if is_file and cifar100.is_python_archive([path.name]):
        raise _ambiguous("cifar-fs", "fc100")
    tree = open_tree(path)
    # A part of Omniglot is identified by the name of its folder, which is not among the names inside.
    inside = [f"{path.name}/{name}" for name in tree.files] if path.is_dir() else tree.files
    matches = {
        "huggingface": is_huggingface(tree),
        "omniglot": is_omniglot(tree.files) or is_omniglot(inside),
        "mnist": path.is_dir() and is_mnist(tree.files),
        "mini-imagenet": is_mini_imagenet(tree),
        "cifar-fs": is_cifar_fs(tree.files),
        "fc100": cifar100.has_split_pickles(tree.files, "FC100"),
    }
    found = [name for name, is_match in matches.items() if is_match]
    if len(found) > 1:
        what = f"{path} contains several data sets: {', '.join(found)}."
        raise UserError(what, "Use the folder of one of them, or choose one with --format.")
    if found:
        return found[0], tree
    if cifar100.is_python_archive(tree.files):
        raise _ambiguous("cifar-fs", "fc100")
    if cifar100.has_class_folders(tree.files):
        raise _ambiguous("cifar-fs", "fc100", "folder")
    if any(is_image(name) for name in tree.files):
        return IMAGES, tree
    contents = f"It contains {format_names(tree.files)}." if tree.files else "It contains no files."
    raise UserError(f"{path} is not in a known format. {contents}", _advice(tree))


_SPREADSHEET = ("a spreadsheet, which is not read", "Save it as csv, with the columns path and label.")
_FILE_ADVICE = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), _SPREADSHEET),
    ".json": ("a JSON file", "Save it as csv or JSON Lines (.jsonl), with path and label in every row."),
    ".txt": ("a text file", "Give the folder of the images, or save it as csv with the columns path and label."),
    ".mat": ("a MATLAB file, which is not read", "Save it as csv, with the columns path and label."),
    ".npz": ("a NumPy archive, which is not read", "Save the images as files, one folder per class."),
    ".h5": ("an HDF5 file, which is not read", "Save the images as files, one folder per class."),
}
"""What files of other kinds are, and what to do."""
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_KNOWN_LAYOUTS = (
    "one folder of images per class; one csv or parquet table with the columns path and label; "
    "images_background.zip or images_evaluation.zip (omniglot); train-images-idx3-ubyte and its labels (mnist); "
    "cifar-100-python, CIFAR_FS_train.pickle or FC100_train.pickle; train.csv with filename and label, or "
    "mini-imagenet-cache-train.pkl (mini-imagenet); dataset_dict.json, state.json "
    "or parquet files with a column of images (huggingface)"
)


def _advice(tree: Tree) -> str:
    zips = [name for name in tree.files if name.lower().endswith(".zip")]
    if len(zips) == 1 and isinstance(tree, FolderTree):
        return f"Import the archive itself: {tree.path / zips[0]}."
    if zips:
        return f"Unpack {format_names(zips)}; or, if one of them is the whole data set, import that archive itself."
    if unread := [name for name in tree.files if name.lower().endswith(UNREAD_IMAGES)]:
        return f"Convert images such as {format_names(unread)} to JPEG or PNG, which can be read."
    packed = [name for name in tree.files if name.lower().endswith(_ARCHIVES)]
    if packed:
        return f"Unpack {format_names(packed)}, or repack as a zip archive."
    return f"Known layouts: {_KNOWN_LAYOUTS}."


def _ambiguous(*names: str) -> UserError:
    fix = f"Choose one: --format {' or --format '.join(names)}."
    return UserError("These are CIFAR-100's images, which several formats can read.", fix)
