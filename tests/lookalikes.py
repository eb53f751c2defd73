"""Small look-alikes of every format that images are read from, under the paths that the documentation uses."""

from __future__ import annotations

import io
import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from core.data.readers.cifar100 import CLASSES
from tests.data.pictures import picture, write_files, write_zip

FC100 = {"train": ("apple", "bottle"), "val": ("bear", "beaver"), "test": ("baby", "bee")}
HUGGINGFACE_FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}


def make_all(root: Path) -> None:
    """``data/...`` below ``root``."""
    data = root / "data"
    colours = {f"{name}/{n}.png": picture(40 * n, mode="RGB") for name in ("cat", "dog") for n in range(1, 4)}
    write_files(data / "mine", colours)
    split = ("train/cat", "train/dog", "val/hen", "val/pig", "test/cow", "test/ewe")
    write_files(data / "split", [f"{folder}/{n}.jpg" for folder in split for n in range(4)])
    _gradients(data / "split")
    write_files(data / "lists", {"train.txt": b"cat\n", "test.txt": b"dog\n"})
    photos = {f"{name}/{n}.jpg": picture(9, (8 + n, 6), "RGB", "JPEG") for name in ("cat", "dog") for n in (1, 2)}
    write_files(data / "photos", photos)
    write_files(data / "broken", {**colours, "cat/4.png": b"no picture"})
    for name, encoding, label in (("table", "utf-8", "cat"), ("latin", "latin-1", "caf\xe9")):
        write_files(data / name, ["images/1.jpg", "images/2.jpg"])
        rows = f"path,label,split,group\nimages/1.jpg,{label},train,camera 1\nimages/2.jpg,dog,test,camera 2\n"
        (data / name / "images.csv").write_bytes(rows.encode(encoding))
    _omniglot(data)
    _mnist(data / "mnist")
    _cifar(data)
    _mini_imagenet(data / "mini")
    _huggingface(data / "saved")
    _hub(data / "hub" / "data")


def _gradients(folder: Path) -> None:
    """Pictures that a small convolutional network can be run on."""
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        pixels = np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def _omniglot(data: Path) -> None:
    for part, alphabet in (("background", "Greek"), ("evaluation", "Tengwar")):
        names = [
            f"images_{part}/{alphabet}/character{c:02d}/{c:04d}_{drawer:02d}.png" for c in (1, 2) for drawer in (1, 2)
        ]
        drawing = Image.new("1", (105, 105), 1)
        drawing.paste(0, (20, 30, 70, 60))
        stream = io.BytesIO()
        drawing.save(stream, "PNG")
        content = {name: stream.getvalue() for name in names}
        (data / "omniglot").mkdir(exist_ok=True)
        write_zip(data / "omniglot" / f"images_{part}.zip", content)
    lists = {
        "train": {"background": {"Greek": ["character01"]}, "evaluation": {}},
        "val": {"background": {"Greek": ["character02"]}, "evaluation": {}},
        "test": {"background": {}, "evaluation": {"Tengwar": ["character01", "character02"]}},
    }
    (data / "omniglot_vinyals").mkdir()
    for name, value in lists.items():
        (data / "omniglot_vinyals" / f"{name}.json").write_text(json.dumps(value))


def _mnist(folder: Path) -> None:
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.arange(count * 784, dtype=np.uint32).astype(np.uint8)
        write_files(
            folder,
            {
                f"{part}-images-idx3-ubyte": struct.pack(">4i", 2051, count, 28, 28) + images.tobytes(),
                f"{part}-labels-idx1-ubyte": struct.pack(">2i", 2049, count) + bytes(n % 10 for n in range(count)),
            },
        )


def _cifar(data: Path) -> None:
    classes = [name for part in FC100.values() for name in part]
    numbers = {name: number for number, name in enumerate(CLASSES)}
    rows = [name for name in classes for _ in range(2)]
    batch = {
        b"filenames": [f"{name}_s_{n:06d}.png".encode() for n, name in enumerate(rows)],
        b"fine_labels": [numbers[name] for name in rows],
        b"coarse_labels": [0] * len(rows),
        b"data": np.random.default_rng(0).integers(0, 256, (len(rows), 3072), dtype=np.uint8),
    }
    meta = {b"fine_label_names": [name.encode() for name in CLASSES], b"coarse_label_names": []}
    write_files(
        data / "cifar" / "cifar-100-python",
        {name: pickle.dumps(value, 2) for name, value in (("train", batch), ("test", batch), ("meta", meta))},
    )
    (data / "cifar_fs").mkdir()
    for part, names in FC100.items():
        (data / "cifar_fs" / f"{part}.json").write_text(json.dumps([["any", name] for name in names]))


def _mini_imagenet(folder: Path) -> None:
    for part, digit in (("train", 1), ("val", 2), ("test", 3)):
        names = [f"n{digit}{one}{n:03d}.jpg" for one in range(2) for n in range(2)]
        write_files(folder / "images", names)
        lines = ["filename,label", *(f"{name},n{name[1:3]}" for name in names)]
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")


def _huggingface(folder: Path) -> None:
    folder.mkdir()
    table = _huggingface_table(0)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "dataset_info.json").write_text(json.dumps({"features": HUGGINGFACE_FEATURES}))
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))


def _hub(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, part in enumerate(("train", "test")):
        metadata = {"huggingface": json.dumps({"info": {"features": HUGGINGFACE_FEATURES}})}
        table = _huggingface_table(4 * number).replace_schema_metadata(metadata)
        pq.write_table(table, folder / f"{part}-00000-of-00001.parquet")


def _huggingface_table(first: int) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": picture(first + n), "path": None} for n in range(4)], kind)
    return pa.table({"image": images, "label": pa.array([0, 1, 0, 1], pa.int64())})
