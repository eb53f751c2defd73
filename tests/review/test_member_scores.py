"""Every score is in the row of its item and equals its definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import grad

from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.vectors import flatten
from core.review import member_scores as members
from core.review.image_labels import image_label_pairs
from core.review.member_scores import (
    FAST,
    ROWS,
    ScoreInputs,
    ScoreTable,
    features_of,
    score_labels,
)
from core.review.settings import SLOW, QueueSettings
from core.runtime.progress import Progress
from core.tasks.noise import Noise, flip_labels
from core.tasks.tasklist import TaskList
from tests.problems import tiny_problem, tiny_tasks

PROBLEM = tiny_problem(shots=3)
CLEAN = tiny_tasks(PROBLEM.images, ways=3, shots=2, queries=3, count=12)
NOISY = flip_labels(CLEAN, Noise.parse("tasks:0.5:0.5"), np.random.default_rng(0))[0]


def episodes_of(tasks: TaskList) -> Episodes:
    return Episodes(tasks, PROBLEM.images, dtype=torch.float64, chunk=4)


def inputs(tasks: TaskList) -> ScoreInputs:
    pairs = image_label_pairs(tasks, PROBLEM.images)
    features = features_of(PROBLEM.images, PROBLEM.model, PROBLEM.params, pairs, Progress())
    return ScoreInputs(PROBLEM.images, PROBLEM.model, PROBLEM.params, PROBLEM.tasks, episodes_of, features)


def score(tasks: TaskList, by_row: bool, slow: tuple[str, ...] = ()) -> ScoreTable:
    pairs = image_label_pairs(tasks, PROBLEM.images)
    return score_labels(inputs(tasks), pairs, tasks, by_row, QueueSettings(slow, rounds=2), Progress())


def test_scores_of_images() -> None:
    pairs = image_label_pairs(CLEAN, PROBLEM.images)
    found = score(CLEAN, by_row=False)
    assert set(found.scores.columns) == set(FAST)
    assert len(found.scores) == len(pairs)
    assert np.isfinite(found.scores.to_numpy()).all()
    np.testing.assert_array_equal(found.images, np.unique(pairs.image))
    assert found.log_p.shape == (len(pairs), 4)
    assert len(found.whitened) == len(pairs)
    at = np.searchsorted(found.images, pairs.image)
    np.testing.assert_allclose(found.scores["classifier"], -found.log_p[at, pairs.label], rtol=1e-5)
    assert set(found.seconds) >= {"classifiers", "scoring tasks", "own tasks"}
    lost = members.left_out_support_losses(inputs(CLEAN), CLEAN, Progress())
    often = pairs.of_row[np.isfinite(lost)]
    first = often[0]
    mean = lost[np.isfinite(lost)][often == first].mean()
    assert found.scores["support_loss"][first] == pytest.approx(mean)


class Recorder(Progress):
    """Records the units of every stage and its total."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[str, list[int]] = {}

    def _report(self, force: bool) -> None:
        self.stages[self._stage] = [self._done, self._total]


def test_no_stage_exceeds_its_total() -> None:
    progress, tasks = Recorder(), tiny_tasks(PROBLEM.images, ways=3, shots=3, queries=4, count=5)
    pairs = image_label_pairs(tasks, PROBLEM.images)
    score_labels(inputs(tasks), pairs, tasks, False, QueueSettings(rounds=2), progress)
    assert len(progress.stages) == 4
    assert all(done == total > 0 for done, total in progress.stages.values())


