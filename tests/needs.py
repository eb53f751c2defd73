"""What some tests need and not everybody has: public data sets, small slices of them, and learn2learn.

Where it is missing such a test is left out and says why; in CI, which has it all, it fails.

The data sets are no part of this project. ``TASKLENS_DATA`` names the folder that holds ``omniglot/``, ``cifar100/``,
``mnist/`` and ``splits/``; without it, ``../shared/data`` beside the project is looked at.
"""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from PIL import Image

VARIABLE = "TASKLENS_DATA"
EVIL = (
    "![](http://evil.example/a.png)",
    "<img src=http://evil.example/b.png onerror=alert(1)>",
    "=HYPERLINK('http://evil.example')",
    "[x](javascript:alert(1)) :material/home: $x$",
    "**n**",
)
"""Labels that would load something or run if they were taken for markup or a formula."""


def data_folder() -> Path:
    """The folder of the data sets, which may be missing."""
    return Path(os.environ.get(VARIABLE, Path(__file__).resolve().parents[1].parent / "shared" / "data"))


def real(name: str) -> Path:
    """A folder of real data."""
    root = data_folder()
    if not (root / name).exists():
        _missing(f"needs the real files of {name}: set {VARIABLE} to the folder that holds {name}/")
    return root / name


def learn2learn() -> Any:
    """The library, if ``make learn2learn`` could install it."""
    try:
        return importlib.import_module("learn2learn")
    except ImportError as error:
        return _missing(f"needs learn2learn ({error}); make learn2learn installs it or says why it cannot")


def _missing(message: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)


def omniglot_slice(folder: Path, classes: int) -> Path:
    """``classes`` real characters of the Vinyals training part and as many of its test part, as official zips."""
    source, lists = real("omniglot"), real("splits") / "omniglot_vinyals"
    for part, box in (("train", "background"), ("test", "evaluation")):
        told = json.loads((lists / f"{part}.json").read_text())[box]
        wanted = [f"images_{box}/{alphabet}/{one}/" for alphabet in sorted(told) for one in told[alphabet]][:classes]
        folder.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(source / f"images_{box}.zip") as archive,
            zipfile.ZipFile(folder / f"images_{box}.zip", "w") as out,
        ):
            for name in archive.namelist():
                if name.startswith(tuple(wanted)):
                    out.writestr(name, archive.read(name))
    return folder


def cifar100_slice(folder: Path, classes: tuple[str, ...], each: int) -> Path:
    """The first ``each`` real images of some classes, as a zip of class folders."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = defaultdict(int)
    path = folder / "cifar100.zip"
    with (
        zipfile.ZipFile(real("cifar100") / "cifar100_test_png.zip") as archive,
        zipfile.ZipFile(path, "w") as out,
    ):
        for name in archive.namelist():
            kind = name.split("/")[1]
            if name.endswith(".png") and kind in classes and taken[kind] < each:
                taken[kind] += 1
                out.writestr(name, archive.read(name))
    return path


def mini_imagenet_like(folder: Path, classes: int, each: int) -> Path:
    """Generated JPEGs of a colour a class, in the layout of Ravi and Larochelle: csv lists and one folder of images.

    Its labels are what an attacker would write there.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, part in enumerate(("train", "val", "test")):
        lines = ["filename,label"]
        for one in range(classes):
            wnid = f"n{number:02d}{one:06d}"
            colour = rng.integers(40, 216, 3)
            for image in range(each):
                name = f"{wnid}{image:08d}.jpg"
                pixels = np.clip(colour + rng.normal(0, 30, (84, 84, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / name)
                lines.append(f"{name},{EVIL[one % len(EVIL)]} {wnid}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return folder
