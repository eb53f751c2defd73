"""Images are decoded once, despite interruptions, and opened as a memory map of the same content."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.data import ImageSet, load_images, store
from core.data.decode import PAD, Raw, UnreadableError
from core.data.listing import Listing, TargetFormat, make_table, with_rotations
from core.data.store import (
    damaged_image_sets,
    find,
    images_home,
    open_stored,
    store_images,
    stored_image_sets,
)
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(store, "_BLOCK_IMAGES", 4)
    monkeypatch.setattr(store, "JOB_IMAGES", 2)
    monkeypatch.setattr(store, "_SAVE_SECONDS", 0.0)
    return tmp_path / "home"


def picture(value: int, size: tuple[int, int] = (6, 5), mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, value if mode in ("L", "I;16") else (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def a_listing(pictures: list[Raw | None], **changes: object) -> Listing:
    """Return a listing of three classes; None stands for an unreadable image."""

    def read(position: int) -> Raw:
        found = pictures[position]
        if found is None:
            raise UnreadableError("eaten by the dog")
        return found

    n = len(pictures)
    ids = [f"{position:03d}.png" for position in range(n)]
    fields = {
        "name": "mine",
        "table": make_table(ids, [f"c{position % 3}" for position in range(n)]),
        "read": read,
        "stamp": "v1",
    }
    return Listing(**{**fields, **changes})  # type: ignore[arg-type]


def ten() -> list[Raw | None]:
    return [picture(10 * value) for value in range(10)]


def test_opened_set_equals_the_stored_one() -> None:
    opened = open_stored(store_images(a_listing(ten())))
    assert isinstance(opened.images, np.memmap)
    assert opened.images.shape == (10, 5, 6, 1)
    assert [int(image[0, 0, 0]) for image in opened.images] == [10 * value for value in range(10)]
    assert opened.class_names == ("c0", "c1", "c2")
    assert opened.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    in_memory = ImageSet("x", np.array(opened.images), opened.labels, opened.class_names, opened.ids)
    assert in_memory.hash == opened.hash
    assert opened.splits is None
    assert opened.groups is None


def test_pixels_and_table_open_with_public_tools() -> None:
    import pandas as pd

    folder = store_images(a_listing(ten())).folder
    assert np.load(folder / "pixels.npy").shape == (10, 5, 6, 1)
    assert list(pd.read_parquet(folder / "images.parquet").columns) == ["id", "class", "split", "group"]


def positions_of(*positions: int, **changes: object) -> Listing:
    """Return a listing of as many images with these positions in ImageFolder."""
    listing = a_listing([picture(10 * value) for value in range(len(positions))], **changes)
    return replace(listing, table=listing.table.assign(position=positions))


def test_positions_are_stored_beside_the_content() -> None:
    plain = open_stored(store_images(a_listing(ten()[:3])))
    assert plain.positions is None
    stored = store_images(positions_of(0, 2, -1))
    opened = open_stored(stored)
    assert opened.positions is not None
    assert opened.positions.tolist() == [0, 2, -1]
    assert opened.hash == plain.hash, "positions are no part of the content"
    assert load_images("mine", plain.hash) is opened
    assert len(stored_image_sets()) == 1, "the set of an earlier version got the positions"


def test_positions_follow_the_files_beside_the_images() -> None:
    first = open_stored(store_images(positions_of(0, 1, 2)))
    second = open_stored(store_images(positions_of(1, 2, 3)))  # a hidden image was added
    touched = open_stored(store_images(positions_of(4, 5, 6, stamp="v2")))
    assert [one.positions.tolist() for one in (first, second, touched)] == [[0, 1, 2], [1, 2, 3], [4, 5, 6]]  # type: ignore[union-attr]
    without = open_stored(store_images(a_listing(ten()[:3])))
    assert without is touched, "a format without positions leaves them"


def test_positions_of_skipped_images_are_gaps() -> None:
    listing = a_listing([picture(0), None, picture(20), picture(30), picture(40)])
    listing = replace(listing, table=listing.table.assign(position=[3, 4, 5, -1, 6]))
    stored = open_stored(store_images(listing, skip_unreadable=True))
    assert stored.positions is not None
    assert dict(zip(stored.ids, stored.positions.tolist(), strict=True)) == {
        "000.png": 3,
        "002.png": 5,
        "003.png": -1,
        "004.png": 6,
    }


def test_rotated_copies_have_no_positions() -> None:
    rotated = with_rotations(positions_of(0, 1, 2))
    assert open_stored(store_images(rotated, form=TargetFormat((4, 4), fit=PAD))).positions is None


def test_the_same_files_are_decoded_once() -> None:
    counted: list[int] = []
    pictures = ten()

    def read(position: int) -> Raw:
        counted.append(position)
        return pictures[position]  # type: ignore[return-value]

    listing = a_listing(pictures, read=read)
    form = TargetFormat((5, 6), 1)
    first = store_images(listing, form=form)
    assert sorted(counted) == sorted(2 * [*range(10)])  # once for the header, once for the pixels
    second = store_images(listing, form=form, name="again")
    assert len(counted) == 20
    assert second.folder == first.folder
    assert second.names == ("mine", "again")
    other = store_images(a_listing(pictures, stamp="v2"), form=form)  # touched, not changed
    assert other.folder == first.folder
    assert len(stored_image_sets()) == 1


def test_names_find_the_newest_set_and_hashes_the_content() -> None:
    old = store_images(a_listing(ten()))
    new = store_images(a_listing([picture(7)] * 10, stamp="v2"))
    assert load_images("mine").hash == new.hash
    assert load_images("mine", old.hash).hash == old.hash
    assert load_images(str(old.folder)).hash == old.hash
    assert find(old.folder.name) == old
    store_images(a_listing(ten()))  # an import of the same images makes it the newest
    assert load_images("mine").hash == old.hash


def test_missing_set_is_rejected_with_the_existing_ones() -> None:
    store_images(a_listing(ten()))
    with pytest.raises(UserError, match=r"'other'.*mnist5k, shapes, mine"):
        load_images("other")
    with pytest.raises(UserError, match=rf"'mine' .*{'f' * 12}"):
        load_images("mine", "f" * 64)
    with pytest.raises(UserError, match="'mnist5k'"):
        load_images("mnist5k", "f" * 64)


def test_a_stored_set_with_the_name_of_an_included_one_is_found_by_its_content() -> None:
    stored = store_images(a_listing(ten()), name="shapes")
    assert load_images("shapes", stored.hash).hash == stored.hash
    assert load_images("shapes").class_names[0] == "solid circle"


def test_unreadable_images_are_listed_and_skipped_on_request() -> None:
    pictures = ten()
    pictures[2] = pictures[9] = None
    pictures[5] = b"no picture"
    with pytest.raises(UserError) as error:
        store_images(a_listing(pictures))
    assert re.search(r"3 of 10 .*002\.png: eaten by the dog; 005\.png: ", error.value.what)
    assert "--skip-unreadable" in error.value.fix
    (listed,) = images_home().glob("*/unreadable.csv")
    rows = pd.read_csv(listed, dtype=str)
    assert rows["id"].tolist() == ["002.png", "005.png", "009.png"]
    assert rows["why"].tolist()[::2] == ["eaten by the dog"] * 2
    stored = store_images(a_listing(pictures), skip_unreadable=True)
    opened = open_stored(stored)
    assert stored.unreadable == 3
    assert [str(i) for i in opened.ids] == [f"00{n}.png" for n in (0, 1, 3, 4, 6, 7, 8)]
    assert [int(image[0, 0, 0]) for image in opened.images] == [0, 10, 30, 40, 60, 70, 80]
    with pytest.raises(UserError, match="3 of 10 images"):  # without the option it is still an error
        store_images(a_listing(pictures))


@pytest.mark.parametrize("skip", [False, True])
def test_images_that_became_readable_are_read(skip: bool) -> None:
    """For example after a change of permissions, which leaves names, sizes and modification times unchanged."""
    pictures = ten()
    pictures[2] = pictures[5] = pictures[9] = None
    if skip:
        assert store_images(a_listing(pictures), skip_unreadable=True).unreadable == 3
        assert store_images(a_listing(pictures), skip_unreadable=True).unreadable == 3
    else:
        with pytest.raises(UserError, match="3 of 10 images"):
            store_images(a_listing(pictures))
    pictures[5] = picture(50)
    stored = store_images(a_listing(pictures), skip_unreadable=True)
    assert stored.unreadable == 2
    opened = open_stored(stored)
    assert [int(image[0, 0, 0]) for image in opened.images] == [0, 10, 30, 40, 50, 60, 70, 80]
    assert [str(one) for one in opened.ids] == [f"00{n}.png" for n in (0, 1, 3, 4, 5, 6, 7, 8)]
    assert load_images("mine").hash == opened.hash


def test_class_without_readable_images_is_named() -> None:
    pictures = ten()
    pictures[1] = pictures[4] = pictures[7] = None
    with pytest.raises(UserError, match="class 'c1'"):
        store_images(a_listing(pictures), skip_unreadable=True)


class Stop(Progress):
    """A progress at which an import is interrupted, after a number of images."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def advance(self, units: int = 1, note: str = "") -> None:
        super().advance(units, note)
        if self.state().stage == "reading images" and self.state().done >= self.after:
            raise KeyboardInterrupt