def test_scores_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "EPOCHS", 1)
    pairs = image_label_pairs(NOISY, PROBLEM.images)
    assert pairs.has_conflicting_labels
    found = score(NOISY, by_row=True, slow=SLOW).scores
    rows = NOISY.rows
    assert set(found.columns) == {*FAST, *ROWS, *SLOW}
    assert len(found) == len(rows)
    assert np.isfinite(found.to_numpy()).all()
    query = (rows["role"] == "query").to_numpy()
    own = evaluate(PROBLEM.model, PROBLEM.params, episodes_of(NOISY)).rows["loss"]
    np.testing.assert_allclose(found["task_loss"][query], own)
    np.testing.assert_allclose(found["support_loss"][query], own)  # a query row has no other of its own
    for name in ("classifier", "loss", "cross_validated"):  # one per pair
        assert found[name].groupby(pairs.of_row).nunique().max() == 1
    at = int(np.argmax(found["votes"]))
    same_image = rows[rows["image_id"] == rows["image_id"][at]]
    assert 0 < found["votes"][at] == (same_image["class"] != rows["class"][at]).mean()
    other_rows = (rows["task_id"] == rows["task_id"][at]).to_numpy() & (np.arange(len(rows)) != at)
    assert found["others"][at] == pytest.approx(found["classifier"][other_rows].mean())


def test_rows_of_weight_0_are_not_items() -> None:
    weight = np.ones(len(NOISY.rows))
    weight[[2, 7, 31]] = 0.0
    tasks = TaskList(NOISY.rows.assign(weight=weight))
    found = score(tasks, by_row=True).scores
    assert len(found) == len(NOISY.rows) - 3
    assert np.isfinite(found.to_numpy()).all()
    query = (tasks.rows["role"] == "query").to_numpy()
    own = evaluate(PROBLEM.model, PROBLEM.params, episodes_of(tasks)).rows["loss"].to_numpy()
    np.testing.assert_allclose(found["task_loss"][query[weight > 0]], own[weight[query] > 0])


def test_left_out_losses_match_tasks_adapted_by_hand() -> None:
    problem = PROBLEM
    found = members.left_out_support_losses(inputs(problem.tasks), problem.tasks, Progress())
    rows = problem.tasks.rows
    assert np.isnan(found[rows["role"] == "query"]).all()
    (chunk,) = Episodes(problem.tasks, problem.images, dtype=torch.float64, chunk=9).chunks()
    for number in (0, 3):
        task = type(chunk.task)(*(value[number] for value in chunk.task))
        at = np.flatnonzero((rows["task_id"] == f"t{number}") & (rows["role"] == "support"))
        fold = torch.tensor(rows.iloc[at].groupby("label").cumcount().to_numpy())
        for one in range(3):
            out, remaining = fold == one, fold != one
            held = task._replace(
                xs=task.xs[remaining],
                ys=task.ys[remaining],
                s=task.s[remaining],
                xq=task.xs[out],
                yq=task.ys[out],
                q=task.s[out],
            )
            logits = problem.model.query_logits(problem.params, held)
            loss = torch.nn.functional.cross_entropy(logits, held.yq, reduction="none")
            np.testing.assert_allclose(found[at[out.numpy()]], loss.detach(), rtol=1e-9)


def test_one_shot_tasks_have_no_left_out_losses() -> None:
    tasks = tiny_tasks(PROBLEM.images, ways=3, shots=1, queries=2, count=6)
    assert np.isnan(members.left_out_support_losses(inputs(tasks), tasks, Progress())).all()
    found = score(tasks, by_row=False).scores
    assert np.isfinite(found.to_numpy()).all()


def test_the_sketch_of_self_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_PROBES", 100)
    problem = tiny_problem(count=2)
    found = members._gradient_norms(
        replace(inputs(problem.tasks), params=problem.params), problem.episodes, 0, Progress()
    )
    rows = problem.tasks.rows
    (chunk,) = problem.episodes.chunks()
    for number, task_id in enumerate(problem.tasks.task_ids):
        task = type(chunk.task)(*(value[number] for value in chunk.task))
        at = np.flatnonzero((rows["task_id"] == task_id) & (rows["role"] == "query"))
        for place in range(len(at)):
            q = torch.zeros_like(task.q)
            q[place] = 1.0
            exact = grad(lambda params, q=q, task=task: problem.model.task_loss(params, task._replace(q=q)))(
                problem.params
            )
            assert found[at[place]] == pytest.approx(float(torch.log((flatten(exact) ** 2).sum())), abs=0.6)
