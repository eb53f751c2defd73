"""The shipped demos: their precomputed results are found, and are what this version computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.actions.demo import (
    CORRECTED,
    HARMFUL,
    RANDOM,
    RECOMMENDED,
    RELABELLED,
    corrected,
    noisy_items,
    run_demo,
    save_sets,
)
from core.actions.edit_cost import finetune_pace
from core.actions.evaluate import evaluation
from core.actions.preparation import preparation_seconds
from core.data import load_images
from core.data.shapes import PER_CLASS, draw_image
from core.maml.settings import Compute
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.tasks.generate import generate
from core.tasks.tasklist import KEY, read_tasks
from core.workspace.demos import AUTHOR, DEMOS, open_demo
from core.workspace.runs import recomputing


@pytest.mark.parametrize("name", DEMOS)
def test_the_result_of_a_demo_is_found_and_not_computed(name: str, tmp_path: Path) -> None:
    workspace = open_demo(name, tmp_path)
    shipped = {path.name for path in workspace.runs.folder.iterdir()}
    assert all(workspace.runs.get(run).is_precomputed for run in shipped)
    kinds = {run.rpartition("-")[0] for run in shipped}
    assert kinds >= {"evaluate", "rank", "recommend", "queue", "curve"}
    assert ("evidence" in kinds) == (DEMOS[name].by == "tasks")
    project = workspace.project()
    assert finetune_pace(workspace, project) is None  # measured on another machine
    assert preparation_seconds(workspace, project, Compute()) is None
    lines: list[str] = []
    exported = run_demo(name, tmp_path, Compute(device="cpu"), Progress(), lines.append)
    assert {path.name for path in workspace.runs.folder.iterdir()} == shipped
    assert all(words in "\n".join(lines) for words in (RECOMMENDED, HARMFUL, RANDOM, CORRECTED))
    cleaned_rows = read_tasks(exported / "cleaned-tasks.parquet", project.images).rows
    kept = cleaned_rows[cleaned_rows["weight"] > 0].set_index(KEY)["class"]
    before = project.tasks.train.rows.set_index(KEY)["class"]
    unchanged = (kept == before.loc[kept.index]).sum()
    assert 0.5 < unchanged / len(before) < 0.95


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_has_the_tasks_of_its_settings(name: str, tmp_path: Path) -> None:
    tasks, drawn = open_demo(name, tmp_path).project().tasks, generate(DEMOS[name].tasks)
    assert (tasks.train.hash, tasks.heldout.hash) == (drawn.train.hash, drawn.heldout.hash)
    assert tasks.validation is not None
    assert drawn.validation is not None
    assert tasks.validation.hash == drawn.validation.hash


def test_a_demo_is_evaluated_as_shipped(tmp_path: Path) -> None:
    workspace = open_demo("demo-noisy-tasks", tmp_path)
    (shipped,) = workspace.runs.all("evaluate")
    before = shipped.table("heldout.parquet")
    with recomputing(shipped):
        again = evaluation(workspace, Compute(device="cpu"), Progress())
    assert again == shipped
    assert not again.is_precomputed
    after = again.table("heldout.parquet")
    assert before["task_id"].tolist() == after["task_id"].tolist()
    np.testing.assert_allclose(after["loss"], before["loss"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after["accuracy"], before["accuracy"], atol=0.041)  # one query of 25


def test_correcting_all_errors_gives_the_clean_tasks() -> None:
    settings = DEMOS["demo-noisy-tasks"].tasks
    noisy = generate(settings)
    changed = cleaned(noisy.train, corrected(noisy))
    clean = generate(replace(settings, noise="none")).train
    assert (changed.rows["weight"] == 1).all()
    assert changed.rows["label"].tolist() == clean.rows["label"].tolist()


def test_the_sets_of_a_demo_follow_the_recommendation_and_spare_those_of_others(tmp_path: Path) -> None:
    workspace = open_demo("demo-noisy-images", tmp_path)
    runs = [workspace.runs.all(kind)[0] for kind in ("recommend", "rank", "queue")]
    shipped = {name: workspace.sets.get(name).changes for name in workspace.sets.names()}
    assert list(shipped) == [RECOMMENDED, RELABELLED, HARMFUL, RANDOM, CORRECTED]
    assert len(shipped[RECOMMENDED].images) == len(shipped[RANDOM].images)
    assert {image for image, _ in shipped[RELABELLED].relabelled_images} <= shipped[RECOMMENDED].images
    few = Changes(images=frozenset(list(shipped[RANDOM].images)[:3]))
    for who in (AUTHOR, "Ann"):
        workspace.sets.delete(RANDOM)
        workspace.sets.save(RANDOM, few, who=who)
        if who == AUTHOR:
            assert save_sets(workspace, "images", *runs) == shipped
    with pytest.raises(UserError, match=RANDOM):
        save_sets(workspace, "images", *runs)
    assert workspace.sets.get(RANDOM).changes == few


def test_only_images_of_the_training_tasks_count_as_noisy(tmp_path: Path) -> None:
    tasks = open_demo("demo-noisy-images", tmp_path).project().tasks
    noisy = noisy_items(tasks, "images")
    assert tasks.planted is not None
    assert len(noisy) < len(tasks.planted)
    assert {image for image, _ in corrected(tasks).relabelled_images} == noisy


def test_the_shipped_shapes_are_as_drawn() -> None:
    images = load_images("shapes")
    for number in (0, 10, 23):
        rng = np.random.default_rng([0, number])
        for position in range(3):
            drawn = draw_image(number, rng).astype(int)
            assert np.abs(drawn - images.images[number * PER_CLASS + position]).max() <= 1
    assert images.class_names[4] == "hollow triangle"
    assert (images.labels[4 * PER_CLASS : 5 * PER_CLASS] == 4).all()
