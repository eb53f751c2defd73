"""Positions equal those of torchvision's ImageFolder, whatever else is in the folder."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from core.data.readers import imagefolder
from core.data.readers.imagefolder import EXTENSIONS, imagefolder_positions
from tests.properties import examples


def theirs(root: Path) -> list[str]:
    """Return the files that ImageFolder lists, as paths below ``root``."""
    return [Path(path).relative_to(root).as_posix() for path, _ in ImageFolder(str(root), allow_empty=True).samples]


def written(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def expected(listed: list[str], used: list[str]) -> list[int]:
    return [listed.index(name) if name in listed else -1 for name in used]


folders = st.sampled_from(["a", "A", "b", "a b", "a-b", ".a", "a.b", "train", "\u00e9", "@eaDir", "__MACOSX"])
suffixes = st.sampled_from([".png", ".JPG", ".gif", ".pbm", ".jfif", ".avif", ".tif", ".webp", ".txt", "", ".png.txt"])
files = st.builds(str.__add__, st.sampled_from(["1", "2", "10", "z", "Z", ".h", "._1", ""]), suffixes)
paths = st.builds(lambda parents, file: "/".join([*parents, file]), st.lists(folders, max_size=3), files)


@st.composite
def trees(draw: st.DrawFn) -> list[str]:
    names = draw(st.lists(paths.filter(lambda name: not name.endswith("/") and name), min_size=1, max_size=25))
    inner = {name[:at] for name in names for at, letter in enumerate(name) if letter == "/"}
    return [name for name in dict.fromkeys(names) if name not in inner]


@examples(200)
@given(names=trees(), links=st.lists(st.tuples(paths, paths), max_size=3))
def test_any_tree(names: list[str], links: list[tuple[str, str]]) -> None:
    names = [*names, "always/1.png"]
    with tempfile.TemporaryDirectory() as folder:
        root = written(Path(folder), names)
        for link, target in links:
            place, to = root / link, root / Path(target).parts[0]
            if not place.exists() and place.parent.is_dir() and to.is_dir() and not place.is_relative_to(to):
                place.symlink_to(to)
        used = [Path(name).relative_to(root).as_posix() for name in root.rglob("*") if name.is_file()]
        listing = imagefolder_positions(root, [""], used)
        if listing is None:  # two links lead to each other's folder
            assert len(links) > 1
        else:
            assert listing.tolist() == expected(theirs(root), used)


@examples(100)
@given(names=trees(), wrapped=st.booleans())
def test_any_archive_has_the_positions_of_its_unpacked_files(names: list[str], wrapped: bool) -> None:
    top = "download/" if wrapped else ""
    names = [*(top + name for name in names), f"{top}always/1.png", "__MACOSX/a/._1.png"]
    names = list(dict.fromkeys(names))
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(folder) / "x.zip", "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        with zipfile.ZipFile(Path(folder) / "x.zip") as archive:
            archive.extractall(Path(folder) / "x")
        listed = [top + name for name in theirs(Path(folder) / "x" / top)]
        positions = imagefolder_positions(Path(folder) / "x.zip", [top], names)
        assert positions is not None
        assert positions.tolist() == expected(listed, names)


@examples(100)
@given(parts=st.lists(trees(), min_size=2, max_size=3))
def test_splits_are_concatenated_in_the_given_order(parts: list[list[str]]) -> None:
    roots = ["x/train/", "x/Validation/", "x/test/"][: len(parts)]
    names = [root + name for root, part in zip(roots, parts, strict=True) for name in [*part, "always/1.png"]]
    with tempfile.TemporaryDirectory() as folder:
        root = written(Path(folder), [*names, "x/other/a/1.png"])
        listed = [top + name for top in roots for name in theirs(root / top)]
        used = [*reversed(names), "x/other/a/1.png"]
        positions = imagefolder_positions(root, roots, used)
        assert positions is not None
        assert positions.tolist() == expected(listed, used)


@pytest.mark.parametrize(
    ("links", "ends"),
    [
        ({"a/up": "."}, False),
        ({"a/self": "a"}, False),
        ({"a/to": "b", "b/to": "a"}, False),
        ({"a/to": "b"}, True),
        ({"a/to": "b", "c": "a"}, True),
        ({"a/2.png": "a/1.png", "a/broken.png": "gone"}, True),
    ],
)
def test_links(tmp_path: Path, links: dict[str, str], ends: bool) -> None:
    root = written(tmp_path / "x", ["a/1.png", "b/1.png"])
    for link, target in links.items():
        (root / link).symlink_to(root / target)
    positions = imagefolder_positions(root, [""], ["b/1.png", "a/1.png"])
    if not ends:
        assert positions is None
    else:
        assert positions is not None
        assert positions.tolist() == expected(theirs(root), ["b/1.png", "a/1.png"])


def test_the_extensions_are_those_of_torchvision() -> None:
    assert EXTENSIONS == IMG_EXTENSIONS


def test_too_many_files_have_no_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = written(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    monkeypatch.setattr(imagefolder, "MAX_FILES", 2)
    assert imagefolder_positions(root, [""], ["a/1.png"]) is None


def test_a_relative_path_and_a_slash_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "x", ["a/.0.png", "a/1.png", "b/1.png"])
    monkeypatch.chdir(tmp_path / "x")
    for path in (Path(), Path("../x"), Path(os.curdir)):
        positions = imagefolder_positions(path, [""], ["b/1.png", "a/1.png"])
        assert positions is not None
        assert positions.tolist() == [2, 1]
