"""One folder per class: the order of torchvision's ImageFolder, splits, wrapping folders, and other files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from core.data.decode import UnreadableError, decode
from core.data.listing import Listing
from core.data.readers import ReadOptions, read_listing
from core.data.readers.folder import LAYOUT, read_folder
from core.runtime.errors import UserError
from tests.data.pictures import column, picture, write_files, write_zip


def read(path: Path) -> Listing:
    return read_folder(path, ReadOptions())


TWO = ["cats/1.png", "cats/2.JPG", "dogs/1.png"]


def both(tmp_path: Path, files: Iterable[str]) -> list[Listing]:
    """Return the same files read from a folder, a zip archive, and a zip archive with one folder around them."""
    files = list(files)
    folder = read(write_files(tmp_path / "mine", files))
    plain = read(write_zip(tmp_path / "mine.zip", files))
    wrapped = read(write_zip(tmp_path / "wrapped.zip", [f"download/{name}" for name in files]))
    return [folder, plain, wrapped]


def test_folder_zip_and_wrapped_zip_are_equal(tmp_path: Path) -> None:
    for listing in both(tmp_path, TWO):
        assert column(listing, "id") == TWO
        assert column(listing, "class") == ["cats", "cats", "dogs"]
        assert column(listing, "split") == column(listing, "group") == ["", "", ""]
        assert [listing.read(position) for position in range(3)] == [picture(position) for position in range(3)]
        assert listing.notes == ()


def test_name_is_that_of_the_folder_or_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [listing.name for listing in both(tmp_path, TWO)] == ["mine", "mine", "wrapped"]
    monkeypatch.chdir(tmp_path / "mine")
    assert read(Path()).name == "mine"


def test_order_equals_torchvision(tmp_path: Path) -> None:
    files = [
        "b/2.png",
        "b/10.png",
        "b/a/1.png",
        "b/a-b/1.png",
        "b/a/c/1.png",
        "a b/1.png",
        "a/z.png",
        "a/Z.png",
        "B/1.png",
    ]
    root = write_files(tmp_path / "mine", files)
    theirs = ImageFolder(str(root))
    ours = read(root)
    assert column(ours, "id") == [Path(path).relative_to(root).as_posix() for path, _ in theirs.samples]
    assert column(ours, "class") == [theirs.classes[label] for _, label in theirs.samples]


def test_splits_above_the_classes(tmp_path: Path) -> None:
    files = ["test/c/1.png", "Validation/b/1.png", "train/a/1.png", "train/a/2.png", "train/b/1.png"]
    for listing in both(tmp_path, files):
        assert column(listing, "split") == ["train"] * 3 + ["val", "test"]
        assert column(listing, "class") == ["a", "a", "b", "b", "c"]
        (note,) = listing.notes
        assert "'Validation/' is val" in note


def test_single_split(tmp_path: Path) -> None:
    listing = read(write_zip(tmp_path / "x.zip", ["test/a/1.png", "test/b/1.png"]))
    assert column(listing, "split") == ["test", "test"]
    assert column(listing, "class") == ["a", "b"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    listing = read(write_files(tmp_path, ["train/1.png", "bus/1.png"]))
    assert column(listing, "class") == ["bus", "train"]
    assert column(listing, "split") == ["", ""]


def test_other_folders_beside_splits_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'test', 'train' .*'more'"):
        read(write_files(tmp_path, ["train/a/1.png", "test/a/2.png", "more/a/3.png"]))


def test_skipped_files_are_reported(tmp_path: Path) -> None:
    write_files(tmp_path, {"README.md": b"", "cats/labels.xml": b"", "loose.png": picture(), "none/x.txt": b""})
    (tmp_path / "empty").mkdir()
    listing = read(write_files(tmp_path, TWO))
    for note, parts in zip(
        listing.notes,
        (("1 image", "'loose.png'"), ("3 files", "'README.md'"), ("2 class folders", "'empty', 'none'")),
        strict=True,
    ):
        assert all(part in note for part in parts)


def test_links_hidden_files_and_formats_that_are_not_read_are_reported(tmp_path: Path) -> None:
    write_files(tmp_path / "mine", [*TWO, "cats/@eaDir/1.png/thumb.png", ".cache/2.png", "dogs/._1.png"])
    write_files(tmp_path / "mine", {"cats/3.heic": b"", "cats/4.svg": b""})
    (tmp_path / "mine/dogs/again.png").symlink_to("1.png")
    (tmp_path / "mine/kittens").symlink_to("cats")
    listing = read(tmp_path / "mine")
    assert column(listing, "id") == TWO
    for names in (["dogs/again.png"], ["cats/3.heic", "cats/4.svg"], ["kittens/"]):
        assert any(all(repr(name) in note for name in names) for note in listing.notes), names
    assert any("'.cache/', 'cats/@eaDir/', 'dogs/._1.png'" in note for note in listing.notes)


@pytest.mark.parametrize("read_any", [read, read_listing])
@pytest.mark.parametrize("pool", ["raw", "poolA", "all/of/them"])
def test_a_folder_with_the_files_of_links_is_no_class(
    pool: str, read_any: Callable[[Path], Listing], tmp_path: Path
) -> None:
    write_files(tmp_path / "mine" / pool, [f"{name}{n}.png" for name in ("cat", "dog") for n in range(3)])
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir()
        for n in range(3):
            (tmp_path / "mine" / name / f"{n}.png").symlink_to(tmp_path / "mine" / pool / f"{name}{n}.png")
    listing = read_any(tmp_path / "mine")
    assert column(listing, "id") == [f"{name}/{n}.png" for name in ("cat", "dog") for n in range(3)]
    assert any(f"'{pool}/cat0.png'" in note for note in listing.notes)


def test_a_folder_of_links_to_all_images_is_no_class(tmp_path: Path) -> None:
    write_files(tmp_path / "mine", TWO)
    (tmp_path / "mine/favourites").mkdir()
    for number, name in enumerate(TWO):
        (tmp_path / f"mine/favourites/{number}.png").symlink_to(tmp_path / "mine" / name)
    assert column(read(tmp_path / "mine"), "id") == TWO


def test_class_folders_with_nothing_but_a_hidden_file_are_reported(tmp_path: Path) -> None:
    write_files(tmp_path / "mine", {**{name: picture() for name in TWO}, "elk/.gitkeep": b"", ".git/x.png": picture()})
    assert any("'elk'" in note and "1 class folder" in note for note in read(tmp_path / "mine").notes)


def test_split_folders_without_images_are_reported(tmp_path: Path) -> None:
    write_files(tmp_path / "mine", ["train/a/1.png", "train/b/1.png"])
    (tmp_path / "mine/test/a").mkdir(parents=True)
    (tmp_path / "mine/val").mkdir()
    assert any("'test', 'val'" in note for note in read(tmp_path / "mine").notes)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["1.png", "2.png"], "mine"),
        (["photos/1.png", "photos/2.png"], "'photos'"),
        (["data/photos/1.png"], "'photos'"),
        (["train/1.png", "test/1.png"], "mine"),
        (["notes.txt"], r"'notes\.txt'"),
        ([], "found: nothing"),
    ],
)
def test_images_without_classes_are_rejected_with_the_layout(files: list[str], expected: str, tmp_path: Path) -> None:
    write_files(tmp_path / "mine", files).mkdir(exist_ok=True)
    for path in (tmp_path / "mine", write_zip(tmp_path / "mine.zip", files)):
        with pytest.raises(UserError, match=f"{expected}.*{re.escape(LAYOUT)}"):
            read(path)


def test_invalid_images_fail_when_read(tmp_path: Path) -> None:
    write_files(tmp_path, {"a/text.png": b"hello", "b/cut.png": picture()[:30], "b/gone.png": picture()})
    listing = read(tmp_path)
    (tmp_path / "b/gone.png").unlink()
    assert len(listing) == 3
    for position in range(3):
        with pytest.raises(UnreadableError):
            decode(listing.read(position), 4, 4, 1)


def test_name_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    write_files(tmp_path, TWO)
    (tmp_path / "cats" / b"\xff.png".decode("utf-8", "surrogateescape")).write_bytes(picture())
    with pytest.raises(UserError, match="UTF-8"):
        read(tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        read(tmp_path / "absent")


names = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
odd_names = names | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "=1+1",
        "@cmd",
        "a\nb",
        "..",
        ".",
        "x" * 250,
        "train",
        "test",
        "ſ",
        "\u202egnp.",
        "CON",
    ]
)
paths = st.lists(odd_names, min_size=1, max_size=4).map("/".join)
endings = st.sampled_from([".png", ".PNG", ".jpg", ".txt", "", "/", ".png.exe"])


@given(st.lists(st.tuples(paths, endings).map("".join), max_size=12, unique=True))
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_any_names_in_a_zip_are_kept_or_rejected(tmp_path_factory: pytest.TempPathFactory, files: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.writestr(name, b"x")
    try:
        listing = read(path)
    except UserError:
        return
    assert listing.table["id"].is_unique
    assert all(listing.read(position) == b"x" for position in range(len(listing)))
