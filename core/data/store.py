"""Store image sets on disk: decode every image once, then open the result as a memory map.

An image set is a folder ``<home>/library/images/<key>/``, named by its content:

- ``pixels.npy``: ``(n, height, width, channels)`` uint8; ``numpy.load(..., mmap_mode="r")`` opens it.
- ``images.parquet``: one row per image: id, class, split, group; if the images were in class folders also position, of
  the file in torchvision's ``ImageFolder``.
- ``images.json``: names given by users, shape, hash, source, and the images that could not be read.

While images are decoded, the same files are in ``.<stamp>/``, so an interrupted import can resume.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import pandas as pd
from annotated_types import Ge, MinLen
from typing_extensions import TypedDict

from core.data.decode import ImageHeader, ImageSpec, UnexpectedHeaderError, UnreadableError, decode
from core.data.images import ImageSet
from core.data.listing import Listing, TargetFormat, encode_labels
from core.data.survey import JOB_IMAGES, THREADS, resolve_format, survey_images
from core.runtime.clock import timestamp
from core.runtime.csv_files import write_csv
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.files import file_version, library, write_json
from core.runtime.hashing import ArrayFile, content_hash
from core.runtime.progress import Progress, left_out_note
from core.runtime.replacing import ABANDONED_SECONDS, delete_scratch, flush_to_disk, replacing
from core.runtime.sequence import next_number
from core.runtime.stored import OPEN, Count, Text, check_table, read_stored, read_table

FORMAT = 1
PIXELS, TABLE, DESCRIPTION = "pixels.npy", "images.parquet", "images.json"
_PROGRESS, _SPEC, _UNREADABLE = "progress.json", "format.json", "unreadable.csv"
_STAMPED = ("id", "class", "split", "group")
_HEADER = 128  # bytes of a .npy header for four axes
_BLOCK_IMAGES = 512  # images between two progress reports
_SAMPLED = 64  # images by which the format is chosen first
_SAVE_SECONDS = 1.0  # between two progress records on disk
_MAX_SHOWN = 5  # unreadable images in an error
_AGAIN = "Import the images again."
_START_AGAIN = "Delete {} and import the images again."
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


class _Unreadable(TypedDict):
    id: Text
    why: Text


class _Story(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    path: Text
    command: Text
    description: list[Text]
    notes: list[Text]
    format_notes: list[Text]


class ImagesFile(TypedDict):
    """``images.json``; see :class:`StoredImages`."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: Literal[1]
    names: Annotated[list[Text], MinLen(1)]
    count: Count
    classes: Count
    shape: tuple[Count, Count, Count]
    hash: Text
    unreadable: list[_Unreadable]
    story: _Story
    stamps: list[Text]
    added: Text
    sequence: NotRequired[Count]


class _FormatFile(TypedDict):
    spec: ImageSpec
    notes: list[Text]


class _ProgressFile(TypedDict):
    """The state of an import: images that were read, and by position why some of them could not be."""

    done: Count
    bad: dict[Annotated[int, Ge(0)], Text]
    spec: NotRequired[Any]


