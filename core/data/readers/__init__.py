"""Read the image file formats that users have on disk: names and classes, without decoding any image."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from core.data.archive import Tree, file_mode, open_tree
from core.data.listing import Listing
from core.data.readers import cifar100
from core.data.readers.cifar_splits import is_cifar_fs, read_cifar_fs, read_fc100
from core.data.readers.common import ReadOptions, format_names, is_image
from core.data.readers.folder import read_folder
from core.data.readers.huggingface import is_huggingface, read_huggingface
from core.data.readers.manifest import SUFFIXES, has_manifest, read_manifest
from core.data.readers.mini_imagenet import is_mini_imagenet, read_mini_imagenet
from core.data.readers.mnist import is_mnist, read_mnist
from core.data.readers.omniglot import is_omniglot, read_omniglot
from core.runtime.errors import UserError

__all__ = ["AUTO", "READERS", "ReadOptions", "detect", "read_listing"]

AUTO = "auto"
READERS: dict[str, Callable[[Path, ReadOptions], Listing]] = {
    "folder": read_folder,
    "manifest": read_manifest,
    "omniglot": read_omniglot,
    "mnist": read_mnist,
    "cifar-fs": read_cifar_fs,
    "fc100": read_fc100,
    "mini-imagenet": read_mini_imagenet,
    "huggingface": read_huggingface,
}
"""Functions that read one format; they raise UserError if the files have another one."""


def read_listing(path: Path, format: str = AUTO, options: ReadOptions | None = None) -> Listing:
    """Return the names and classes of the images at ``path`` without decoding any image.

    Args:
        format: A name in :data:`READERS`, or ``auto``.

    Raises:
        UserError: the format is unknown, the files match none or several, or the files are invalid.
    """
    file_mode(path)
    if format == AUTO:
        format = detect(path)
    if format not in READERS:
        raise UserError(f"There is no format {format!r}.", f"Use one of: {AUTO}, {', '.join(READERS)}.")
    return READERS[format](path, options or ReadOptions())


def detect(path: Path) -> str:
    """Return the format of the files at ``path``.

    Raises:
        UserError: the files have no known format (the text says what was found), or match two formats.
    """
    is_file = stat.S_ISREG(file_mode(path))
    if is_file and path.suffix.lower() in SUFFIXES:
        return "manifest"
    if is_file and cifar100.is_python_archive([path.name]):
        raise _ambiguous("cifar-fs", "fc100")
    tree = open_tree(path)
    # A part of Omniglot is identified by the name of its folder, which is not among the names inside.
    inside = [f"{path.name}/{name}" for name in tree.files] if path.is_dir() else tree.files
    matches = {
        "huggingface": is_huggingface(tree.files),
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
        return found[0]
    if cifar100.is_python_archive(tree.files):
        raise _ambiguous("cifar-fs", "fc100")
    if has_manifest(tree):
        return "manifest"
    if cifar100.has_class_folders(tree.files):
        raise _ambiguous("cifar-fs", "fc100", "folder")
    if any(is_image(name) for name in tree.files):
        return "folder"
    contents = f"It contains {format_names(tree.files)}." if tree.files else "It contains no files."
    raise UserError(f"{path} is not in a known format. {contents}", _advice(tree))


_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_KNOWN_LAYOUTS = (
    "one folder of images per class; one csv or parquet table with the columns path and label; "
    "images_background.zip or images_evaluation.zip (omniglot); train-images-idx3-ubyte and its labels (mnist); "
    "cifar-100-python, CIFAR_FS_train.pickle or FC100_train.pickle; train.csv with filename and label, or "
    "mini-imagenet-cache-train.pkl (mini-imagenet); dataset_dict.json or state.json (huggingface)"
)


def _advice(tree: Tree) -> str:
    zips = [name for name in tree.files if name.lower().endswith(".zip")]
    if len(zips) == 1:
        return f"Import the archive itself: {tree.path / zips[0]}."
    if zips:
        return f"Import one of the archives itself: {format_names(zips)}."
    packed = [name for name in tree.files if name.lower().endswith(_ARCHIVES)]
    if packed:
        return f"Unpack {format_names(packed)}, or repack as a zip archive."
    return f"Known layouts: {_KNOWN_LAYOUTS}."


def _ambiguous(*names: str) -> UserError:
    fix = f"Choose one: --format {' or --format '.join(names)}."
    return UserError("These are CIFAR-100's images, which several formats can read.", fix)
