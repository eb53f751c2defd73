"""Folders and zip archives are read in place; malicious archives are rejected before anything is unpacked."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import archive
from core.data.archive import FolderTree, Tree, open_tree
from core.data.decode import UnreadableError
from core.runtime.errors import UserError
from tests.data.pictures import little_memory, picture, write_files, write_zip

NAMES = ["b/2.png", "a/1.png", "a/deep/3.png", "=cmd()/<b>.png", "ä/\U0001f600.png"]


@pytest.fixture(params=["folder", "zip"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    if request.param == "folder":
        return open_tree(write_files(tmp_path / "data", NAMES))
    return open_tree(write_zip(tmp_path / "data.zip", NAMES))


def test_files_are_listed_sorted_and_read(tree: Tree) -> None:
    assert tree.files == sorted(NAMES)
    assert tree.read("b/2.png") == picture(0)


def test_large_files_are_not_read(tree: Tree) -> None:
    with pytest.raises(UnreadableError, match="MB"):
        tree.read("b/2.png", max_bytes=10)


def test_files_of_operating_systems_and_drives_are_hidden(tmp_path: Path) -> None:
    files = [".DS_Store", "a/.hidden.png", "a/._1.png", "a/Thumbs.db", "desktop.INI"]
    folders = ["__MACOSX/", ".git/", ".ipynb_checkpoints/", "a/@eaDir/", "a/.thumbnails/", "lost+found/", "#recycle/"]
    names = ["a/1.png", *files, *(f"{folder}deep/1.png" for folder in folders)]
    for tree in (open_tree(write_files(tmp_path / "data", names)), open_tree(write_zip(tmp_path / "data.zip", names))):
        assert tree.files == ["a/1.png"]
        assert tree.hidden == sorted([*files, *folders])


def test_links_to_files_in_the_tree_are_copies(tmp_path: Path) -> None:
    root = write_files(tmp_path / "data", ["a/1.png", "b/2.png"])
    outside = write_files(tmp_path / "elsewhere", ["3.png"])
    (root / "a/again.png").symlink_to("1.png")
    (root / "b/absolute.png").symlink_to(root / "a/1.png")
    for name in ("b/3.png", "b/4.png"):  # the same file outside
        (root / name).symlink_to(outside / "3.png")
    tree = FolderTree(root)
    assert tree.files == ["a/1.png", "a/again.png", "b/2.png", "b/3.png", "b/4.png", "b/absolute.png"]
    assert tree.copies == {"a/again.png": "a/1.png", "b/absolute.png": "a/1.png", "b/4.png": "b/3.png"}


def test_the_stamp_changes_with_a_file(tmp_path: Path) -> None:
    before = open_tree(write_files(tmp_path, ["a/1.png"])).stamp()
    assert open_tree(tmp_path).stamp() == before
    os.utime(tmp_path / "a/1.png", ns=(0, 0))
    assert open_tree(tmp_path).stamp() != before


def test_link_to_a_parent_folder_is_not_followed_forever(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/1.png"])
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert FolderTree(tmp_path).files == ["a/1.png"]


def test_broken_links_are_unreadable_files(tmp_path: Path) -> None:
    write_files(tmp_path, ["a/1.png"])
    (tmp_path / "a/self.png").symlink_to("self.png")
    (tmp_path / "a/gone.png").symlink_to("/nowhere/2.png")
    tree = open_tree(tmp_path)
    assert tree.files == ["a/1.png", "a/gone.png", "a/self.png"]
    for name in tree.files[1:]:
        with pytest.raises(UnreadableError):
            tree.read(name)


def test_linked_folder_is_listed_once(tmp_path: Path) -> None:
    write_files(tmp_path, ["data/z/1.png"])
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to("z")
        (tmp_path / f"data/outside-{name}").symlink_to(write_files(tmp_path / "elsewhere", ["2.png"]))
    tree = FolderTree(tmp_path / "data")
    assert tree.files == ["outside-a/2.png", "z/1.png"]
    assert tree.repeated_folders == ["a/", "b/", "outside-b/"]


def test_pipes_sockets_and_devices_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["a/1.png"])
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    monkeypatch.chdir(tmp_path / "a")  # the path of a socket has to be short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        assert open_tree(tmp_path).files == ["a/1.png"]
    for path in (tmp_path / "a/pipe.png", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UserError, match=path.name):
            open_tree(path)


def test_file_without_permission_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = open_tree(write_files(tmp_path, ["a/1.png", "a/2.png"]))
    allowed = os.open

    def open_(file: Path, *args: Any) -> int:
        if Path(file).name == "1.png":
            raise PermissionError(13, "Permission denied")
        return allowed(file, *args)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises(UnreadableError, match="Permission denied"):
        tree.read("a/1.png")
    assert tree.read("a/2.png") == picture(1)


@pytest.mark.parametrize("link", [False, True])
def test_folder_without_permission_is_named(link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, ["data/a/1.png", "b/2.png"])
    if link:
        (tmp_path / "data/b").symlink_to("../b")
    closed, scandir = tmp_path / ("data/b" if link else "data/a"), os.scandir

    def guarded(folder: Path) -> object:
        if folder == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(UserError, match=rf"{closed} .*Permission denied"):
        open_tree(tmp_path / "data").files  # noqa: B018


def test_invalid_paths_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        open_tree(tmp_path / ("x" * 5000))
    with pytest.raises(UserError, match=r"a\\x00b"):
        open_tree(tmp_path / "a\0b")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="levels of symbolic links"):
        open_tree(tmp_path / "loop")


def test_too_deep_folders_are_rejected(tmp_path: Path) -> None:
    home = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(25):  # deeper than a path may be long
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
    finally:
        os.chdir(home)
    with pytest.raises(UserError, match="File name too long") as error:
        open_tree(tmp_path).files  # noqa: B018
    assert len(str(error.value)) < 500


def test_other_files_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        open_tree(tmp_path / "absent")
    (tmp_path / "x.zip").write_bytes(b"Rar!")
    with pytest.raises(UserError, match=r"x\.zip"):
        open_tree(tmp_path / "x.zip")


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/evil.png", "..\\evil.png", "C:\\evil.png"])
def test_names_outside_the_archive_are_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"x\.zip .*{re.escape(repr(name))}"):
        open_tree(write_zip(tmp_path / "x.zip", ["a/1.png", name]))


def test_names_are_normalised(tmp_path: Path) -> None:
    tree = open_tree(write_zip(tmp_path / "x.zip", ["./a/1.png", "a//2.png", "b\\3.png"]))
    assert tree.files == ["a/1.png", "a/2.png", "b/3.png"]
    assert tree.read("a/2.png") == picture(1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as written:
        written.writestr("a/1.png", b"one")
        written.writestr("a/1.png", b"two")
    with pytest.raises(UserError, match=r"x\.zip .*'a/1\.png'"):
        open_tree(tmp_path / "x.zip")


def test_zip_bomb_is_rejected_by_its_declared_size(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("a/1.png", b"\0" * 300_000_000)
    with pytest.raises(UserError, match=r"0\.3 GB"):
        open_tree(tmp_path / "bomb.zip")


def test_too_many_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    with pytest.raises(UserError, match=r"\b3\b"):
        open_tree(write_zip(tmp_path / "x.zip", ["1.png", "2.png", "3.png"]))


def changed(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_encrypted_archive_is_rejected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", ["a/1.png"])
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        open_tree(path)


def test_member_larger_than_declared_is_unreadable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": b"a" * 1000})
    changed(path, struct.pack("<I", 1000), struct.pack("<I", 10))
    with pytest.raises(UnreadableError):
        open_tree(path).read("a/1.png")


def test_huge_declared_size_takes_no_memory(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": b"a" * 1000})
    changed(path, struct.pack("<I", 1000), struct.pack("<I", 0xFFFFFFF0))
    with pytest.raises(UserError, match=r"\bGB\b"):
        open_tree(path)


@pytest.mark.parametrize("declared", [10, 1_000_000])
def test_member_bomb_takes_no_memory(declared: int, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": b"\0" * 150_000_000})
    changed(path, struct.pack("<I", 150_000_000), struct.pack("<I", declared))
    tree = open_tree(path)
    with little_memory(5), pytest.raises(UnreadableError, match="CRC"):
        tree.read("a/1.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unbounded_compression_methods_are_rejected(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as written:
        written.writestr("a/1.png", b"\0" * 1000)
    with pytest.raises(UserError, match=r"bzip2|lzma"):
        open_tree(tmp_path / "x.zip")


def test_member_beyond_the_end_is_unreadable(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a/1.png": b"a", "b/2.png": b"b"})
    content = bytearray(path.read_bytes())
    last = content.rindex(b"PK\x01\x02")
    content[last + 42 : last + 46] = struct.pack("<I", len(content) - 4)
    path.write_bytes(content)
    with pytest.raises(UnreadableError):
        open_tree(path).read("b/2.png")


def test_member_without_a_name_is_ignored(tmp_path: Path) -> None:
    path = changed(write_zip(tmp_path / "x.zip", ["a/1.png", "b"]), b"b", b"\0")
    assert open_tree(path).files == ["a/1.png"]


def test_names_with_wrong_encodings(tmp_path: Path) -> None:
    """A name marked as UTF-8 that is not UTF-8, and a name in code page 437 as old programs write it."""
    path = write_zip(tmp_path / "x.zip", ["a/\xe4.png", "b/1.png"])
    with pytest.raises(UserError, match=r"x\.zip"):
        open_tree(changed(path, "\xe4".encode(), b"\xff\xff"))
    old = write_zip(tmp_path / "old.zip", ["a/1.png"])
    assert open_tree(changed(old, b"a/1.png", b"a/\x84.png")).files == ["a/\xe4.png"]


def test_truncated_archive_is_rejected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", NAMES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"x\.zip"):
        open_tree(path)


@given(st.data())
def test_damaged_archives_are_rejected_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
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
            with contextlib.suppress(UnreadableError):
                tree.read(name)
