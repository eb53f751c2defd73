"""Place a project's model and tasks on a device."""

from __future__ import annotations

from core.maml.loaded import Compute as Compute
from core.maml.loaded import Loaded
from core.workspace.workspace import Project


def load(project: Project, compute: Compute) -> Loaded:
    """Place a project's model and tasks on a device; raise UserError if it or the precision does not exist."""
    model, tasks = project.model, project.tasks
    network = model.spec.bilevel()
    return Loaded(
        network, model.params, project.images, tasks.train, tasks.heldout, compute, project.hashes, tasks.validation
    )
