"""Tables made by cleanlab are read as proposals, by name, or by position if asked and the given labels prove it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cleanlab.classification import CleanLearning
from cleanlab.datalab.internal.issue_manager.label import LabelIssueManager
from cleanlab.filter import find_label_issues
from hypothesis import given
from hypothesis import strategies as st

from core.actions.import_decisions import import_decisions, plan_import
from core.data import ImageSet
from core.decisions.import_file import read_decision_file
from core.decisions.log import Decision, Item
from core.runtime.errors import UserError
from core.tasks.tasklist import TaskList, from_rows
from core.workspace.workspace import Workspace
from tests.actions.reviewed import small_workspace
from tests.actions.test_decisions_io import Logged
from tests.properties import examples

Write = Callable[[pd.DataFrame | pd.Series, Path], None]
SAVED: dict[str, Write] = {
    "csv": lambda table, path: table.to_csv(path),
    "csv without index": lambda table, path: table.to_csv(path, index=False),
    "parquet": lambda table, path: pd.DataFrame(table).rename(columns=str).to_parquet(path),
}


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tmp_path_factory.mktemp("problem"))


@pytest.fixture
def workspace(problem: Workspace, tmp_path: Path) -> Workspace:
    return Logged(problem, tmp_path / "decisions.sqlite")


@pytest.fixture(scope="module")
def images(problem: Workspace) -> ImageSet:
    return problem.project().images


@pytest.fixture(scope="module")
def used(problem: Workspace) -> list[str]:
    return list(problem.project().tasks.train.rows["image_id"].unique())


@pytest.fixture(scope="module")
def probabilities(images: ImageSet, used: list[str]) -> np.ndarray:
    """Return ``(n, classes)`` confident probabilities, of the next class for ten images of the tasks."""
    n, k = len(images), len(images.class_names)
    seen = images.labels.copy()
    for image in used[:10]:
        seen[images.index[image]] = (seen[images.index[image]] + 1) % k
    return np.where(np.arange(k) == seen[:, None], 0.91, 0.09 / (k - 1)) + np.zeros((n, 1))


@pytest.fixture(scope="module")
def found(images: ImageSet, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the table of CleanLearning."""
    return CleanLearning().find_label_issues(labels=images.labels, pred_probs=probabilities)


