"""The Python API: from images to a ranking in ten lines, on objects in memory or on a workspace.

::

    from core import api

    images = api.load_images("mnist5k")
    tasks = api.draw_tasks(images, count=60, noise="easy")
    model = api.train(tasks, iterations=300)
    ranking = api.rank(tasks, model)
    harmful = ranking.tasks.nsmallest(20, "score")["task_id"]
    edited = api.edit(tasks, model, api.Changes.named(tasks=harmful), method="finetune")
    print(edited)

Results are pandas frames and small typed objects. Every function that computes takes ``progress=True`` for progress
bars and ``device`` (``auto``, ``cpu``, ``cuda[:N]``). Errors are :class:`UserError`. docs/python.md explains it all.
"""

from core.api.display import EditedModel, ImageGrid, Model, Ranking, Recommendation, ReviewQueue
from core.api.memory import (
    Tasks,
    draw_tasks,
    edit,
    evaluate,
    images_from_arrays,
    load_images,
    load_model,
    load_tasks,
    rank,
    review_queue,
    train,
)
from core.api.workspace import Workspace, create_workspace, open_workspace
from core.runtime.errors import UserError
from core.tasks.changes import Changes

__all__ = [
    "Changes",
    "EditedModel",
    "ImageGrid",
    "Model",
    "Ranking",
    "Recommendation",
    "ReviewQueue",
    "Tasks",
    "UserError",
    "Workspace",
    "create_workspace",
    "draw_tasks",
    "edit",
    "evaluate",
    "images_from_arrays",
    "load_images",
    "load_model",
    "load_tasks",
    "open_workspace",
    "rank",
    "review_queue",
    "train",
]