@dataclass(frozen=True)
class StoredImages:
    """An image set on disk that is not opened.

    Attributes:
        names: Names given by users, newest last.
        shape: Height, width, channels.
        hash: Value of :attr:`core.data.images.ImageSet.hash`.
        unreadable: Number of images that were skipped.
        sequence: Counts the imports, so that the order of image sets does not depend on a clock; 0 in those of earlier
            versions, which are ordered by ``added``.
        story: Metadata: path, command, description, notes on the files and on the pixel format.
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
    sequence: int = 0

    @property
    def name(self) -> str:
        """Return the newest name."""
        return self.names[-1]

    @property
    def notes(self) -> list[str]:
        """Return sentences on how the files were read, and on the pixel format."""
        return [*self.story.get("notes", ()), *self.story.get("format_notes", ())]


def images_home() -> Path:
    """Return the folder of all image sets."""
    return library() / "images"


def stored_image_sets() -> list[StoredImages]:
    """Return every intact image set, newest first."""
    return sorted(_scan()[0], key=lambda stored: (stored.sequence, stored.added), reverse=True)


def damaged_image_sets() -> list[str]:
    """Return an error text for every damaged image set."""
    return _scan()[1]


def _scan() -> tuple[list[StoredImages], list[str]]:
    intact, errors = [], []
    for path in sorted(images_home().glob(f"*/{DESCRIPTION}")):
        if not path.parent.name.startswith("."):
            try:
                intact.append(_read_stored(path.parent))
            except UserError as error:  # one damaged set must not hide the others
                errors.append(str(error))
    return intact, errors


def find(name: str, hash: str = "") -> StoredImages | None:
    """Return the image set with that hash; without a hash, the newest with that name, key or folder."""
    if not hash and Path(name).joinpath(DESCRIPTION).is_file():
        return _read_stored(Path(name).resolve())
    sets = stored_image_sets()
    return next((s for s in sets if (s.hash == hash if hash else name in (*s.names, s.folder.name))), None)


def open_stored(stored: StoredImages) -> ImageSet:
    """Open an image set as a memory map; return the same object until the files change.

    Raises:
        UserError: a file is missing or damaged.
    """
    versions = tuple(file_version(stored.folder / name) for name in (PIXELS, TABLE))
    return _open(stored.folder, stored.name, versions)


@lru_cache(maxsize=8)
def _open(folder: Path, name: str, versions: tuple[tuple[int, int, int], ...]) -> ImageSet:
    try:
        pixels = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder / PIXELS} is damaged: {error}.", _AGAIN) from error
    table = _read_table(folder)
    hash = _read_stored(folder).hash
    labels, names = encode_labels(table)
    ids, split, group = (table[column].to_numpy(dtype=object) for column in ("id", "split", "group"))
    splits, groups = (values if (values != "").any() else None for values in (split, group))
    positions = table["position"].to_numpy(np.int64) if "position" in table else None
    return ImageSet(name, pixels, labels, names, ids, splits, groups, positions, hash)


def _read_table(folder: Path) -> pd.DataFrame:
    """Return ``images.parquet``; raise UserError if it is missing or damaged."""
    path = folder / TABLE
    table = read_table(path, dict.fromkeys(_STAMPED, "text"), fix=_AGAIN)
    check_table(table, {}, path, optional={"position": "integer"}, fix=_AGAIN)
    return table


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
        skip_unreadable: Skip unreadable images instead of raising an error.

    Raises:
        UserError: the name is invalid, images cannot be read, or the disk is full. Images decoded before the error
            are reused by the next attempt.
    """
    name = name or re.sub(r"[^\w.-]+", "-", listing.name).strip("-.") or "images"
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is not a valid name for an image set.", "Use up to 64 letters, digits, '.', '_' and '-'."
        )
    form, progress = form or TargetFormat(), progress or Progress()
    _delete_abandoned()
    request = [astuple(form), astuple(listing.form)]
    stamp = content_hash(listing.stamp, request, *(listing.table[name].tolist() for name in _STAMPED))
    for stored in stored_image_sets():
        if stamp in stored.stamps and (
            not stored.unreadable or (skip_unreadable and not _is_readable_again(stored, listing))
        ):
            _update_positions(stored.folder, listing)
            return _add_name(stored, name, stamp, {**(story or {}), "notes": [*listing.notes]})
    partial = images_home() / f".{stamp[:16]}"
    with disk_errors(partial):
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError("Another process is importing these images.", "Wait for it to finish.") from error
            pixels, bad, spec, notes = _decode_in_one_format(listing, form, partial, progress)
            if bad and not skip_unreadable:
                raise _unreadable_error(listing, bad, partial / _UNREADABLE)
            if bad:
                ids = listing.table["id"].iloc[sorted(bad)].tolist()
                notes = [*notes, left_out_note(ids, "image", "unreadable")]
            story = {**(story or {}), "notes": [*listing.notes], "format_notes": notes, "form": spec._asdict()}
            return _finish(listing, pixels, bad, partial, name, stamp, story)


