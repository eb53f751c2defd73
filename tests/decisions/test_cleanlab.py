"""Tables made by cleanlab are read as proposals; one in another order is refused."""

from __future__ import annotations

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

from core.actions.import_decisions import import_decisions, plan_import
from core.data import ImageSet
from core.decisions.log import Decision, Item
from core.runtime.errors import UserError
from core.workspace.workspace import Workspace
from tests.actions.reviewed import small_workspace
from tests.actions.test_decisions_io import Logged

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


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("which", ["found", "lab_table"])
def test_issues_become_proposals(
    workspace: Workspace, used: list[str], tmp_path: Path, how: str, which: str, request: pytest.FixtureRequest
) -> None:
    table = request.getfixturevalue(which)
    assert set(table.columns) >= {"is_label_issue", "given_label", "predicted_label"}
    import_decisions(workspace, save(table, how, tmp_path))
    entries = workspace.decisions.current().values()
    assert {entry.item for entry in entries} == {Item("image", image_id=image) for image in used[:10]}
    assert {(entry.verdict, entry.reviewer) for entry in entries} == {("unsure", "cleanlab")}
    assert all("quality 0.0" in entry.reason and "predicted " in entry.reason for entry in entries)
    assert all(entry.source.startswith("cleanlab:issues.") for entry in entries)


def test_issues_become_new_labels(workspace: Workspace, images: ImageSet, found: pd.DataFrame, tmp_path: Path) -> None:
    import_decisions(workspace, save(found, "csv", tmp_path), as_="relabel", reviewer="ann")
    for item, entry in workspace.decisions.current().items():
        given = images.labels[images.index[item.image_id]]
        assert (entry.verdict, entry.label, entry.reviewer) == ("relabel", (given + 1) % 10, "ann")


def test_decisions_of_people_are_not_changed(
    workspace: Workspace, used: list[str], lab_table: pd.DataFrame, tmp_path: Path
) -> None:
    decided = Item("image", image_id=used[0])
    workspace.decisions.append([Decision(decided, "keep", reviewer="ann")])
    made = import_decisions(workspace, save(lab_table, "csv", tmp_path), as_="remove")
    assert workspace.decisions.current()[decided].verdict == "keep"
    assert len(made.new) == 9
    assert [note.split()[0] for note in made.notes] == ["1"]


@pytest.mark.parametrize("how", ["csv", "parquet"])
def test_the_output_of_the_filter_function(
    workspace: Workspace, images: ImageSet, used: list[str], probabilities: np.ndarray, tmp_path: Path, how: str
) -> None:
    expected = {Item("image", image_id=image) for image in used[:10]}
    mask = find_label_issues(images.labels, probabilities)
    ranked = find_label_issues(images.labels, probabilities, return_indices_ranked_by="self_confidence")
    for kept in (pd.Series(mask), pd.Series(ranked), pd.DataFrame({"index": ranked})):
        assert {one.item for one in plan_import(workspace, save(kept, how, tmp_path)).new} == expected


def test_a_part_of_the_table_in_another_order_is_read_by_id(
    workspace: Workspace, used: list[str], images: ImageSet, found: pd.DataFrame, tmp_path: Path
) -> None:
    worst = found[found["is_label_issue"]].sort_values("label_quality", ascending=False)
    assert len(plan_import(workspace, save(worst, "csv", tmp_path)).new) == 10
    assert len(plan_import(workspace, save(worst, "parquet", tmp_path)).new) == 10
    named = worst.assign(image_id=images.ids[worst.index])
    assert len(plan_import(workspace, save(named, "csv without index", tmp_path)).new) == 10
    by_id = worst.set_index(images.ids[worst.index])
    assert len(plan_import(workspace, save(by_id, "parquet", tmp_path)).new) == 10


def test_durations_are_not_positions(workspace: Workspace, found: pd.DataFrame, tmp_path: Path) -> None:
    timed = found.head(10).set_index(pd.to_timedelta(range(10)))  # 0 to 9 nanoseconds
    with pytest.raises(UserError):
        plan_import(workspace, save(timed, "parquet", tmp_path))


def test_issues_outside_the_training_tasks_are_counted(
    workspace: Workspace, images: ImageSet, used: list[str], found: pd.DataFrame, tmp_path: Path
) -> None:
    outside = next(image for image in images.ids if image not in used)
    table = found.copy()
    table.loc[images.index[str(outside)], "is_label_issue"] = True
    made = plan_import(workspace, save(table, "csv", tmp_path), as_="relabel")
    assert "1 issue on images that are in no training task: left out" in made.sentences


@pytest.mark.parametrize(
    ("change", "as_", "what"),
    [
        (lambda t: t.iloc[::-1].reset_index(drop=True), "unsure", "row 1: given_label"),
        (lambda t: t.head(7).reset_index(drop=True), "unsure", "7 rows .*mnist5k.* 5,000"),
        (lambda t: t.assign(image_id="gone"), "unsure", "row 1: image_id 'gone'"),
        (lambda t: t.assign(predicted_label=99), "unsure", "row 1: predicted_label is .*99"),
        (lambda t: t.assign(is_label_issue="maybe"), "unsure", "row 1: is_label_issue is 'maybe'"),
        (lambda t: t[["is_label_issue"]], "relabel", "given_label and predicted_label"),
        (lambda t: t, "keep", "'keep'"),
    ],
)
def test_invalid_tables_are_refused(
    workspace: Workspace, found: pd.DataFrame, tmp_path: Path, change: Any, as_: str, what: str
) -> None:
    with pytest.raises(UserError, match=what):
        import_decisions(workspace, save(change(found), "csv without index", tmp_path), as_=as_)
    assert not workspace.decisions.history()
