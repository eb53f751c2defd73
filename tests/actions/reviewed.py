"""A small workspace for tests of reviews."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.actions.queue import VERSION
from core.checkpoints.model import Model, ModelSpec, save_model
from core.decisions.log import Item
from core.influence.basis import ENGINE_VERSION
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, create


def small_workspace(folder: Path, count: int = 5, heldout: int = 3) -> Workspace:
    """Return a workspace of 3-way tasks with one support and two query images per class, and an untrained model."""
    write_folder(generate(TaskSettings(ways=3, shots=1, queries=2, count=count, heldout=heldout)), folder / "tasks")
    spec = ModelSpec(ways=3, filters=2)
    save_model(Model(spec, spec.init(0, torch.float64), {"command": "by hand"}), folder / "model")
    return create(folder / "small", folder / "tasks", folder / "model")


def some_items(workspace: Workspace) -> dict[str, list[Item]]:
    """Items of every kind, in the order of the task list."""
    rows = workspace.project().tasks.train.rows
    return {
        "task": [Item("task", task) for task in rows["task_id"].unique()],
        "image": [Item("image", image_id=image) for image in rows["image_id"].unique()],
        "instance": [Item("instance", *key) for key in rows[["task_id", "role", "image_id"]].itertuples(index=False)],
    }


def queue_key(workspace: Workspace) -> dict[str, Any]:
    """Return the part of the cache key by which the newest queue is found."""
    return {**workspace.project().hashes, "engine": ENGINE_VERSION, "version": VERSION}
