"""Small pictures, folders and zips of them, and what the tests of all readers share."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from PIL import Image

from core.data.decode import UnreadableError, decode
from core.data.listing import Listing
from core.data.readers import ReadOptions, read_listing
from core.runtime.errors import UserError


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


ODD_NAMES = (
    "=1+1",
    "@SUM(A1)",
    "<img src=x onerror=alert(1)>",
    "\U0001f408\u200d\u2b1b",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u202egnp",
    "NA",
    "x" * 180,
)
"""Markup, formulas, emoji, right-to-left, what tables take for nothing, and length."""


def mutated(data: st.DataObject, raw: bytes) -> bytes:
    """Some bytes changed, put in, taken out, or the end cut off."""
    content = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["change", "put in", "take out", "cut"])):
            case "change":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "put in":
                content[at:at] = data.draw(st.binary(max_size=8))
            case "take out":
                del content[at : at + data.draw(st.integers(1, 8))]
            case _:
                del content[at:]
    return bytes(content)


def read_or_refused(path: Path, format: str, options: ReadOptions | None = None) -> Listing | None:
    """The listing, with every image of it tried; None where the files are refused. Nothing else may come out."""
    try:
        listing = read_listing(path, format, options)
    except UserError:
        return None
    for position in range(len(listing)):
        with contextlib.suppress(UnreadableError):
            decode(listing.read(position), 4, 4, 3)
    return listing


@contextlib.contextmanager
def little_memory(megabytes: float = 20) -> Iterator[None]:
    """What runs inside never holds more than that at once, in Python or Arrow."""
    pool = pa.default_memory_pool()
    before = pool.max_memory()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert peak < megabytes
    assert (pool.max_memory() - before) / 1e6 < megabytes
