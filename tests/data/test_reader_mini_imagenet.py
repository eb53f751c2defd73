"""mini-ImageNet as csv lists beside images and as pickled caches; errors name the file and line."""

from __future__ import annotations

import csv
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers import ReadOptions, detect, read_listing
from core.runtime.errors import UserError
from tests.data.pictures import ODD_NAMES, column, mutated, picture, read_or_rejected, write_files, write_zip

TRAIN = b"filename,label\na.jpg,n1\nb.jpg,n2\n"


def read(path: Path, splits: Path | None = None) -> Listing:
    return read_listing(path, "mini-imagenet", ReadOptions(splits=splits))


def data(folder: Path, train: str | bytes = TRAIN, **others: bytes) -> Path:
    lists = {f"{split}.csv": content for split, content in others.items()}
    raw = train.encode() if isinstance(train, str) else train
    pictures = {f"images/{name}.jpg": picture(n, kind="JPEG") for n, name in enumerate("abc")}
    return write_files(folder, {"train.csv": raw, **lists, **pictures})


def test_csv_lists_in_a_folder_and_a_zip(tmp_path: Path) -> None:
    folder = data(tmp_path / "mini", test=b"filename,label\nc.jpg,n3\ngone.jpg,n3\n")
    packed = {file.relative_to(tmp_path).as_posix(): file.read_bytes() for file in folder.rglob("*.*")}
    for path in (folder, write_zip(tmp_path / "mini.zip", packed)):
        assert detect(path) == "mini-imagenet"
        listing = read(path)
        assert listing.name == "mini-imagenet"
        assert column(listing, "id") == ["a.jpg", "b.jpg", "c.jpg", "gone.jpg"]
        assert column(listing, "class") == ["n1", "n2", "n3", "n3"]
        assert column(listing, "split") == ["train", "train", "test", "test"]
        assert listing.read(2) == picture(2, kind="JPEG")
        with pytest.raises(UnreadableError, match="missing"):
            listing.read(3)
        without_list, missing = listing.notes[2:]
        assert " val " in without_list
        assert "1 image of 4 missing: 'gone.jpg'" in missing


@pytest.mark.parametrize("place", ["splits/mini_imagenet", "mini_imagenet", "splits"])
def test_lists_beside_the_images_or_given(place: str, tmp_path: Path) -> None:
    pictures = write_files(tmp_path / "pictures", ["n1/a.jpg", "b.jpg"])
    lists = write_files(tmp_path / place, {"val.csv": TRAIN})
    assert column(read(pictures), "split") == column(read(pictures, lists), "split") == ["val", "val"]
    assert read(pictures).read(0) == picture(0)
    with pytest.raises(UserError, match=str(tmp_path / "pictures")):
        read(pictures, tmp_path / "pictures")


def test_further_columns_are_ignored(tmp_path: Path) -> None:
    listing = read(data(tmp_path, "Filename, Label,camera,note\na.jpg,n1,=1+1,\nb.jpg,n2,3,x\n"))
    assert column(listing, "class") == ["n1", "n2"]


def test_odd_labels_are_kept_exactly(tmp_path: Path) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("filename", "label"), *((f"{name}.jpg", name) for name in ODD_NAMES)])
    files = {f"images/{name}.jpg": picture(1) for name in ODD_NAMES}
    listing = read(write_files(tmp_path, {**files, "train.csv": buffer.getvalue().encode("utf-8-sig")}))
    assert column(listing, "class") == list(ODD_NAMES)
    assert column(listing, "id") == [f"{name}.jpg" for name in ODD_NAMES]
    assert all(listing.read(position) == picture(1) for position in range(len(listing)))


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("", "train.csv .*filename and label"),
        ("label,file\nn1,a.jpg\n", "train.csv .*'label', 'file'.*filename and label"),
        ("filename,label\na.jpg,n1\nb.jpg\n", r"train.csv, line 3 has 1 field"),
        ("filename,label\na.jpg,n1,x\n", "train.csv, line 2 has 3 fields"),
        ("filename,label\na.jpg, \n", "train.csv, line 2: label is empty"),
        ("filename,label\n" + "x" * 9000 + "\n", "train.csv, line 2 has 1 field"),
        ('filename,label\n"a.jpg,n1\n', "train.csv, line 2"),
        (b"filename,label\na.jpg,n\xff\n", "train.csv, line 2 .*UTF-8"),
        ("filename,label\na.jpg,n1\n\na.jpg,n2\n", "line 4: 'a.jpg' .*train.csv, line 2"),
        ("filename,label\nx.jpg,n1\n", "'x.jpg'"),
        ("filename,label\n../images/a.jpg,n1\n", "'../images/a.jpg'"),
        ("filename,label\n", "no rows"),
    ],
)
def test_errors_name_the_line(train: str | bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=expected) as error:
        read(data(tmp_path, train))
    assert len(str(error.value)) < 1000


