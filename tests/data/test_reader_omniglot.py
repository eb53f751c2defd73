"""Omniglot in every layout that other libraries use, and lists of splits that may be invalid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data.decode import UnreadableError
from core.data.listing import Listing
from core.data.readers import ReadOptions, detect, read_listing
from core.runtime.errors import UserError
from tests.data.pictures import ODD_NAMES, column, mutated, picture, read_or_rejected, write_files, write_zip

GREEK = [f"images_background/Greek/character0{one}/000{one}_{drawer}.png" for one in (1, 2) for drawer in ("01", "02")]
LATIN = ["images_evaluation/Latin/character01/0100_20.png"]
LISTS = {
    "train": {"background": {"Greek": ["character01"]}, "evaluation": {}},
    "val": {"background": {"Greek": ["character02"]}},
    "test": {"evaluation": {"Latin": ["character01"]}},
}


def read(path: Path, splits: Path | None = None) -> Listing:
    return read_listing(path, "omniglot", ReadOptions(splits=splits))


def with_lists(folder: Path, **lists: Any) -> Path:
    return write_files(folder, {f"{split}.json": json.dumps(content).encode() for split, content in lists.items()})


@pytest.mark.parametrize("below", ["", "omniglot-py/", "omniglot/"])
def test_unpacked_where_other_libraries_place_it(below: str, tmp_path: Path) -> None:
    write_files(tmp_path, [f"{below}{name}" for name in [*LATIN, *GREEK]])
    assert detect(tmp_path) == "omniglot"
    listing = read(tmp_path)
    assert column(listing, "id") == [*GREEK, *LATIN]
    assert column(listing, "class") == ["Greek/character01"] * 2 + ["Greek/character02"] * 2 + ["Latin/character01"]
    assert column(listing, "group") == ["01", "02", "01", "02", "20"]
    assert column(listing, "split") == ["train"] * 4 + ["test"]
    assert any("images_background has 2 characters and 4 images" in note for note in listing.notes)


def test_zips_folders_and_single_parts(tmp_path: Path) -> None:
    write_zip(tmp_path / "images_background.zip", GREEK)
    write_files(tmp_path, ["images_background/Greek/character01/0001_01.png"])  # half unpacked: the archive counts
    write_files(tmp_path, LATIN)
    assert column(read(tmp_path), "id") == [*GREEK, *LATIN]
    for path in (tmp_path / "images_evaluation", write_zip(tmp_path / "x.zip", LATIN)):
        assert detect(path) == "omniglot"
        assert column(read(path), "id") == LATIN
    assert read(tmp_path / "x.zip").read(0) == picture(0)


def test_other_files_are_rejected(tmp_path: Path) -> None:
    for names in (["a/1.png"], ["images_background/Greek/letter01/0001_01.png"], []):
        with pytest.raises(UserError, match=r"Omniglot .*images_background\.zip"):
            read(write_zip(tmp_path / "x.zip", names))


def test_odd_alphabet_names_are_kept_exactly(tmp_path: Path) -> None:
    names = sorted(f"images_background/{name}/character01/0001_01.png" for name in ODD_NAMES)
    for path in (write_zip(tmp_path / "x.zip", names), write_files(tmp_path, names)):
        assert sorted(column(read(path), "class")) == sorted(f"{name}/character01" for name in ODD_NAMES)


@pytest.mark.parametrize("place", ["splits/omniglot_vinyals", "omniglot_vinyals", "splits"])
def test_lists_beside_the_data_are_found(place: str, tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", [*GREEK, *LATIN])
    with_lists(tmp_path / place, **LISTS)
    assert column(read(data), "split") == ["train", "train", "val", "val", "test"]
    assert column(read(data, tmp_path / place), "split") == ["train", "train", "val", "val", "test"]


def test_missing_and_unlisted_characters_are_reported(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", [*GREEK, *LATIN])
    lists = with_lists(tmp_path / "mine", train={"background": {"Greek": ["character01"], "Elvish": ["character09"]}})
    listing = read(data, lists)
    assert column(listing, "class") == ["Greek/character01"] * 2
    unlisted, missing = listing.notes[-2:]
    assert f"{lists}" in unlisted
    assert "'Greek/character02', 'Latin/character01'" in unlisted
    assert f"{lists}" in missing
    assert "'Elvish/character09'" in missing
    with pytest.raises(UserError, match=str(tmp_path / "none")):
        read(data, with_lists(tmp_path / "none", train={"background": {"Elvish": ["character09"]}}))


def test_character_in_two_lists_is_rejected(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", GREEK)
    lists = with_lists(tmp_path / "mine", train=LISTS["train"], test=LISTS["train"])
    with pytest.raises(UserError, match=r"'Greek/character01' .*train .*test"):
        read(data, lists)


@pytest.mark.parametrize(
    "content",
    [
        ["Greek/character01"],
        "Greek",
        None,
        7,
        {"background": ["Greek"]},
        {"background": {"Greek": "character01"}},
        {"background": {"Greek": [1]}},
        {"background": {"Greek": [["character01"]]}},
        {"Greek": ["character01"]},
    ],
)
def test_lists_in_another_format_are_rejected_with_an_example(content: Any, tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", GREEK)
    with pytest.raises(UserError, match=r"the list of val .*\{\"background\": "):
        read(data, with_lists(tmp_path / "mine", val=content))


def test_lists_that_cannot_be_parsed_are_rejected(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", GREEK)
    with pytest.raises(UserError, match=r"train\.json .*JSON"):
        read(data, write_files(tmp_path / "mine", {"train.json": b'{"background": '}))
    with pytest.raises(UserError, match=r"absent.*train\.json"):
        read(data, tmp_path / "absent")
    with pytest.raises(UserError, match="the list of test"):
        read(data, write_files(tmp_path / "text", {"test.txt": b"Greek/character01\n"}))
    with pytest.raises(UserError, match=r"test\.txt .*UTF-8"):
        read(data, write_files(tmp_path / "text", {"test.txt": b"\xff"}))


def test_lists_without_permission_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_files(tmp_path / "data", GREEK)
    lists, allowed = with_lists(tmp_path / "mine", **LISTS), Path.exists

    def exists(path: Path) -> bool:
        if path.parent == lists:
            raise PermissionError(13, "Permission denied")
        return allowed(path)

    monkeypatch.setattr(Path, "exists", exists)
    with pytest.raises(UserError, match=r"mine .*Permission denied"):
        read(data, lists)


def test_deleted_image_is_unreadable(tmp_path: Path) -> None:
    listing = read(write_files(tmp_path, GREEK))
    (tmp_path / GREEK[1]).unlink()
    with pytest.raises(UnreadableError, match="does not exist"):
        listing.read(1)


@given(st.data())
def test_mutated_list_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write_files(tmp_path_factory.getbasetemp() / "omniglot", [*GREEK, *LATIN])
    raw = mutated(data, json.dumps(LISTS["train"]).encode())
    lists = with_lists(folder / "lists", **LISTS)
    listing = read_or_rejected(folder, "omniglot", ReadOptions(splits=write_files(lists, {"train.json": raw})))
    assert listing is None or len(listing) <= len([*GREEK, *LATIN])


@given(st.data())
def test_mutated_archive_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = write_zip(tmp_path_factory.getbasetemp() / "images_background.zip", GREEK)
    path.write_bytes(mutated(data, path.read_bytes()))
    read_or_rejected(path, "omniglot")


@pytest.mark.parametrize("below", ["", "omniglot_resized/"])
def test_alphabets_without_the_two_parts(below: str, tmp_path: Path) -> None:
    names = [f"{below}{name.partition('/')[2]}" for name in [*LATIN, *GREEK]]
    data = write_files(tmp_path / "mine", names)
    assert detect(data) == "omniglot"
    listing = read(data)
    assert column(listing, "class") == ["Greek/character01"] * 2 + ["Greek/character02"] * 2 + ["Latin/character01"]
    assert set(column(listing, "split")) == {""}
    assert set(column(read(data, with_lists(tmp_path / "lists", **LISTS)), "split")) == {"train", "val", "test"}


def test_other_images_and_copies_beside_the_parts_are_named(tmp_path: Path) -> None:
    listing = read(write_files(tmp_path, [*GREEK, "mine/cats/1.png", f"again/{GREEK[0]}"]))
    assert len(listing) == len(GREEK)
    for name in ("mine/cats/1.png", GREEK[0]):
        assert any(name in note for note in listing.notes)


def test_other_images_beside_alphabets_are_no_omniglot(tmp_path: Path) -> None:
    names = [name.partition("/")[2] for name in GREEK]
    assert detect(write_files(tmp_path, [*names, "Greek/other/1.png"])) != "omniglot"
