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
from typing import Any

from core.data.decode import MAX_BYTES, UnreadableError
from core.runtime.errors import UserError, shorten_middle, shown
from core.runtime.failed_downloads import check_downloaded_file, describe_failed_download
from core.runtime.reading import check_input, check_location, check_unpacked_size, open_input
from core.runtime.roots import is_below_roots

MAX_FILES = 5_000_000
MAX_UNPACKED = 500_000_000_000  # maximum total size of an archive's files, in bytes
_MAX_PATH = 200  # characters of a path in an error
_MAX_NAME = 4096  # characters of a path in an archive, as in a file system
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "#recycle", "#snapshot", "@tmp"} | {
    *("$recycle.bin", "system volume information", "lost+found", "__pycache__")
}
"""Names, in lower case, of files and folders that operating systems and network drives create beside the user's."""


def open_tree(path: Path) -> Tree:
    """Open a folder or a zip archive.

    Raises:
        UserError: ``path`` does not exist or is neither of the two, or the archive is unsafe.
    """
    mode = file_mode(path)
    if stat.S_ISDIR(mode):
        return FolderTree(path)
    check_input(path)  # opening a pipe could block forever
    if zipfile.is_zipfile(path):
        return ZipTree(path)
    check_downloaded_file(path)
    raise UserError(f"{path} is neither a folder nor a zip archive.", "Unpack it, or repack it as a zip archive.")