@pytest.fixture(scope="module")
def lab_table(images: ImageSet, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the table of Datalab's label issue manager (Datalab itself needs another package)."""
    names = dict(enumerate(images.class_names))
    lab = SimpleNamespace(labels=images.labels, _label_map=names, get_info=lambda name: {})
    manager = LabelIssueManager(lab)
    manager.find_issues(pred_probs=probabilities)
    classes = {name: [names[label] for label in manager.info[name]] for name in ("given_label", "predicted_label")}
    return manager.issues.assign(**classes)


def save(table: pd.DataFrame | pd.Series, how: str, folder: Path) -> Path:
    path = folder / f"issues.{how.split()[0]}"
    SAVED[how](table, path)
    return path


def named(table: pd.DataFrame, images: ImageSet) -> pd.DataFrame:
    """Return a table with the image ids, as the documentation says."""
    table = table.copy()
    table.insert(0, "image_id", images.ids[table.index])
    return table


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("which", ["found", "lab_table"])
@pytest.mark.parametrize("by_position", [False, True])
def test_issues_become_proposals(
    workspace: Workspace,
    used: list[str],
    images: ImageSet,
    tmp_path: Path,
    how: str,
    which: str,
    by_position: bool,
    request: pytest.FixtureRequest,
) -> None:
    table = request.getfixturevalue(which)
    assert set(table.columns) >= {"is_label_issue", "given_label", "predicted_label"}
    path = save(table if by_position else named(table, images), how, tmp_path)
    notes = import_decisions(workspace, path, by_position=by_position).notes
    assert len(notes) == by_position
    entries = workspace.decisions.current().values()
    assert {entry.item for entry in entries} == {Item("image", image_id=image) for image in used[:10]}
    assert {(entry.verdict, entry.reviewer) for entry in entries} == {("unsure", "cleanlab")}
    assert all("quality 0.0" in entry.reason and "predicted " in entry.reason for entry in entries)
    assert all(entry.source.startswith("cleanlab:issues.") for entry in entries)


def test_issues_become_new_labels(workspace: Workspace, images: ImageSet, found: pd.DataFrame, tmp_path: Path) -> None:
    import_decisions(workspace, save(named(found, images), "csv", tmp_path), as_="relabel", reviewer="ann")
    for item, entry in workspace.decisions.current().items():
        given = images.labels[images.index[item.image_id]]
        assert (entry.verdict, entry.label, entry.reviewer) == ("relabel", (given + 1) % 10, "ann")


def test_decisions_of_people_are_not_changed(
    workspace: Workspace, images: ImageSet, used: list[str], lab_table: pd.DataFrame, tmp_path: Path
) -> None:
    decided = Item("image", image_id=used[0])
    workspace.decisions.append([Decision(decided, "keep", reviewer="ann")])
    made = import_decisions(workspace, save(named(lab_table, images), "csv", tmp_path), as_="remove")
    assert workspace.decisions.current()[decided].verdict == "keep"
    assert len(made.new) == 9
    assert [note.split()[0] for note in made.notes] == ["1"]


@pytest.mark.parametrize("how", ["csv", "parquet"])
def test_the_output_of_the_filter_function_needs_names(
    workspace: Workspace, images: ImageSet, used: list[str], probabilities: np.ndarray, tmp_path: Path, how: str
) -> None:
    expected = {Item("image", image_id=image) for image in used[:10]}
    mask = find_label_issues(images.labels, probabilities)
    ranked = find_label_issues(images.labels, probabilities, return_indices_ranked_by="self_confidence")
    for bare in (pd.Series(mask), pd.Series(ranked), pd.DataFrame({"index": ranked})):
        for by_position in (False, True):
            with pytest.raises(UserError, match=r"given_label.* ids"):
                plan_import(workspace, save(bare, how, tmp_path), by_position=by_position)
    for with_names in (
        pd.DataFrame({"image_id": images.ids, "is_label_issue": mask}),
        pd.Series(np.array(images.ids)[ranked]),
        pd.Series(mask, index=images.ids),
    ):
        assert {one.item for one in plan_import(workspace, save(with_names, how, tmp_path)).new} == expected


@pytest.mark.parametrize("how", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("image_id", "{}"),
        ("filepath", "/home/me/data/{}"),
        ("File Name", "C:\\data\\{}"),
        ("image", "/data/local-files/?d={}"),
        ("path", "s3://bucket/images/{}"),
        ("", "{}"),
        ("", "/home/me/{}"),
    ],
)
def test_images_are_found_by_name_in_any_order(
    workspace: Workspace, images: ImageSet, found: pd.DataFrame, tmp_path: Path, how: str, column: str, name: str
) -> None:
    worst = found[found["is_label_issue"]].sort_values("label_quality", ascending=False)
    names = [name.format(image) for image in images.ids[worst.index]]
    table = worst.reset_index(drop=True).assign(**{column: names}) if column else worst.set_index(pd.Index(names))
    made = plan_import(workspace, save(table, how, tmp_path))
    assert len(made.new) == 10
    assert len(made.notes) == (name != "{}")
    by_position = plan_import(workspace, save(table, how, tmp_path), by_position=True)
    assert by_position.new == made.new, "names come first"
    assert len(by_position.notes) == len(made.notes) + 1, "which is said"


def test_positions_of_a_table_of_decisions_are_refused(workspace: Workspace, used: list[str], tmp_path: Path) -> None:
    table = pd.DataFrame({"image_id": used[:1], "verdict": ["unsure"]})
    path = save(table, "csv without index", tmp_path)
    assert len(plan_import(workspace, path).new) == 1
    with pytest.raises(UserError, match="--by-position"):
        plan_import(workspace, path, by_position=True)


def test_the_more_definite_of_two_columns_names_images(
    workspace: Workspace, images: ImageSet, found: pd.DataFrame, tmp_path: Path
) -> None:
    coco = named(found, images).rename(columns={"image_id": "file_name"}).assign(image_id=range(1, len(found) + 1))
    assert len(plan_import(workspace, save(coco, "csv without index", tmp_path)).new) == 10
    torn = named(found, images).assign(path=np.roll(images.ids, 1))
    with pytest.raises(UserError, match="row 1: image_id and path"):
        plan_import(workspace, save(torn, "csv", tmp_path))


def small_images(ids: list[str], classes: tuple[str, ...] = ("a", "b"), **more: Any) -> ImageSet:
    """Return images in two halves of two classes."""
    labels = np.arange(len(ids)) * 2 // len(ids)
    return ImageSet("few", np.zeros((len(ids), 1, 1, 1), np.uint8), labels, classes, np.array(ids, object), **more)


def tasks_of(images: ImageSet) -> TaskList:
    """Return one task of all images: the first of each class is its support."""
    seen: set[str] = set()
    rows = []
    for image_id, label in zip(images.ids, images.labels.tolist(), strict=True):
        name = images.class_names[label]
        rows.append(("t0", "query" if name in seen else "support", image_id, label, name, 1.0))
        seen.add(name)
    rows.sort(key=lambda row: row[1] == "query")
    columns = ["task_id", "role", "image_id", "label", "class", "weight"]
    return from_rows(pd.DataFrame(rows, columns=columns), source="few", images=images)


