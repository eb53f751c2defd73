"""Small pictures, and folders and zips of them, for the tests of readers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from core.data.listing import Listing


def picture(value: int = 7, size: tuple[int, int] = (6, 5), mode: str = "L", kind: str = "PNG", **save: Any) -> bytes:
    """An encoded picture of one colour."""
    stream = io.BytesIO()
    colour: Any = value if mode in ("1", "L", "I", "F", "I;16") else (value, *[255] * (len(mode) - 1))
    Image.new(mode, size, colour).save(stream, kind, **save)
    return stream.getvalue()


def write_files(root: Path, files: Mapping[str, bytes] | Iterable[str]) -> Path:
    """Files below ``root``; names alone get a picture each."""
    for name, content in with_content(files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: Mapping[str, bytes] | Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in with_content(files).items():
            archive.writestr(name, content)
    return path


def with_content(files: Mapping[str, bytes] | Iterable[str]) -> dict[str, bytes]:
    if isinstance(files, Mapping):
        return dict(files)
    return {name: picture(number % 256) for number, name in enumerate(files)}


def column(listing: Listing, name: str) -> list[str]:
    return listing.table[name].tolist()