def test_interrupted_import_resumes() -> None:
    pictures = ten()
    pictures[1] = None
    seen: list[int] = []
    listing = a_listing(pictures)

    def read(position: int, first: Callable[[int], Raw] = listing.read) -> Raw:
        seen.append(position)
        return first(position)

    form = TargetFormat((5, 6), 1)
    with pytest.raises(KeyboardInterrupt):
        store_images(a_listing(pictures, read=read), form=form, skip_unreadable=True, progress=Stop(8))
    assert stored_image_sets() == []
    seen.clear()
    opened = open_stored(store_images(a_listing(pictures, read=read), form=form, skip_unreadable=True))
    assert sorted(seen) == sorted([*range(10), 1, 8, 9])  # headers of all; unreadable images are tried again
    assert [int(image[0, 0, 0]) for image in opened.images] == [0, *range(20, 100, 10)]


@pytest.mark.parametrize("is_colour_first", [False, True])
def test_an_image_that_becomes_readable_may_change_the_format_of_a_resumed_import(is_colour_first: bool) -> None:
    images: list[bytes | None] = [picture(10 * n) for n in range(8)]
    if is_colour_first:
        images[0] = picture(5, mode="RGB")
    hidden, images[3] = picture(90, mode="RGB"), None
    with pytest.raises(KeyboardInterrupt):
        store_images(a_listing(images), skip_unreadable=True, progress=Stop(6))
    images[3] = hidden
    opened = open_stored(store_images(a_listing(images), skip_unreadable=True))
    whole = open_stored(store_images(a_listing(images, stamp="v2")))
    assert opened.shape == (5, 6, 3)
    assert np.array_equal(opened.images, whole.images)