def _decode_in_one_format(
    listing: Listing, form: TargetFormat, partial: Path, progress: Progress
) -> tuple[ArrayFile, dict[int, str], ImageSpec, list[str]]:
    """Write the pixels of all readable images; see :func:`_decode`. Return also their format and the notes on it.

    Most sets have images of one size and kind, so the format is chosen by a few and checked by each that is decoded.
    Only where one differs are all headers read before.
    """
    if _has_new_readable_images(listing, partial):  # they may decide otherwise
        (partial / _SPEC).unlink(missing_ok=True)
    if not (partial / _SPEC).exists():
        sample = survey_images(listing, count=_SAMPLED)
        expected = sample.common_header
        if expected:
            try:
                spec, notes = resolve_format(listing, form, sample.for_all(len(listing)))
            except UserError:  # which is to count all images
                expected = None
        if expected:
            try:
                return (*_decode(listing, spec, partial, progress, expected), spec, notes)
            except UnexpectedHeaderError:
                (partial / _PROGRESS).unlink(missing_ok=True)
        spec, notes = resolve_format(listing, form, survey_images(listing, progress))
        write_json(partial / _SPEC, {"spec": spec._asdict(), "notes": notes})
    stored = read_stored(partial / _SPEC, _FormatFile, fix=_START_AGAIN.format(partial))
    spec = stored["spec"]
    return (*_decode(listing, spec, partial, progress), spec, stored["notes"])


def _decode(
    listing: Listing, spec: ImageSpec, partial: Path, progress: Progress, expected: ImageHeader | None = None
) -> tuple[ArrayFile, dict[int, str]]:
    """Write the pixels of all readable images; return them and, by position, why the others could not be read.

    Raises:
        UnexpectedHeaderError: an image has another header than ``expected``.
    """
    shape: tuple[int, ...] = (spec.height, spec.width, spec.channels)
    size, n = math.prod(shape), len(listing)
    done, bad = _resume_state(listing, spec, partial)
    free = shutil.disk_usage(partial).free
    if (n - done) * size > free:
        raise UserError(
            f"The images need {n * size / 1e9:.1f} GB in {images_home()}, and {free / 1e9:.1f} GB are free.",
            "Free some space, choose a smaller --size, or set TASKLENS_HOME to a folder on another disk.",
        )
    turns = listing.table["turn"].to_numpy()

    def decode_job(positions: range) -> list[np.ndarray | str]:
        return [_decode_one(listing, spec, position, int(turns[position]), expected) for position in positions]

    progress.stage("reading images", n, done=done)
    saved_at = time.monotonic()
    path = partial / PIXELS
    path.touch()
    with path.open("r+b") as stream, ThreadPoolExecutor(THREADS) as pool:
        for start in range(done, n, _BLOCK_IMAGES):
            stream.seek(_HEADER + (start - len(bad)) * size)
            block = range(start, min(start + _BLOCK_IMAGES, n))
            jobs = [block[first : first + JOB_IMAGES] for first in range(0, len(block), JOB_IMAGES)]
            for position, pixels in zip(block, chain.from_iterable(pool.map(decode_job, jobs)), strict=True):
                if isinstance(pixels, str):
                    bad[position] = pixels
                else:
                    stream.write(pixels.tobytes())
            if block.stop == n or time.monotonic() - saved_at >= _SAVE_SECONDS:
                stream.flush()
                os.fsync(stream.fileno())  # before its progress is recorded: after a power failure it would be black
                write_json(partial / _PROGRESS, {"done": block.stop, "bad": bad, "spec": spec})
                saved_at = time.monotonic()
            progress.advance(len(block), note=f"{len(bad)} unreadable" if bad else "")
        shape = (n - len(bad), *shape)
        stream.truncate(_HEADER + math.prod(shape))
        stream.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        if stream.tell() != _HEADER:
            raise AssertionError("the .npy header has an unexpected length")
        stream.flush()
        os.fsync(stream.fileno())
    return ArrayFile(path, _HEADER, np.dtype(np.uint8), shape), bad


