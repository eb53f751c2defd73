"""Place a project's model and tasks on a device."""

from __future__ import annotations

from core.maml.loaded import Compute as Compute
from core.maml.loaded import Loaded
from core.workspace.workspace import Project


def load(project: Project, compute: Compute) -> Loaded:
    """Place a project's model and tasks on a device; raise UserError if it or the precision does not exist."""
    model, tasks = project.model, project.tasks
    network = model.spec.bilevel()
    lists = (tasks.train, tasks.heldout, tasks.validation)
    return Loaded(network, model.params, project.images, *lists, compute, project.hashes)
