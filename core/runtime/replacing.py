"""Write files and folders so that a kill, a full disk or a power failure never leaves half of one.

What is written is complete under a temporary name, flushed to the disk, renamed, and then its folder is flushed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_MAX_NAME_BYTES = 255  # of a file name, on all common file systems
SCRATCH = ".writing"
"""Ending of the folder ``.NAME.writing`` that holds what is being written to ``NAME``."""
_OLD = ".old"
ABANDONED_SECONDS = 14 * 24 * 3600
"""Age from which unfinished work that could be resumed, and that no process holds, is deleted."""
_UMASK = os.umask(0)
os.umask(_UMASK)
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_AT_FDCWD = -100
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
"""Flags to open a folder for temporary files; what a link leads to in its place is not ours to delete."""
# What a file system answers that cannot flush folders or lock files.
_UNSUPPORTED = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EACCES)


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that atomically replaces ``path`` on success.

    What a killed process leaves is deleted by the next one that writes the same path.

    Args:
        path: If it is a symbolic link, the file that it leads to is replaced.
        durable: After the block, the file survives a power failure; else only the end of the process.

    Raises:
        TransientError: the disk is full or the folder cannot be written; ``path`` is then unchanged.
    """
    with disk_errors(path):
        _check_replaceable(path)
        path = path.resolve() if path.is_symlink() else path
        with _scratch(path, frozenset(), durable=durable) as temporary:
            yield temporary
            temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only their owner may read
            if durable:
                flush_to_disk(temporary)
            temporary.replace(path)
            if durable:
                flush_to_disk(path.parent)


