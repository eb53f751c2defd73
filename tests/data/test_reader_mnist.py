"""The idx files of MNIST: pairs, false headers, and gzip bombs."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.readers import detect, read_listing
from core.runtime.errors import UserError
from tests.data.pictures import column, little_memory, mutated, read_or_rejected, write_files

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


ONE = idx(np.zeros((1, 2, 2), np.uint8))
LABEL = idx(np.zeros(1, np.uint8))


@pytest.mark.parametrize("below", ["", "MNIST/raw/"])
def test_pairs_plain_or_packed(below: str, tmp_path: Path) -> None:
    pixels, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([9, 0], dtype=np.uint8)
    write_files(
        tmp_path,
        {
            f"{below}train-images-idx3-ubyte": idx(pixels),
            f"{below}train-labels-idx1-ubyte.gz": gzip.compress(idx(labels), mtime=0),
        },
    )
    listing = read_listing(tmp_path)
    assert column(listing, "id") == ["train-00000", "train-00001"]
    assert column(listing, "class") == ["9", "0"]
    assert np.array_equal(listing.read(1), pixels[1])
    assert " train " in listing.notes[0]
    assert "checksums" in listing.notes[1]


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (b"\0\0\x08\x03" + b"\xff" * 12, LABEL, "79,228,162,458,924,105,385,300,197,375 bytes"),
        (ONE[:-1], LABEL, "4 bytes .*has 3"),
        (ONE + b"x", LABEL, "4 bytes .*has more"),
        (ONE, idx(np.zeros(2, np.uint8)), "1 images, but .* 2 labels"),
        (ONE, idx(np.full(1, 200, np.uint8)), "label 0 .*200"),
        (ONE, idx(np.full(1, 10, np.uint8)), "is 10, .*10 classes"),
        (ONE, ONE, f"{LABELS} .*idx .*1 dimensions"),
        (ONE, b"", f"{LABELS} .*idx"),
        (b"no", LABEL, f"{IMAGES} .*idx"),
        (idx(np.zeros((1, 0, 5), np.uint8)), LABEL, r"\(1, 0, 5\)"),
        (b"\0\0\x0d\x03" + ONE[4:], LABEL, f"{IMAGES} .*3 dimensions"),
    ],
)
def test_errors_name_the_file(images: bytes, labels: bytes, expected: str, tmp_path: Path) -> None:
    write_files(tmp_path, {IMAGES: images, LABELS: labels})
    with pytest.raises(UserError, match=expected):
        read_listing(tmp_path, "mnist")


def test_links_to_missing_files_are_rejected(tmp_path: Path) -> None:
    for name in (IMAGES, LABELS):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="links"):
        read_listing(tmp_path, "mnist")


@pytest.mark.parametrize(
    ("packed", "expected"),
    [
        (gzip.compress(ONE, mtime=0)[:-9], IMAGES),
        (gzip.compress(ONE, mtime=0)[:12], IMAGES),
        (gzip.compress(ONE, mtime=0)[:-8] + b"12345678", f"{IMAGES}.*CRC"),
        (b"PK\x03\x04", f"{IMAGES}.*gzip"),
        (gzip.compress(b"", mtime=0), f"{IMAGES}.*idx"),
    ],
)
def test_damaged_gzip_is_rejected(packed: bytes, expected: str, tmp_path: Path) -> None:
    write_files(tmp_path, {f"{IMAGES}.gz": packed, LABELS: LABEL})
    with pytest.raises(UserError, match=expected):
        read_listing(tmp_path, "mnist")


def test_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = zlib.compressobj(wbits=31)
    zeros = bomb.compress(ONE) + b"".join(bomb.compress(b"\0" * 1_000_000) for _ in range(300)) + bomb.flush()
    write_files(tmp_path, {f"{IMAGES}.gz": zeros, LABELS: LABEL})
    with little_memory(10), pytest.raises(UserError, match=IMAGES):
        read_listing(tmp_path, "mnist")
    claims = bytes((0, 0, 8, 3)) + struct.pack(">3I", 1_000_000, 28, 28)
    write_files(tmp_path, {f"{IMAGES}.gz": gzip.compress(claims, mtime=0)})
    with little_memory(10), pytest.raises(UserError, match="784,000,000 bytes"):
        read_listing(tmp_path, "mnist")


def test_incomplete_pairs_and_several_copies_are_rejected(tmp_path: Path) -> None:
    write_files(tmp_path, {IMAGES: ONE})
    with pytest.raises(UserError, match=f"{IMAGES} .*{LABELS}"):
        read_listing(tmp_path, "mnist")
    write_files(tmp_path / "b", {f"{where}/{name}": ONE for where in ("x", "y") for name in (IMAGES, LABELS)})
    with pytest.raises(UserError, match=r"b/x, .*b/y"):
        read_listing(tmp_path / "b", "mnist")
    with pytest.raises(UserError, match="MNIST"):
        read_listing(_empty(tmp_path), "mnist")
    write_files(tmp_path / "c", {IMAGES: ONE, LABELS: LABEL})
    write_files(
        tmp_path / "c",
        {"train-images-idx3-ubyte": idx(np.zeros((1, 3, 3), np.uint8)), "train-labels-idx1-ubyte": LABEL},
    )
    assert detect(tmp_path / "c") == "mnist"
    with pytest.raises(UserError, match="size"):
        read_listing(tmp_path / "c")


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@given(st.data(), st.booleans(), st.booleans())
def test_mutated_files_are_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, is_packed: bool, is_label: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"idx{is_packed}"
    suffix = ".gz" if is_packed else ""
    raw = {IMAGES: idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2)), LABELS: idx(np.arange(3, dtype=np.uint8))}
    files = {f"{name}{suffix}": gzip.compress(one, mtime=0) if is_packed else one for name, one in raw.items()}
    changed = f"{LABELS if is_label else IMAGES}{suffix}"
    write_files(folder, {**files, changed: mutated(data, files[changed])})
    listing = read_or_rejected(folder, "mnist")
    assert listing is None or sum(np.asarray(listing.read(at)).size for at in range(len(listing))) <= 100