def issues(images: ImageSet, order: list[int]) -> pd.DataFrame:
    """Return a table of all images as the other tool has them in this order; the first of them is an issue."""
    given = [images.class_names[images.labels[position]] for position in order]
    return pd.DataFrame({"is_label_issue": [True] + [False] * (len(order) - 1), "given_label": given})


def decided(
    path: Path, table: pd.DataFrame, images: ImageSet, by_position: bool = False, how: str = "csv"
) -> tuple[set[str], int]:
    """Return the images that a table decides on, and the number of notes."""
    read = read_decision_file(save(table, how, path), images, tasks_of(images), by_position=by_position)
    return {decision.item.image_id for decision in read.decisions}, len(read.notes)


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg"], ["4.jpg", "2.jpg"], "b/4.jpg"),
        (["x/a/1.jpg", "x/a/2.jpg", "x/b/1.jpg", "x/b/2.jpg"], ["b/1.jpg", "a/2.jpg"], "x/b/1.jpg"),
        (["007", "008", "1", "2"], ["1", "007"], "1"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], ["b/1.jpg", "/data/a/2.jpg"], "b/1.jpg"),
    ],
)
def test_other_names(tmp_path: Path, ids: list[str], names: list[str], expected: str) -> None:
    table = pd.DataFrame({"filename": names, "is_label_issue": [True, False]})
    assert decided(tmp_path, table, small_images(ids))[0] == {expected}


@pytest.mark.parametrize(
    ("ids", "names", "what"),
    [
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], ["1.jpg", "2.jpg"], "row 1: filename '1.jpg' names several"),
        (["a/1.jpg", "1.jpg", "b/1.jpg", "b/2.jpg"], ["/x/b/2.jpg", "/x/a/1.jpg"], "row 2: .*several"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], ["/x/b/2.jpg", "/x/gone/1.jpg"], "row 2: .*gone/1.jpg'"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], ["/x/b/2.jpg", ""], "row 2: filename ''"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], ["/x/b/2.jpg", "/y/b/2.jpg"], "row 2: .* row 1"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], ["/x/bb/1.jpg", "/x/bb/2.jpg"], "row 1: "),
    ],
)
def test_names_of_no_or_of_several_images_are_refused(
    tmp_path: Path, ids: list[str], names: list[str], what: str
) -> None:
    table = pd.DataFrame({"filename": names, "is_label_issue": [True, False]})
    with pytest.raises(UserError, match=what):
        decided(tmp_path, table, small_images(ids), by_position=True)


SIX = ["a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/1.png", "b/2.png"]


@examples(40)
@given(
    positions=st.none() | st.lists(st.integers(-1, 9), min_size=6, max_size=6),
    order=st.permutations(range(6)),
    index=st.booleans(),
)
def test_rows_found_by_position_are_never_of_another_class(
    positions: list[int] | None, order: list[int], index: bool
) -> None:
    known = [position for position in positions or [] if position >= 0]
    if positions and len(set(known)) < len(known):
        return
    images = small_images(SIX, positions=None if positions is None else np.array(positions))
    table = issues(images, order)
    if index:
        table.index = pd.Index(sorted(known)[:6] if len(known) == 6 else range(6))
    with tempfile.TemporaryDirectory() as folder:
        try:
            (image,) = decided(Path(folder), table, images, by_position=True)[0] or ("",)
        except UserError:
            return
    assert not image or image[0] == images.class_names[images.labels[order[0]]]


def test_positions_are_those_of_imagefolder_where_they_are_known(tmp_path: Path) -> None:
    """A hidden file is first, a GIF is not listed, and the file at position 4 was damaged."""
    images = small_images(SIX, positions=np.array([1, -1, 2, 3, 5, 6]))
    listed = pd.DataFrame({"is_label_issue": [False] * 5 + [True, False], "given_label": [*"aaabbbb"]})
    for how in SAVED:
        assert decided(tmp_path, listed, images, by_position=True, how=how) == ({"b/1.png"}, 2)
    for other in (listed.head(6), pd.concat([listed, listed.tail(1)])):
        with pytest.raises(UserError, match=r"[68] rows, but there are 7 positions"):
            decided(tmp_path, other, images, by_position=True, how="csv without index")
    own = issues(images, [*range(6)])  # in the order of the image set
    for how in SAVED:
        with pytest.raises(UserError, match="6 rows"):
            decided(tmp_path, own, images, by_position=True, how=how)
    with pytest.raises(UserError, match=r"image set few.*prove no order"):
        decided(tmp_path, listed.iloc[[2, 3, 5]], images, by_position=True)