def _check_replaceable(path: Path) -> None:
    """Raise UserError if ``path`` is a device, pipe or socket, which a file must not replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path} is not a file.", "Use the name of a file.")


def flush_to_disk(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power failure, where the file system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Create a folder and its parents; ``durable``: they survive a power failure."""
    if path.is_dir():
        return
    make_folder(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        flush_to_disk(path.parent)


@contextmanager
def _scratch(path: Path, replaced_names: Container[str], *, durable: bool = True) -> Iterator[Path]:
    """Yield a new path in the folder ``.NAME.writing`` beside ``path``, which is deleted after the block.

    Processes hold a shared lock on that folder while they use it. Whoever gets it alone deletes what killed processes
    have left.
    """
    make_folder(path.parent, durable=durable)
    folder = path.with_name(_scratch_name(path.name))
    descriptor = _open_scratch(folder, path, replaced_names)
    temporary = folder / secrets.token_hex(6)
    try:
        yield temporary
    finally:
        with suppress(OSError):  # what cannot be deleted now is deleted by the next writer
            delete(temporary)
            if _is_alone(descriptor):
                _clean(folder, path, replaced_names)
                folder.rmdir()
        os.close(descriptor)


def delete_scratch(folder: Path) -> None:
    """Delete what killed writers left in a folder; what a process uses, or is a former folder, stays."""
    for left in folder.glob(f".*{SCRATCH}"):
        with suppress(OSError):
            descriptor = os.open(left, _OPEN_FOLDER)
            try:
                if _is_alone(descriptor) and not any(part.suffix == _OLD for part in left.iterdir()):
                    delete(left)
            finally:
                os.close(descriptor)


def _scratch_name(name: str) -> str:
    """Return the name of the folder for temporary files; a hash replaces a name that would become too long."""
    scratch = f".{name}{SCRATCH}"
    return (
        scratch
        if len(os.fsencode(scratch)) <= _MAX_NAME_BYTES
        else f".{hashlib.sha256(os.fsencode(name)).hexdigest()}{SCRATCH}"
    )


def _open_scratch(folder: Path, path: Path, replaced_names: Container[str]) -> int:
    """Return a descriptor of the folder, created if absent, on which this process holds a shared lock."""
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            descriptor = os.open(folder, _OPEN_FOLDER)
        except FileNotFoundError:
            continue  # its last user has just deleted it
        try:
            if _is_alone(descriptor):
                _clean(folder, path, replaced_names)
            _lock_shared(descriptor)
            if os.path.samestat(folder.stat(), os.fstat(descriptor)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock_shared(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _is_alone(descriptor: int) -> bool:
    """Try to lock the folder against all other processes, which loses a shared lock; return whether it succeeded."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _clean(folder: Path, path: Path, replaced_names: Container[str]) -> None:
    """Delete what killed processes left in a scratch folder; complete the replacement that one of them had begun."""
    for left in sorted(folder.iterdir()):
        if left.suffix == _OLD and not left.is_symlink():
            _keep_others(left, path, replaced_names)
        else:
            delete(left)


def delete(path: Path) -> None:
    """Delete a file, a folder or a link, as far as it exists and can be deleted."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def check_export_folder(out: Path, marker: str) -> None:
    """Raise UserError unless ``out`` is absent, empty, or an earlier export, which contains the file ``marker``."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file.", "Choose a folder.")
    if out.exists() and any(out.iterdir()) and not (out / marker).exists():
        raise UserError(f"{out} is not empty and not an earlier export.", "Choose another folder.")


@contextmanager
def replacing_folder(path: Path, replaced_names: Container[str]) -> Iterator[Path]:
    """Yield a new folder beside ``path`` that replaces ``path`` on success, whether or not it exists already.

    Files of the old folder are kept unless their name is one of ``replaced_names``.

    Raises:
        UserError: ``path`` is the working folder, which would disappear under the program that works in it.
        TransientError: the disk is full or the folder cannot be written; ``path`` is then unchanged.
    """
    path = path.resolve()
    if path == Path.cwd():
        raise UserError(f"{path} is the working folder, which cannot be replaced.", "Choose a folder in it.")
    with disk_errors(path), _scratch(path, replaced_names) as new:
        new.mkdir()
        yield new
        for file in sorted(new.rglob("*")):
            flush_to_disk(file)
        flush_to_disk(new)
        old = new.with_suffix(_OLD)
        if path.exists():
            new.rename(old)
            if not exchange(old, path):
                old.rename(new)
                path.rename(old)  # from here to the next line there is only the old folder, under its other name
                new.rename(path)
        else:
            new.rename(path)
        flush_to_disk(path.parent)
        _keep_others(old, path, replaced_names)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two paths atomically; return False where the system cannot (other than Linux, some file systems)."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    if (code := ctypes.get_errno()) in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _keep_others(old: Path, path: Path, replaced_names: Container[str]) -> None:
    """Move the files of a replaced folder that were not written anew to ``path``, and delete the rest."""
    if not old.exists():
        return
    if not path.exists():
        old.rename(path)  # killed between two renames
        return
    for other in old.iterdir():
        if other.name not in replaced_names and not (path / other.name).exists():
            other.rename(path / other.name)
    flush_to_disk(path)
    delete(old)


def copy_folder(
    source: Path, target: Path, *, ignore: Callable[[str], bool] = lambda name: False, is_hidden: bool = False
) -> None:
    """Copy the files of a folder; an interrupted copy holds only whole files and can be repeated.

    Args:
        ignore: Says by the name of a file or folder whether it is left out.
        is_hidden: Whether ``target`` is in a folder of :func:`replacing_folder`, which flushes the files itself.
    """
    with disk_errors(target):
        make_folder(target, durable=not is_hidden)
        entries = sorted(source.iterdir())
    for entry in entries:
        if ignore(entry.name):
            continue
        if entry.is_dir():
            copy_folder(entry, target / entry.name, ignore=ignore, is_hidden=is_hidden)
        elif is_hidden:
            with disk_errors(target / entry.name):
                shutil.copyfile(entry, target / entry.name)
        else:
            with replacing(target / entry.name) as temporary:
                shutil.copyfile(entry, temporary)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file by replacing it as a whole.

    ``numpy.save`` writes through the C library, which does not say why it could not.
    """
    import numpy as np  # which the decision log and the runner of jobs, who replace files too, do without

    array = np.ascontiguousarray(array)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        header: dict[str, Any] = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(array.data)
