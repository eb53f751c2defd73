"""Store image sets on disk: decode every image once, then open the result as a memory map.

An image set is a folder ``<home>/library/images/<key>/``, named by its content:

- ``pixels.npy``: ``(n, height, width, channels)`` uint8; ``numpy.load(..., mmap_mode="r")`` opens it.
- ``images.parquet``: one row per image: id, class, split, group.
- ``images.json``: names given by users, shape, hash, source, and the images that could not be read.

While images are decoded, the same files are in ``.<stamp>/``, so an interrupted import can resume.
"""

from __future__ import annotations

import fcntl
import math
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.data.decode import ImageSpec, UnreadableError, decode, read_header
from core.data.images import ImageSet
from core.data.listing import Listing, TargetFormat, encode_labels
from core.runtime.errors import UserError
from core.runtime.files import ArrayFile, content_hash, disk_errors, library, read_json, replacing, write_json
from core.runtime.progress import Progress

FORMAT = 1
PIXELS, TABLE, DESCRIPTION = "pixels.npy", "images.parquet", "images.json"
_PROGRESS, _UNREADABLE = "progress.json", "unreadable.csv"
_HEADER = 128  # bytes of a .npy header for four axes
_BLOCK = 512  # images between two progress reports
_PIECE = 32  # images per thread task: with small images, more threads only wait for each other
_NOTED_EVERY = 1.0  # seconds between two progress records on disk
_LOOKED_AT = 64
_THREADS = 4
_SHOWN = 5
_ABANDONED_SECONDS = 30 * 24 * 3600
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


@dataclass(frozen=True)
class StoredImages:
    """An image set on disk that is not opened.

    Attributes:
        folder: Folder of the image set.
        names: Names given by users, newest last.
        count, classes: Number of images and of classes.
        shape: Height, width, channels.
        hash: Value of :attr:`core.data.images.ImageSet.hash`.
        unreadable: Number of images that were skipped.
        story: Metadata: format, path, notes, command.
    """

    folder: Path
    names: tuple[str, ...]
    count: int
    classes: int
    shape: tuple[int, int, int]
    hash: str
    unreadable: int
    story: dict[str, Any]
    stamps: tuple[str, ...]
    added: str

    @property
    def name(self) -> str:
        """Return the newest name."""
        return self.names[-1]


def images_home() -> Path:
    """Return the folder of all image sets."""
    return library() / "images"


def stored_image_sets() -> list[StoredImages]:
    """Return every intact image set, newest first."""
    return sorted(_scanned()[0], key=lambda one: one.added, reverse=True)


def damaged_image_sets() -> list[str]:
    """Return one sentence per damaged image set that says what is wrong with it."""
    return _scanned()[1]


def _scanned() -> tuple[list[StoredImages], list[str]]:
    whole, faults = [], []
    for path in sorted(images_home().glob(f"*/{DESCRIPTION}")):
        if not path.parent.name.startswith("."):
            try:
                whole.append(_stored(path.parent))
            except UserError as error:  # one damaged set must not hide the others
                faults.append(str(error))
    return whole, faults


def find(name: str, hash: str = "") -> StoredImages | None:
    """Return the image set with that hash; without a hash, the newest with that name, key or folder."""
    if not hash and Path(name).joinpath(DESCRIPTION).is_file():
        return _stored(Path(name).resolve())
    for one in stored_image_sets():
        if one.hash == hash if hash else name in (*one.names, one.folder.name):
            return one
    return None


def open_stored(stored: StoredImages) -> ImageSet:
    """Open an image set as a memory map; return the same object until the files change.

    Raises:
        UserError: a file is missing or damaged.
    """
    return _open(stored.folder, stored.name)


@lru_cache(maxsize=8)
def _open(folder: Path, name: str) -> ImageSet:
    advice = "Import the images again."
    try:
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
        table = pd.read_parquet(folder / TABLE)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"The image set in {folder} is damaged: {error}.", advice) from error
    told = read_json(folder / DESCRIPTION)
    labels, names = encode_labels(table)

    def column(which: str) -> np.ndarray | None:
        values = table[which].to_numpy(dtype=object)
        return values if (values != "").any() else None

    return ImageSet(
        name, pixels, labels, names, table["id"].to_numpy(dtype=object), column("split"), column("group"), told["hash"]
    )