def test_another_split_or_group_of_the_same_images_is_another_set() -> None:
    listing = a_listing(ten())
    for name, values in (("split", ["train", "test"] * 5), ("split", ["test", "train"] * 5), ("group", list("ab") * 5)):
        opened = open_stored(store_images(replace(listing, table=listing.table.assign(**{name: values}))))
        assert getattr(opened, f"{name}s").tolist() == values
    assert len(stored_image_sets()) == 3


def test_notes_count_all_images_of_a_uniform_set() -> None:
    stored = store_images(a_listing([picture(1, (6, 6))] * 300), form=TargetFormat((4, 4)))
    assert any("300 images scaled" in note for note in stored.notes)
    with pytest.raises(UserError, match="300 images of 300"):
        store_images(a_listing([picture(1)] * 300, stamp="v2"), form=TargetFormat((4, 4)))


def test_a_set_that_is_stored_already_says_how_it_was_read_this_time() -> None:
    first = store_images(replace(a_listing(ten()), notes=("From one.",)), name="first", form=TargetFormat((5, 6)))
    again = store_images(replace(a_listing(ten()), notes=("From two.",)), name="second", form=TargetFormat((5, 6)))
    other = store_images(replace(a_listing(ten(), stamp="v2"), notes=("From three.",)), name="third")
    assert again.folder == first.folder == other.folder
    assert (again.notes, other.notes, other.names) == (["From two."], ["From three."], ("first", "second", "third"))


