"""Read a folder or a zip archive as a set of named files, in place, without unpacking anything to disk."""

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

from core.data.decode import MAX_BYTES, UnreadableError
from core.runtime.errors import UserError

MAX_FILES = 5_000_000
MAX_UNPACKED = 500_000_000_000  # maximum total size of an archive's files, in bytes
MAX_RATIO = 200  # maximum ratio of unpacked to archive size; images are already compressed
_ALWAYS_ALLOWED = 200_000_000  # bytes that a small archive may unpack to at any ratio
_SHOWN = 200  # maximum characters of a name in an error
_IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")


class Tree(Protocol):
    """A set of files with relative names and forward slashes."""

    @property
    def path(self) -> Path:
        """Return the path of the folder or archive."""

    @property
    def files(self) -> list[str]:
        """Return the sorted names of all files except hidden ones and operating-system leftovers."""

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return the content of a file.

        Raises:
            UnreadableError: the file cannot be read or has more than ``most`` bytes; the text says why.
        """

    def stamp(self) -> Any:
        """Return a JSON-serialisable value that changes when the files change."""


def open_tree(path: Path) -> Tree:
    """Open a folder or a zip archive.

    Raises:
        UserError: ``path`` does not exist or is neither of the two, or the archive is unsafe.
    """
    kind = file_mode(path)
    if stat.S_ISDIR(kind):
        return FolderTree(path)
    if stat.S_ISREG(kind) and zipfile.is_zipfile(path):  # opening a pipe could block forever
        return ZipTree(path)
    raise UserError(f"{path} is neither a folder nor a zip archive.", "Unpack it, or pack it as zip.")


def file_mode(path: Path) -> int:
    """Return the file mode of ``path``, as in :mod:`stat`.

    Raises:
        UserError: ``path`` does not exist or cannot be accessed.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a NUL character
        raise UserError(f"{path} does not exist.", "Check the path.") from error
    except OSError as error:
        raise UserError(f"{_shorten(str(path))} cannot be read: {error.strerror}.", "Check the path.") from error


@dataclass(frozen=True)
class FolderTree:
    """A folder whose files, at any depth, form the tree.

    Symbolic links are followed. A folder reachable by several paths is listed once: at its real path if that lies in
    the tree, else at its first link. A broken link is listed as an unreadable file. Pipes, sockets and devices are
    ignored.
    """

    path: Path

    @cached_property
    def _found(self) -> dict[str, tuple[int, int]]:
        """Return the size and modification time of every file."""
        found: dict[str, tuple[int, int]] = {}
        # (whether the folder is reached by a link, its name with a trailing slash)
        waiting: list[tuple[bool, str]] = [(False, "")]
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
                        if _is_ignored(entry.name):
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
                    f"{_shorten(str(folder))} cannot be read: {error.strerror}.",
                    "Check its permissions, or move it away.",
                ) from error
        return dict(sorted(found.items()))

    @property
    def files(self) -> list[str]:
        """Return the sorted names of all files except hidden ones and operating-system leftovers."""
        return list(self._found)

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return the content of a file; see :meth:`Tree.read`."""
        file = self.path / name
        try:
            _check_size(file.stat().st_size, most)
            return file.read_bytes()
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error

    def stamp(self) -> Any:
        """Return the name, size and modification time of every file."""
        return [[name, *told] for name, told in self._found.items()]


class ZipTree:
    """A zip archive whose files form the tree.

    Raises:
        UserError: the archive is damaged, encrypted, compressed by a method other than deflate, contains a path outside
            itself or a duplicate name, or unpacks to far more than its own size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path.name} is a damaged zip archive: {error}.", "Download or pack it again.") from error
        members = [info for info in self._archive.infolist() if not info.filename.endswith("/")]
        if len(members) > MAX_FILES:
            raise UserError(f"{path.name} holds {len(members):,} files.", f"The most is {MAX_FILES:,}.")
        unpacked, packed = sum(info.file_size for info in members), path.stat().st_size
        if unpacked > MAX_UNPACKED or unpacked > max(MAX_RATIO * packed, _ALWAYS_ALLOWED):
            raise UserError(
                f"{path.name} has {packed / 1e6:.1f} MB and would unpack to {unpacked / 1e9:.1f} GB.",
                "This is no archive of images; unpack it yourself if you trust it.",
            )
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in members:
            name = info.filename.replace("\\", "/")
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
                raise UserError(
                    f"{path.name} holds {_shorten(info.filename)!r}, which lies outside of the archive.",
                    "It was made to write over other files; do not unpack it.",
                )
            if info.flag_bits & 1:
                raise UserError(f"{path.name} is encrypted.", "Pack it again without a password.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{path.name} is packed by a method that cannot be read safely ({_method(info)}).",
                    "Pack it again as an ordinary zip (deflate).",
                )
            if not parts or any(_is_ignored(part) for part in parts):
                continue
            name = "/".join(parts)  # remove "./" and "//"
            if name in self._members:
                raise UserError(f"{path.name} holds {_shorten(name)!r} twice.", "Pack it again.")
            self._members[name] = info
        self._members = dict(sorted(self._members.items()))

    @property
    def files(self) -> list[str]:
        """Return the sorted names of all files except hidden ones and operating-system leftovers."""
        return list(self._members)

    def read(self, name: str, most: int = MAX_BYTES) -> bytes:
        """Return the content of a file; see :meth:`Tree.read`."""
        info = self._members[name]
        _check_size(info.file_size, most)
        try:
            with self._archive.open(info) as stream:
                # Limit the read: read() without a size unpacks everything before it checks the declared size.
                return stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise UnreadableError(f"cannot be unpacked ({error})") from error

    def stamp(self) -> Any:
        """Return the name, size and modification time of the archive."""
        told = self.path.stat()
        return [self.path.name, told.st_size, told.st_mtime_ns]


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise UnreadableError(f"it has {size / 1e6:.0f} MB; the most is {most / 1e6:.0f}")


def _stat_of_link(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of the link's target, or None if the link is broken, circular or inaccessible."""
    try:
        return entry.stat()
    except OSError:
        return None


def _method(info: zipfile.ZipInfo) -> str:
    return zipfile.compressor_names.get(info.compress_type, f"number {info.compress_type}")  # type: ignore[attr-defined]


def _shorten(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in _IGNORED
