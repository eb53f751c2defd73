"""Small pictures, folders and zip archives of them, and helpers that the tests of all readers share."""

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
    """Return an encoded picture of one colour."""
    stream = io.BytesIO()
    colour: Any = value if mode in ("1", "L", "I", "F", "I;16") else (value, *[255] * (len(mode) - 1))
    Image.new(mode, size, colour).save(stream, kind, **save)
    return stream.getvalue()


def write_files(root: Path, files: Mapping[str, bytes] | Iterable[str]) -> Path:
    """Write files below ``root``; names without content get a picture each."""
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
"""Markup, formulas, emoji, right-to-left text, a missing-value marker, and a long name."""


def mutated(data: st.DataObject, raw: bytes) -> bytes:
    """Change, insert or delete some bytes, or truncate."""
    content = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["change", "insert", "delete", "truncate"])):
            case "change":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=8))
            case "delete":
                del content[at : at + data.draw(st.integers(1, 8))]
            case _:
                del content[at:]
    return bytes(content)


def read_or_rejected(path: Path, format: str, options: ReadOptions | None = None) -> Listing | None:
    """Return the listing after trying to decode every image, or None if the files are rejected."""
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
    """Check that the block never uses more memory than that, in Python or Arrow."""
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