def test_images_that_were_left_out_are_named_in_the_notes() -> None:
    images = ten()
    images[4] = None
    assert "004.png" in store_images(a_listing(images), skip_unreadable=True).notes[-1]


def test_too_little_space_loses_nothing_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    listing = a_listing(ten())

    def read(position: int) -> Raw:
        seen.append(position)
        return listing.read(position)

    counted = a_listing(ten(), read=read)
    with pytest.raises(KeyboardInterrupt):
        store_images(counted, progress=Stop(8))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
        with pytest.raises(UserError, match=HOME_VARIABLE):
            store_images(counted)
    seen.clear()
    store_images(counted)
    assert sorted(seen) == sorted([*range(10), 8, 9])  # headers of all, and the pixels that were missing


def test_full_disk_is_reported_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    before = store_images(a_listing(ten()))
    real = store.write_json

    def full(path: Path, value: object) -> None:
        if path.name == "progress.json" and value["done"] > 4:  # type: ignore[index]
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, value)

    other = a_listing([picture(3)] * 10, stamp="v2")
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_json", full)
        with pytest.raises(UserError, match="disk is full"):
            store_images(other)
    assert [one.folder for one in stored_image_sets()] == [before.folder]
    assert load_images("mine").hash == before.hash
    assert open_stored(store_images(other)).images.max() == 3
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=HOME_VARIABLE):
        store_images(a_listing([picture(4)] * 10, stamp="v3"))


def test_concurrent_imports_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go = threading.Event(), threading.Event()

    def read(position: int) -> Raw:
        inside.set()
        go.wait(10)
        return picture(1)

    slow = a_listing(ten(), read=read)
    form = TargetFormat((5, 6), 1)
    thread = threading.Thread(target=lambda: store_images(slow, form=form))
    thread.start()
    inside.wait(10)
    try:
        with pytest.raises(UserError, match="Another process"):
            store_images(slow, form=form)
    finally:
        go.set()
        thread.join()
    assert len(stored_image_sets()) == 1


@pytest.mark.parametrize("odd", [picture(2, (9, 9)), picture(2, mode="RGB"), picture(2, mode="I;16")])
def test_one_image_of_another_kind_among_many_decides_as_among_few(odd: bytes) -> None:
    """The format is chosen by a few images first."""
    many = [picture(1)] * 300
    many[77] = odd
    found = []
    for images in ([picture(1), odd], many):
        for form in (TargetFormat(), TargetFormat((4, 4), fit=PAD)):
            try:
                opened = open_stored(store_images(a_listing(images, stamp=str(len(found))), form=form))
            except UserError as error:
                found.append(re.sub(r"[0-9]+", "", str(error)))
                continue
            number = images.index(odd)
            found.append((opened.shape, opened.images[number].tolist(), opened.images[number - 1].tolist()))
    assert found[0][0] == found[2][0]
    assert found[1] == found[3]


def test_different_sizes_require_a_size() -> None:
    mixed = [picture(1), picture(2, (9, 9)), picture(3)]
    with pytest.raises(UserError, match=r"000\.png has 6 x 5, .*001\.png has 9 x 9.*--size"):
        store_images(a_listing(mixed))
    with pytest.raises(UserError, match=r"2 images of 3 .*000\.png has 6 x 5.*--fit crop"):
        store_images(a_listing(mixed), form=TargetFormat((4, 4)))
    assert store_images(a_listing(mixed), form=TargetFormat((4, 4), fit=PAD)).shape == (4, 4, 1)