@pytest.mark.parametrize(
    ("rows", "is_read"),
    [
        ([0, 1, 2, 3, 4, 5], True),
        ([5, 4, 3, 2, 1, 0], True),
        ([2, 3], True),
        ([1, 4], False),
        ([4], False),
        ([0, 1], False),
        ([0, 2], True),
        ([0, 2, 3, 5], True),
    ],
)
def test_part_of_the_rows_must_prove_that_positions_are_not_shifted(
    tmp_path: Path, rows: list[int], is_read: bool
) -> None:
    images = small_images(SIX)
    part = issues(images, [*range(6)]).assign(is_label_issue=True).iloc[rows]
    if is_read:
        assert decided(tmp_path, part, images, by_position=True)[0] == {SIX[row] for row in rows}
    else:
        with pytest.raises(UserError, match=r"prove no order|2 rows"):
            decided(tmp_path, part, images, by_position=True)


def test_a_predicted_number_that_may_be_a_name_is_refused(tmp_path: Path) -> None:
    images = small_images([f"{number}.png" for number in range(4)], ("0", "1", "10", "2"))
    table = pd.DataFrame(
        {
            "image_id": images.ids,
            "is_label_issue": True,
            "given_label": ["0", "0", "1", "1"],
            "predicted_label": ["1", "1", "2", "0"],
        }
    )
    with pytest.raises(UserError, match="row 3: predicted_label is '2'"):
        decided(tmp_path, table, images)
    assert decided(tmp_path, table.assign(predicted_label=["1", "1", "0", "0"]), images)[0] == set(images.ids)


def test_durations_are_not_positions(workspace: Workspace, found: pd.DataFrame, tmp_path: Path) -> None:
    timed = found.head(10).set_index(pd.to_timedelta(range(10)))  # 0 to 9 nanoseconds
    with pytest.raises(UserError):
        plan_import(workspace, save(timed, "parquet", tmp_path), by_position=True)


def test_issues_outside_the_training_tasks_are_counted(
    workspace: Workspace, images: ImageSet, used: list[str], found: pd.DataFrame, tmp_path: Path
) -> None:
    outside = next(image for image in images.ids if image not in used)
    table = found.copy()
    table.loc[images.index[str(outside)], "is_label_issue"] = True
    made = plan_import(workspace, save(named(table, images), "csv", tmp_path), as_="relabel")
    assert "1 issue on images that are in no training task: left out" in made.sentences


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize(
    ("change", "as_", "what"),
    [
        (lambda t: t.iloc[::-1].reset_index(drop=True), "unsure", ("order", "row 1: given_label")),
        (lambda t: t.head(7).reset_index(drop=True), "unsure", ("names", "7 rows")),
        (lambda t: t.drop(columns="given_label"), "unsure", ("names", "image_id")),
        (lambda t: t.assign(image_id="gone"), "unsure", ("row 1: image_id 'gone'",) * 2),
        (lambda t: t.assign(predicted_label=99), "unsure", ("names", "row 1: predicted_label is .*99")),
        (lambda t: t.assign(is_label_issue="maybe"), "unsure", ("row 1: is_label_issue is 'maybe'",) * 2),
        (lambda t: t[["is_label_issue"]].set_index(pd.Index([f"mnist5k-{n:04d}" for n in t.index])), "relabel", ()),
        (lambda t: t, "keep", ("'keep'",) * 2),
        (lambda t: t.set_index(t.index + 1), "unsure", ("names", "row 5000: index is not")),
        (lambda t: t.set_index(t.index % 10), "unsure", ("names", "row 11: index .* row 1")),
        (lambda t: t[t["is_label_issue"]].iloc[:1], "unsure", ("names", "prove no order")),
        (lambda t: t.iloc[:0], "unsure", ("names", "0 rows")),
    ],
)
def test_invalid_tables_are_refused(
    workspace: Workspace, found: pd.DataFrame, tmp_path: Path, change: Any, as_: str, what: Any, by_position: bool
) -> None:
    expected = {"names": "does not name its images", "order": "does not name"}
    match = what[by_position] if what else "given_label and predicted_label"
    with pytest.raises(UserError, match=expected.get(match, match)):
        import_decisions(workspace, save(change(found), "csv", tmp_path), as_=as_, by_position=by_position)
    assert not workspace.decisions.history()


def test_decisions_name_images_by_file(workspace: Workspace, used: list[str], tmp_path: Path) -> None:
    fiftyone = pd.DataFrame({"filepath": [f"/data/{image}" for image in used[:2]], "verdict": ["remove", "keep"]})
    made = plan_import(workspace, save(fiftyone, "csv without index", tmp_path))
    assert [decision.item.image_id for decision in made.decisions] == used[:2]
    assert len(made.notes) == 1
    twice = pd.concat([fiftyone.assign(reviewer="ann"), fiftyone.assign(reviewer="bob")])
    assert len(plan_import(workspace, save(twice, "csv without index", tmp_path)).decisions) == 4
    with pytest.raises(UserError, match="row 1: filepath '/data/gone'"):
        plan_import(workspace, save(fiftyone.assign(filepath="/data/gone"), "csv without index", tmp_path))
