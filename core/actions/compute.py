"""A project's tensors on a device."""

from __future__ import annotations

from core.maml import loaded as engine
from core.maml.loaded import Compute
from core.maml.settings import DTYPES
from core.workspace.workspace import Project

__all__ = ["DTYPES", "Compute", "Loaded", "load"]


class Loaded(engine.Loaded):
    """A project's tensors, for callers that have not moved to :func:`load` yet."""

    def __init__(self, project: Project, compute: Compute) -> None:
        self.project = project
        model, tasks = project.model, project.tasks
        super().__init__(
            model.spec.bilevel(),
            model.params,
            project.images,
            tasks.train,
            tasks.heldout,
            compute,
            project.hashes,
        )


def load(project: Project, compute: Compute) -> Loaded:
    """Place a project's model and tasks on a device."""
    return Loaded(project, compute)
