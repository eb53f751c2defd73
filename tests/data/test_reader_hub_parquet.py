"""Parquet files of the Hugging Face Hub: their layouts, columns and classes, lazy reading, and malicious files."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.archive import open_tree
from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers import detect, hub_parquet, read_listing
from core.data.readers.hub_parquet import is_hub_parquet
from core.data.store import open_stored, store_images
from core.runtime import reading
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from tests.data.pictures import (
    ODD_NAMES,
    column,
    little_memory,
    mutated,
    picture,
    read_or_rejected,
    write_files,
    write_zip,
)

CELL = pa.struct({"bytes": pa.binary(), "path": pa.string()})
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 1234\n"
PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"


def images(count: int = 3, first: int = 0) -> pa.Array:
    return pa.array([{"bytes": picture(first + n), "path": f"{n}.png"} for n in range(count)], CELL)


def parquet(columns: dict[str, Any] | None = None, features: Any = None, **how: Any) -> bytes:
    table = pa.table({"image": images(), "label": [1, -1, 0]} if columns is None else columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    stream = io.BytesIO()
    pq.write_table(table, stream, **how)
    return stream.getvalue()


SHARD = parquet(features=FEATURES)


def read(path: Path) -> Listing:
    assert detect(path) == "huggingface"
    return read_listing(path)


@pytest.mark.parametrize(
    ("names", "ids", "splits"),
    [
        (["data/train-00000-of-00001.parquet"], ["train/00000"], ["train"]),
        (["train-00000-of-00001-0123456789abcdef.parquet"], ["train/00000"], ["train"]),
        (
            ["data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet", "data/train.parquet"],
            ["train/00000", "validation/00000", "test/00000"],
            ["train", "val", "test"],
        ),
        (
            ["plain_text/train-00001-of-00002.parquet", "plain_text/train-00000-of-00002.parquet"],
            ["train/00000", "train/00003"],
            ["train", "train"],
        ),
        (
            ["default/test/0000.parquet", "default/train/0000.parquet", "default/train/0001.parquet"],
            ["train/00000", "train/00003", "test/00000"],
            ["train", "train", "test"],
        ),
        (["train/0000.parquet", "extra/0000.parquet"], ["train/00000", "extra/00000"], ["train", ""]),
        (["train/part-00000-c7.snappy.parquet", "dev/a.parquet"], ["train/00000", "dev/00000"], ["train", "val"]),
        (["cifar10-train.parquet", "cifar10-test.parquet"], ["train/00000", "test/00000"], ["train", "test"]),
        (
            ["train/train-00000-of-00001.parquet", "test/test-1.parquet"],
            ["train/00000", "test/00000"],
            ["train", "test"],
        ),
        (["0000.parquet", "0001.parquet"], ["00000", "00003"], ["", ""]),
        (["mine.parquet"], ["mine/00000"], [""]),
        (["default/partial-train/0000.PARQUET"], ["train/00000"], ["train"]),
    ],
)
def test_layouts(names: list[str], ids: list[str], splits: list[str], tmp_path: Path) -> None:
    """Ids and splits of the first image in every file."""
    files = {name: parquet({"image": images(3, 10 * n), "label": [1, 0, 0]}) for n, name in enumerate(sorted(names))}
    listing = read(write_files(tmp_path / "some", {"README.md": b"---\n---\n", ".gitattributes": b"", **files}))
    assert listing.name == "some"
    assert column(listing, "id")[::3] == ids
    assert column(listing, "split")[::3] == splits
    assert column(listing, "class") == ["1", "0", "0"] * len(names)
    content = {listing.read(position) for position in range(len(listing))}
    assert content == {picture(10 * n + row) for n in range(len(names)) for row in range(3)}


def test_one_file(tmp_path: Path) -> None:
    write_files(tmp_path, {f"default/test/{n:04d}.parquet": SHARD for n in range(2)})
    listing = read(tmp_path / "default/test/0001.parquet")
    assert column(listing, "id") == ["test/00000", "test/00002"]
    assert column(listing, "class") == ["dog", "cat"]
    assert [listing.read(position) for position in range(2)] == [picture(0), picture(2)]


def test_links_of_the_download_cache(tmp_path: Path) -> None:
    write_files(tmp_path, {"blobs/0123abcd": SHARD})
    folder = tmp_path / "snapshots/4567/data"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").symlink_to("../../../blobs/0123abcd")
    assert (
        column(read(tmp_path), "id")
        == column(read(tmp_path / "snapshots/4567"), "id")
        == ["train/00000", "train/00002"]
    )
    (tmp_path / "blobs/0123abcd").unlink()
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet does not exist"):
        read(tmp_path)


def test_notes_name_what_was_chosen_and_what_is_missing(tmp_path: Path) -> None:
    write_files(tmp_path, {"data/train-00001-of-00003.parquet": SHARD, "data/extra-00000-of-00001.parquet": SHARD})
    write_files(tmp_path, ["samples/a.png", "samples/b.png"])
    columns, without_split, without_label, missing, images_beside = read(tmp_path).notes
    assert "'image'" in columns
    assert "'label'" in columns
    assert "'extra'" in without_split
    assert "2 images" in without_label
    assert "1 of the 3 files of 'train'" in missing
    assert "2 image files" in images_beside


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/train-00000-of-00001.parquet", "b/train-00000-of-00001.parquet"], "'a', 'b'"),
        (["a/train/0000.parquet", "b/test/0000.parquet"], "'a', 'b'"),
        (["cifar10-train.parquet", "cifar100-train.parquet"], "'cifar10', 'cifar100'"),
        (["train.parquet", "more/test.parquet"], r"'\.', 'more'"),
        (["data/train-00000-of-00001.parquet", "data/train-00000-of-00002.parquet"], "versions.*'train-00000-of-00001"),
        (["train-00000-of-00001-aaaa.parquet", "train-00000-of-00001-bbbb.parquet"], "versions.*aaaa.*bbbb"),
    ],
)
def test_ambiguous_files_are_rejected(names: list[str], expected: str, tmp_path: Path) -> None:
    write_files(tmp_path, dict.fromkeys(names, SHARD))
    with pytest.raises(UserError, match=expected):
        read(tmp_path)


def test_files_of_different_data_sets_are_rejected(tmp_path: Path) -> None:
    other = {"image": FEATURES["image"], "label": {"_type": "ClassLabel", "names": ["dog", "cat"]}}
    write_files(tmp_path, {"train.parquet": SHARD, "test.parquet": parquet(features=other)})
    with pytest.raises(UserError, match=r"train\.parquet and .*test\.parquet differ"):
        read(tmp_path)
    write_files(tmp_path, {"test.parquet": parquet({"x": [1]})})
    with pytest.raises(UserError, match=r"test\.parquet has no column of images.*'x \(int64\)'"):
        read_listing(tmp_path, "huggingface")


def test_data_set_without_images_is_rejected_by_its_columns(tmp_path: Path) -> None:
    content = parquet({"sentence": ["a"], "label": [0]})
    with pytest.raises(UserError, match=r"no column of images.*'sentence \(string\)', 'label \(int64\)'"):
        read(write_files(tmp_path, {"data/train-00000-of-00001.parquet": content}))


def test_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.zip .*Unpack"):
        read(write_zip(tmp_path / "mine.zip", {"data/train-00000-of-00001.parquet": SHARD}))


def test_tables_of_paths_are_manifests(tmp_path: Path) -> None:
    paths = {"path": ["a.png"], "label": ["x"], "checksum": [b"\0"]}
    write_files(tmp_path, {"a.png": picture(), "train.parquet": parquet(paths)})
    assert detect(tmp_path / "train.parquet") == "manifest"
    assert not is_hub_parquet(open_tree(tmp_path))
    shard = write_files(tmp_path / "shard", {"train-00000-of-00001.parquet": parquet(paths)})
    assert not is_hub_parquet(open_tree(shard))
    for columns in ({"image": ["a.png"], "label": [0]}, {"id": ["a"], "class": ["b"]}, {"audio": images(1)}):
        path = write_files(tmp_path / "other", {"train.parquet": parquet(columns)}) / "train.parquet"
        assert not is_hub_parquet(path)


@pytest.mark.parametrize(
    ("columns", "image", "label"),
    [
        ({"img": images(), "fine_label": [1, 0, 1], "coarse_label": [0, 0, 0]}, "img", "fine_label"),
        ({"thumb": images(), "image": images(), "label": [0, 1, 0], "class": [1, 1, 1]}, "image", "label"),
        ({"audio": images(), "photo": images(), "Label": ["a", "b", "c"], "id": [1, 2, 3]}, "photo", "Label"),
        ({"png": [picture(n) for n in range(3)], "target": [True, False, True]}, "png", "target"),
        ({"path": ["a", "b", "c"], "image": images(), "label": [0, 1, 2]}, "image", "label"),
    ],
)
def test_columns_are_chosen_by_type_and_name(columns: dict[str, Any], image: str, label: str, tmp_path: Path) -> None:
    listing = read(write_files(tmp_path, {"train.parquet": parquet(columns)}))
    assert repr(image) in listing.notes[0]
    assert repr(label) in listing.notes[0]
    others = set(columns) - {image, label}
    assert all(repr(name) in listing.notes[-1] for name in others)
    assert column(listing, "class") == [str(value) for value in columns[label]]
    assert listing.read(2) == picture(2)


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ({"a": images(), "b": images(), "label": [0, 1, 0]}, None, "several columns of images: 'a', 'b'"),
        ({"image": images(), "a": [0] * 3, "b": [0] * 3}, None, r"no column of labels.*'a \(int64\)', 'b \(int64\)'"),
        ({"image": images(), "Class": [0] * 3, "Target": [0] * 3}, None, "of labels: 'Class', 'Target'"),
        ({"image": images(), "label": [0.5, 1.0, 0.0]}, None, r"row 0: label is .0\.5., which is not a class"),
        ({"image": images(), "label": [["a"]] * 3}, None, r"no column of labels.*'label \(list"),
        ({"image": images(), "label": pa.nulls(3)}, None, r"no column of labels.*'label \(null\)'"),
        ({"image": images(), "label": [0.5, 1.0, 0.0]}, FEATURES, r"row 0: label is .0\.5., but there are 2 classes"),
        ({"image": images(), "label": [0, 2, 1]}, FEATURES, r"train\.parquet, row 1: label is 2\b"),
        ({"image": images(), "label": ["a", "cat", "b"]}, FEATURES, r"train\.parquet, row 0: label is 'a'"),
        ({"image": images(), "label": ["a", "", "b"]}, None, r"train\.parquet, row 1: label is ''"),
        ({"image": images(), "label": [-1, None, -1]}, None, "all 3 rows have no label.*'label'"),
        ({"image": [[b"x"]] * 3, "label": [0] * 3}, FEATURES, r"'image' has type list"),
        (
            {"image": images(), "label": [0, 1, 1]},
            {**FEATURES, "label": {"_type": "ClassLabel"}},
            "'label' has no class",
        ),
        ({"image": images(0), "label": pa.array([], pa.int8())}, None, "no images"),
    ],
)
def test_invalid_columns_are_named(columns: dict[str, Any], features: Any, expected: str, tmp_path: Path) -> None:
    path = write_files(tmp_path, {"train.parquet": parquet(columns, features)}) / "train.parquet"
    with pytest.raises(UserError, match=expected):
        read_listing(path, "huggingface")


def test_column_that_occurs_twice_is_rejected(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([images(), pa.array([0, 1, 0]), pa.array([1, 1, 1])], ["image", "label", "label"])
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet has 2 columns 'label'"):
        read(tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        CELL,
        pa.struct({"path": pa.large_string(), "bytes": pa.large_binary(), "size": pa.int64()}),
        pa.struct({"bytes": pa.binary()}),
        pa.struct({"bytes": pa.binary_view(), "path": pa.string_view()}),
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.binary()),
    ],
    ids=str,
)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_images_in_every_column_type(kind: pa.DataType, compression: str, tmp_path: Path) -> None:
    plain: list[Any] = [picture(number) for number in range(3)]
    values: pa.Array = pa.array([{"bytes": one} for one in plain] if pa.types.is_struct(kind) else plain, kind)
    content = parquet({"image": values, "label": [1, -1, 0]}, compression=compression)
    listing = read(write_files(tmp_path, {"train.parquet": content}))
    assert [listing.read(position) for position in range(2)] == [plain[0], plain[2]]


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["b", None, "a"]),
        pa.array(["b", None, "a"], pa.large_string()),
        pa.array(["b", None, "a"], pa.string_view()),
        pa.array(["b", None, "a"]).dictionary_encode(),
        pa.array([7, None, 8], pa.uint8()),
        pa.array([7, -1, 8], pa.int16()).dictionary_encode(),
    ],
    ids=lambda labels: str(labels.type),
)
def test_values_are_classes_without_names(labels: pa.Array, tmp_path: Path) -> None:
    listing = read(write_files(tmp_path, {"train.parquet": parquet({"image": images(), "label": labels})}))
    assert column(listing, "class") == [str(labels[0].as_py()), str(labels[2].as_py())]
    assert listing.read(1) == picture(2)


def test_names_of_classes_are_kept_exactly(tmp_path: Path) -> None:
    columns = {"image": images(len(ODD_NAMES)), "label": pa.array(range(len(ODD_NAMES)), pa.int16())}
    features = {"image": FEATURES["image"], "label": {"_type": "ClassLabel", "names": list(ODD_NAMES)}}
    listing = read(write_files(tmp_path, {"train.parquet": parquet(columns, features)}))
    assert column(listing, "class") == list(ODD_NAMES)


def test_image_stored_as_a_plain_struct(tmp_path: Path) -> None:
    """Data frames that are uploaded without a cast have no column of type Image."""
    parts = {"bytes": {"_type": "Value", "dtype": "binary"}, "path": {"_type": "Value", "dtype": "string"}}
    features = {"image": parts, "label": {"_type": "Value", "dtype": "int64"}}
    listing = read(write_files(tmp_path, {"train.parquet": parquet(features=features)}))
    assert column(listing, "class") == ["1", "0"]


def test_description_with_names_that_are_not_read_is_mentioned(tmp_path: Path) -> None:
    front = b"---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    write_files(tmp_path, {"README.md": front, "data/train.parquet": parquet()})
    for path in (tmp_path, tmp_path / "data"):
        assert "README.md" in read(path).notes[-1]
    write_files(tmp_path, {"data/train.parquet": SHARD})
    assert not any("README.md" in note for note in read(tmp_path).notes)


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000])
def test_damaged_description_is_not_ignored(text: bytes, tmp_path: Path) -> None:
    table = pa.table({"image": images(), "label": [0, 1, 0]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet.*huggingface"):
        read(tmp_path)


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"info": 1}', b'{"info": {"features": [1]}}', b'{"info": {}}'])
def test_description_without_features_leaves_the_types_of_the_file(text: bytes, tmp_path: Path) -> None:
    table = pa.table({"image": images(), "label": [0, 1, 0]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, tmp_path / "train.parquet")
    assert column(read(tmp_path), "class") == ["0", "1", "0"]


def test_images_given_by_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = ["a.png", "gone.png", "pipe", None, "\0", "/dev/zero"]
    cells = pa.array([{"bytes": None, "path": path} for path in paths], CELL)
    content = parquet({"image": cells, "label": [0] * len(paths)})
    listing = read(write_files(tmp_path / "some", {"train.parquet": content, "a.png": picture(5)}))
    assert listing.read(0) == picture(5)
    for position, expected in enumerate(["gone.png", "pipe", "no image", "x00", "/dev/zero"], start=1):
        with pytest.raises(UnreadableError, match=rf"train\.parquet, row {position}, column 'image': .*{expected}"):
            listing.read(position)


@pytest.mark.parametrize("content", [POINTER, PAGE, b"Entry not found"], ids=["lfs", "page", "text"])
@pytest.mark.parametrize("name", ["data/train-00000-of-00002.parquet", "mine.parquet"])
def test_files_that_were_not_downloaded_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    write_files(tmp_path, {name: content})
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=rf"{Path(name).name} is .*(pointer.*git lfs pull|page|message)"):
            read(path)


def test_one_file_of_several_was_not_downloaded(tmp_path: Path) -> None:
    write_files(tmp_path, {"data/train-00000-of-00002.parquet": SHARD, "data/train-00001-of-00002.parquet": POINTER})
    with pytest.raises(UserError, match=r"train-00001-of-00002\.parquet is .*git lfs pull"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", SHARD[:-20], SHARD[8:], SHARD[:50] + SHARD[-50:]])
def test_damaged_files_are_named(content: bytes, tmp_path: Path) -> None:
    write_files(tmp_path, {"data/train-00000-of-00001.parquet": content})
    with pytest.raises(UserError, match=r"train-00000-of-00001\.parquet is damaged"):
        read(tmp_path)


def test_stamp_changes_with_the_files(tmp_path: Path) -> None:
    write_files(tmp_path, {"train.parquet": SHARD, "test.parquet": SHARD, "notes.txt": b"1"})
    before = read(tmp_path).stamp
    write_files(tmp_path, {"notes.txt": b"22"})
    assert read(tmp_path).stamp == before
    assert read(tmp_path.rename(tmp_path.with_name("moved"))).stamp == before
    write_files(tmp_path, {"train.parquet": SHARD, "test.parquet": parquet(features=FEATURES, compression="none")})
    assert json.dumps(read(tmp_path).stamp) != json.dumps(before)


def many(count: int, seed: int = 0) -> tuple[list[bytes], pa.Table]:
    """Return incompressible pseudo-images, and a table of them."""
    draw = random.Random(seed)
    content = [draw.randbytes(draw.randint(500, 1500)) for _ in range(count)]
    cells = pa.array([{"bytes": one, "path": None} for one in content], CELL)
    return content, pa.table({"image": cells, "label": pa.array(np.arange(count) % 5)})


@pytest.fixture
def several(tmp_path: Path) -> tuple[list[bytes], Path]:
    """Images in three files with row groups and pages of several sizes."""
    content: list[bytes] = []
    for number, rows in enumerate((400, 100, 17)):
        some, table = many(400, number)
        file = tmp_path / f"train-{number:05d}-of-00003.parquet"
        pq.write_table(table, file, row_group_size=rows, data_page_size=10_000, write_batch_size=8)
        content += some
    return content, tmp_path


@pytest.mark.parametrize("cached", [0, 20_000, 10_000_000])
def test_images_in_any_order(several: tuple[list[bytes], Path], cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_parquet, "CACHED_BYTES", cached)
    content, folder = several
    listing = read(folder)
    assert len(listing) == len(content)
    order = [0, 1199, 400, 399, 5, 5, 799, 801, 800, *random.Random(1).sample(range(1200), 50)]
    assert [listing.read(position) for position in order] == [content[position] for position in order]


@pytest.mark.parametrize("cached", [20_000, 10_000_000])
def test_images_read_by_several_threads(
    several: tuple[list[bytes], Path], cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_parquet, "CACHED_BYTES", cached)
    content, folder = several
    listing = read(folder)
    with ThreadPoolExecutor(4) as pool:
        jobs = pool.map(lambda start: [listing.read(n) for n in range(start, start + 32)], range(0, 1184, 32))
        assert [image for job in jobs for image in job] == content[:1184]


def test_only_a_few_files_stay_open(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {f"train-{n:05d}-of-00020.parquet": parquet({"image": images(), "label": [0, 1, 0]}) for n in range(20)},
    )
    listing = read(tmp_path)
    before = psutil.Process().num_fds()
    assert [listing.read(position) for position in range(60)] == [picture(n) for n in range(3)] * 20
    assert psutil.Process().num_fds() - before <= 4


@pytest.mark.parametrize("rows", [50, 4000], ids=["small row groups", "one row group"])
def test_images_are_not_read_together(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    content = [draw.randbytes(20_000) for _ in range(4000)]  # 80 MB
    cells = pa.array([{"bytes": one, "path": None} for one in content], CELL)
    pq.write_table(pa.table({"image": cells, "label": [0, 1] * 2000}), tmp_path / "train.parquet", row_group_size=rows)
    del cells
    monkeypatch.setattr(hub_parquet, "CACHED_BYTES", 4_000_000)
    # One page of the file has 1,024 images.
    with little_memory(20 if rows == 50 else 60):
        listing = read(tmp_path)
        assert all(listing.read(position) == content[position] for position in range(0, 4000, 7))


def test_equal_images_stored_once_cannot_take_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_parquet, "CACHED_BYTES", 5_000_000)
    rows = 4000
    for name, kind in (("flat", pa.binary()), ("struct", CELL)):
        coded = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [b"x" * 900_000])
        image = coded if kind == pa.binary() else pa.StructArray.from_arrays([coded], ["bytes"])
        table = pa.table({"image": image, "label": np.arange(rows) % 2})
        (tmp_path / name).mkdir()
        file = tmp_path / name / "train.parquet"
        pq.write_table(table, file, store_schema=False)
        assert file.stat().st_size < 2_000_000
        with little_memory():
            listing = read(file)
            assert listing.read(rows // 2) == b"x" * 900_000


def test_long_labels_stored_once_cannot_take_all_memory(tmp_path: Path) -> None:
    rows = 20_000
    label = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * 900_000])
    pq.write_table(
        pa.table({"image": pa.array([b"x"] * rows), "label": label}), tmp_path / "train.parquet", store_schema=False
    )
    with little_memory(), pytest.raises(UserError, match="900,000 characters"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["image", "label"])
def test_file_that_would_unpack_to_far_more_is_rejected(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ALWAYS_UNPACKED", 20_000_000)
    large = pa.array([b"\0" * 30_000_000], pa.large_binary())
    columns = {"image": images(1), "label": ["a"]} | {name: large if name == "image" else large.cast(pa.large_string())}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "train.parquet").stat().st_size < 150_000
    with little_memory(), pytest.raises(UserError, match=r"train\.parquet has .* would unpack"):
        read(tmp_path)


def test_damaged_page_leaves_the_images_before_it(tmp_path: Path) -> None:
    content, table = many(200)
    file = tmp_path / "train.parquet"
    pq.write_table(
        table,
        file,
        row_group_size=100,
        data_page_size=10_000,
        write_batch_size=8,
        write_page_checksum=True,
        use_dictionary=False,
    )
    raw = bytearray(file.read_bytes())
    raw[raw.index(content[50])] ^= 255
    file.write_bytes(raw)
    listing = read(tmp_path)
    assert [listing.read(position) for position in (0, 20, 100, 199)] == [content[n] for n in (0, 20, 100, 199)]
    for position in (50, 99, 51):
        with pytest.raises(UnreadableError, match=rf"train\.parquet, row {position}, column 'image': damaged"):
            listing.read(position)
    assert listing.read(3) == content[3]


def test_file_that_disappears_makes_images_unreadable(tmp_path: Path) -> None:
    file = write_files(tmp_path, {"train.parquet": SHARD}) / "train.parquet"
    listing = read(tmp_path)
    file.unlink()
    with pytest.raises(UnreadableError, match=r"train\.parquet, row 2"):
        listing.read(1)


def test_image_set_equals_that_of_the_folder_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    names = [f"{'ab'[n % 2]}/{n:02d}.png" for n in range(20)]
    cells = pa.array([{"bytes": picture(n), "path": None} for n in range(20)], CELL)
    table = {"image": cells, "label": ["ab"[n % 2] for n in range(20)]}
    by_file = write_files(tmp_path / "parquet", {"train.parquet": parquet(table, row_group_size=7)})
    by_folder = write_files(tmp_path / "folder/train", {name: picture(n) for n, name in enumerate(names)}).parent
    sets = [open_stored(store_images(read_listing(path))) for path in (by_file, by_folder)]
    pixels: Callable[[Any], list[tuple[str, str, int]]] = lambda one: sorted(  # noqa: E731
        (one.class_names[label], split, int(image.sum()))
        for image, label, split in zip(one.images, one.labels, one.splits, strict=True)
    )
    assert pixels(sets[0]) == pixels(sets[1])


@given(st.data(), st.booleans(), st.sampled_from(["none", "snappy", "zstd"]))
def test_mutated_file_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, is_text: bool, compression: str
) -> None:
    columns = {"image": images(), "label": ["b", None, "a"]} if is_text else None
    raw = mutated(data, parquet(columns, None if is_text else FEATURES, compression=compression, row_group_size=2))
    file = write_files(tmp_path_factory.getbasetemp() / "hub", {"train.parquet": raw}) / "train.parquet"
    listing = read_or_rejected(file, "huggingface")
    assert listing is None or len(listing) <= len(raw)


@given(st.data())
def test_mutated_description_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = mutated(data, json.dumps({"info": {"features": FEATURES}}).encode())
    file = tmp_path_factory.getbasetemp() / "described.parquet"
    table = pa.table({"image": images(), "label": [1, -1, 0]}).replace_schema_metadata({"huggingface": text})
    pq.write_table(table, file)
    listing = read_or_rejected(file, "huggingface")
    assert listing is None or len(listing) == 2


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "train-00000-of-00001.parquet"
    file.write_bytes(raw)
    assert read_or_rejected(file, "auto") is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0.0, 1.0, 1.0, None], ["0", "1", "1"]),
        ([-1, 1, 1, -1], ["-1", "1", "1", "-1"]),
        ([-1, 0, 1, 0], ["0", "1", "0"]),
        ([True, False, True, None], ["True", "False", "True"]),
    ],
)
def test_numbers_as_labels(labels: list[object], classes: list[str], tmp_path: Path) -> None:
    images = [{"bytes": picture(n), "path": None} for n in range(4)]
    pq.write_table(pa.table({"image": images, "category": labels}), tmp_path / "train-00000-of-00001.parquet")
    assert column(read_listing(tmp_path), "class") == classes
