"""Compute the positions that images have in torchvision's ``ImageFolder``, which lists other files than TaskLens does.

``ImageFolder`` lists hidden files and folders and follows every link, but knows no GIF, PBM or AVIF and opens no file,
so that it also lists damaged ones. The rules are those of ``torchvision.datasets.folder``.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from core.data.archive import MAX_FILES

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""``IMG_EXTENSIONS`` of torchvision, whose import takes seconds."""


def imagefolder_positions(path: Path, roots: Sequence[str], used: Sequence[str]) -> np.ndarray | None:
    """Return the position that each used file has in torchvision's ``ImageFolder``.

    Args:
        path: A folder, or a zip archive, whose positions are those of the unpacked files.
        roots: What is above the class folders, as a path below ``path``: empty, or with a slash at the end. Of several,
            one ``ImageFolder`` each is concatenated in this order.
        used: Paths below ``path``, with forward slashes.

    Returns:
        ``(len(used),)`` int64, with -1 for files that ``ImageFolder`` does not list. None if it would not end, because
        a link leads to a folder above itself, or if there are too many files.
    """
    names = _names_in_archive(path) if path.is_file() else _names_in_folder(path, roots)
    if names is None:
        return None
    position_of: dict[str, int] = {}
    count = 0
    for root in roots:
        for name in _in_order(names, root):
            position_of.setdefault(name, count)
            count += 1
    return np.array([position_of.get(name, -1) for name in used], np.int64)


def _in_order(names: Iterable[str], root: str) -> list[str]:
    """Return the files that ``ImageFolder(root)`` lists, in its order."""

    def order(name: str) -> tuple[str, str, str]:
        """Return the class, then the folder, which is compared as a whole path, then the file."""
        folder, _, file = name[len(root) :].rpartition("/")
        return folder.partition("/")[0], folder, file

    skipped = len(root)
    inside = (name for name in names if name.startswith(root) and name.find("/", skipped) >= 0)
    return sorted((name for name in inside if name.lower().endswith(EXTENSIONS)), key=order)


def _names_in_archive(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        files = [name.replace("\\", "/") for name in archive.namelist() if not name.endswith("/")]
    return list(dict.fromkeys("/".join(part for part in name.split("/") if part not in ("", ".")) for name in files))


def _names_in_folder(path: Path, roots: Sequence[str]) -> list[str] | None:
    names: list[str] = []
    for root in dict.fromkeys(roots):
        for name in _walk(path, root):
            if name is None or len(names) == MAX_FILES:
                return None
            names.append(name)
    return names


def _walk(path: Path, root: str) -> Iterator[str | None]:
    """Yield every file below a root as ``os.walk`` with ``followlinks`` lists it, or None where that would not end."""
    start = os.path.join(path, root)  # noqa: PTH118 - os.walk works with texts
    skipped = len(os.path.join(path, ""))  # noqa: PTH118
    for visited, (folder, folders, files) in enumerate(os.walk(start, followlinks=True)):
        if visited == MAX_FILES or any(_is_cycle(start, folder, name) for name in folders):
            yield None
            return
        prefix = os.path.join(folder, "")[skipped:]  # noqa: PTH118
        yield from (prefix + name for name in files)


def _is_cycle(start: str, folder: str, name: str) -> bool:
    """Return whether a folder in ``folder`` is a link to one that the walk from ``start`` has come through."""
    link = f"{folder.rstrip('/')}/{name}"
    try:
        if not stat.S_ISLNK(os.lstat(link).st_mode):
            return False
    except OSError:
        return False
    target, above = os.path.realpath(link), folder
    while above and len(above) >= len(start.rstrip("/")):
        if os.path.realpath(above) == target:
            return True
        above = above.rpartition("/")[0]
    return False
