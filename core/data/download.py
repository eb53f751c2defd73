"""Download data sets, with the URLs and checksums that torchvision provides.

torchvision's dataset classes are never instantiated, because some of them unpickle their downloads.
"""

from __future__ import annotations

import contextlib
import io
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


def download(format: str, folder: Path, progress: Progress | None = None) -> Path:
    """Download the original files of a data set into ``folder``, skipping those that are already there and intact.

    Args:
        format: One of :data:`DOWNLOADABLE`.

    Returns:
        The folder, ready for :func:`core.data.readers.read_listing` with the same format.

    Raises:
        UserError: the data set cannot be downloaded; the text says which files to place where manually.
    """
    if format == "mini-imagenet":
        raise UserError(f"{format} cannot be downloaded automatically.", _MINI_IMAGENET)
    if format not in DOWNLOADABLE:
        raise UserError(f"There is no download for {format!r}.", f"Use one of: {', '.join(DOWNLOADABLE)}.")
    from torchvision.datasets import CIFAR100, MNIST, Omniglot  # takes seconds, so it is imported only for downloads

    files: list[tuple[str, str, list[str]]]  # name, MD5, mirrors
    match format:
        case "omniglot":
            prefix, sums = Omniglot.download_url_prefix, sorted(Omniglot.zips_md5.items())
            files = [(f"{part}.zip", md5, [f"{prefix}/{part}.zip"]) for part, md5 in sums]
        case "mnist":
            files = [(name, md5, [f"{mirror}{name}" for mirror in MNIST.mirrors]) for name, md5 in MNIST.resources]
        case _:
            files = [(CIFAR100.filename, CIFAR100.tgz_md5, [CIFAR100.url])]
    report = progress or Progress()
    report.stage(f"downloading {format}", len(files))
    for name, md5, urls in files:
        _fetch(folder / name, md5, urls)
        report.advance(note=name)
    return folder


def _fetch(target: Path, md5: str, urls: list[str]) -> None:
    from torchvision.datasets.utils import check_integrity, download_url

    part = target.with_name(f".{target.name}.part")
    if check_integrity(target, md5):
        return
    failures = []
    for url in urls:
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # hide torchvision's own progress bar
                download_url(url, target.parent, filename=part.name, md5=md5)
            part.replace(target)
            return
        except (URLError, HTTPException, OSError, RuntimeError, ValueError) as error:  # RuntimeError: wrong checksum
            failures.append(f"{url}: {error}")
        finally:
            part.unlink(missing_ok=True)
    raise UserError(
        f"{target.name} could not be downloaded ({'; '.join(failures)}).",
        f"Check the network, or download it manually from {urls[0]} (MD5 {md5}) and put it in {target.parent}.",
    )
