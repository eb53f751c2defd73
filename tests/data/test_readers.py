"""The formats of published data sets, on small files of the same form."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.data.download import download
from core.data.readers import READERS, ReadOptions, detect, read_listing
from core.data.readers.cifar100 import CLASSES
from core.errors import UserError
from tests.data.pictures import column, picture, write_files, write_zip


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.mark.parametrize("below", ["", "MNIST/raw/"])
def test_mnist_pairs_plain_or_packed(below: str, tmp_path: Path) -> None:
    pixels, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([9, 0], dtype=np.uint8)
    write_files(
        tmp_path,
        {
            f"{below}train-images-idx3-ubyte": idx(pixels),
            f"{below}train-labels-idx1-ubyte.gz": gzip.compress(idx(labels)),
        },
    )
    listing = read_listing(tmp_path)
    assert column(listing, "id") == ["train-00000", "train-00001"]
    assert column(listing, "class") == ["9", "0"]
    assert np.array_equal(listing.read(1), pixels[1])
    assert "not the original MNIST" in listing.notes[1]


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (b"\0\0\x08\x03" + b"\xff" * 12, idx(np.zeros(1, np.uint8)), "claims"),
        (idx(np.zeros((1, 2, 2), np.uint8))[:-1], idx(np.zeros(1, np.uint8)), "should hold 4 bytes"),
        (idx(np.zeros((1, 2, 2), np.uint8)), idx(np.zeros(2, np.uint8)), "1 images, but .* 2 labels"),
        (idx(np.zeros((1, 2, 2), np.uint8)), idx(np.full(1, 200, np.uint8)), "is 200, but there are 10"),
        (b"no", idx(np.zeros(1, np.uint8)), "no idx file"),
    ],
)
def test_damaged_mnist_is_refused(images: bytes, labels: bytes, said: str, tmp_path: Path) -> None:
    write_files(tmp_path, {"t10k-images-idx3-ubyte": images, "t10k-labels-idx1-ubyte": labels})
    with pytest.raises(UserError, match=said):
        read_listing(tmp_path, "mnist")


def test_omniglot_unpacked_as_torchvision_does(tmp_path: Path) -> None:
    names = [f"images_background/Greek/character01/0001_{drawer}.png" for drawer in ("01", "02")]
    listing = read_listing(write_files(tmp_path, [f"omniglot-py/{name}" for name in names]))
    assert column(listing, "id") == names
    assert column(listing, "class") == ["Greek/character01"] * 2
    assert column(listing, "group") == ["01", "02"]
    assert column(listing, "split") == ["train", "train"]


def cifar_python() -> dict[str, bytes]:
    pixels = np.arange(3072 * 2, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    part = {"data": pixels, "fine_labels": [99, 0], "filenames": ["w.png", "a.png"]}
    return {
        "train": pickle.dumps(part, 2),
        "test": pickle.dumps(part, 2),
        "meta": pickle.dumps({"fine_label_names": list(CLASSES)}, 2),
    }


def test_the_python_archive_of_cifar100(tmp_path: Path) -> None:
    write_files(tmp_path / "folder/cifar-100-python", cifar_python())
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/cifar-100-python.tar.gz", "w:gz") as archive:
        for name, content in cifar_python().items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for folder in (tmp_path / "folder", tmp_path / "packed"):
        listing = read_listing(folder, "fc100")
        first = CLASSES[0]
        assert column(listing, "id")[:2] == [f"test/{first}/a.png", f"train/{first}/a.png"]
        shown = listing.read(0)
        assert isinstance(shown, np.ndarray)
        assert shown.shape == (32, 32, 3)
        assert shown[0, 1].tolist() == [1, (1024 + 1) % 256, (2048 + 1) % 256]
        with pytest.raises(UserError, match="more than one way"):
            detect(folder)
        with pytest.raises(UserError, match="needs the lists"):
            read_listing(folder, "cifar-fs")


def test_mini_imagenet_from_csv_and_caches(tmp_path: Path) -> None:
    write_files(
        tmp_path / "csv", {"train.csv": b"filename,label\na.jpg,n1\nb.jpg,n2\n", "images/a.jpg": picture(kind="JPEG")}
    )
    listing = read_listing(tmp_path / "csv")
    assert listing.name == "mini-imagenet"
    assert column(listing, "id") == ["a.jpg", "b.jpg"]
    assert "1 picture of 2 missing: 'b.jpg'." in listing.notes
    cache = {"image_data": np.ones((2, 84, 84, 3), dtype=np.uint8), "class_dict": {"n1": [1], "n2": [0]}}
    write_files(tmp_path / "pkl", {"mini-imagenet-cache-validation.pkl": pickle.dumps(cache)})
    listing = read_listing(tmp_path / "pkl")
    assert column(listing, "class") == ["n2", "n1"]
    assert column(listing, "split") == ["val", "val"]


def test_a_saved_hugging_face_dataset(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    images = [{"bytes": picture(number), "path": None} for number in range(3)]
    table = pa.table({"image": images, "label": pa.array([1, -1, 0])})
    folder = write_files(
        tmp_path / "train",
        {
            "state.json": json.dumps({"_data_files": [{"filename": "data.arrow"}]}).encode(),
            "dataset_info.json": json.dumps({"features": features}).encode(),
        },
    )
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    listing = read_listing(tmp_path)
    assert column(listing, "id") == ["train/00000", "train/00002"]
    assert column(listing, "class") == ["dog", "cat"]
    assert listing.read(1) == picture(2)
    (folder / "data.arrow").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged or no Arrow"):
        read_listing(tmp_path)


def test_formats_are_recognised_or_refused(tmp_path: Path) -> None:
    assert detect(write_zip(tmp_path / "a.zip", ["cats/1.png", "dogs/1.png"])) == "folder"
    assert detect(write_zip(tmp_path / "b.zip", {"m.csv": b"path,label\na.png,x\n", "a.png": b""})) == "manifest"
    with pytest.raises(UserError, match=r"no known format.*Looked for"):
        detect(write_files(tmp_path / "c", ["notes.txt"]))
    with pytest.raises(UserError, match=f"Known: auto, {', '.join(READERS)}"):
        read_listing(tmp_path, "idx", ReadOptions())


def test_mini_imagenet_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ImageNet's terms"):
        download("mini-imagenet", tmp_path)