def resolve_format(listing: Listing, wanted: TargetFormat) -> ImageSpec:
    """Return the pixel format for the images, inferring what neither the user nor the format specifies.

    Reads the headers of up to 64 images, spread over the listing.

    Raises:
        UserError: none of them can be read, or they differ in size and no size was given.
    """
    own = listing.form
    size, channels, invert = wanted.size or own.size, wanted.channels or own.channels, wanted.invert or own.invert
    if size and channels:
        return ImageSpec(*size, channels, invert)
    seen, why = [], ""
    for position in np.unique(np.linspace(0, len(listing) - 1, min(_LOOKED_AT, len(listing))).astype(int)):
        try:
            seen.append((position, read_header(listing.read(int(position)))))
        except UnreadableError as error:
            why = f"{listing.table['id'].iloc[position]}: {error}"
    if not seen:
        raise UserError(f"{listing.name}: none of the images looked at can be read ({why}).", "Check the files.")
    (first, one), sizes = seen[0], {(look.height, look.width) for _, look in seen}
    if not size and len(sizes) > 1:
        other, two = next((at, look) for at, look in seen if (look.height, look.width) != (one.height, one.width))
        ids = listing.table["id"]
        raise UserError(
            f"{listing.name}: images differ in size: {ids.iloc[first]} has {one.width} x {one.height}, "
            f"{ids.iloc[other]} has {two.width} x {two.height}.",
            "Say to which size they should be brought, for example --size 84.",
        )
    grey = all(look.grey for _, look in seen)
    return ImageSpec(*(size or (one.height, one.width)), channels or (1 if grey else 3), invert)


def store_images(
    listing: Listing,
    *,
    name: str = "",
    form: TargetFormat | None = None,
    skip_unreadable: bool = False,
    story: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> StoredImages:
    """Decode every image of ``listing`` and store the result, or return the stored result of an earlier import.

    Args:
        name: Name of the image set; default: the name of the listing.
        form: Target format; see :func:`resolve_format`.
        skip_unreadable: Skip unreadable images instead of raising an error.

    Raises:
        UserError: the name is invalid, images cannot be read, or the disk is full. Images decoded before the error
            are reused by the next attempt.
    """
    name = name or re.sub(r"[^\w.-]+", "-", listing.name).strip("-.") or "images"
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for an image set.", "Use up to 64 letters, digits, '.', '_' and '-'.")
    frame = resolve_format(listing, form or TargetFormat())
    _sweep()
    stamp = content_hash(listing.stamp, frame, listing.table["id"].tolist(), listing.table["class"].tolist())
    for one in stored_image_sets():
        if stamp in one.stamps and (not one.unreadable or (skip_unreadable and not _is_mended(one, listing, frame))):
            return _named(one, name, stamp)
    partial = images_home() / f".{stamp[:16]}"
    with disk_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            pixels, bad = _decode(listing, frame, partial, progress or Progress())
            if bad and not skip_unreadable:
                raise _refused(listing, bad, partial / _UNREADABLE)
            told = {**(story or {}), "notes": list(listing.notes), "form": frame._asdict()}
            return _finish(listing, pixels, bad, partial, name, stamp, told)


def _decode(listing: Listing, frame: ImageSpec, partial: Path, progress: Progress) -> tuple[ArrayFile, dict[int, str]]:
    """Write the pixels of all readable images; return them and, by position, why the others could not be read."""
    shape = (frame.height, frame.width, frame.channels)
    size, n = math.prod(shape), len(listing)
    done, bad = _begun(listing, frame, partial)
    free = shutil.disk_usage(partial).free
    if (n - done) * size > free:
        raise UserError(
            f"The images need {n * size / 1e9:.1f} GB in {images_home()}, and {free / 1e9:.1f} GB are free.",
            "Free some space, choose a smaller --size, or set TASKLENS_HOME to a folder on another disk.",
        )
    turns = listing.table["turn"].to_numpy()

    def piece(positions: range) -> list[np.ndarray | str]:
        return [_pixels(listing, frame, position, int(turns[position])) for position in positions]

    progress.stage("reading images", n, done=done)
    noted = time.monotonic()
    path = partial / PIXELS
    path.touch()
    with path.open("r+b") as stream, ThreadPoolExecutor(_THREADS) as pool:
        for start in range(done, n, _BLOCK):
            stream.seek(_HEADER + (start - len(bad)) * size)
            here = range(start, min(start + _BLOCK, n))
            pieces = [here[first : first + _PIECE] for first in range(0, len(here), _PIECE)]
            for position, pixels in zip(here, chain.from_iterable(pool.map(piece, pieces)), strict=True):
                if isinstance(pixels, str):
                    bad[position] = pixels
                else:
                    stream.write(pixels.tobytes())
            if here.stop == n or time.monotonic() - noted >= _NOTED_EVERY:
                stream.flush()
                write_json(partial / _PROGRESS, {"done": here.stop, "bad": bad})
                noted = time.monotonic()
            progress.advance(len(here), note=f"{len(bad)} unreadable" if bad else "")
        kept = n - len(bad)
        stream.truncate(_HEADER + kept * size)
        stream.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (kept, *shape)}
        np.lib.format.write_array_header_1_0(stream, header)
        if stream.tell() != _HEADER:
            raise AssertionError("a .npy header of another length than expected")
    return ArrayFile(path, _HEADER, np.dtype(np.uint8), (kept, *shape)), bad


def _begun(listing: Listing, frame: ImageSpec, partial: Path) -> tuple[int, dict[int, str]]:
    """Return the position to resume from and the images that could not be read before it.

    If such an image has become readable, resume from there.
    """
    if not (partial / _PROGRESS).exists():
        return 0, {}
    state = read_json(partial / _PROGRESS)
    bad = {int(position): why for position, why in state["bad"].items()}
    mended = _first_readable(listing, frame, sorted(bad))
    if mended is None:
        return state["done"], bad
    return mended, {position: why for position, why in bad.items() if position < mended}


