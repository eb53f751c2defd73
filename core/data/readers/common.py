"""Share options, names and text formatting between the readers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from core.data.decode import SUFFIXES

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "base"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "novel"), "test"),
}
"""Accepted names of a split (in lower case), mapped to its standard name; few-shot data has base and novel classes."""
_FILLERS = {
    "set",
    "data",
    "dataset",
    "image",
    "images",
    "img",
    "imgs",
    "seg",
    "meta",
    "split",
    "folder",
    "full",
    "new",
} | {
    *("label", "labels"),
}
"""Words that may stand beside the name of a split, as in ``train_images`` and ``seg_train``."""
_WORD = re.compile(r"[a-z]+|[0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
NO_TABLE = "none"
UNREAD_IMAGES = (
    *(".heic", ".heif", ".svg", ".psd", ".dcm", ".nii", ".raw", ".cr2", ".nef", ".arw", ".dng", ".tga"),
    *(".jp2", ".jpx", ".jxl", ".exr", ".hdr", ".ico", ".npy", ".pdf"),
)
"""Endings of images that are not read."""
DOWNLOAD_AGAIN = "Download it again."


@dataclass(frozen=True)
class ReadOptions:
    """A set of user options for the readers.

    Attributes:
        splits: Folder with the lists of the classes in each split; None: the one beside the data, or the standard one.
        encoding: Text encoding of a table; None: UTF-8, or UTF-16 if the file starts with its byte order mark.
        class_levels: First and last level, counted from 1, of the folders that are the class; None: auto-detect.
        table: Names of the tables with the labels, separated by commas; :data:`NO_TABLE`: ignore all tables; None:
            auto-detect.
    """

    splits: Path | None = None
    encoding: str | None = None
    class_levels: tuple[int, int] | None = None
    table: str | None = None


def words_of(name: str) -> list[str]:
    """Return the words and numbers in a name, in lower case: ``TrainingSet_2`` is training, set, 2."""
    return _WORD.findall(_CAMEL.sub(" ", name).lower())


def split_word(name: str) -> str:
    """Return the split that a folder, file or value names, such as ``Training`` or ``train_images``, or ``""``."""
    if (plain := name.strip().lower()) in SPLIT_WORDS:
        return SPLIT_WORDS[plain]
    words = [word.removesuffix("set").removeprefix("meta") or word for word in words_of(name)]
    splits = [word for word in words if word in SPLIT_WORDS]
    others = [word for word in words if word not in SPLIT_WORDS]
    is_split = len(splits) == 1 and all(word in _FILLERS or word.isdigit() for word in others)
    return SPLIT_WORDS[splits[0]] if is_split else ""


def is_image(name: str) -> bool:
    """Return whether the name has the extension of an image file, without checking the content."""
    return name.lower().endswith(SUFFIXES)


def source_name(path: Path) -> str:
    """Return the name of a folder or file without its extension, also for ``.``."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem
