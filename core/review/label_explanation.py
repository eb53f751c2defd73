"""Explain why a label looks wrong: its task of highest loss, and the support images that influence it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import grad

from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.objective import Bilevel, Task
from core.tasks.tasklist import TaskList


class LabelExplanation(NamedTuple):
    """The prediction for an image in the task in which its label looks worst.

    Attributes:
        task_id, loss: The task in which the image, a query, has the highest adapted loss (nats).
        given, predicted: Its given class there, and the class that the adapted model predicts.
        confidence: Probability of the given class.
        support_influence: Support rows of that task, largest influence first: image_id, class, influence. The influence
            is the derivative by the row's weight of the logit of the predicted class minus that of the given class.
    """

    task_id: str
    loss: float
    given: str
    predicted: str
    confidence: float
    support_influence: pd.DataFrame


def explain_label(
    model: Bilevel,
    params: Params,
    tasks: TaskList,
    episodes_of: Callable[[TaskList], Episodes],
    image_id: str,
    given: str,
) -> LabelExplanation | None:
    """Return the explanation for an image with its given class; None if it is not a query of any task."""
    rows = tasks.rows
    queries = rows[(rows["image_id"] == image_id) & (rows["class"] == given) & (rows["role"] == "query")]
    if queries.empty:
        return None
    candidates = tasks.select(list(queries["task_id"].unique()))
    predictions = evaluate(model, params, episodes_of(candidates)).rows
    of_image = predictions[(predictions["image_id"] == image_id) & (predictions["class"] == given)]
    worst = of_image.iloc[int(of_image["loss"].to_numpy().argmax())]
    task = tasks.select([worst["task_id"]])
    names = task.rows.drop_duplicates("label").set_index("label")["class"]
    label, predicted = int(worst["label"]), int(worst["predicted"])
    # Where the label looks right, it is compared with another class.
    other = predicted if predicted != label else (label + 1) % task.ways
    support, query = (task.rows[task.rows["role"] == role] for role in ("support", "query"))
    query_row = int(np.flatnonzero(query["image_id"] == image_id)[0])
    (chunk,) = episodes_of(task).chunks()
    tensors = Task(*(value[0] for value in chunk.task))

    def logit_gap(s: Tensor) -> Tensor:
        logits = model.query_logits(params, tensors._replace(s=s))[query_row]
        return logits[other] - logits[label]

    with torch.enable_grad():
        influence = grad(logit_gap)(tensors.s).cpu().numpy()
    table = support[["image_id", "class"]].assign(influence=influence)
    return LabelExplanation(
        str(worst["task_id"]),
        float(worst["loss"]),
        given,
        str(names[predicted]),
        float(worst["confidence"]),
        table.sort_values("influence", ascending=False, kind="stable", ignore_index=True),
    )
