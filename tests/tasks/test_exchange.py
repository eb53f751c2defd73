"""Task lists for other libraries: read by the library's own classes, read back by TaskLens, and errors."""

from __future__ import annotations

import copy
import json
import re
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.datasets import ImageFolder

from core.data import ImageSet
from core.data.numbering import IMAGE_FOLDER, IMAGE_SET
from core.data.readers.imagefolder import imagefolder_positions
from core.runtime.errors import UserError
from core.tasks.changes import Changes, cleaned
from core.tasks.exchange import LIBRARIES, write_foreign
from core.tasks.tasklist import TaskList, from_rows, read_tasks
from tests.needs import learn2learn
from tests.problems import tiny_images, tiny_tasks
from tests.properties import examples
from tests.tasks.test_tasklist import junk, names, valid_or_rejected

DOCS = Path(__file__).parents[2] / "docs" / "exchange.md"
Item = tuple[Tensor, int]


def uneven() -> TaskList:
    """Return three tasks of 2 ways, 2 shots and 3 queries with some wrong labels and removed rows."""
    rows = tiny_tasks(tiny_images(), ways=2, shots=2, queries=3, count=3).rows.copy()
    flipped = rows.index[[3, 7, 25]]
    of_label = {(t, n): c for t, n, c in zip(rows["task_id"], rows["label"], rows["class"], strict=True)}
    rows.loc[flipped, "label"] = 1 - rows.loc[flipped, "label"]
    rows["class"] = [of_label[pair] for pair in zip(rows["task_id"], rows["label"], strict=True)]
    rows.loc[rows.index[[1, 4, 18, 19]], "weight"] = 0.0
    return from_rows(rows, source="uneven")


def written(library: str, path: Path, tasks: TaskList | None = None) -> Path:
    write_foreign(tasks or uneven(), tiny_images(), library, path)
    return path


# The libraries read the files with the code of the documentation.


