"""Read MNIST's four idx files, a format that Fashion-MNIST and Kuzushiji-MNIST share."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from contextlib import nullcontext
from math import prod
from pathlib import Path

import numpy as np

from core.data.archive import FolderTree, file_stamp
from core.data.listing import Listing, TargetFormat, make_table
from core.data.readers.common import DOWNLOAD_AGAIN, ReadOptions, source_name
from core.runtime.errors import UserError
from core.runtime.failed_downloads import check_downloaded_file
from core.runtime.reading import check_input, check_unpacked_size, open_input

PARTS = {"train": "train", "test": "t10k"}
"""File name prefixes of each split."""
MD5 = {
    "train": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
    "test": ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
}
"""MD5 of the uncompressed image and label files (LeCun, Cortes and Burges)."""
MAX_BYTES = 2_000_000_000
CLASSES = 10

_KINDS = ("images-idx3", "labels-idx1")
_BYTE_TYPE = 8
_MAX_GZIP_RATIO = 1100  # above the maximum that deflate can reach
_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"


def read_mnist(path: Path, options: ReadOptions) -> Listing:
    """Read the image and label files of the training part, of the test part, or of both; each plain or ``.gz``.

    The files are in the folder or, as torchvision places them, in ``MNIST/raw`` below it. Ids are ``train-00000`` and
    ``test-00000``; the split is the official one, in which both sides contain every class. Images stay in memory, at
    one byte per pixel.

    Raises:
        UserError: a file of a pair is missing, or its header, length or labels are wrong; the text names it.
    """
    folder = _folder(path)
    pairs = {split: pair for split, prefix in PARTS.items() if (pair := _pair(folder, prefix))}
    parts = {split: _read_pair(split, *pair) for split, pair in pairs.items()}
    images = [image for pixels, _, _ in parts.values() for image in pixels]
    if len({image.shape for image in images}) > 1:
        raise UserError(f"{folder}: training and test images differ in size.", "Use files of one data set.")
    rows = [
        (f"{split}-{number:05d}", str(label), split)
        for split, (_, labels, _) in parts.items()
        for number, label in enumerate(labels)
    ]
    notes = [f"Only the {split} part was found." for split in parts if len(parts) == 1]
    if not all(is_original for _, _, is_original in parts.values()):
        notes.append(
            "These are not the original MNIST digits (their checksums differ); other data sets use the same file "
            "names. The classes are called 0 to 9."
        )
    stamp = [file_stamp(file) for pair in pairs.values() for file in pair]
    name = "mnist" if folder.name == "raw" and folder.parent.name == "MNIST" else source_name(path)
    table, form = make_table(*zip(*rows, strict=True)), TargetFormat(channels=1)
    return Listing(name, table, images.__getitem__, stamp, form=form, notes=tuple(notes))


def is_mnist(names: list[str]) -> bool:
    """Return whether files with these names are for :func:`read_mnist`."""
    files = {name.rpartition("/")[2].removesuffix(".gz") for name in names}
    return any(all(f"{prefix}-{kind}-ubyte" in files for kind in _KINDS) for prefix in PARTS.values())


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"{path} is not a folder.", f"Use the unpacked folder that contains {_FILES}.")
    if any(_pair(path, prefix) for prefix in PARTS.values()):
        return path
    known = {f"{prefix}-{kind}-ubyte" for prefix in PARTS.values() for kind in _KINDS}
    found = [path / name for name in FolderTree(path).files]
    below = {file.parent for file in found if file.name.removesuffix(".gz") in known}
    if len(below) > 1:
        listed = ", ".join(str(folder) for folder in sorted(below))
        raise UserError(f"There are idx files in several folders below {path}: {listed}.", "Use one of them.")
    if not below:
        raise UserError(f"There are no MNIST files in {path}.", f"It must contain {_FILES}, with or without .gz.")
    folder = below.pop()
    if not any(_pair(folder, prefix) for prefix in PARTS.values()):
        raise UserError(f"The idx files in {folder} are links to nothing.", "Mend or replace the links.")
    return folder


def _pair(folder: Path, prefix: str) -> tuple[Path, Path] | None:
    plain = [folder / f"{prefix}-{kind}-ubyte" for kind in _KINDS]
    found = (next((f for f in (file, file.with_name(f"{file.name}.gz")) if f.is_file()), None) for file in plain)
    images, labels = found
    if images and labels:
        return images, labels
    if images or labels:
        missing = plain[1] if images else plain[0]
        raise UserError(f"{images or labels} exists, but not {missing.name}.", "Put both in the folder.")
    return None


def _read_pair(split: str, images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the images ``(n, height, width)``, the labels ``(n,)``, and whether these are the original MNIST."""
    pixels, pixels_md5 = _read_idx(images, 3)
    classes, classes_md5 = _read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise UserError(
            f"{images.name} has {len(pixels):,} images, but {labels.name} has {len(classes):,} labels.", DOWNLOAD_AGAIN
        )
    bad = np.flatnonzero(classes >= CLASSES)
    if bad.size:
        raise UserError(
            f"{labels.name}: label {bad[0]} (counted from 0) is {classes[bad[0]]}, but there are {CLASSES} classes.",
            "Import data with other classes as one folder per class, or as a table of paths and labels.",
        )
    return pixels, classes, (pixels_md5, classes_md5) == MD5[split]


def _read_idx(path: Path, dimensions: int) -> tuple[np.ndarray, str]:
    """Return an array of bytes and the MD5 of the uncompressed file, checking the header before allocating memory."""
    size = check_input(path, MAX_BYTES).st_size
    check_downloaded_file(path)
    is_gzip = path.suffix == ".gz"
    head_bytes = 4 * (1 + dimensions)
    try:
        with open_input(path) as file, gzip.open(file) if is_gzip else nullcontext(file) as stream:
            head = stream.read(head_bytes)
            if len(head) < head_bytes or head[:4] != bytes((0, 0, _BYTE_TYPE, dimensions)):
                raise UserError(
                    f"{path.name} is not an idx file of bytes with {dimensions} dimensions.", DOWNLOAD_AGAIN
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            expected = prod(shape)
            if not expected:
                raise UserError(f"{path.name} is empty: its shape is {shape}.", DOWNLOAD_AGAIN)
            if expected > min(MAX_BYTES, (size * _MAX_GZIP_RATIO if is_gzip else size) + 1):
                raise UserError(
                    f"{path.name} claims {expected:,} bytes, more than {size:,} bytes can hold.", DOWNLOAD_AGAIN
                )
            check_unpacked_size(path.name, size, expected)
            content = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path.name} is damaged or truncated: {error}.", DOWNLOAD_AGAIN) from error
    if len(content) != expected:
        more = "more" if len(content) > expected else f"{len(content):,}"
        raise UserError(f"{path.name} should have {expected:,} bytes after its header, but has {more}.", DOWNLOAD_AGAIN)
    digest = hashlib.md5(head, usedforsecurity=False)
    digest.update(content)
    return np.frombuffer(content, np.uint8).reshape(shape), digest.hexdigest()
