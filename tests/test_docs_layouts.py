"""Every row of the table "What you have, and what TaskLens does" of docs/data.md is true."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.actions.image_settings import ImportOptions
from core.actions.images import add_images, listing_of
from core.actions.inspect import inspect_images
from core.data.store import open_stored
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from tests.data.pictures import column, picture, write_files
from tests.data.test_decode import encoded

DOCS = (Path(__file__).resolve().parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
SECTION = DOCS.partition("## What you have, and what TaskLens does")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| (?!what)(.*?) \| (.*?) \|$", SECTION, re.MULTILINE))
PETS = ("cat", "dog")


@dataclass
class Case:
    """An input, and what must be read from it.

    Attributes:
        files: Content by name; None: a picture.
        splits: Number of images by split, ``""`` for none; None: the input is refused.
        classes: The classes.
        says: What a note must contain, or the error.
        then: Options that resolve the refusal, and the number of classes they give.
    """

    files: dict[str, bytes | None]
    splits: dict[str, int] | None = None
    classes: tuple[str, ...] = PETS
    says: tuple[str, ...] = ()
    then: dict[tuple[tuple[str, Any], ...], int] = field(default_factory=dict)
    prepare: Callable[[Path], None] = lambda root: None


def files(*names: str) -> dict[str, bytes | None]:
    """Return pictures of two numbers for every name that contains ``{}``."""
    return {name.format(number): None for name in names for number in (1, 2)}


def pets(*folders: str, ending: str = "jpg") -> dict[str, bytes | None]:
    """Return two pictures of each pet below every folder, in which ``{}`` stands for the pet."""
    return {f"{folder.format(pet)}/{n}.{ending}": None for folder in folders for pet in PETS for n in (1, 2)}


def labels(name: str, header: str, rows: list[str]) -> dict[str, bytes | None]:
    return {name: "\n".join([header, *rows]).encode()}


def parquet(root: Path) -> None:
    images = [{"bytes": picture(n), "path": None} for n in range(4)]
    table = pa.table({"image": images, "label": ["cat", "dog"] * 2})
    (root / "data").mkdir(parents=True)
    pq.write_table(table, root / "data/train-00000-of-00001.parquet")


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (5, 6)), "JPEG", exif=exif)


def drawing(number: int) -> bytes:
    return picture(number % 2, (28, 28), "1")


def deep(highest: float) -> bytes:
    return encoded(Image.fromarray(np.full((4, 4), highest, np.float32)), "TIFF")


CUB = {
    "CUB_200_2011/images.txt": b"1 cat/1.jpg\n2 cat/2.jpg\n3 dog/1.jpg\n4 dog/2.jpg\n",
    "CUB_200_2011/image_class_labels.txt": b"1 1\n2 1\n3 2\n4 2\n",
    "CUB_200_2011/train_test_split.txt": b"1 1\n2 0\n3 1\n4 0\n",
    "CUB_200_2011/classes.txt": b"1 cat\n2 dog\n",
}
NUMBERED = [f"train_images/{n}.jpg" for n in range(4)]
CASES = {
    "`cat/1.jpg`, `dog/1.jpg`; also zipped, or below a folder that contains nothing else": Case(
        pets("around/{}"), {"": 4}
    ),
    "`Training/cat/1.jpg`, `Testing/cat/1.jpg`": Case(pets("Training/{}", "Testing/{}"), {"train": 4, "test": 4}),
    "`train/train/cat/1.jpg`, `val/val/cat/1.jpg`": Case(pets("train/train/{}", "val/val/{}"), {"train": 4, "val": 4}),
    "`cat/train/1.jpg`, `cat/test/1.jpg`": Case(pets("{}/train", "{}/test"), {"train": 4, "test": 4}),
    "`cat/images/1.jpg`, `dog/images/1.jpg`": Case(pets("{}/images"), {"": 4}),
    "`images/cat/1.jpg`, `segmentations/cat/1.png`": Case(
        pets("images/{}") | pets("segmentations/{}", ending="png"), {"": 4}, says=("segmentations/cat/1.png",)
    ),
    "`cat/1.png`, `cat/1_mask.png`": Case(
        pets("{}", ending="png") | {f"{pet}/1_mask.png": None for pet in PETS}, {"": 4}, says=("dog/1_mask.png",)
    ),
    "`train/cat/1.jpg`, `test/1.jpg`": Case(
        pets("train/{}") | files("test/{}.jpg"), {"train": 4}, says=("test/1.jpg",)
    ),
    "`photo/cat/1.jpg`, `sketch/cat/1.jpg`": Case(
        pets("photo/{}", "sketch/{}", "paint/{}"),
        says=("--class-level 1 for 3", "--class-level 2 for 2", "--class-level 1-2 for 6"),
        then={(("class_level", "1"),): 3, (("class_level", "2"),): 2, (("class_level", "1-2"),): 6},
    ),
    "`train/cat/1.jpg`, `val/cat/1.jpg`, `more/cat/1.jpg`": Case(
        pets("train/{}", "val/{}", "more/{}"), says=("'more'",), then={(("class_level", "1"),): 3}
    ),
    "`train/cat.1.jpg`, `train/dog.1.jpg`": Case(
        {f"train/{pet}.{n}.jpg": None for pet in PETS for n in (1, 2)}, says=("'cat', 'dog'",)
    ),
    "`train_images/1.jpg`, `train.csv` with `image_id,label`": Case(
        {**dict.fromkeys(NUMBERED), "test_images/9.jpg": None}
        | labels("train.csv", "image_id,label", [f"{n}.jpg,{PETS[n % 2]}" for n in range(4)]),
        {"train": 4},
        says=("test_images/9.jpg", "train.csv"),
    ),
    "`images/1.png`, `metadata.csv` with `file_name,label`": Case(
        dict.fromkeys(f"images/{n}.png" for n in range(4))
        | labels("metadata.csv", "file_name,label", [f"images/{n}.png,{PETS[n % 2]}" for n in range(4)]),
        {"": 4},
        says=("metadata.csv",),
    ),
    "`train/1.png`, `train/metadata.jsonl`": Case(
        dict.fromkeys(f"train/{n}.png" for n in range(4))
        | labels(
            "train/metadata.jsonl", "", [json.dumps({"file_name": f"{n}.png", "label": PETS[n % 2]}) for n in range(4)]
        ),
        {"train": 4},
    ),
    "`train/cat/1.jpg`, `labels.csv` with the same classes": Case(
        pets("train/{}") | labels("labels.csv", "path,label", [f"train/{pet}/1.jpg,{pet}" for pet in PETS]),
        {"train": 4},
    ),
    "`train/cat/1.jpg`, `labels.csv` with other classes": Case(
        pets("train/{}")
        | labels("labels.csv", "path,label", [f"train/{pet}/{n}.jpg,{pet}{n}" for pet in PETS for n in (1, 2)]),
        says=("--table labels.csv", "--table none"),
        then={(("table", "labels.csv"),): 4, (("table", "none"),): 2},
    ),
    "`images/1.jpg`, `boxes.csv` without labels": Case(
        files("images/{}.jpg") | labels("boxes.csv", "image,left,top", ["1.jpg,3,5", "2.jpg,4,6"]),
        says=("boxes.csv", "'image', 'left', 'top'"),
    ),
    "`CUB_200_2011/` with its text files": Case(
        pets("CUB_200_2011/images/{}") | CUB, {"train": 2, "test": 2}, says=("CUB_200_2011/train_test_split.txt",)
    ),
    "`tiny-imagenet-200/`": Case(
        {f"tiny-imagenet-200/train/{pet}/images/{pet}_{n}.JPEG": None for pet in PETS for n in (1, 2)}
        | {f"tiny-imagenet-200/{part}/images/{part}_{n}.JPEG": None for part in ("val", "test") for n in (1, 2)}
        | {"tiny-imagenet-200/val/val_annotations.txt": b"val_1.JPEG\tcat\t0\t0\t1\t1\nval_2.JPEG\tdog\t0\t0\t1\t1\n"},
        {"train": 4, "val": 2},
        says=("tiny-imagenet-200/test/images/test_1.JPEG",),
    ),
    "`images/n01/a.jpg`, `train.csv` with `class_name,image_name`": Case(
        {f"images/{pet}/{pet}_{n}.jpg": None for pet in PETS for n in (1, 2)}
        | labels("train.csv", "class_name,image_name", ["cat,cat_1.jpg", "cat,cat_2.jpg"])
        | labels("test.csv", "class_name,image_name", ["dog,dog_1.jpg", "dog,dog_2.jpg"]),
        {"train": 2, "test": 2},
    ),
    '`cat/1.jpg`, `train.json` with `{"class_names": [...]}`': Case(
        pets("{}") | {"train.json": b'{"class_names": ["cat"]}', "val.json": b'{"class_names": ["dog"]}'},
        {"train": 2, "val": 2},
    ),
    "`images/pie/1.jpg`, `meta/train.txt` with `pie/1`": Case(
        pets("images/{}") | {"meta/train.txt": b"cat/1\ndog/1\n", "meta/test.txt": b"cat/2\ndog/2\n"},
        {"train": 2, "test": 2},
    ),
    "`omniglot_resized/Greek/character01/0001_01.png`": Case(
        {f"omniglot_resized/Greek/character0{c}/000{c}_0{n}.png": drawing(n) for c in (1, 2) for n in (1, 2)},
        {"": 4},
        ("Greek/character01", "Greek/character02"),
    ),
    "`data/train-00000-of-00001.parquet`": Case({"README.md": b"---\n---\n"}, {"train": 4}, prepare=parquet),
    "images of different sizes": Case(
        pets("{}") | {"cat/3.jpg": picture(3, (9, 9))},
        says=("differ in size", "--size", "--fit"),
        then={
            (("size", "4"), ("fit", "crop")): 2,
            (("size", "4"), ("fit", "pad")): 2,
            (("size", "4"), ("fit", "resize")): 2,
        },
    ),
    "photos with a camera orientation": Case(pets("{}") | {"cat/3.jpg": turned()}, {"": 5}),
    "16-bit, integer and floating-point images": Case(
        {f"{pet}/{n}.tif": deep(n / 2) for pet in PETS for n in (1, 2)}, {"": 4}, says=("0 to 1",)
    ),
    "a colour image among grey ones": Case(
        pets("{}") | {"dog/3.jpg": picture(3, mode="RGB")}, {"": 5}, says=("dog/3.jpg", "colour")
    ),
    "`cat/1.heic` beside `cat/2.jpg`": Case(
        pets("{}") | {"cat/3.heic": b"", "cat/4.jfif": picture(4, kind="JPEG")}, {"": 5}, says=("cat/3.heic",)
    ),
    "`cat/@eaDir/`, `.thumbnails/`, links to listed images": Case(
        pets("{}") | {"cat/@eaDir/1.jpg/thumb.jpg": None, ".thumbnails/1.png": None},
        {"": 4},
        says=("cat/@eaDir/", ".thumbnails/", "dog/again.jpg"),
        prepare=lambda root: (root / "dog/again.jpg").symlink_to("1.jpg"),
    ),
    "`cat/1.jpg` that is a web page or a Git LFS pointer": Case(
        pets("{}")
        | {"cat/3.jpg": b"<!DOCTYPE html><html>", "dog/3.jpg": b"version https://git-lfs.github.com/spec/v1\n"},
        says=("web page",),
    ),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))


def test_every_row_has_a_case() -> None:
    assert ROWS.keys() == CASES.keys()


@pytest.mark.parametrize("row", CASES)
def test_rows(row: str, tmp_path: Path) -> None:
    case = CASES[row]
    root = tmp_path / "input"
    write_files(
        root, {name: picture(n, kind="PNG") if c is None else c for n, (name, c) in enumerate(case.files.items())}
    )
    case.prepare(root)
    assert ROWS[row].startswith("**Stops**") == (case.splits is None and "web page" not in case.says)
    if case.splits is None:
        with pytest.raises(UserError) as error:
            add_images(root, ImportOptions(), progress=Progress())
        assert [part for part in case.says if part not in str(error.value)] == []
        assert inspect_faults(root)
    else:
        listing = listing_of(root, ImportOptions())
        assert tuple(sorted(set(column(listing, "class")))) == case.classes
        assert {split: column(listing, "split").count(split) for split in case.splits} == case.splits
        assert len(listing) == sum(case.splits.values())
        found, preview = inspect_images(root, ImportOptions())
        assert not found.faults
        assert preview is not None
        assert [part for part in case.says if part not in " ".join(found.found)] == []
        assert len(open_stored(add_images(root, ImportOptions(), progress=Progress()))) == len(listing)
    for options, count in case.then.items():
        stored = add_images(root, ImportOptions(**dict(options)), progress=Progress())
        assert stored.classes == count


def inspect_faults(root: Path) -> bool:
    """Return whether an inspection finds a fault, or refuses the input."""
    try:
        return bool(inspect_images(root, ImportOptions())[0].faults)
    except UserError:
        return True