def test_rotated_classes_are_separate_classes() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    square = np.ascontiguousarray(image[:, :3])
    listing = with_rotations(a_listing([square, square.T.copy(), square], table=_split_table()))
    opened = open_stored(store_images(listing))
    assert len(opened) == 12
    assert opened.class_names == ("c0", "c0 @180", "c0 @270", "c0 @90", "c1", "c1 @180", "c1 @270", "c1 @90")
    at = opened.index["000.png@90"]
    assert np.array_equal(opened.images[at][..., 0], np.rot90(square))
    assert opened.splits is not None
    assert opened.splits[at] == "train"


def test_rotated_classes_are_not_rotated_again() -> None:
    with pytest.raises(UserError, match="'c0 @180'"):
        with_rotations(with_rotations(a_listing(ten())))


def test_empty_ids_and_class_names_are_rejected() -> None:
    for table, what in ((make_table(["", "b"], ["x", "y"]), "id"), (make_table(["a", "b"], ["x", ""]), "class")):
        with pytest.raises(UserError, match=f"the {what} of an image"):
            a_listing([picture(1)] * 2, table=table)


def _split_table() -> object:
    return make_table(["000.png", "001.png", "002.png"], ["c0", "c1", "c0"], ["train", "test", "train"])


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "x" * 65])
def test_invalid_set_names_are_rejected(name: str) -> None:
    if name:
        with pytest.raises(UserError, match=re.escape(repr(name))):
            store_images(a_listing(ten()), name=name)
    else:
        assert store_images(a_listing(ten(), name="my data/of <b>today</b>")).name == "my-data-of-b-today-b"


def test_damaged_set_is_reported_and_hides_no_other() -> None:
    stored, other = store_images(a_listing(ten())), store_images(a_listing([picture(7)] * 10, stamp="v2"))
    store._open.cache_clear()
    (stored.folder / "pixels.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(UserError, match=str(stored.folder)):
        open_stored(stored)
    described = stored.folder / "images.json"
    described.write_text(json.dumps({"format": 1}))
    assert stored_image_sets() == [other]
    (fault,) = damaged_image_sets()
    assert str(described) in fault
    store._open.cache_clear()
    assert open_stored(store_images(a_listing(ten()))).images.max() == 90
    assert damaged_image_sets() == []


def test_opening_reads_no_pixels(tmp_path: Path) -> None:
    """Opening 400 MB of pixels in a separate process takes little memory."""
    folder = store_images(a_listing(ten())).folder
    shape = (100_000, 64, 64, 1)
    big = tmp_path / "big"
    shutil.copytree(folder, big)
    np.lib.format.open_memmap(big / "pixels.npy", "w+", np.uint8, shape).flush()
    make_table([f"i{n}" for n in range(shape[0])], [f"c{n % 100:02d}" for n in range(shape[0])]).drop(
        columns="turn"
    ).to_parquet(big / "images.parquet")
    text = f"""
import psutil, numpy as np
from core.data import load_images
before = psutil.Process().memory_info().rss
images = load_images({str(big)!r})
assert images.images[np.arange(0, 100000, 1000)].shape == (100, 64, 64, 1)
assert images.hash and images.index["i99999"] == 99999
print((psutil.Process().memory_info().rss - before) / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 150


def test_abandoned_import_is_deleted_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = ten()
    pictures[2] = None
    for stamp in ("old", "new"):
        with pytest.raises(UserError, match=r"1 of 10 .*002\.png"):
            store_images(a_listing(pictures, stamp=stamp))
    old, new = sorted(images_home().glob(".*"), key=lambda folder: folder.stat().st_mtime_ns)
    month_ago = time.time() - 31 * 24 * 3600
    os.utime(old / "lock", (month_ago, month_ago))
    store_images(a_listing(ten(), stamp="another"))
    assert not old.exists()
    assert new.exists()
