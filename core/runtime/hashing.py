"""Hash content, by which results and image sets are found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK_BYTES = 1 << 22


def content_hash(*parts: Any) -> str:
    """Return the SHA-256 (64 hex digits) of arrays, strings, bytes and JSON-serialisable values, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray | ArrayFile):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            for block in part.blocks() if isinstance(part, ArrayFile) else [np.ascontiguousarray(part).data]:
                digest.update(block)
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b"\x00")
    return digest.hexdigest()


@dataclass(frozen=True)
class ArrayFile:
    """A C-ordered array at the end of a file, which :func:`content_hash` reads in blocks rather than whole."""

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def blocks(self) -> Iterator[bytes]:
        """Yield the bytes of the array in blocks."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            while block := stream.read(_BLOCK_BYTES):
                yield block
