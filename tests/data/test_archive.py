"""Folders and zips are read in place; a zip that is a trap is refused before anything of it is unpacked."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import archive
from core.data.archive import FolderTree, Tree, open_tree
from core.data.decode import Unreadable
from core.errors import UserError
from tests.data.pictures import picture, write_files, write_zip

NAMES = ["b/2.png", "a/1.png", "a/deep/3.png", "=cmd()/<b>.png", "ä/\U0001f600.png"]


@pytest.fixture(params=["folder", "zip"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    if request.param == "folder":
        return open_tree(write_files(tmp_path / "data", NAMES))
    return open_tree(write_zip(tmp_path / "data.zip", NAMES))


def test_files_are_listed_sorted_and_read(tree: Tree) -> None:
    assert tree.files == sorted(NAMES)
    assert tree.read("b/2.png") == picture(0)


def test_a_file_that_is_too_large_is_not_read(tree: Tree) -> None:
    with pytest.raises(Unreadable, match="MB"):
        tree.read("b/2.png", most=10)


def test_what_operating_systems_leave_behind_is_not_seen(tmp_path: Path) -> None:
    noise = [".DS_Store", "__MACOSX/a/1.png", "a/.hidden.png", "a/Thumbs.db", ".git/x.png"]
    assert open_tree(write_files(tmp_path / "data", ["a/1.png", *noise])).files == ["a/1.png"]
    assert open_tree(write_zip(tmp_path / "data.zip", ["a/1.png", *noise])).files == ["a/1.png"]


def test_the_stamp_changes_with_a_file(tmp_path: Path) -> None:
    before = open_tree(write_files(tmp_path, ["a/1.png"])).stamp()
    assert open_tree(tmp_path).stamp() == before
    os.utime(tmp_path / "a/1.png", ns=(0, 0))
    assert open_tree(tmp_path).stamp() != before


def test_a_folder_that_leads_back_into_itself_ends(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/1.png"])
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert FolderTree(tmp_path).files == ["a/1.png"]


def test_what_is_neither_folder_nor_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        open_tree(tmp_path / "absent")
    (tmp_path / "x.zip").write_bytes(b"Rar!")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        open_tree(tmp_path / "x.zip")


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"])
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="outside of the archive"):
        open_tree(write_zip(tmp_path / "x.zip", ["a/1.png", name]))


def test_dots_and_double_slashes_in_names_do_not_matter(tmp_path: Path) -> None:
    tree = open_tree(write_zip(tmp_path / "x.zip", ["./a/1.png", "a//2.png", "b\\3.png"]))
    assert tree.files == ["a/1.png", "a/2.png", "b/3.png"]
    assert tree.read("a/2.png") == picture(1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as written:
        written.writestr("a/1.png", b"one")
        written.writestr("a/1.png", b"two")
    with pytest.raises(UserError, match=r"'a/1\.png' twice"):
        open_tree(tmp_path / "x.zip")


def test_a_bomb_is_refused_by_what_it_would_become(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("a/1.png", b"\0" * 300_000_000)
    with pytest.raises(UserError, match=r"would unpack to 0\.3 GB"):
        open_tree(tmp_path / "bomb.zip")


def test_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 2)
    with pytest.raises(UserError, match="holds 3 files"):
        open_tree(write_zip(tmp_path / "x.zip", ["1.png", "2.png", "3.png"]))


def changed(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", ["a/1.png"])
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        open_tree(path)


def test_a_file_that_is_larger_than_it_says_is_unreadable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": b"a" * 1000})
    changed(path, struct.pack("<I", 1000), struct.pack("<I", 10))
    with pytest.raises(Unreadable):
        open_tree(path).read("a/1.png")


def test_a_huge_declared_size_takes_no_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": b"a" * 1000})
    changed(path, struct.pack("<I", 1000), struct.pack("<I", 0xFFFFFFF0))
    with pytest.raises(UserError, match="would unpack"):
        open_tree(path)


def test_an_archive_cut_short_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", NAMES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="zip"):
        open_tree(path)


@given(st.data())
def test_damaged_archives_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as written:
        for name in NAMES[:3]:
            written.writestr(name, picture())
    raw = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(bytes(raw))
    with contextlib.suppress(UserError):
        tree = open_tree(path)
        for name in tree.files:
            with contextlib.suppress(Unreadable):
                tree.read(name)