class Images(Dataset[Item]):
    """The images as a data set of (image, label of its class), which the libraries expect."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Item:
        return torch.from_numpy(self.images.images[position]), int(self.images.labels[position])


def documented(library: str) -> dict[str, Any]:
    """Return what the code for a library in the documentation defines."""
    (code,) = re.findall(rf"```python\n# {library}\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "documented"}
    exec(code, namespace)
    return namespace


Episode = tuple[Tensor, Tensor, Tensor, Tensor]


def expected(tasks: TaskList) -> list[Episode]:
    """Return support images, support labels, query images and query labels of every task, found by image id."""
    rows, images = cleaned(tasks, Changes(), drop_rows=True).rows, tiny_images()
    episodes = []
    for task_id in dict.fromkeys(rows["task_id"]):
        parts: list[Tensor] = []
        for role in ("support", "query"):
            part = rows[(rows["task_id"] == task_id) & (rows["role"] == role)]
            where = [np.flatnonzero(images.ids == image_id)[0] for image_id in part["image_id"]]
            parts += [torch.from_numpy(images.images[where]), torch.tensor(part["label"].tolist())]
        episodes.append((parts[0], parts[1], parts[2], parts[3]))
    return episodes


def agree(have: list[Episode], want: list[Episode]) -> None:
    assert len(have) == len(want)
    for one, other in zip(have, want, strict=True):
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_learn2learn_reads_the_episodes(tmp_path: Path) -> None:
    learn2learn()
    path = written("learn2learn", tmp_path / "tasks.json")
    taskset, adaptation = documented("learn2learn")["load"](path, Images(tiny_images()))
    assert len(taskset) == 3
    episodes = []
    for (data, labels), support in zip(taskset, adaptation, strict=True):
        mask = torch.zeros(len(labels), dtype=torch.bool)
        mask[support] = True
        episodes.append((data[mask], labels[mask], data[~mask], labels[~mask]))
    agree(episodes, expected(uneven()))


def test_even_positions_of_a_learn2learn_task_are_support_rows(tmp_path: Path) -> None:
    even = tiny_tasks(tiny_images(), ways=3, shots=2, queries=4, count=2)
    path = written("learn2learn", tmp_path / "tasks.json", even)
    for task in json.loads(path.read_text())["tasks"]:
        assert task["adaptation_indices"] == (np.arange(2 * 3) * 2).tolist()
        assert sorted(np.array(task["labels"])[task["adaptation_indices"]]) == [0, 0, 1, 1, 2, 2]


@pytest.fixture
def torchmeta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace torchmeta 1.8.0, which requires PyTorch before 1.10, by the two base classes that its users derive from.

    Their constructors and what iterates over them are as in torchmeta.utils.data.task and .dataset.
    """

    class Task(Dataset[Item]):
        def __init__(self, index: object, num_classes: int | None, transform: Any = None, target_transform: Any = None):
            self.index, self.num_classes = index, num_classes
            self.transform, self.target_transform = transform, target_transform

        def __hash__(self) -> int:
            return hash(self.index)

    class MetaDataset:
        def __init__(self, meta_train: bool = False, meta_val: bool = False, meta_test: bool = False) -> None:
            if meta_train + meta_val + meta_test != 1:
                raise ValueError("The meta-split is undefined.")

        def __iter__(self) -> Any:
            for index in range(len(self)):  # type: ignore[arg-type]
                yield self[index]  # type: ignore[index]

    module = ModuleType("torchmeta.utils.data")
    vars(module).update(Task=Task, MetaDataset=MetaDataset)
    for name in ("torchmeta", "torchmeta.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("torchmeta")
def test_torchmeta_reads_the_episodes(tmp_path: Path) -> None:
    path = written("torchmeta", tmp_path / "tasks.json")
    exported = documented("torchmeta")["Exported"](path, Images(tiny_images()))
    episodes = []
    for task in exported:
        assert isinstance(task, OrderedDict)
        assert list(task) == ["train", "test"]
        assert {split.num_classes for split in task.values()} == {2}
        # As BatchMetaCollate.collate_task does it.
        support, query = (default_collate([split[i] for i in range(len(split))]) for split in task.values())
        episodes.append((*support, *query))
    agree(episodes, expected(uneven()))


def test_easyfsl_reads_the_episodes_and_its_methods_accept_them(tmp_path: Path) -> None:
    from easyfsl.methods import PrototypicalNetworks
    from easyfsl.utils import evaluate

    images = tiny_images()
    path = written("easyfsl", tmp_path / "tasks.json")
    loader = documented("easyfsl")["load"](path, Images(images))
    agree([part[:4] for part in loader], expected(uneven()))
    for (*_, class_ids), classes in zip(loader, uneven().rows.groupby("task_id", sort=False), strict=True):
        of_label = dict(zip(classes[1]["label"], classes[1]["class"], strict=True))
        assert [images.class_names[number] for number in class_ids] == [of_label[0], of_label[1]]

    class Pixels(torch.nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            return batch.flatten(1).double()

    right = total = 0
    for support, support_labels, query, query_labels in expected(uneven()):
        means = torch.stack([support.flatten(1).double()[support_labels == label].mean(0) for label in range(2)])
        right += int((torch.cdist(query.flatten(1).double(), means).argmin(1) == query_labels).sum())
        total += len(query_labels)
    accuracy = evaluate(PrototypicalNetworks(Pixels()), loader, device="cpu", use_tqdm=False)
    assert accuracy == pytest.approx(right / total)


# Reading back.


@st.composite
def sets_and_tasks(draw: st.DrawFn) -> tuple[ImageSet, TaskList]:
    """Odd names for everything, uneven tasks, rows of weight 0, and an image set in any order."""
    ids = draw(st.lists(names, min_size=6, max_size=9, unique=True))
    classes = draw(st.lists(names, min_size=3, max_size=4, unique=True))
    labels = np.array([draw(st.integers(0, len(classes) - 1)) for _ in ids])
    blank = np.zeros((len(ids), 1, 1, 1), np.uint8)
    positions = draw(st.none() | st.lists(st.integers(0, 99), min_size=len(ids), max_size=len(ids), unique=True))
    images = ImageSet(
        "odd",
        blank,
        labels,
        tuple(classes),
        np.array(ids, dtype=object),
        positions=None if positions is None else np.array(positions),
    )
    ways = draw(st.integers(1, 3))
    tables: list[dict[str, Any]] = []
    for task_id in draw(st.lists(names.filter(str.strip), min_size=1, max_size=3, unique=True)):
        stands_for = draw(st.permutations(classes))[:ways]
        for role in ("support", "query"):
            extra = draw(st.lists(st.integers(0, ways - 1), min_size=role == "query", max_size=3))
            wanted = draw(st.permutations([*range(ways), *extra] if role == "support" else extra))
            for image_id, label in zip(draw(st.permutations(ids)), wanted, strict=False):
                weight = draw(st.sampled_from([1.0, 1.0, 1.0, 0.0]))
                row = {"task_id": task_id, "role": role, "image_id": image_id, "label": label, "weight": weight}
                tables.append(row | {"class": stands_for[label]})
    return images, from_rows(pd.DataFrame(tables), source="drawn", images=images)


@pytest.mark.parametrize("library", LIBRARIES)
@examples(40)
@given(drawn=sets_and_tasks())
def test_any_task_list_round_trips(library: str, drawn: tuple[ImageSet, TaskList]) -> None:
    images, tasks = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any name.json"
        try:
            want = cleaned(tasks, Changes(), drop_rows=True)
        except UserError as error:
            with pytest.raises(UserError, match=re.escape(str(error))):
                write_foreign(tasks, images, library, path)
            assert not path.exists()
            return
        write_foreign(tasks, images, library, path)
        have = read_tasks(path, images)
        assert have.rows.equals(want.rows)
        assert have.hash == want.hash
        first = path.read_bytes()
        write_foreign(have, images, library, path)
        assert path.read_bytes() == first


@pytest.mark.parametrize("library", LIBRARIES)
def test_image_set_in_another_order_is_rejected_with_the_first_id(library: str, tmp_path: Path) -> None:
    images = tiny_images()
    path = written(library, tmp_path / "tasks.json")
    first = uneven().rows["image_id"].iloc[0]
    order = np.arange(len(images))
    position = images.index[first]
    order[[position, position + 1]] = order[[position + 1, position]]
    swapped = ImageSet("swapped", images.images[order], images.labels[order], images.class_names, images.ids[order])
    place = rf"task 't0', (train |support )?row 1: position {position} of swapped"
    with pytest.raises(UserError, match=f"{place} .*{str(images.ids[position + 1])!r}.*{first!r}"):
        read_tasks(path, swapped)
    fewer = ImageSet("fewer", images.images[:1], images.labels[:1], images.class_names, images.ids[:1])
    with pytest.raises(UserError, match=r"position \d+ .*fewer"):
        read_tasks(path, fewer)
    more = np.concatenate([images.ids, ["one more"]])
    longer = ImageSet(
        "longer",
        np.concatenate([images.images, images.images[:1]]),
        np.concatenate([images.labels, images.labels[:1]]),
        images.class_names,
        more,
    )
    assert read_tasks(path, longer).hash == cleaned(uneven(), Changes(), drop_rows=True).hash


def test_other_class_numbers_are_rejected_if_the_file_has_any(tmp_path: Path) -> None:
    images = tiny_images()
    renamed = replace(images, class_names=images.class_names[::-1])
    with pytest.raises(UserError, match=r"tasks\.json, task 't0': true_class_ids .*tiny"):
        read_tasks(written("easyfsl", tmp_path / "tasks.json"), renamed)


# Positions in ImageFolder.

COLUMNS = [("indices", "image_ids"), ("support_images", "support_image_ids"), ("query_images", "query_image_ids")]


def named(document: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Return the position and the image id of every row of a file."""
    for task in document["tasks"]:
        for part in (task, task.get("train", {}), task.get("test", {})):
            for positions, ids in COLUMNS:
                yield from zip(part.get(positions, ()), part.get(ids, ()), strict=True)


def in_folders(root: Path, odd: Sequence[str] = (), hidden: Sequence[str] = ()) -> ImageSet:
    """Return a set of 3 classes of 6 images in class folders, of which ``odd`` are of other formats."""
    ids = [f"{name}/{number}.png" for name in "abc" for number in range(6)]
    ids = [name.replace(".png", ".gif") if name.replace(".png", ".gif") in odd else name for name in ids]
    for name in [*ids, *hidden]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    labels = np.repeat(np.arange(3), 6)
    pixels = np.arange(18, dtype=np.uint8).reshape(18, 1, 1, 1)
    positions = imagefolder_positions(root, [""], ids)
    return ImageSet("mine", pixels, labels, ("a", "b", "c"), np.array(ids, dtype=object), positions=positions)


def of_images(images: ImageSet, shots: int = 1, queries: int = 1, count: int = 2) -> TaskList:
    """Return tasks of all classes that use the images of each in turn."""
    rows = [
        (f"t{task}", role, f"{images.ids[label * 6 + (task * (shots + queries) + number) % 6]}", label, name, 1.0)
        for task in range(count)
        for label, name in enumerate(images.class_names)
        for number in range(shots + queries)
        for role in ["support" if number < shots else "query"]
    ]
    columns = ["task_id", "role", "image_id", "label", "class", "weight"]
    return from_rows(pd.DataFrame(rows, columns=columns), source="mine", images=images)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("odd", "hidden"),
    [
        ((), ()),
        (("a/5.gif",), ()),
        ((), (".cache/0.png", "a/.0.jpg", "a/._1.png")),
        ((), ("b/deep/0.bmp", "@eaDir/0.jpg", "b/mask.tiff")),
        (("a/4.gif", "b/5.gif"), ("a/z.gif", "a/0.txt", "loose.png", "c/.x/0.webp")),
    ],
)
def test_positions_of_class_folders_are_those_of_imagefolder(
    library: str, odd: Sequence[str], hidden: Sequence[str], tmp_path: Path
) -> None:
    images = in_folders(tmp_path / "mine", odd, hidden)
    tasks = of_images(images)
    path = tmp_path / "tasks.json"
    (note,) = write_foreign(tasks, images, library, path)
    assert "ImageFolder" in note
    theirs = ImageFolder(str(tmp_path / "mine"), allow_empty=True).samples
    document = json.loads(path.read_text())
    assert (document["positions"], document["left_out"]) == (IMAGE_FOLDER, [])
    pairs = list(named(document))
    assert len(pairs) == len(tasks.rows)
    assert [Path(theirs[position][0]).relative_to(tmp_path / "mine").as_posix() for position, _ in pairs] == [
        image_id for _, image_id in pairs
    ]
    assert read_tasks(path, images).hash == tasks.hash
    unknown = replace(images, name="not known", positions=None)
    path = path.rename(tmp_path / "ids.json")  # what was read once is remembered by name and content
    assert read_tasks(path, unknown).hash == tasks.hash
    moved = replace(images, positions=images.positions + 1)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"task 't0', (train |support )?row 1: position"):
        read_tasks(path.rename(tmp_path / "moved.json"), moved)


@pytest.mark.parametrize("library", LIBRARIES)
def test_rows_that_imagefolder_does_not_list_are_left_out(library: str, tmp_path: Path) -> None:
    images = in_folders(tmp_path / "mine", ("a/1.gif", "b/5.gif"))
    tasks = of_images(images, shots=2, queries=2, count=2)  # t0 uses 0 to 3 of a class, t1 4, 5, 0, 1
    _, note = write_foreign(tasks, images, library, tmp_path / "tasks.json")
    assert "3 rows" in note
    assert "a/1.gif" in note
    document = json.loads((tmp_path / "tasks.json").read_text())
    assert document["left_out"] == ["a/1.gif", "b/5.gif"]
    listed = tasks.rows[~tasks.rows["image_id"].isin(document["left_out"])].reset_index(drop=True)
    assert read_tasks(tmp_path / "tasks.json", images).rows.equals(listed)


@pytest.mark.parametrize("library", LIBRARIES)
def test_task_whose_queries_imagefolder_does_not_list_is_left_out(library: str, tmp_path: Path) -> None:
    images = in_folders(tmp_path / "mine", ("a/1.gif", "b/1.gif", "c/1.gif"))
    _, note = write_foreign(of_images(images), images, library, tmp_path / "tasks.json")
    assert "1 task without query" in note
    assert [task["task_id"] for task in json.loads((tmp_path / "tasks.json").read_text())["tasks"]] == ["t1"]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("odd", "first"),
    [
        (("b/2.gif",), "'t1' .*'b/2.gif'"),
        (tuple(f"{name}/{number}.gif" for name in "abc" for number in (1, 3, 5)), "'t0' .*'a/1.gif'"),
    ],
)
def test_no_class_of_a_task_can_lose_its_support(
    library: str, odd: tuple[str, ...], first: str, tmp_path: Path
) -> None:
    images = in_folders(tmp_path / "mine", odd)
    with pytest.raises(UserError, match=f"{first}.*ImageFolder"):
        write_foreign(of_images(images, count=3), images, library, tmp_path / "tasks.json")
    assert not (tmp_path / "tasks.json").exists()


@pytest.mark.parametrize("library", LIBRARIES)
def test_images_of_other_formats_have_the_positions_of_the_image_set(library: str, tmp_path: Path) -> None:
    known = in_folders(tmp_path / "mine")
    none_listed = replace(known, positions=np.full(18, -1))
    for images in (replace(known, positions=None), none_listed):
        (note,) = write_foreign(of_images(images), images, library, tmp_path / "tasks.json")
        assert "image set mine" in note
        document = json.loads((tmp_path / "tasks.json").read_text())
        assert document["positions"] == IMAGE_SET
        assert [str(images.ids[position]) for position, _ in named(document)] == [name for _, name in named(document)]


@pytest.mark.parametrize("library", LIBRARIES)
def test_file_of_an_earlier_version_has_the_positions_of_the_image_set(library: str, tmp_path: Path) -> None:
    images = in_folders(tmp_path / "mine", (), ("a/.0.png",))
    tasks = of_images(images)
    write_foreign(tasks, replace(images, positions=None), library, tmp_path / "tasks.json")
    document = json.loads((tmp_path / "tasks.json").read_text())
    del document["positions"], document["left_out"]
    (tmp_path / "tasks.json").write_text(json.dumps(document))
    assert read_tasks(tmp_path / "tasks.json", images).hash == tasks.hash


@pytest.mark.parametrize("library", LIBRARIES)
def test_lists_by_position_need_images(library: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"tasks\.json .*{library}"):
        read_tasks(written(library, tmp_path / "tasks.json"))


# Errors.


def test_unknown_library_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'higher'.*{', '.join(LIBRARIES)}"):
        written("higher", tmp_path / "tasks.json")


@pytest.mark.parametrize("library", LIBRARIES)
def test_unsupported_lists_are_rejected_and_not_written(library: str, tmp_path: Path) -> None:
    rows = tiny_tasks(tiny_images(), ways=2, shots=1, queries=1, count=2).rows
    half = rows.assign(weight=[1.0, 1.0, 1.0, 0.5] * 2)
    with pytest.raises(UserError, match=rf"^Row 4 .*'t0', query, .*0\.5.*{library}"):
        written(library, tmp_path / "tasks.json", from_rows(half, source="half"))
    bare = rows.assign(weight=[1.0] * 5 + [0.0, 1.0, 1.0])
    with pytest.raises(UserError, match="'t1'"):
        written(library, tmp_path / "tasks.json", from_rows(bare, source="bare"))
    strange = rows.assign(image_id=[*rows["image_id"][:-1], "cat"])
    with pytest.raises(UserError, match=r"row 8: image_id 'cat' .*tiny"):
        written(library, tmp_path / "tasks.json", from_rows(strange, source="strange"))
    assert list(tmp_path.iterdir()) == []


def repeat(rows: list[Any], at: int) -> None:
    """Replace a row by the one before it."""
    rows[at] = rows[at - 1]


Change = Callable[[Any], Any]
INVALID: list[tuple[str, Change, str]] = [
    *(
        (library, change, what)
        for library in LIBRARIES
        for change, what in (
            (lambda d: d.update(format="tasklens/other-tasks/1"), "'tasklens/other-tasks/1'"),
            (lambda d: d.update(format=[1]), r"format \[1\]"),
            (lambda d: d.pop("format"), "without a format"),
            (lambda d: d.pop("tasks"), "tasks is"),
            (lambda d: d.update(tasks={}), "tasks is"),
            (lambda d: d.update(tasks=[]), "empty"),
            (lambda d: d.update(positions="tar"), "positions is 'tar'"),
            (lambda d: d.update(positions=["image-set"]), "positions is "),
            (lambda d: d["tasks"].append(3), r"tasks\[3\]: "),
            (lambda d: d["tasks"][1].pop("task_id"), r"tasks\[1\]\.task_id"),
            (lambda d: d["tasks"][1].update(task_id=7), r"tasks\[1\]\.task_id"),
            (lambda d: d["tasks"][1].update(task_id="t0"), "task 't0'"),
            (lambda d: d["tasks"][1].update(task_id=" "), "task_id ' '"),
            (lambda d: d["tasks"][1].update(task_id="\ud800"), "row 1: task_id .*text"),
            (lambda d: d["tasks"][2]["classes"].pop(), "task 't2'"),
            (lambda d: d["tasks"].insert(0, d["tasks"][0]), "task 't0'"),
        )
    ),
    ("learn2learn", lambda d: d["tasks"][0]["labels"].pop(), "8 positions, 7 labels"),
    ("learn2learn", lambda d: d["tasks"][0]["labels"].__setitem__(3, 2), "row 4: label 2"),
    ("learn2learn", lambda d: d["tasks"][0]["labels"].__setitem__(3, -1), "row 4: label -1"),
    ("learn2learn", lambda d: d["tasks"][0]["labels"].__setitem__(3, 0.0), r"tasks\[0\]\.labels\[3\]"),
    ("learn2learn", lambda d: d["tasks"][0]["labels"].__setitem__(3, True), r"tasks\[0\]\.labels\[3\]"),
    ("learn2learn", lambda d: d["tasks"][0]["indices"].__setitem__(3, -1), "row 4: position -1"),
    ("learn2learn", lambda d: d["tasks"][0]["indices"].__setitem__(3, 10**30), "row 4: position 10+"),
    ("learn2learn", lambda d: d["tasks"][0]["image_ids"].__setitem__(3, "cat"), "'cat'"),
    ("learn2learn", lambda d: d["tasks"][0]["adaptation_indices"].reverse(), "adaptation_indices .*8 rows"),
    ("learn2learn", lambda d: d["tasks"][0]["adaptation_indices"].append(8), "adaptation_indices .*8 rows"),
    ("learn2learn", lambda d: d["tasks"][0]["adaptation_indices"].insert(0, -1), "adaptation_indices .*8 rows"),
    ("learn2learn", lambda d: d["tasks"][0].update(adaptation_indices=[]), "label 0"),
    ("learn2learn", lambda d: d["tasks"][0].update(adaptation_indices=[*range(8)]), "task 't0' .*query"),
    ("torchmeta", lambda d: d["tasks"][0].pop("test"), r"tasks\[0\]\.test"),
    ("torchmeta", lambda d: d["tasks"][0]["test"].update(labels=None), r"tasks\[0\]\.test\.labels"),
    ("torchmeta", lambda d: d["tasks"][0]["train"]["labels"].pop(), "train rows .*3 positions, 2 labels"),
    (
        "torchmeta",
        lambda d: [repeat(column, 2) for column in d["tasks"][1]["test"].values()],
        r"tasks\.json, task 't1', test row 3: image_id '",
    ),
    ("easyfsl", lambda d: d["tasks"][0]["query_labels"].__setitem__(0, 9), "query row 1: label 9"),
    ("easyfsl", lambda d: d["tasks"][0]["true_class_ids"].pop(), "true_class_ids"),
    ("easyfsl", lambda d: d["tasks"][0].update(true_class_ids=[77, 78]), r"true_class_ids \[77, 78\]"),
    ("easyfsl", lambda d: d["tasks"][0]["classes"].__setitem__(0, "=1+1"), r"classes \['=1\+1', "),
]


@pytest.mark.parametrize(("library", "change", "what"), INVALID)
def test_errors_name_file_task_row_and_field(library: str, change: Change, what: str, tmp_path: Path) -> None:
    path = written(library, tmp_path / "tasks.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match=r"^tasks\.json") as error:
        read_tasks(path, tiny_images())
    assert re.search(what, str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("library", ["learn2learn", "torchmeta"])
def test_unknown_class_is_rejected_with_task_and_row(library: str, tmp_path: Path) -> None:
    path = written(library, tmp_path / "tasks.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["tasks"][1]["classes"][0] = "<b>cat</b>"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UserError, match=r"task 't1', (train )?row \d: class '<b>cat</b>' .*tiny"):
        read_tasks(path, tiny_images())


@cache
def good(library: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return written(library, Path(folder) / "tasks.json").read_text(encoding="utf-8")


@st.composite
def damaged(draw: st.DrawFn, library: str) -> Any:
    """Return a valid document in which up to three values, at any depth, are replaced, dropped or duplicated."""
    document = json.loads(good(library))
    for _ in range(draw(st.integers(1, 3))):
        at = document
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and draw(st.integers(0, 4)):
                at = at[key]
                continue
            how = draw(st.sampled_from(["junk", "drop", "double"]))
            if how == "junk":
                at[key] = draw(junk)
            elif how == "drop":
                at.pop(key)
            elif isinstance(at, list):
                at.insert(key, copy.deepcopy(at[key]))
            break
    return document


@pytest.mark.parametrize("library", LIBRARIES)
@examples(60)
@given(data=st.data())
def test_damaged_file_is_read_or_rejected(library: str, data: st.DataObject) -> None:
    document = data.draw(damaged(library))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        valid_or_rejected(lambda: read_tasks(path, tiny_images()), path.name)