def _is_mended(one: StoredImages, listing: Listing, frame: ImageSpec) -> bool:
    """Return whether a skipped image has become readable, for example by new permissions, which no stamp reflects."""
    left_out = {told["id"] for told in read_json(one.folder / DESCRIPTION)["unreadable"]}
    return _first_readable(listing, frame, np.flatnonzero(listing.table["id"].isin(left_out)).tolist()) is not None


def _first_readable(listing: Listing, frame: ImageSpec, positions: list[int]) -> int | None:
    return next((one for one in positions if not isinstance(_pixels(listing, frame, one, 0), str)), None)


def _pixels(listing: Listing, frame: ImageSpec, position: int, turn: int) -> np.ndarray | str:
    """Return the pixels ``(height, width, channels)`` as uint8, or the reason why there are none."""
    try:
        return decode(listing.read(position), *frame, turn)
    except UnreadableError as error:
        return str(error)


def _refused(listing: Listing, bad: dict[int, str], file: Path) -> UserError:
    ids = listing.table["id"]
    whole = pd.DataFrame({"id": [ids.iloc[position] for position in bad], "why": list(bad.values())})
    with replacing(file) as temporary:
        whole.to_csv(temporary, index=False)
    first = "; ".join(f"{row.id}: {row.why}" for row in whole.head(_SHOWN).itertuples())
    more = f"; and {len(whole) - _SHOWN} more, listed in {file}" if len(whole) > _SHOWN else ""
    return UserError(
        f"{listing.name}: {len(bad):,} of {len(listing):,} images cannot be read: {first}{more}.",
        "Mend or remove them, or leave them out with --skip-unreadable. What was read is kept.",
    )


def _finish(
    listing: Listing,
    pixels: ArrayFile,
    bad: dict[int, str],
    partial: Path,
    name: str,
    stamp: str,
    story: dict[str, Any],
) -> StoredImages:
    table = listing.table.drop(index=list(bad), columns="turn").reset_index(drop=True)
    if table.empty:
        raise UserError(f"{listing.name}: not one image can be read.", f"See {partial / _UNREADABLE}.")
    lost = sorted(set(listing.table["class"]) - set(table["class"]))
    if lost:
        raise UserError(
            f"{listing.name}: no image of class {lost[0]!r} can be read.", "Mend its images, or remove the class."
        )
    labels, names = encode_labels(table)
    found = content_hash(pixels, labels, list(names), table["id"].tolist())
    key = content_hash(found, table["split"].tolist(), table["group"].tolist())[:16]
    folder = images_home() / key
    if any(one.folder == folder for one in stored_image_sets()):
        shutil.rmtree(partial)
        return _named(_stored(folder), name, stamp)
    shutil.rmtree(folder, ignore_errors=True)  # left from a damaged description
    with replacing(partial / TABLE) as temporary:
        table.to_parquet(temporary, index=False)
    described = {
        "format": FORMAT,
        "names": [name],
        "hash": found,
        "shape": list(pixels.shape[1:]),
        "count": len(table),
        "classes": len(names),
        "unreadable": [{"id": listing.table["id"].iloc[position], "why": why} for position, why in bad.items()],
        "story": story,
        "stamps": [stamp],
        "added": pd.Timestamp.now("UTC").isoformat(),
    }
    (partial / _PROGRESS).unlink()
    (partial / _UNREADABLE).unlink(missing_ok=True)
    write_json(partial / DESCRIPTION, described)
    partial.rename(folder)
    (folder / "lock").unlink(missing_ok=True)
    return _stored(folder)


def _named(one: StoredImages, name: str, stamp: str) -> StoredImages:
    """Add a name and a stamp to the image set, and make it the newest of that name."""
    described = read_json(one.folder / DESCRIPTION)
    described["names"] = [*(have for have in described["names"] if have != name), name]
    described["stamps"] = sorted({*described["stamps"], stamp})
    described["added"] = pd.Timestamp.now("UTC").isoformat()
    write_json(one.folder / DESCRIPTION, described)
    return _stored(one.folder)


def _stored(folder: Path) -> StoredImages:
    path = folder / DESCRIPTION
    told = read_json(path)
    try:
        if told["format"] != FORMAT:
            raise UserError(f"{path} has format {told['format']}, not {FORMAT}.", "Update TaskLens.")
        height, width, channels = told["shape"]
        return StoredImages(
            folder,
            tuple(told["names"]),
            told["count"],
            told["classes"],
            (height, width, channels),
            told["hash"],
            len(told["unreadable"]),
            told["story"],
            tuple(told["stamps"]),
            told["added"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged.", f"Delete {folder} and import the images again.") from error


def _sweep() -> None:
    """Delete the remains of imports that were not resumed for a month."""
    for partial in images_home().glob(".*"):
        if (partial / "lock").is_file() and time.time() - (partial / "lock").stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    with (partial / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError("These images are being read by another process.", "Wait for it to finish.") from error
        yield