def test_file_name_in_two_lists_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test\.csv, line 2: 'a\.jpg' .*train\.csv, line 2"):
        read(data(tmp_path, test=b"filename,label\na.jpg,n3\n"))


def test_class_in_two_splits_is_reported(tmp_path: Path) -> None:
    listing = read(data(tmp_path, test=b"filename,label\nc.jpg,n2\n"))
    assert any("1 class " in note and "'n2'" in note for note in listing.notes)


def test_one_file_name_in_several_folders(tmp_path: Path) -> None:
    data(tmp_path)
    write_files(tmp_path, ["other/a.jpg"])
    assert read(tmp_path).read(0) == picture(0, kind="JPEG")  # the one in images counts
    write_files(tmp_path, ["x/c.jpg", "y/c.jpg"])
    (tmp_path / "images/c.jpg").unlink()
    write_files(tmp_path, {"train.csv": b"filename,label\nc.jpg,n1\n"})
    with pytest.raises(UserError, match=r"'c\.jpg': 'x/c\.jpg', 'y/c\.jpg'"):
        read(tmp_path)


def cache(**changes: Any) -> bytes:
    content = {"image_data": np.ones((2, 84, 84, 3), np.uint8), "class_dict": {"n1": [1], "n2": [0]}, **changes}
    return pickle.dumps(content, 2)


def test_learn2learn_caches(tmp_path: Path) -> None:
    files = {f"mini-imagenet-cache-{word}.pkl": cache() for word in ("train", "validation")}
    assert detect(write_files(tmp_path, files)) == "mini-imagenet"
    listing = read(tmp_path)
    assert column(listing, "id") == ["train/00000", "train/00001", "val/00000", "val/00001"]
    assert column(listing, "class") == ["n2", "n1"] * 2
    assert column(listing, "split") == ["train", "train", "val", "val"]
    assert np.asarray(listing.read(3)).shape == (84, 84, 3)
    without_list, shared = listing.notes[1:]
    assert " test " in without_list
    assert "2 classes " in shared
    assert "'n1', 'n2'" in shared


def test_odd_class_names_in_caches_are_kept_exactly(tmp_path: Path) -> None:
    names = {name: [number] for number, name in enumerate(ODD_NAMES)}
    content = cache(image_data=np.ones((len(names), 4, 4, 3), np.uint8), class_dict=names)
    listing = read(write_files(tmp_path, {"mini-imagenet-cache-test.pkl": content}))
    assert column(listing, "class") == list(ODD_NAMES)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (pickle.dumps([1]), "image_data"),
        (cache(image_data=None), "image_data"),
        (cache(image_data=np.ones((2, 84, 84), np.uint8)), "image_data"),
        (cache(image_data=np.ones((2, 84, 84, 3), np.float32)), "image_data"),
        (cache(image_data=np.ones((2, 0, 84, 3), np.uint8)), "no images"),
        (cache(image_data=np.ones((0, 84, 84, 3), np.uint8), class_dict={}), "no images"),
        (cache(class_dict=[[0], [1]]), "image_data"),
        (cache(class_dict={1: [0], 2: [1]}), "image_data"),
        (cache(class_dict={"n1": "01"}), "image_data"),
        (cache(class_dict={"n1": [0, 2]}), "class 'n1' .*image 2\\b"),
        (cache(class_dict={"n1": [0, -1]}), "class 'n1' .*image -1"),
        (cache(class_dict={"n1": [0, True]}), "class 'n1' .*image True"),
        (cache(class_dict={"n1": [0], "n2": [0, 1]}), "image 0 .*'n1' and 'n2'"),
        (cache(class_dict={"n1": [0]}), "image 1 "),
        (cache()[:-50], "pickle file"),
        (pickle.dumps({"image_data": print}), "'builtins.print'"),
    ],
)
def test_invalid_caches_are_rejected(content: bytes, expected: str, tmp_path: Path) -> None:
    write_files(tmp_path, {"mini-imagenet-cache-train.pkl": content})
    with pytest.raises(UserError, match=rf"mini-imagenet-cache-train\.pkl.*{expected}"):
        read(tmp_path)


def test_other_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mini-ImageNet .*train\.csv, val\.csv, test\.csv"):
        read(write_files(tmp_path, ["a/1.png"]))


@given(st.data())
def test_mutated_list_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "csv", ["images/a.jpg", "images/b.jpg"])
    listing = read_or_rejected(write_files(folder, {"train.csv": mutated(data, TRAIN)}), "mini-imagenet")
    assert listing is None or len(listing) <= len(TRAIN)


@given(st.data())
def test_mutated_cache_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = mutated(data, cache(image_data=np.ones((2, 3, 3, 3), np.uint8)))
    folder = write_files(tmp_path_factory.getbasetemp() / "pkl", {"mini-imagenet-cache-train.pkl": raw})
    listing = read_or_rejected(folder, "mini-imagenet")
    assert listing is None or sum(np.asarray(listing.read(at)).size for at in range(len(listing))) <= len(raw)