def _has_new_readable_images(listing: Listing, partial: Path) -> bool:
    """Return whether an image that could not be read when the format was chosen by all images can be read now."""
    if not (partial / _SPEC).exists() or not (partial / _PROGRESS).exists():
        return False
    bad = _read_progress(partial)["bad"]
    spec = read_stored(partial / _SPEC, _FormatFile, fix=_START_AGAIN.format(partial))["spec"]
    return _first_readable(listing, spec, sorted(bad)) is not None


def _resume_state(listing: Listing, spec: ImageSpec, partial: Path) -> tuple[int, dict[int, str]]:
    """Return where to resume, at the latest at an image that has become readable, and the bad images before it."""
    if not (partial / _PROGRESS).exists():
        return 0, {}
    state = _read_progress(partial)
    if state.get("spec") != json.loads(json.dumps(spec)):  # of an earlier version, or chosen by other images
        return 0, {}
    bad = state["bad"]
    readable = _first_readable(listing, spec, sorted(bad))
    done = state["done"] if readable is None else readable
    return done, {position: reason for position, reason in bad.items() if position < done}


def _read_progress(partial: Path) -> _ProgressFile:
    return read_stored(partial / _PROGRESS, _ProgressFile, fix=_START_AGAIN.format(partial))


def _is_readable_again(stored: StoredImages, listing: Listing) -> bool:
    """Return whether a skipped image has become readable, for example by new permissions, which no stamp reflects."""
    skipped = {image["id"] for image in _read_description(stored.folder)["unreadable"]}
    spec = ImageSpec(*stored.shape)  # whether an image can be read does not depend on what happens to its pixels
    return _first_readable(listing, spec, np.flatnonzero(listing.table["id"].isin(skipped)).tolist()) is not None


def _first_readable(listing: Listing, spec: ImageSpec, positions: list[int]) -> int | None:
    return next((n for n in positions if not isinstance(_decode_one(listing, spec, n, 0), str)), None)


def _decode_one(
    listing: Listing, spec: ImageSpec, position: int, turn: int, expected: ImageHeader | None = None
) -> np.ndarray | str:
    """Return the pixels ``(height, width, channels)`` as uint8, or the reason why there are none."""
    try:
        return decode(listing.read(position), *spec, turn, expected)
    except UnreadableError as error:
        return str(error)


