"""The search for duplicates as a run of a workspace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.actions.duplicates import duplicates, newest_duplicates, summary_text
from core.data import ImageSet
from core.runtime.progress import Progress
from core.workspace.workspace import Project, Workspace
from tests.actions.reviewed import small_workspace


class Copied(Workspace):
    """A workspace in which some images of the tasks are copies of others."""

    def __init__(self, workspace: Workspace, copies: dict[str, str]) -> None:
        super().__init__(workspace.folder)
        known = workspace.project()
        pixels = known.images.images.copy()
        for copy, origin in copies.items():
            pixels[known.images.index[copy]] = pixels[known.images.index[origin]]
        images = known.images
        other = ImageSet(images.name, pixels, images.labels, images.class_names, images.ids)
        self._project = Project(other, replace(known.tasks), known.model)

    def project(self) -> Any:
        return self._project


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tmp_path_factory.mktemp("problem"))


def test_pairs_and_leaks_of_a_workspace(problem: Workspace, tmp_path: Path) -> None:
    train, heldout = (problem.project().tasks.train.rows, problem.project().tasks.heldout.rows)
    first = train[train["task_id"] == "t0"]
    support, query = (first[first["role"] == role].iloc[0] for role in ("support", "query"))
    other = first[(first["role"] == "query") & (first["class"] != support["class"])].iloc[0]
    away = next(image for image in heldout["image_id"] if image not in set(train["image_id"]))
    workspace = Copied(problem, {query["image_id"]: support["image_id"], other["image_id"]: support["image_id"]})
    workspace = Copied(workspace, {away: support["image_id"]})
    assert newest_duplicates(workspace, workspace.project()) is None
    run = duplicates(workspace, Progress())
    pairs, leaks, summary = run.table("pairs.parquet"), run.table("leaks.parquet"), run.json("summary.json")
    exact = pairs[pairs["exact"]]
    assert set(exact["image_id"]) | set(exact["other"]) == {
        support["image_id"],
        query["image_id"],
        other["image_id"],
        away,
    }
    assert exact["group"].nunique() == 1
    inside = dict(zip(exact["other"], exact["other_training"], strict=True))
    inside |= dict(zip(exact["image_id"], exact["training"], strict=True))
    assert not inside[away]
    assert inside[query["image_id"]]
    assert summary["exact"] == 3
    assert summary["contradictions"] >= 1
    found = {(row.image_id, row.other) for row in leaks.itertuples() if row.kind == "support-query" and row.exact}
    assert {(support["image_id"], query["image_id"]), (support["image_id"], other["image_id"])} <= found
    across = leaks[(leaks["kind"] == "train-heldout") & (leaks["other"] == away)]
    assert support["image_id"] in set(across["image_id"])
    assert all("t0" in set(np.ravel(tasks)) or len(tasks) for tasks in across["tasks"])
    assert sum(summary["histogram"]["counts"]) <= summary["images"]
    assert str(summary["pairs"]) in summary_text(run)[0]
    assert newest_duplicates(workspace, workspace.project()) == run
    assert newest_duplicates(problem, problem.project()) is None, "another data set has another key"
