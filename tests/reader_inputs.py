"""One small valid input for every reader of files that a user gives, how it is read, and how it is attacked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save

from core.checkpoints.foreign import import_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, ModelSpec, load_model, save_model
from core.data.decode import UnreadableError, decode
from core.data.readers import ReadOptions, read_listing
from core.decisions.import_file import read_decision_file
from core.runtime.errors import UserError
from core.tasks.exchange import write_foreign
from core.tasks.tasklist import TaskList, read_tasks, write_tasks
from tests.data.pictures import picture, write_files, write_zip
from tests.data.test_reader_cifar import official, split_pickle, tarred
from tests.data.test_reader_hub_parquet import SHARD
from tests.data.test_reader_huggingface import saved
from tests.data.test_reader_mini_imagenet import cache as mini_cache
from tests.data.test_reader_mnist import LABEL, ONE
from tests.data.test_reader_omniglot import GREEK, LISTS, with_lists
from tests.problems import tiny_images, tiny_tasks

Read = Callable[[Path], Any]


@dataclass(frozen=True)
class ReaderInput:
    """An input of one reader.

    Attributes:
        make: Writes it to a folder.
        read: Reads that folder to the end, and raises UserError or UnreadableError if anything in it is refused.
        target: The file in the folder that tests replace.
    """

    make: Callable[[Path], object]
    read: Read
    target: str


def images_by(format: str, path: str = "", splits: str = "") -> Read:
    def read(folder: Path) -> None:
        listing = read_listing(folder / path, format, ReadOptions(splits=folder / splits if splits else None))
        for position in range(len(listing)):
            decode(listing.read(position), 8, 8, 3)

    return read


PICTURES = {f"{name}/{number}.png": picture(number) for name in ("cat", "dog") for number in (1, 2)}
ROWS = {"path": [*PICTURES], "label": [name.partition("/")[0] for name in PICTURES]}


def parquet_bytes(table: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    pd.DataFrame(table).to_parquet(stream, index=False, **how)
    return stream.getvalue()


def manifest(name: str, content: bytes) -> ReaderInput:
    def make(folder: Path) -> None:
        write_files(folder, PICTURES | {name: content})

    return ReaderInput(make, images_by("manifest", name), name)


def jsonl(table: dict[str, list[Any]]) -> bytes:
    return "\n".join(
        json.dumps(dict(zip(table, row, strict=True))) for row in zip(*table.values(), strict=True)
    ).encode()


@cache
def small_tasks() -> TaskList:
    return tiny_tasks(tiny_images(), ways=2, shots=1, queries=1, count=2)


def tasks_as(format: str) -> ReaderInput:
    name = f"tasks.{format}"
    return ReaderInput(
        lambda folder: write_tasks(small_tasks(), folder / name), lambda folder: read_tasks(folder / name), name
    )


def exchanged(library: str) -> ReaderInput:
    return ReaderInput(
        lambda folder: write_foreign(small_tasks(), tiny_images(), library, folder / "tasks.json"),
        lambda folder: read_tasks(folder / "tasks.json", tiny_images()),
        "tasks.json",
    )


def decisions() -> dict[str, list[str]]:
    ids = list(dict.fromkeys(small_tasks().rows["image_id"]))[:3]
    return {"image_id": ids, "verdict": ["keep", "remove", "unsure"], "reason": ["", "blurred", "?"]}


def cleanlab() -> dict[str, list[Any]]:
    ids = list(dict.fromkeys(small_tasks().rows["image_id"]))[:3]
    return {"image_id": ids, "is_label_issue": [True, False, True], "label_score": [0.1, 0.9, 0.2]}


def decisions_as(format: str, table: Callable[[], dict[str, list[Any]]] = decisions) -> ReaderInput:
    name = f"decisions.{format}"

    def make(folder: Path) -> None:
        rows = pd.DataFrame(table())
        if format == "parquet":
            rows.to_parquet(folder / name, index=False)
        else:
            text = rows.to_csv(index=False) if format == "csv" else json.dumps(rows.to_dict(orient="records"))
            (folder / name).write_text(text)

    return ReaderInput(make, lambda folder: read_decision_file(folder / name, tiny_images(), small_tasks()), name)


SPEC = ModelSpec(backbone="mlp", algorithm="maml", ways=2, shape=(7, 7, 1), hidden=(4,), steps=1, rate=0.1, delta=0.0)
HINTS = CheckpointHints(shape=(7, 7, 1), steps=1, rate=0.1)


def weights(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: value * scale for name, value in SPEC.init(0, torch.float64).items()}


def read_checkpoint(name: str) -> Read:
    return lambda folder: import_checkpoint(folder / name, HINTS)


def tiff(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    return stream.getvalue()


READERS: dict[str, ReaderInput] = {
    "folder": ReaderInput(lambda folder: write_files(folder, PICTURES), images_by("folder"), "cat/1.png"),
    "zip": ReaderInput(lambda folder: write_zip(folder / "a.zip", PICTURES), images_by("folder", "a.zip"), "a.zip"),
    "manifest.csv": manifest("list.csv", pd.DataFrame(ROWS).to_csv(index=False).encode()),
    "manifest.tsv": manifest("list.tsv", pd.DataFrame(ROWS).to_csv(index=False, sep="\t").encode()),
    "manifest.jsonl": manifest("list.jsonl", jsonl(ROWS)),
    "manifest.parquet": manifest("list.parquet", parquet_bytes(ROWS)),
    "omniglot": ReaderInput(
        lambda folder: with_lists(write_files(folder, GREEK), train=LISTS["train"]), images_by("omniglot"), GREEK[0]
    ),
    "split lists": ReaderInput(
        lambda folder: with_lists(write_files(folder, GREEK) / "lists", train=LISTS["train"]),
        images_by("omniglot", splits="lists"),
        "lists/train.json",
    ),
    "mnist": ReaderInput(
        lambda folder: write_files(folder, {"train-images-idx3-ubyte": ONE, "train-labels-idx1-ubyte": LABEL}),
        images_by("mnist"),
        "train-images-idx3-ubyte",
    ),
    "cifar-fs": ReaderInput(
        lambda folder: write_files(
            folder, {"cifar-100-python.tar.gz": tarred(official()), "cifar_fs/train.txt": b"apple\nworm\n"}
        ),
        images_by("cifar-fs"),
        "cifar-100-python.tar.gz",
    ),
    "fc100": ReaderInput(
        lambda folder: write_files(folder, {"FC100_train.pickle": split_pickle()}),
        images_by("fc100"),
        "FC100_train.pickle",
    ),
    "mini-imagenet": ReaderInput(
        lambda folder: write_files(folder, {"mini-imagenet-cache-train.pkl": mini_cache()}),
        images_by("mini-imagenet"),
        "mini-imagenet-cache-train.pkl",
    ),
    "hub parquet": ReaderInput(
        lambda folder: write_files(folder, {"train-00000-of-00001.parquet": SHARD}),
        images_by("huggingface"),
        "train-00000-of-00001.parquet",
    ),
    "huggingface": ReaderInput(lambda folder: saved(folder), images_by("huggingface"), "data.arrow"),
    **{f"tasks.{format}": tasks_as(format) for format in ("parquet", "csv", "json")},
    **{f"tasks for {library}": exchanged(library) for library in ("learn2learn", "torchmeta", "easyfsl")},
    **{f"decisions.{format}": decisions_as(format) for format in ("parquet", "csv", "json")},
    "cleanlab.parquet": decisions_as("parquet", cleanlab),
    "checkpoint.pt": ReaderInput(
        lambda folder: torch.save(weights(), folder / "m.pt"), read_checkpoint("m.pt"), "m.pt"
    ),
    "checkpoint.safetensors": ReaderInput(
        lambda folder: (folder / "m.safetensors").write_bytes(save(weights())),
        read_checkpoint("m.safetensors"),
        "m.safetensors",
    ),
    "model folder": ReaderInput(
        lambda folder: save_model(Model(SPEC, SPEC.init(0), {}), folder), load_model, "model.safetensors"
    ),
}

Refused = (UserError, UnreadableError)
