"""Formats are detected, and one unreadable image among good ones is found in every format."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from core.actions.image_settings import FIT_NAMES, FORMATS, ImportOptions
from core.actions.images import add_images
from core.data.decode import FITS
from core.data.download import download
from core.data.readers import AUTO, IMAGES, READERS, ReadOptions, detect, read_listing
from core.data.store import images_home, open_stored, store_images
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from tests.data.pictures import column, picture, write_files, write_zip
from tests.data.test_reader_cifar import PICTURES as CIFAR
from tests.data.test_reader_huggingface import saved
from tests.data.test_reader_omniglot import GREEK, LATIN
from tests.lookalikes import make_all


def test_formats_are_detected(tmp_path: Path) -> None:
    assert detect(write_zip(tmp_path / "a.ZIP", ["cats/1.PNG", "dogs/1.Jpeg"])) == IMAGES
    assert detect(write_files(tmp_path / "c", {"M.Csv": b"PATH;Label\na.png;x\n", "a.png": b""})) == IMAGES
    assert detect(write_files(tmp_path / "d", {"T.CSV": b""}) / "T.CSV") == "manifest"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "no files"),
        (["notes.txt"], r"'notes\.txt'"),
        ([".hidden.png", "__MACOSX/a/1.png"], "no files"),
        (["cats.zip"], r"mine/cats\.zip"),
        (["cats.zip", "dogs.ZIP"], r"Unpack 'cats\.zip', 'dogs\.ZIP'"),
        (["cats.tar.gz", "b.RAR"], r"Unpack 'b\.RAR', 'cats\.tar\.gz'"),
        ([f"{n}.txt" for n in range(9)], r"'0\.txt', '1\.txt', '2\.txt' and 6 more"),
        (["x" * 250], r"'x+…x+'"),
    ],
)
def test_unknown_format_error_lists_contents_and_advice(files: list[str], expected: str, tmp_path: Path) -> None:
    write_files(tmp_path / "mine", files).mkdir(exist_ok=True)
    with pytest.raises(UserError, match=rf"{tmp_path / 'mine'} .*format.*{expected}"):
        detect(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("labels.xlsx", "spreadsheet.*csv"),
        ("coco.json", r"JSON.*\.jsonl"),
        ("train.txt", "text file.*folder"),
        ("cat.jpg", "single image.*folder"),
        ("imagelabels.mat", "MATLAB.*csv"),
        ("images.tar.gz", "Unpack"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(name: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected):
        detect(write_files(tmp_path, {name: b"PK\x03\x04"}) / name)


def test_undecodable_name_is_escaped(tmp_path: Path) -> None:
    (tmp_path / b"\xff.txt".decode("utf-8", "surrogateescape")).touch()
    with pytest.raises(UserError, match=r"'\\udcff\.txt'") as error:
        detect(tmp_path)
    str(error.value).encode()


@pytest.mark.parametrize("format", ["auto", *READERS])
def test_missing_and_special_files_are_rejected_in_every_format(format: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absent", "loop", "pipe", "x" * 300, "a\0b"):
        with pytest.raises(UserError):
            read_listing(tmp_path / name, format)
    for empty in (tmp_path / "empty.csv", tmp_path / "empty"):
        empty.touch()
        with pytest.raises(UserError):
            read_listing(empty, format)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError):
        read_listing(tmp_path / "nothing", format)


def test_unknown_format_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'idx'.*auto, {', '.join(READERS)}"):
        read_listing(tmp_path, "idx", ReadOptions())


def test_mini_imagenet_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image-net\.org"):
        download("mini-imagenet", tmp_path)


BAD = b"\x89PNG and nothing more"


def good(names: list[str]) -> dict[str, bytes]:
    return {name: picture(number, (9, 9)) for number, name in enumerate(names)}


def a_folder(root: Path) -> Path:
    return write_files(root, {**good(["a/1.png", "a/2.png", "b/1.png", "b/3.png"]), "b/2.png": BAD})


def a_manifest(root: Path) -> Path:
    rows = "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in range(5)).replace("4.png", "missing.png")
    return write_files(root, {**good([f"{n}.png" for n in range(4)]), "m.csv": f"path,label\n{rows}".encode()})


def an_omniglot(root: Path) -> Path:
    return write_files(root, {**good([*GREEK, *LATIN]), GREEK[1]: BAD})


def a_cifar(root: Path) -> Path:
    return write_files(root, {**good(CIFAR), CIFAR[3]: BAD})


def a_mini_imagenet(root: Path) -> Path:
    rows = b"filename,label\na.jpg,n1\nb.jpg,n1\nc.jpg,n2\nd.jpg,n2\n"
    return write_files(root, {**good(["images/a.jpg", "images/c.jpg", "images/d.jpg"]), "train.csv": rows})


def a_huggingface(root: Path) -> Path:
    pictures = [{"bytes": one, "path": None} for one in [*good(list("abc")).values(), BAD]]
    return saved(root, pa.table({"image": pictures, "label": [0, 1, 1, 0]}))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("format", "make", "bad", "left"),
    [
        ("folder", a_folder, "b/2.png", 4),
        ("manifest", a_manifest, "missing.png", 4),
        ("omniglot", an_omniglot, GREEK[1], 4),
        ("fc100", a_cifar, CIFAR[3], 5),
        ("mini-imagenet", a_mini_imagenet, "b.jpg", 3),
        ("huggingface", a_huggingface, "00003", 3),
    ],
)
def test_unreadable_image_is_listed_and_skipped_on_request(
    format: str, make: Callable[[Path], Path], bad: str, left: int, tmp_path: Path
) -> None:
    listing = read_listing(make(tmp_path / "data"), format)
    with pytest.raises(UserError, match=f"1 of {left + 1} .*{bad}: .*--skip-unreadable"):
        store_images(listing)
    (listed,) = images_home().glob("*/unreadable.csv")
    assert pd.read_csv(listed, dtype=str)["id"].tolist() == [bad]
    stored = store_images(listing, skip_unreadable=True)
    assert stored.unreadable == 1
    assert open_stored(stored).ids.tolist() == [one for one in column(listing, "id") if one != bad]


def test_array_formats_have_no_unreadable_images(tmp_path: Path) -> None:
    """Formats that store pixels are checked when they are listed."""
    content = {"image_data": np.ones((2, 84, 84, 3), np.uint8), "class_dict": {"n1": [0], "n2": [1]}}
    listing = read_listing(write_files(tmp_path, {"mini-imagenet-cache-train.pkl": pickle.dumps(content)}))
    assert store_images(listing).unreadable == 0


def test_folder_with_several_data_sets_is_rejected(tmp_path: Path) -> None:
    write_files(tmp_path, ["omniglot/images_background/Greek/character01/0001_01.png"])
    write_files(tmp_path, {"mini/train.csv": b"filename,label\na.jpg,n1\n", "mini/images/a.jpg": picture(kind="JPEG")})
    write_files(tmp_path, {"state.json": b"{}", "dataset_info.json": b"{}"})
    with pytest.raises(UserError, match="huggingface, omniglot"):
        detect(tmp_path)


LOOKALIKES = {
    "folder": "mine",
    "manifest": "table/images.csv",
    "omniglot": "omniglot",
    "mnist": "mnist",
    "cifar-fs": "cifar",
    "fc100": "cifar",
    "mini-imagenet": "mini",
    "huggingface": "saved",
}
NO_EFFECT: dict[str, object] = {
    "splits": Path("/no/such/folder"),
    "encoding": "klingon",
    "class_levels": (9, 9),
    "table": "absent.csv",
}
"""A value of every option that no reader can follow."""


def test_every_format_and_option_is_among_the_pairs() -> None:
    assert LOOKALIKES.keys() == READERS.keys()
    assert NO_EFFECT.keys() == {field.name for field in fields(ReadOptions)}


@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("option", NO_EFFECT)
def test_every_reader_follows_or_refuses_every_option(format: str, option: str, tmp_path: Path) -> None:
    make_all(tmp_path)
    path = tmp_path / "data" / LOOKALIKES[format]
    assert len(read_listing(path, format))
    with pytest.raises(UserError):
        read_listing(path, format, ReadOptions(**{option: NO_EFFECT[option]}))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["mine", "table", "broken"])
@pytest.mark.parametrize("option", NO_EFFECT)
def test_detected_folders_and_tables_follow_or_refuse_every_option(path: str, option: str, tmp_path: Path) -> None:
    make_all(tmp_path)
    with pytest.raises(UserError):
        read_listing(tmp_path / "data" / path, options=ReadOptions(**{option: NO_EFFECT[option]}))  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["folder", "manifest", "mnist", "huggingface"])
def test_class_lists_are_applied_to_every_format_without_lists_of_its_own(format: str, tmp_path: Path) -> None:
    make_all(tmp_path)
    path = tmp_path / "data" / LOOKALIKES[format]
    names = sorted(set(column(read_listing(path, format), "class")))
    lists = {"base": names[:-1], "novel": [*names[-1:], "absent"]}
    write_files(tmp_path / "lists", {f"{split}.json": json.dumps(one).encode() for split, one in lists.items()})
    listing = read_listing(path, format, ReadOptions(splits=tmp_path / "lists"))
    expected = {**dict.fromkeys(names[:-1], "train"), names[-1]: "test"}
    assert dict(zip(column(listing, "class"), column(listing, "split"), strict=True)) == expected
    assert any("'absent'" in note for note in listing.notes)


@pytest.mark.parametrize(
    "form", [list, lambda names: {"class_names": names}, lambda names: [["any", n] for n in names]]
)
@pytest.mark.parametrize("format", ["folder", "cifar-fs", "fc100"])
def test_lists_of_every_form_are_read_by_every_format(
    form: Callable[[list[str]], object], format: str, tmp_path: Path
) -> None:
    make_all(tmp_path)
    path = tmp_path / "data" / LOOKALIKES[format]
    names = ["cat", "dog"] if format == "folder" else ["apple", "bottle"]
    files = {
        f"{split}.json": json.dumps(form([name])).encode() for split, name in zip(("train", "test"), names, strict=True)
    }
    listing = read_listing(path, format, ReadOptions(splits=write_files(tmp_path / "lists", files)))
    assert dict(zip(column(listing, "class"), column(listing, "split"), strict=True)) == dict(
        zip(names, ("train", "test"), strict=True)
    )
    with pytest.raises(UserError, match=f"--splits {tmp_path / 'lists'}"):
        read_listing(path, format, ReadOptions(splits=tmp_path / "lists/train.json"))


def test_names_of_options_are_those_of_the_readers() -> None:
    assert (AUTO, *READERS) == FORMATS
    assert tuple(FITS) == FIT_NAMES


def test_classes_in_no_list_are_left_out_and_lists_of_other_classes_refused(tmp_path: Path) -> None:
    make_all(tmp_path)
    lists = write_files(
        tmp_path / "lists", {"train.txt": b"dog\n", "other/train.txt": b"wolf\n", "bad/train.json": b"3"}
    )
    listing = read_listing(tmp_path / "data/mine", options=ReadOptions(splits=lists))
    assert set(column(listing, "class")) == {"dog"}
    assert [listing.read(n) for n in range(3)] == [
        (tmp_path / f"data/mine/dog/{n}.png").read_bytes() for n in (1, 2, 3)
    ]
    assert any("'cat'" in note for note in listing.notes)
    for folder, expected in (("other", "'wolf'.*'cat', 'dog'"), ("bad", "list of class names")):
        with pytest.raises(UserError, match=expected):
            read_listing(tmp_path / "data/mine", options=ReadOptions(splits=lists / folder))


@pytest.mark.parametrize("format", READERS)
def test_every_format_follows_every_option_of_the_import(format: str, tmp_path: Path) -> None:
    """Size, fit, channels, inversion and rotations, on pictures that are twice as high as wide once resized."""
    make_all(tmp_path)
    path = tmp_path / "data" / LOOKALIKES[format]
    base = ImportOptions(format=format, size="14,7", fit="resize")
    changes = {"size": "7,14", "fit": "pad", "channels": 1, "invert": True, "rotations": True}
    default = add_images(path, replace(base, channels=3), progress=Progress())
    with pytest.raises(UserError, match="--fit"):
        add_images(path, replace(base, fit="refuse"), progress=Progress())
    for option, value in changes.items():
        size = {"size": "7"} if option == "rotations" else {}  # turned images must keep their size
        changed = add_images(path, replace(base, **{"channels": 3, option: value, **size}), progress=Progress())
        is_default = option == "invert" and read_listing(path, format).form.invert
        assert (changed.hash == default.hash) == is_default, option
