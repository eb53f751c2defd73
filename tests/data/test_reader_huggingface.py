"""Datasets saved by Hugging Face's library: every column type, and malicious Arrow files."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers import detect, read_listing
from core.runtime.errors import UserError
from tests.data.pictures import ODD_NAMES, column, little_memory, mutated, picture, read_or_rejected, write_files

IMAGE = {"_type": "Image"}
FEATURES = {"image": IMAGE, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
TEXT = {"_type": "Value", "dtype": "string"}


def images(count: int = 3) -> pa.Array:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.array([{"bytes": picture(number), "path": None} for number in range(count)], kind)


def arrow(table: pa.Table, rows: int = 2, **how: Any) -> bytes:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema, options=pa.ipc.IpcWriteOptions(**how)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return stream.getvalue()


TABLE = pa.table({"image": images(), "label": pa.array([1, -1, 0])})


def saved(folder: Path, table: pa.Table | bytes = TABLE, features: Any = FEATURES, **state: Any) -> Path:
    description = {"_data_files": [{"filename": "data.arrow"}], **state}
    files = {
        "state.json": json.dumps(description).encode(),
        "dataset_info.json": json.dumps({"features": features}).encode(),
        "data.arrow": table if isinstance(table, bytes) else arrow(table),
    }
    return write_files(folder, files)


def read(path: Path) -> Listing:
    return read_listing(path, "huggingface")


def test_dataset_and_dataset_dict(tmp_path: Path) -> None:
    assert column(read(saved(tmp_path / "one")), "id") == ["00000", "00002"]
    saved(tmp_path / "two/train")
    saved(tmp_path / "two/Validation")
    saved(tmp_path / "two/extra")
    write_files(tmp_path / "two", {"dataset_dict.json": b'{"splits": ["train", "Validation", "extra"]}'})
    assert detect(tmp_path / "one") == detect(tmp_path / "two") == "huggingface"
    listing = read(tmp_path / "two")
    assert column(listing, "id")[::2] == ["train/00000", "Validation/00000", "extra/00000"]
    assert column(listing, "class") == ["dog", "cat"] * 3
    assert column(listing, "split") == ["train", "train", "val", "val", "", ""]
    assert listing.read(1) == picture(2)
    columns, without_split, without_label = listing.notes
    assert "'image'" in columns
    assert "'label'" in columns
    assert "'extra'" in without_split
    assert "3 images" in without_label


def test_choice_among_several_columns(tmp_path: Path) -> None:
    table = pa.table({"thumb": images(), "image": images(), "fine_label": [1, 0, 1], "coarse": [0, 0, 0]})
    label = FEATURES["label"]
    features = {"thumb": IMAGE, "image": IMAGE, "fine_label": label, "coarse": label}
    assert column(read(saved(tmp_path / "a", table, features)), "class") == ["dog", "cat", "dog"]
    with pytest.raises(UserError, match=r"'thumb', 'other'.*'image'"):
        read(saved(tmp_path / "b", table, {"thumb": IMAGE, "other": IMAGE, "fine_label": label}))
    with pytest.raises(UserError, match="'a', 'b'"):
        read(saved(tmp_path / "c", table, {"image": IMAGE, "a": label, "b": label}))
    with pytest.raises(UserError, match=r"labels.*'image \(Image\)', 'x \(Value\)'"):
        read(saved(tmp_path / "d", table, {"image": IMAGE, "x": TEXT}))
    with pytest.raises(UserError, match="column of images"):
        read(saved(tmp_path / "e", table, {"image": [IMAGE], "fine_label": label}))


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        pa.struct({"path": pa.large_string(), "bytes": pa.large_binary()}),
        pa.struct({"bytes": pa.binary()}),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.binary()),
    ],
    ids=str,
)
def test_images_in_every_column_type(kind: pa.DataType, tmp_path: Path) -> None:
    plain: list[Any] = [picture(number) for number in range(3)]
    values = [{"bytes": one} for one in plain] if pa.types.is_struct(kind) else plain
    if pa.types.is_dictionary(kind):
        coded: pa.Array = pa.array(values, kind.value_type).dictionary_encode()
    else:
        coded = pa.array(values, kind)
    listing = read(saved(tmp_path, pa.table({"image": coded, "label": [1, -1, 0]})))
    assert [listing.read(position) for position in range(2)] == [plain[0], plain[2]]


@pytest.mark.parametrize("is_struct", [True, False])
def test_paths_instead_of_bytes(is_struct: bool, tmp_path: Path) -> None:
    elsewhere = write_files(tmp_path / "elsewhere", ["z.png"]) / "z.png"
    os.mkfifo(tmp_path / "pipe")
    paths = ["a.png", str(elsewhere), "gone.png", str(tmp_path / "pipe"), "/dev/zero", None, "\0"]
    values = pa.array([{"bytes": None, "path": path} for path in paths] if is_struct else paths)
    folder = saved(tmp_path / "data", pa.table({"image": values, "label": [0] * len(paths)}))
    listing = read(write_files(folder, ["a.png"]))
    assert listing.read(0) == listing.read(1) == picture(0)
    for position, expected in enumerate(["gone.png", "pipe", "/dev/zero", "no image", "x00"], start=2):
        with pytest.raises(UnreadableError, match=expected):
            listing.read(position)


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["b", None, "a"]),
        pa.array(["b", None, "a"], pa.large_string()),
        pa.array(["b", None, "a"]).dictionary_encode(),
        pa.chunked_array([["b"], [None, "a"]]),
    ],
)
def test_labels_as_text(labels: Any, tmp_path: Path) -> None:
    listing = read(saved(tmp_path, pa.table({"image": images(), "label": labels}), {**FEATURES, "label": TEXT}))
    assert column(listing, "class") == ["b", "a"]
    assert listing.read(1) == picture(2)


def test_odd_names_are_kept_exactly(tmp_path: Path) -> None:
    names = list(ODD_NAMES)
    by_number = pa.table({"image": images(len(names)), "label": pa.array(range(len(names)), pa.int16())})
    features = {"image": IMAGE, "label": {"_type": "ClassLabel", "names": names}}
    assert column(read(saved(tmp_path / "a", by_number, features)), "class") == names
    by_text = pa.table({"image": images(len(names)), "label": names})
    assert column(read(saved(tmp_path / "b", by_text, {**FEATURES, "label": TEXT})), "class") == names


@pytest.mark.parametrize(
    ("columns", "features", "expected"),
    [
        ({"label": [1, 2, 0]}, FEATURES, "row 1: label is 2\\b"),
        ({"label": [1, -2, 0]}, FEATURES, "row 1: label is -2"),
        ({"label": ["a", "b", "c"]}, FEATURES, "row 0: label is 'a'"),
        ({"label": ["a", "", "c"]}, {**FEATURES, "label": TEXT}, "row 1: label is ''"),
        ({"label": [1.5, 0.0, 1.0]}, FEATURES, "row 0: label is .1\\.5"),
        ({"label": [["a"]] * 3}, FEATURES, "'label' .*list"),
        ({"label": pa.nulls(3)}, FEATURES, "'label' .*null"),
        ({"label": pa.RunEndEncodedArray.from_arrays([3], [1])}, FEATURES, "'label' .*run_end"),
        ({"image": [1, 2, 3]}, FEATURES, "'image' .*int64"),
        ({"image": [{"image": {"bytes": b"x"}}] * 3}, FEATURES, "'image' .*struct<image"),
        ({"image": [{"bytes": None, "path": None}] * 3}, FEATURES, "'image' .*struct<bytes: null"),
        ({"image": [[b"x"]] * 3}, FEATURES, "'image' .*list"),
        ({}, {"picture": IMAGE, "label": FEATURES["label"]}, "'picture'.*dataset_info"),
        ({}, {**FEATURES, "label": {"_type": "ClassLabel"}}, "dataset_info.*'label'"),
        ({}, {**FEATURES, "label": {"_type": "ClassLabel", "names": [1]}}, "dataset_info.*'label'"),
        ({}, {**FEATURES, "label": {"_type": "ClassLabel", "names": ["cat", ""]}}, "the class of an image"),
        ({}, [], "dataset_info.json"),
    ],
)
def test_invalid_columns_are_named(columns: Any, features: Any, expected: str, tmp_path: Path) -> None:
    table = pa.table({"image": images(), "label": [1, 1, 0], **columns})
    with pytest.raises(UserError, match=expected):
        read(saved(tmp_path, table, features))


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/passwd", "a/../../x.arrow", "", ".", "\0", 7, None])
def test_files_outside_the_dataset_are_not_opened(name: Any, tmp_path: Path) -> None:
    (tmp_path / "x.arrow").write_bytes(arrow(TABLE))
    with pytest.raises(UserError, match=rf"state\.json .*{re.escape(repr(name))}"):
        read(saved(tmp_path / "data", _data_files=[{"filename": name}]))
    description = json.dumps({"splits": [name]}).encode()
    with pytest.raises(UserError, match=r"dataset_dict\.json"):
        read(write_files(tmp_path / "dict", {"dataset_dict.json": description}))


def test_missing_files_pipes_and_indices_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.arrow"):
        read(saved(tmp_path / "a", _data_files=[{"filename": "gone.arrow"}]))
    os.mkfifo(tmp_path / "a/pipe.arrow")
    with pytest.raises(UserError, match=r"pipe\.arrow"):
        read(saved(tmp_path / "a", _data_files=[{"filename": "pipe.arrow"}]))
    with pytest.raises(UserError, match="flatten_indices"):
        read(saved(tmp_path / "b", _indices_data_files=[{"filename": "indices.arrow"}]))
    with pytest.raises(UserError, match=r"state\.json"):
        read(saved(tmp_path / "c", _data_files=[]))
    with pytest.raises(UserError, match=r"train.state\.json"):
        read(write_files(tmp_path / "d", {"dataset_dict.json": b'{"splits": ["train"]}'}))
    os.mkfifo(write_files(tmp_path / "e", {"dataset_info.json": b"{}"}) / "state.json")
    with pytest.raises(UserError, match=r"state\.json"):
        read(tmp_path / "e")
    with pytest.raises(UserError, match=r"state\.json .*folder"):
        read(tmp_path / "a/state.json")


@pytest.mark.parametrize(
    "raw", [b"", b"nothing", arrow(TABLE)[:-200], arrow(TABLE)[:100], b"ARROW1\0\0" + arrow(TABLE)]
)
def test_damaged_arrow_files_are_rejected(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.arrow"):
        read(saved(tmp_path, raw))


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_file_is_not_unpacked(codec: str, tmp_path: Path) -> None:
    table = pa.table({"image": [b"\0" * 100_000_000], "label": [0]})
    raw = arrow(table, compression=codec)
    assert len(raw) < 1_000_000
    with little_memory(), pytest.raises(UserError, match="is compressed"):
        read(saved(tmp_path, raw))


def test_small_files_cannot_take_all_memory(tmp_path: Path) -> None:
    rows = 20_000
    label = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), ["x" * 1_000_000])
    table = pa.table({"image": pa.array([b""] * rows), "label": label, "extra": pa.nulls(rows)})
    raw = arrow(table, rows)
    assert len(raw) < 2_000_000
    with little_memory(), pytest.raises(UserError, match="1,000,000 characters"):
        read(saved(tmp_path, raw, {**FEATURES, "label": TEXT}))


@given(st.data(), st.booleans())
def test_mutated_arrow_file_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, is_text: bool
) -> None:
    label = pa.array(["b", None, "a"]).dictionary_encode() if is_text else TABLE["label"]
    raw = mutated(data, arrow(pa.table({"image": images(), "label": label})))
    features = {**FEATURES, "label": TEXT} if is_text else FEATURES
    listing = read_or_rejected(saved(tmp_path_factory.getbasetemp() / "arrow", raw, features), "huggingface")
    assert listing is None or len(listing) <= len(raw)


@given(st.data(), st.sampled_from(["state.json", "dataset_info.json"]))
def test_mutated_descriptions_are_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str
) -> None:
    folder = saved(tmp_path_factory.getbasetemp() / "described")
    write_files(folder, {name: mutated(data, (folder / name).read_bytes())})
    listing = read_or_rejected(folder, "huggingface")
    assert listing is None or len(listing) <= 3
