"""Why one label looks wrong: the task that says so loudest, and the support images that pull the image away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the task says in which the label looks worst.

    Attributes:
        task_id, loss: The task in which the image, a query, has the highest adapted loss (nats).
        given, seen: The class that it was given there and the one that the adapted model sees.
        confidence: Probability of the given class.
        pulls: Support rows of that task: image_id, class, pull; the largest first. The pull is what the row adds, to
            first order in its weight, to the logit of the class seen against that of the class given.
    """

    task_id: str
    loss: float
    given: str
    seen: str
    confidence: float
    support_influence: pd.DataFrame


def evidence(
    model: Bilevel,
    params: Params,
    tasks: TaskList,
    episodes_of: Callable[[TaskList], Episodes],
    image_id: str,
    given: str,
) -> Evidence | None:
    """The evidence on one image with its class as given; None where it is a query of no task.

    Args:
        episodes_of: Makes a task list computable.
    """
    rows = tasks.rows
    here = rows[(rows["image_id"] == image_id) & (rows["class"] == given) & (rows["role"] == "query")]
    if here.empty:
        return None
    chosen = tasks.select(list(here["task_id"].unique()))
    seen = evaluate(model, params, episodes_of(chosen)).rows
    own = seen[(seen["image_id"] == image_id) & (seen["class"] == given)]
    worst = own.loc[own["loss"].idxmax()]
    only = tasks.select([worst["task_id"]])
    names = only.rows.drop_duplicates("label").set_index("label")["class"]
    pulls = _pulls(model, params, only, episodes_of, image_id, int(worst["label"]), int(worst["predicted"]))
    return Evidence(
        str(worst["task_id"]),
        float(worst["loss"]),
        given,
        str(names[int(worst["predicted"])]),
        float(worst["confidence"]),
        pulls,
    )


def _pulls(
    model: Bilevel,
    params: Params,
    only: TaskList,
    episodes_of: Callable[[TaskList], Episodes],
    image_id: str,
    label: int,
    predicted: int,
) -> pd.DataFrame:
    rows = only.rows
    support, query = rows[rows["role"] == "support"], rows[rows["role"] == "query"].reset_index(drop=True)
    at = int(np.flatnonzero(query["image_id"] == image_id)[0])
    if predicted == label:  # it is right here: what pulls is what comes next
        predicted = (label + 1) % only.ways
    (chunk,) = episodes_of(only).chunks()
    task = Task(*(value[0] for value in chunk.task))

    def against(s: Tensor) -> Tensor:
        logits = model.query_logits(params, task._replace(s=s))[at]
        return logits[predicted] - logits[label]

    with torch.enable_grad():
        pull = grad(against)(task.s).cpu().numpy()
    table = support[["image_id", "class"]].assign(pull=pull)
    return table.sort_values("pull", ascending=False, kind="stable", ignore_index=True)
