"""Download data sets, with the URLs and checksums that torchvision provides.

Files are only downloaded; :mod:`core.data.readers` reads them like any other files. torchvision's dataset classes are
never instantiated, because some of them unpickle their downloads.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from core.runtime.errors import UserError
from core.runtime.progress import Progress

DOWNLOADABLE = ("omniglot", "mnist", "cifar-fs", "fc100")
_MINI_IMAGENET = (
    "The images are under ImageNet's terms, which you accept at https://image-net.org. Put them in a folder images "
    "beside Ravi and Larochelle's train.csv, val.csv and test.csv, or use the mini-imagenet-cache-*.pkl files of "
    "learn2learn, and import the folder that contains them."
)


@dataclass(frozen=True)
class _File:
    name: str
    md5: str
    urls: tuple[str, ...]  # mirrors, tried in order


def download(format: str, folder: Path, progress: Progress | None = None) -> Path:
    """Download the original files of a data set into ``folder``, skipping those that are already there and intact.

    Args:
        format: One of :data:`DOWNLOADABLE`.

    Returns:
        The folder, ready for :func:`core.data.readers.read_listing` with the same format.

    Raises:
        UserError: the data set cannot be downloaded automatically, the network or server does not respond, or a file
            has the wrong checksum; the text says which files to place where manually.
    """
    if format == "mini-imagenet":
        raise UserError(f"{format} cannot be downloaded automatically.", _MINI_IMAGENET)
    if format not in DOWNLOADABLE:
        raise UserError(f"There is no download for {format!r}.", f"Use one of: {', '.join(DOWNLOADABLE)}.")
    files = _files(format)
    report = progress or Progress()
    report.stage(f"downloading {format}", len(files))
    for file in files:
        _fetch(file, folder)
        report.advance(note=file.name)
    return folder


def _files(format: str) -> list[_File]:
    from torchvision.datasets import CIFAR100, MNIST, Omniglot  # takes seconds, so it is imported only for downloads

    match format:
        case "omniglot":
            prefix = Omniglot.download_url_prefix
            return [
                _File(f"{part}.zip", md5, (f"{prefix}/{part}.zip",)) for part, md5 in sorted(Omniglot.zips_md5.items())
            ]
        case "mnist":
            return [
                _File(name, md5, tuple(f"{mirror}{name}" for mirror in MNIST.mirrors)) for name, md5 in MNIST.resources
            ]
        case _:
            return [_File(CIFAR100.filename, CIFAR100.tgz_md5, (CIFAR100.url,))]


def _fetch(file: _File, folder: Path) -> None:
    from torchvision.datasets.utils import check_integrity, download_url

    target, part = folder / file.name, folder / f".{file.name}.part"
    if check_integrity(target, file.md5):
        return
    failures = []
    for url in file.urls:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # hide torchvision's own progress bar
                download_url(url, folder, filename=part.name, md5=file.md5)
            part.replace(target)
            return
        except (URLError, HTTPException, OSError, RuntimeError, ValueError) as error:  # RuntimeError: wrong checksum
            failures.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise UserError(
        f"{file.name} could not be downloaded ({'; '.join(failures)}).",
        f"Check the network, or download it manually from {file.urls[0]} (MD5 {file.md5}) and put it in {folder}.",
    )