def file_mode(path: Path) -> int:
    """Return the file mode of ``path``, as in :mod:`stat`.

    Raises:
        UserError: ``path`` does not exist, cannot be accessed or is outside the roots of the dashboard.
    """
    try:
        return check_location(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a NUL character
        raise UserError(f"{path} does not exist.", "Check the path.") from error
    except OSError as error:
        raise UserError(
            f"{shorten_middle(str(path), _MAX_PATH)} cannot be read: {error.strerror}.", "Check the path."
        ) from error


def file_stamp(path: Path) -> list[Any]:
    """Return the name, size and modification time of a file."""
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class FolderTree:
    """A folder whose files, at any depth, form the tree.

    Symbolic links are followed. A folder reachable by several paths is listed once: at its real path if that lies in
    the tree, else at its first link. A broken link is listed as an unreadable file. Pipes, sockets and devices are
    ignored, and links to places outside the roots of the dashboard are not followed.
    """

    path: Path

    @cached_property
    def _scan(self) -> _Scan:
        found: dict[str, tuple[int, int]] = {}
        hidden: list[str] = []
        repeated: list[str] = []
        links: list[str] = []
        outside: list[str] = []
        # (whether the folder is reached by a link, its name with a trailing slash)
        folders: list[tuple[bool, str]] = [(False, "")]
        visited = set()
        while folders:
            _, prefix = heapq.heappop(folders)
            folder = self.path / prefix
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in visited:
                    repeated.append(prefix)
                    continue
                visited.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name, is_link = prefix + entry.name, entry.is_symlink()
                        if _is_hidden(entry.name):
                            hidden.append(f"{name}/" if entry.is_dir(follow_symlinks=False) else name)
                            continue
                        try:
                            target = entry.stat()
                        except OSError:
                            if not is_link:
                                raise
                            found[name] = (0, 0)  # broken, circular or inaccessible
                            continue
                        if is_link and not is_below_roots(self.path / name):
                            outside.append(name)
                            continue
                        if stat.S_ISDIR(target.st_mode):
                            heapq.heappush(folders, (is_link, f"{name}/"))
                        elif stat.S_ISREG(target.st_mode):
                            found[name] = (target.st_size, target.st_mtime_ns)
                            if is_link:
                                links.append(name)
            except OSError as error:
                what = f"{shorten_middle(str(folder), _MAX_PATH)} cannot be read: {error.strerror}."
                raise UserError(what, "Check its permissions, or move it elsewhere.") from error
        return _Scan(dict(sorted(found.items())), sorted(hidden), sorted(repeated), sorted(links), sorted(outside))

    @property
    def files(self) -> list[str]:
        """Return the sorted names of all files except hidden ones and those of operating systems."""
        return list(self._scan.sizes_and_times)

    @property
    def hidden(self) -> list[str]:
        """Return the sorted names of the hidden files, and of the hidden folders with a slash at the end."""
        return self._scan.hidden

    @property
    def repeated_folders(self) -> list[str]:
        """Return the sorted names, with a slash at the end, of links to folders that are listed elsewhere."""
        return self._scan.repeated

    @property
    def outside(self) -> list[str]:
        """Return the sorted names of the links to places outside the roots of the dashboard."""
        return self._scan.outside

    @cached_property
    def copies(self) -> dict[str, str]:
        """Return, by the name of each symbolic link to a file that another name lists, that other name."""
        if not self._scan.links:
            return {}
        links = set(self._scan.links)
        root = os.path.realpath(self.path)
        names = {os.path.join(root, name): name for name in self.files if name not in links}  # noqa: PTH118 - faster
        copies = {}
        for link in self._scan.links:
            real = os.path.realpath(self.path / link)
            if names.setdefault(real, link) != link:
                copies[link] = names[real]
        return copies

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the content of a file.

        Raises:
            UnreadableError: the file cannot be read or is larger than ``max_bytes``; the text says why.
        """
        file = self.path / name
        try:
            with open_input(file) as stream:
                size = os.fstat(stream.fileno()).st_size
                _check_size(size, max_bytes)
                return stream.read(size)
        except UserError as error:
            # git-annex links to content that may not have been downloaded.
            link = describe_failed_download(os.fsencode(file.readlink())) if file.is_symlink() else ""
            raise UnreadableError(link or error.what.removeprefix(f"{file} ").rstrip(".")) from error
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error

    def stamp(self) -> Any:
        """Return the name, size and modification time of every file, as a JSON-serialisable value."""
        return [[name, *size_and_time] for name, size_and_time in self._scan.sizes_and_times.items()]


@dataclass(frozen=True)
class _Scan:
    """What is in a folder: the size and modification time of every file by its name, and what is not listed."""

    sizes_and_times: dict[str, tuple[int, int]]
    hidden: list[str]
    repeated: list[str]
    links: list[str]
    outside: list[str]


class ZipTree:
    """A zip archive whose files form the tree.

    Attributes:
        hidden, repeated_folders, outside, copies: As those of :class:`FolderTree`; an archive has no links.

    Raises:
        UserError: the archive is damaged, encrypted, compressed by a method other than deflate, contains a path outside
            it or a duplicate name, or unpacks to far more than its own size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path.name} is a damaged zip archive: {error}.", "Download or repack it.") from error
        members = [info for info in self._archive.infolist() if not info.filename.endswith("/")]
        if len(members) > MAX_FILES:
            raise UserError(f"{path.name} contains {len(members):,} files.", f"The maximum is {MAX_FILES:,}.")
        unpacked, packed = sum(info.file_size for info in members), path.stat().st_size
        check_unpacked_size(path.name, packed, unpacked)
        if unpacked > MAX_UNPACKED:
            what = f"{path.name} would unpack to {unpacked / 1e9:.1f} GB."
            raise UserError(what, "If you trust it, unpack it yourself and use the folder.")
        self._members: dict[str, zipfile.ZipInfo] = {}
        hidden: set[str] = set()
        for info in members:
            name = info.filename.replace("\\", "/")
            parts = [part for part in name.split("/") if part not in ("", ".")]
            if len(name) > _MAX_NAME:
                what = f"{path.name} contains a path of {len(name):,} characters, {shown(name)}."
                raise UserError(what, f"The maximum is {_MAX_NAME:,}.")
            if name.startswith("/") or ".." in parts or (parts and parts[0].endswith(":")):
                raise UserError(
                    f"{path.name} contains {shown(info.filename)}, a path outside the archive.",
                    "Do not unpack it: such archives are made to overwrite other files.",
                )
            if info.flag_bits & 1:
                raise UserError(f"{path.name} is encrypted.", "Repack it without a password.")
            if (number := info.compress_type) not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                method = zipfile.compressor_names.get(number, f"number {number}")  # type: ignore[attr-defined]
                raise UserError(
                    f"{path.name} uses a compression method that cannot be read safely ({method}).",
                    "Repack it as an ordinary zip archive (deflate).",
                )
            if not parts:
                continue
            depth = next((depth for depth, part in enumerate(parts, 1) if _is_hidden(part)), 0)
            if depth:
                hidden.add("/".join(parts[:depth]) + ("/" if depth < len(parts) else ""))
                continue
            name = "/".join(parts)  # remove "./" and "//"
            if name in self._members:
                raise UserError(f"{path.name} contains {shown(name)} twice.", "Repack it without the duplicate.")
            self._members[name] = info
        self._members = dict(sorted(self._members.items()))
        self.hidden = sorted(hidden)
        self.repeated_folders: list[str] = []
        self.outside: list[str] = []
        self.copies: dict[str, str] = {}

    @property
    def files(self) -> list[str]:
        """Return the sorted names of all files except hidden ones and those of operating systems."""
        return list(self._members)

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the content of a file; see :meth:`FolderTree.read`."""
        info = self._members[name]
        _check_size(info.file_size, max_bytes)
        try:
            with self._archive.open(info) as stream:
                # Limit the read: read() without a size unpacks everything before it checks the declared size.
                return stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise UnreadableError(f"cannot be unpacked ({error})") from error

    def stamp(self) -> Any:
        """Return the name, size and modification time of the archive."""
        return file_stamp(self.path)


Tree = FolderTree | ZipTree
"""A set of files with relative names and forward slashes."""


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UnreadableError(f"it has {size / 1e6:.0f} MB; the maximum is {max_bytes / 1e6:.0f} MB")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES
