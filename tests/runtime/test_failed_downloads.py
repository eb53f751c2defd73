"""Recognise web pages, error messages and pointers in place of files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.checkpoints.tensor_file import open_tensors, read_safetensors
from core.data.archive import FolderTree, open_tree
from core.data.decode import UnreadableError, decode
from core.data.readers.cifar100 import read_pool
from core.data.readers.common import ReadOptions
from core.data.readers.mnist import read_mnist
from core.data.safe_pickle import read_plain
from core.runtime.errors import UserError
from core.runtime.failed_downloads import HEAD_BYTES, check_download, check_downloaded_file, describe_failed_download
from core.runtime.files import read_json
from core.tasks.tables import read_table

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 170498071\n" % (b"4d" * 32)
ANNEX = b"/annex/objects/SHA256E-s170498071--4d4d.tar.gz\n"
PAGES = {
    "doctype": b"<!DOCTYPE html>\n<html><title>Sign in</title>",
    "no doctype": b"\r\n\r\n<html lang='en'>",
    "byte order mark": b"\xef\xbb\xbf  <!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>",
    "xhtml": b"<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0 Strict//EN'>",
    "comment": b"<!-- saved from url=(0014)about:internet --> <!-- 2 -->\n<HTML>",
    "head": b"<head><title>403 Forbidden</title></head>",
    "utf-16": "\ufeff<html>".encode("utf-16-le"),
}
MESSAGES = {
    "s3": b"<?xml version='1.0' encoding='UTF-8'?>\n<Error><Code>AccessDenied</Code>",
    "github": b"404: Not Found",
    "hugging face": b"Entry not found\n",
    "gated": b"Access to model some/model is restricted. You must be authenticated to access it.",
}
POINTERS = {
    "git lfs": POINTER,
    "old git lfs": b"version https://hawser.github.com/spec/v1\noid sha256:00\n",
    "git-annex": ANNEX,
    "git-annex link": b"../../.git/annex/objects/Xq/1z/SHA256E-s17--4d.png/SHA256E-s17--4d.png",
}
ALL = PAGES | MESSAGES | POINTERS


@pytest.mark.parametrize("head", ALL.values(), ids=ALL)
def test_failed_downloads_are_described(head: bytes, tmp_path: Path) -> None:
    assert describe_failed_download(head)
    (tmp_path / "some.bin").write_bytes(head)
    with pytest.raises(UserError, match=r"some\.bin") as caught:
        check_downloaded_file(tmp_path / "some.bin")
    assert caught.value.fix


def test_the_description_names_the_command() -> None:
    assert "git lfs pull" in describe_failed_download(POINTER)
    assert "git annex get" in describe_failed_download(ANNEX)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"<?xml version='1.0'?><annotation><folder>VOC</folder>",
        b"<htmlish>",
        b"path,label\n<html>,a\n",
        b"Not Found,label\na,b\n",
        b"version,label\nhttps://git-lfs.github.com/spec/,a\n",
        b"annex/objects,label\n",
        b"\x89PNG\r\n\x1a\n<html>",
        b"<!---->" * 146,  # would take forever with a pattern that backtracks
        b"<!--" + b"-->" * 300,
    ],
)
def test_other_content_is_not_a_failed_download(head: bytes) -> None:
    assert describe_failed_download(head) == ""
    check_download("some.bin", head)


@given(st.binary(max_size=40), st.sampled_from([*PAGES.values(), *POINTERS.values()]))
def test_only_the_start_counts(prefix: bytes, head: bytes) -> None:
    assert not describe_failed_download(b"\x00" + prefix + head)
    assert describe_failed_download(head + b"\n" + prefix * HEAD_BYTES)


@pytest.mark.parametrize("head", [PAGES["doctype"], POINTER], ids=["page", "pointer"])
def test_every_reader_names_the_cause(head: bytes, tmp_path: Path) -> None:
    expected = "git lfs pull" if head == POINTER else "web page"

    def write(name: str) -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(head)
        return tmp_path / name

    with pytest.raises(UnreadableError, match=expected):
        decode(head, 8, 8, 1)
    for read, name in (
        (open_tree, "images.zip"),
        (read_plain, "cache.pkl"),
        (read_pool, "cifar-100-python.tar.gz"),
        (open_tensors, "best.pt"),
        (read_safetensors, "model.safetensors"),
        (read_table, "tasks.csv"),
        (read_table, "tasks.parquet"),
        (read_table, "tasks.json"),
        (read_json, "tasks.json"),
    ):
        with pytest.raises(UserError, match=expected) as caught:
            read(write(name))
        assert name in str(caught.value)
    for name in ("mnist/train-labels-idx1-ubyte", "mnist/train-images-idx3-ubyte.gz"):
        write(name)
    with pytest.raises(UserError, match=expected):
        read_mnist(tmp_path / "mnist", ReadOptions())
    with gzip.open(tmp_path / "mnist/train-images-idx3-ubyte.gz", "wb") as stream:
        stream.write(struct.pack(">4I", 0x803, 1, 1, 1) + b"\0")
    with pytest.raises(UserError, match="train-labels-idx1-ubyte"):
        read_mnist(tmp_path / "mnist", ReadOptions())


def test_a_link_to_content_that_was_not_downloaded(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("../.git/annex/objects/Xq/1z/SHA256E-s17--4d.png/SHA256E-s17--4d.png")
    (tmp_path / "b.png").symlink_to("nowhere.png")
    tree = FolderTree(tmp_path)
    with pytest.raises(UnreadableError, match="git annex get"):
        tree.read("a.png")
    with pytest.raises(UnreadableError, match="does not exist"):
        tree.read("b.png")


def test_a_file_without_permission_is_left_to_its_reader(tmp_path: Path) -> None:
    check_downloaded_file(tmp_path)
    check_downloaded_file(tmp_path / "none")
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "a.pt")
    check_downloaded_file(tmp_path / "a.pt")
    assert list(open_tensors(tmp_path / "a.pt").tensors) == ["weight"]
