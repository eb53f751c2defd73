"""Support influence is the derivative by the weight of a support image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.review.label_explanation import explain_label
from core.tasks.tasklist import TaskList
from tests.problems import tiny_problem

PROBLEM = tiny_problem(count=8)


def episodes_of(tasks: TaskList) -> Episodes:
    return Episodes(tasks, PROBLEM.images, dtype=torch.float64)


def test_the_task_of_highest_loss_and_its_support_influence() -> None:
    rows = evaluate(PROBLEM.model, PROBLEM.params, PROBLEM.episodes).rows
    wrong = rows[rows["predicted"] != rows["label"]].sort_values("loss", ascending=False)
    assert len(wrong) >= 3
    for at in wrong.index[:3]:
        image, given = rows["image_id"][at], rows["class"][at]
        found = explain_label(PROBLEM.model, PROBLEM.params, PROBLEM.tasks, episodes_of, image, given)
        assert found is not None
        own = rows[(rows["image_id"] == image) & (rows["class"] == given)]
        worst = own.loc[own["loss"].idxmax()]
        assert (found.task_id, found.given) == (worst["task_id"], given)
        assert found.loss == pytest.approx(worst["loss"])
        assert found.confidence == pytest.approx(np.exp(-found.loss))
        only = PROBLEM.tasks.select([found.task_id]).rows
        names = only.drop_duplicates("label").set_index("label")["class"]
        assert found.predicted == names[worst["predicted"]] != given
        assert found.support_influence["influence"].is_monotonic_decreasing
        assert len(found.support_influence) == (only["role"] == "support").sum()

        query = only[only["role"] == "query"].reset_index(drop=True)
        place = int(np.flatnonzero(query["image_id"] == image)[0])

        def logits(row: int, step: float, only=only, place=place, worst=worst) -> float:  # type: ignore[no-untyped-def]
            weight = only["weight"].to_numpy().copy()
            weight[row] += step
            (chunk,) = episodes_of(TaskList(only.assign(weight=weight))).chunks()
            task = type(chunk.task)(*(value[0] for value in chunk.task))
            found = PROBLEM.model.query_logits(PROBLEM.params, task)[place]
            return float(found[worst["predicted"]] - found[worst["label"]])

        for _, row_influence in found.support_influence.iterrows():
            (row,) = np.flatnonzero((only["role"] == "support") & (only["image_id"] == row_influence["image_id"]))
            slope = (logits(row, 1e-4) - logits(row, -1e-4)) / 2e-4
            assert row_influence["influence"] == pytest.approx(slope, rel=1e-5, abs=1e-7)


def test_a_correctly_predicted_image_has_support_influence_too() -> None:
    rows = evaluate(PROBLEM.model, PROBLEM.params, PROBLEM.episodes).rows
    single = rows[~rows["image_id"].duplicated(keep=False) & (rows["predicted"] == rows["label"])].iloc[0]
    found = explain_label(
        PROBLEM.model, PROBLEM.params, PROBLEM.tasks, episodes_of, single["image_id"], single["class"]
    )
    assert found is not None
    assert found.predicted == found.given == single["class"]
    assert found.support_influence["influence"].abs().max() > 0


def test_an_image_that_is_never_a_query_has_no_explanation() -> None:
    rows = PROBLEM.tasks.rows
    query = rows[rows["role"] == "query"].iloc[0]
    support = (set(rows["image_id"]) - set(rows.loc[rows["role"] == "query", "image_id"])).pop()
    for image, given in ((support, "0"), (query["image_id"], "another")):
        assert explain_label(PROBLEM.model, PROBLEM.params, PROBLEM.tasks, episodes_of, image, given) is None
