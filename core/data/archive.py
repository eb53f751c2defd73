"""A folder or a zip archive as a set of named files that are read in place; nothing is ever unpacked onto the disk."""

from __future__ import annotations

import heapq
import os
import stat
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from core.data.decode import MOST_BYTES, Unreadable
from core.runtime.errors import UserError

MOST_FILES = 5_000_000
MOST_UNPACKED = 500_000_000_000  # bytes that all files of an archive may have together
MOST_RATIO = 200  # unpacked size to archive size; pictures are compressed already
_ALWAYS_ALLOWED = 200_000_000  # bytes that a small archive may unpack to whatever its ratio
_SHOWN = 200  # characters of a name in an error
_NOISE = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Tree(Protocol):
    """Files by relative name with forward slashes."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def files(self) -> list[str]:
        """Every file but hidden ones and what operating systems leave behind, sorted."""

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """The content of a file.

        Raises:
            Unreadable: it cannot be read, or has more than ``most`` bytes; the text says why.
        """

    def stamp(self) -> Any:
        """JSON-serialisable; changes when the files do."""


def open_tree(path: Path) -> Tree:
    """A folder or a zip archive.

    Raises:
        UserError: there is nothing, or something else, at ``path``, or the archive is not to be trusted.
    """
    kind = mode_of(path)
    if stat.S_ISDIR(kind):
        return FolderTree(path)
    if stat.S_ISREG(kind) and zipfile.is_zipfile(path):  # of a pipe, one could wait for ever
        return ZipTree(path)
    raise UserError(f"{path} is neither a folder nor a zip archive.", "Unpack it, or pack it as zip.")


def mode_of(path: Path) -> int:
    """What is at ``path``, as :mod:`stat` tells it.

    Raises:
        UserError: there is nothing, or one may not look.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with NUL
        raise UserError(f"{path} does not exist.", "Check the path.") from error
    except OSError as error:
        raise UserError(f"{_cut(str(path))} cannot be read: {error.strerror}.", "Check the path.") from error


@dataclass(frozen=True)
class FolderTree:
    """The files below a folder.

    Links are followed. A folder that several lead to is listed once: where it really is, or else by the first link. A
    link that leads nowhere is a file that cannot be read; pipes, sockets and devices are left out.
    """

    path: Path

    @cached_property
    def _found(self) -> dict[str, tuple[int, int]]:
        """Size and time of modification of every file."""
        found: dict[str, tuple[int, int]] = {}
        waiting: list[tuple[bool, str]] = [(False, "")]  # whether a link leads there, the name with a slash behind it
        seen = set()
        while waiting:
            _, above = heapq.heappop(waiting)
            folder = self.path / above
            try:
                here = folder.stat()
                if (here.st_dev, here.st_ino) in seen:
                    continue
                seen.add((here.st_dev, here.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name, is_link = above + entry.name, entry.is_symlink()
                        if _is_noise(entry.name):
                            continue
                        told = _stat_of_link(entry) if is_link else entry.stat()
                        if told is None:
                            found[name] = (0, 0)
                        elif stat.S_ISDIR(told.st_mode):
                            heapq.heappush(waiting, (is_link, f"{name}/"))
                        elif stat.S_ISREG(told.st_mode):
                            found[name] = (told.st_size, told.st_mtime_ns)
            except OSError as error:
                raise UserError(
                    f"{_cut(str(folder))} cannot be read: {error.strerror}.", "Check its permissions, or move it away."
                ) from error
        return dict(sorted(found.items()))

    @property
    def files(self) -> list[str]:
        return list(self._found)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        file = self.path / name
        try:
            _refuse_large(file.stat().st_size, most)
            return file.read_bytes()
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    def stamp(self) -> Any:
        return [[name, *told] for name, told in self._found.items()]


class ZipTree:
    """The files in a zip archive.

    Raises:
        UserError: it is damaged, encrypted, packed by another method than deflate, names a file outside of itself or
            the same file twice, or would unpack to far more than it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path.name} is a damaged zip archive: {error}.", "Download or pack it again.") from error
        members = [info for info in self._archive.infolist() if not info.filename.endswith("/")]
        if len(members) > MOST_FILES:
            raise UserError(f"{path.name} holds {len(members):,} files.", f"The most is {MOST_FILES:,}.")
        unpacked, packed = sum(info.file_size for info in members), path.stat().st_size
        if unpacked > MOST_UNPACKED or unpacked > max(MOST_RATIO * packed, _ALWAYS_ALLOWED):
            raise UserError(
                f"{path.name} has {packed / 1e6:.1f} MB and would unpack to {unpacked / 1e9:.1f} GB.",
                "This is no archive of pictures; unpack it yourself if you trust it.",
            )
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in members:
            name = info.filename.replace("\\", "/")
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
                raise UserError(
                    f"{path.name} holds {_cut(info.filename)!r}, which lies outside of the archive.",
                    "It was made to write over other files; do not unpack it.",
                )
            if info.flag_bits & 1:
                raise UserError(f"{path.name} is encrypted.", "Pack it again without a password.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{path.name} is packed by a method that cannot be read safely ({_method(info)}).",
                    "Pack it again as an ordinary zip (deflate).",
                )
            if not parts or any(_is_noise(part) for part in parts):
                continue
            name = "/".join(parts)  # without "./" and "//"
            if name in self._members:
                raise UserError(f"{path.name} holds {_cut(name)!r} twice.", "Pack it again.")
            self._members[name] = info
        self._members = dict(sorted(self._members.items()))

    @property
    def files(self) -> list[str]:
        return list(self._members)

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        info = self._members[name]
        _refuse_large(info.file_size, most)
        try:
            with self._archive.open(info) as stream:
                # By its size: read() alone unpacks all there is before it looks at what was declared.
                return stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise Unreadable(f"cannot be unpacked ({error})") from error

    def stamp(self) -> Any:
        told = self.path.stat()
        return [self.path.name, told.st_size, told.st_mtime_ns]


def _refuse_large(size: int, most: int) -> None:
    if size > most:
        raise Unreadable(f"it has {size / 1e6:.0f} MB; the most is {most / 1e6:.0f}")


def _stat_of_link(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what the link leads to; None if it leads nowhere, to itself, or where one may not look."""
    try:
        return entry.stat()
    except OSError:
        return None


def _method(info: zipfile.ZipInfo) -> str:
    return zipfile.compressor_names.get(info.compress_type, f"number {info.compress_type}")  # type: ignore[attr-defined]


def _cut(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def _is_noise(name: str) -> bool:
    return name.startswith(".") or name in _NOISE
