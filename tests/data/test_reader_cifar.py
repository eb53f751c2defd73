"""CIFAR-100 under both few-shot splits: official pickles, malicious tars, learn2learn's folders, lists."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.listing import Listing
from core.data.readers import ReadOptions, cifar100, detect, read_listing
from core.data.readers.cifar100 import CLASSES
from core.runtime.errors import UserError
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

TAR = "cifar-100-python.tar.gz"
THREE = {"train": "apple", "val": "bear", "test": "wolf"}
PICTURES = [f"{name}/{name}_s_{number}.png" for name in ("apple", "bear", "wolf") for number in (1, 2)]


def python_parts(files: tuple[str, ...] = ("w.png", "a.png"), **changes: Any) -> dict[str, bytes]:
    pixels = np.arange(3072 * len(files), dtype=np.uint32).astype(np.uint8).reshape(len(files), 3072)
    part = {"data": pixels, "fine_labels": [99, 0, *[5] * 99][: len(files)], "filenames": list(files), **changes}
    meta = {"fine_label_names": list(CLASSES)}
    return {"train": pickle.dumps(part, 2), "test": pickle.dumps(part, 2), "meta": pickle.dumps(meta, 2)}


def tarred(members: dict[str, bytes], mode: Any = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def official() -> dict[str, bytes]:
    return {f"cifar-100-python/{name}": content for name, content in python_parts().items()}


def splits(folder: Path, ending: str = ".json", **lists: Any) -> Path:
    def content(names: Any) -> bytes:
        return json.dumps(names).encode() if ending == ".json" else "\n".join(names).encode()

    return write_files(folder, {f"{split}{ending}": content(names) for split, names in lists.items()})


def by_split(listing: Listing) -> list[tuple[str, str]]:
    return sorted(set(zip(column(listing, "split"), column(listing, "class"), strict=True)))


def test_the_official_pickles_unpacked_and_packed(tmp_path: Path) -> None:
    write_files(tmp_path / "folder/cifar-100-python", python_parts())
    write_files(tmp_path / "packed", {TAR: tarred(official())})
    write_files(tmp_path / "plain", {"cifar-100-python.tar": tarred(official(), "w")})
    for path in (tmp_path / "folder", tmp_path / "folder/cifar-100-python", tmp_path / "packed", tmp_path / "plain"):
        listing = read_listing(path, "fc100")
        assert column(listing, "id")[:2] == ["test/apple/a.png", "train/apple/a.png"]
        shown = listing.read(0)
        assert isinstance(shown, np.ndarray)
        assert shown.shape == (32, 32, 3)
        assert shown[0, 1].tolist() == [1, (1024 + 1) % 256, (2048 + 1) % 256]
        with pytest.raises(UserError, match="--format cifar-fs or --format fc100"):
            detect(path)
        with pytest.raises(UserError, match="--splits"):
            read_listing(path, "cifar-fs")
    assert len(read_listing(tmp_path / "packed" / TAR, "fc100")) == 4


def test_odd_file_names_are_kept_and_repeated_ones_get_unique_ids(tmp_path: Path) -> None:
    listing = read_listing(write_files(tmp_path, python_parts((*ODD_NAMES, "=1+1", "=1+1"))), "fc100")
    names = [one.split("/", 2)[2] for one in column(listing, "id")]
    assert set(ODD_NAMES) <= set(names)
    assert listing.table["id"].is_unique


def test_resaved_pickles_with_byte_keys(tmp_path: Path) -> None:
    def as_bytes(value: Any) -> Any:
        return [one.encode() if isinstance(one, str) else one for one in value] if isinstance(value, list) else value

    parts = {name: pickle.loads(content) for name, content in python_parts().items()}
    again = {
        name: pickle.dumps({key.encode(): as_bytes(value) for key, value in part.items()}, 2)
        for name, part in parts.items()
    }
    assert column(read_listing(write_files(tmp_path, again), "fc100"), "class")[:2] == ["apple", "apple"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": np.zeros((2, 3071), np.uint8)}, "data"),
        ({"data": np.zeros((2, 3072), np.float32)}, "data"),
        ({"data": None}, "data"),
        ({"fine_labels": [0, 100]}, "label 100"),
        ({"fine_labels": [0, -1]}, "labels"),
        ({"fine_labels": [0, True]}, "labels"),
        ({"fine_labels": "01"}, "labels"),
    ],
)
def test_invalid_part_is_named(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"test.*{expected}"):
        read_listing(write_files(tmp_path, python_parts(**changes)), "fc100")


def test_meta_of_another_dataset_is_rejected(tmp_path: Path) -> None:
    for meta in ({"label_names": ["airplane"]}, {"fine_label_names": ["apple"]}, ["apple"]):
        write_files(tmp_path, {**python_parts(), "meta": pickle.dumps(meta)})
        with pytest.raises(UserError, match="meta"):
            read_listing(tmp_path, "fc100")


def test_links_and_absolute_names_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    secret = write_files(tmp_path, {"secret": python_parts()["train"]}) / "secret"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("cifar-100-python/train")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
        pipe = tarfile.TarInfo("cifar-100-python/test")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
        meta = tarfile.TarInfo("/../../cifar-100-python/meta")
        meta.size = len(python_parts()["meta"])
        archive.addfile(meta, io.BytesIO(python_parts()["meta"]))
    (tmp_path / TAR).write_bytes(stream.getvalue())
    with pytest.raises(UserError, match=rf"{TAR} .*cifar-100-python/meta, train or test"):
        read_listing(tmp_path / TAR, "fc100")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [TAR, "secret"]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def test_tar_bombs_are_rejected_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / TAR
    for head in (header("train", 1 << 40), header("train", 1 << 40, tarfile.GNUTYPE_LONGNAME)):
        path.write_bytes(gzip.compress(head + b"\0" * 100_000))
        with little_memory(10), pytest.raises(UserError, match=r"1,099,511,6\d\d,\d\d\d bytes"):
            read_listing(path, "fc100")
    monkeypatch.setattr(cifar100, "_MAX_UNPACKED", 3_000_000)
    path.write_bytes(tarred({f"{number}": b"\0" * 1_000_000 for number in range(5)}))
    with little_memory(10), pytest.raises(UserError, match=r"'3' .*1,000,000 bytes"):
        read_listing(path, "fc100")
    monkeypatch.setattr(cifar100, "_MAX_MEMBERS", 2)
    path.write_bytes(tarred({"a": b"", "b": b"", **official()}))
    with pytest.raises(UserError, match=rf"{TAR} .*cifar-100-python/meta"):
        read_listing(path, "fc100")


def test_unbounded_header_chain_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / TAR
    path.write_bytes(gzip.compress((header("x", 12, tarfile.XHDTYPE) + b"12 path=abc\n".ljust(512, b"\0")) * 3000))
    with pytest.raises(UserError, match=TAR):
        read_listing(path, "fc100")


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x1f\x8b", tarred(official())[:-40], tarred(official())[:200], b"PK" * 300],
    ids=["empty", "first bytes", "cut at its end", "cut early", "zip"],  # else the time in an archive's header is one
)
def test_damaged_tars_are_rejected(raw: bytes, tmp_path: Path) -> None:
    write_files(tmp_path, {TAR: raw})
    with pytest.raises(UserError, match=TAR):
        read_listing(tmp_path, "fc100")


PUBLISHED = [("train", "apple"), ("val", "bear"), ("val", "wolf")]
LEARN2LEARN = {f"cifarfs/cifar100/data/{name}": picture(n, (32, 32), "RGB") for n, name in enumerate(PICTURES)}
LISTS_INSIDE = {f"cifarfs/cifar100/splits/bertinetto/{split}.txt": f"{THREE[split]}\n".encode() for split in THREE}
PROCESSED = {
    f"cifarfs/processed/{split}/{name}": picture(n, (32, 32), "RGB")
    for split, one in THREE.items()
    for n, name in enumerate(PICTURES)
    if name.startswith(one)
}


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ({**LEARN2LEARN, **LISTS_INSIDE}, "Split by the lists in"),
        ({**LEARN2LEARN, **LISTS_INSIDE, **PROCESSED}, "Split by the lists in"),
        (PROCESSED, "Split by folder."),
    ],
    ids=["unpacked", "used", "processed alone"],
)
def test_learn2learn_folders(files: dict[str, bytes], note: str, tmp_path: Path) -> None:
    for path in (write_files(tmp_path / "l2l", files), write_zip(tmp_path / "l2l.zip", files)):
        if LISTS_INSIDE.keys() <= files.keys():
            assert detect(path) == "cifar-fs"
        listing = read_listing(path, "cifar-fs")
        assert len(listing) == 6
        assert by_split(listing) == [("test", "wolf"), ("train", "apple"), ("val", "bear")]
        assert listing.notes[0].startswith(note)
        assert listing.notes[-1] == "3 classes with 2 images each; the full data set has 600."
        assert listing.read(0) == picture(0, (32, 32), "RGB")


def test_given_lists_override_those_in_the_archive(tmp_path: Path) -> None:
    data = write_files(tmp_path / "l2l", {**LEARN2LEARN, **LISTS_INSIDE})
    lists = splits(tmp_path / "mine", train=["wolf"], test=["apple"])
    listing = read_listing(data, "cifar-fs", ReadOptions(splits=lists))
    assert by_split(listing) == [("test", "apple"), ("train", "wolf")]
    assert "'bear'" in listing.notes[1]


@pytest.mark.parametrize(
    ("ending", "names"), [(".json", ["apple"]), (".json", [["fruit_and_vegetables", "apple"]]), (".txt", ["apple", ""])]
)
def test_every_list_format(ending: str, names: Any, tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", PICTURES)
    splits(tmp_path / "data/cifar_fs", ending, train=names)
    assert by_split(read_listing(data, "cifar-fs")) == [("train", "apple")]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": ["dragon"]}, 'the list of train .*"dragon"'),
        ({"train": ["apple"], "val": ["apple"]}, "'apple' .*train .*val"),
        ({"val": {"apple": 1}}, "the list of val .*class names"),
        ({"val": ["apple", 7]}, "the list of val .*class names"),
        ({"val": [["a", "b", "c"]]}, "the list of val .*class names"),
        ({"val": []}, "cifar-fs: no class"),
        ({"val": ["sea"]}, "cifar-fs: no class"),
    ],
)
def test_invalid_lists_are_named(lists: dict[str, Any], expected: str, tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", PICTURES)
    folder = splits(tmp_path / "mine", **lists)
    with pytest.raises(UserError, match=expected):
        read_listing(data, "cifar-fs", ReadOptions(splits=folder))


def test_list_in_an_archive_that_is_not_text(tmp_path: Path) -> None:
    broken = {**LEARN2LEARN, "cifarfs/cifar100/splits/bertinetto/train.txt": b"\xff\xfe"}
    with pytest.raises(UserError, match=r"train\.txt in .*x\.zip"):
        read_listing(write_zip(tmp_path / "x.zip", broken), "cifar-fs")


def test_fc100_by_superclass_and_by_other_lists(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", PICTURES)
    assert by_split(read_listing(data, "fc100")) == PUBLISHED
    lists = splits(tmp_path / "mine", train=["large_carnivores"], test=["apple"])
    listing = read_listing(data, "fc100", ReadOptions(splits=lists))
    assert by_split(listing) == [("test", "apple"), ("train", "bear"), ("train", "wolf")]
    splits(lists, test=["large_carnivores", "wolf", "fruit"])
    with pytest.raises(UserError, match=r"the list of test .*'fruit'"):
        read_listing(data, "fc100", ReadOptions(splits=lists))


def test_two_archives_in_one_folder(tmp_path: Path) -> None:
    write_zip(tmp_path / "train.zip", [name for name in PICTURES if name.endswith("1.png")])
    write_zip(tmp_path / "test.zip", [name for name in PICTURES if name.endswith("2.png")])
    assert len(read_listing(tmp_path, "fc100")) == 6
    write_zip(tmp_path / "test (1).zip", [PICTURES[1]])
    with pytest.raises(UserError, match=r"'apple/apple_s_2\.png'"):
        read_listing(tmp_path, "fc100")


def split_pickle(count: int = 3, **changes: Any) -> bytes:
    pixels = np.arange(count * 3072, dtype=np.uint32).astype(np.uint8).reshape(count, 32, 32, 3)
    return pickle.dumps({"data": pixels, "labels": [7, 41, 7][:count], **changes}, 2)


@pytest.mark.parametrize(("prefix", "format"), [("CIFAR_FS", "cifar-fs"), ("FC100", "fc100")])
def test_metaoptnet_pickles(prefix: str, format: str, tmp_path: Path) -> None:
    files = {f"{prefix}_train.pickle": split_pickle(), f"{prefix}_test.pickle": split_pickle(1)}
    assert detect(write_files(tmp_path, files)) == format
    listing = read_listing(tmp_path)
    assert column(listing, "id") == ["train/00000", "train/00001", "train/00002", "test/00000"]
    assert column(listing, "class") == ["train 07", "train 41", "train 07", "test 07"]
    assert np.asarray(listing.read(1))[0, 0].tolist() == [0, 1, 2]
    assert any(f"{prefix}_val.pickle" in note for note in listing.notes)
    keyed = {key.encode(): value for key, value in pickle.loads(split_pickle()).items()}
    write_files(tmp_path, {f"{prefix}_train.pickle": pickle.dumps(keyed)})
    assert len(read_listing(tmp_path)) == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (split_pickle(labels=[1, 2]), "'data'"),
        (split_pickle(data=np.zeros((3, 3072), np.uint8)), "'data'"),
        (split_pickle(labels=None), "labels"),
        (pickle.dumps([1, 2]), "FC100"),
        (pickle.dumps({"data": print}), "'builtins.print'"),
        (split_pickle()[:-100], "pickle"),
        (b"", "empty"),
    ],
)
def test_invalid_split_pickles_are_rejected(content: bytes, expected: str, tmp_path: Path) -> None:
    write_files(tmp_path, {"FC100_train.pickle": content})
    with pytest.raises(UserError, match=rf"FC100_train\.pickle.*{expected}"):
        read_listing(tmp_path)


@given(st.data(), st.sampled_from(["w", "w:gz"]))
def test_mutated_tar_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, mode: str
) -> None:
    small = {name: content for name, content in official().items() if "train" not in name}
    path = tmp_path_factory.getbasetemp() / "any.tar"
    path.write_bytes(mutated(data, tarred(small, mode)))
    listing = read_or_rejected(path, "fc100")
    assert listing is None or len(listing) <= 2


@given(st.data(), st.sampled_from(["train", "test", "meta"]))
def test_mutated_part_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, part: str
) -> None:
    parts = python_parts()
    folder = write_files(tmp_path_factory.getbasetemp() / "parts", {**parts, part: mutated(data, parts[part])})
    listing = read_or_rejected(folder, "fc100")
    assert listing is None or len(listing) <= 4


@given(st.data())
def test_mutated_split_pickle_or_list_is_read_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.getbasetemp()
    folder = write_files(base / "split", {"FC100_train.pickle": mutated(data, split_pickle())})
    listing = read_or_rejected(folder, "fc100")
    assert listing is None or len(listing) <= 3
    raw = mutated(data, json.dumps([["large_carnivores", "bear"], "apple"]).encode())
    lists = write_files(base / "lists", {"train.json": raw})
    read_or_rejected(write_files(base / "pictures", PICTURES), "cifar-fs", ReadOptions(splits=lists))