def _unreadable_error(listing: Listing, bad: dict[int, str], file: Path) -> UserError:
    table = listing.table.iloc[[*bad]][["id"]].assign(why=[*bad.values()])
    with replacing(file) as temporary:
        write_csv(table, temporary)
    first = "; ".join(f"{row.id}: {row.why}" for row in table.head(_MAX_SHOWN).itertuples())
    more = f"; and {len(table) - _MAX_SHOWN} more, listed in {file}" if len(table) > _MAX_SHOWN else ""
    return UserError(
        f"{listing.name}: {len(bad):,} of {len(listing):,} images cannot be read: {first}{more}.",
        "Repair or remove them, or skip them with --skip-unreadable. Images that were read are not read again.",
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
    table = _stored_table(listing).drop(index=[*bad]).reset_index(drop=True)
    if table.empty:
        raise UserError(f"{listing.name}: none of the images can be read.", f"See {partial / _UNREADABLE}.")
    if lost := sorted(set(listing.table["class"]) - set(table["class"])):
        raise UserError(
            f"{listing.name}: no image of class {lost[0]!r} can be read.", "Repair its images, or remove the class."
        )
    labels, names = encode_labels(table)
    hash = content_hash(pixels, labels, list(names), table["id"].tolist())
    folder = images_home() / content_hash(hash, table["split"].tolist(), table["group"].tolist())[:16]
    if any(stored.folder == folder for stored in stored_image_sets()):
        shutil.rmtree(partial, ignore_errors=True)
        _update_positions(folder, listing)
        return _add_name(_read_stored(folder), name, stamp, story)
    shutil.rmtree(folder, ignore_errors=True)  # left from a damaged description
    with replacing(partial / TABLE) as temporary:
        table.to_parquet(temporary, index=False)
    description: dict[str, Any] = {
        "format": FORMAT,
        "names": [name],
        "hash": hash,
        "shape": list(pixels.shape[1:]),
        "count": len(table),
        "classes": len(names),
        "unreadable": [{"id": listing.table["id"].iloc[position], "why": reason} for position, reason in bad.items()],
        "story": story,
        "stamps": [stamp],
        "added": timestamp(),
    }
    (partial / _PROGRESS).unlink(missing_ok=True)
    (partial / _SPEC).unlink(missing_ok=True)
    (partial / _UNREADABLE).unlink(missing_ok=True)
    delete_scratch(partial)
    with next_number(images_home(), _numbers) as sequence:
        write_json(partial / DESCRIPTION, description | {"sequence": sequence})
        partial.rename(folder)
        flush_to_disk(images_home())
    with suppress(OSError):  # the images are complete without
        (folder / "lock").unlink(missing_ok=True)
    return _read_stored(folder)


def _stored_table(listing: Listing) -> pd.DataFrame:
    """Return the columns to store: no rotations, and no positions if any image is a rotated copy, which is no file."""
    has_copies = bool((listing.table["turn"] != 0).any())
    return listing.table.drop(columns=["turn", *({"position"} & {*listing.table} if has_copies else ())])


def _update_positions(folder: Path, listing: Listing) -> None:
    """Store the positions of a listing of the same images: those of files beside them may have been added since."""
    new = _stored_table(listing)
    if "position" not in new:
        return
    try:
        table = _read_table(folder)
    except UserError:  # which opening it reports
        return
    positions = table["id"].map(new.set_index("id")["position"]).to_numpy(np.int64)
    if "position" not in table or (table["position"] != positions).any():
        with replacing(folder / TABLE) as temporary:
            table.assign(position=positions).to_parquet(temporary, index=False)


def _add_name(stored: StoredImages, name: str, stamp: str, story: dict[str, Any]) -> StoredImages:
    """Add a name and a stamp to the image set, make it the newest of that name, and say how it was read this time."""
    with next_number(images_home(), _numbers) as sequence:
        description = _read_description(stored.folder)
        changed = {
            "names": [*(existing for existing in description["names"] if existing != name), name],
            "stamps": sorted({*description["stamps"], stamp}),
            "story": description["story"] | story,
            "added": timestamp(),
            "sequence": sequence,
        }
        write_json(stored.folder / DESCRIPTION, description | changed)
    return _read_stored(stored.folder)


def _numbers() -> list[int]:
    return [stored.sequence for stored in _scan()[0]]


def _read_description(folder: Path) -> ImagesFile:
    return read_stored(folder / DESCRIPTION, ImagesFile, fix=f"Delete {folder} and import the images again.")


def _read_stored(folder: Path) -> StoredImages:
    description = _read_description(folder)
    return StoredImages(
        folder,
        tuple(description["names"]),
        description["count"],
        description["classes"],
        description["shape"],
        description["hash"],
        len(description["unreadable"]),
        {**description["story"]},
        tuple(description["stamps"]),
        description["added"],
        description.get("sequence", 0),
    )


def _delete_abandoned() -> None:
    """Delete the remains of imports that were not resumed for 14 days, unless a process holds their lock."""
    for partial in images_home().glob(".*"):
        path = partial / "lock"
        with suppress(OSError):  # held, or deleted by another process in the meantime
            if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                with path.open("a") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(partial, ignore_errors=True)
