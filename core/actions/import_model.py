"""Import a checkpoint from another program as a model folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from core.checkpoints.foreign import import_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, load_model, save_model
from core.maml.module import ModuleNet, probe
from core.runtime.errors import UserError
from core.tasks.generate import read_folder
from core.workspace.workspace import check_fit


def import_model(checkpoint: Path, out: Path, hints: CheckpointHints, tasks: Path | None, command: str) -> Model:
    """Write the model folder ``out``; repeating the same import finds it there.

    Args:
        tasks: A folder of tasks for the model: they determine the image size and the number of classes.
        command: The command line, recorded in the metadata.

    Raises:
        UserError: the checkpoint or its network cannot be used, does not fit the tasks, or ``out`` has another model.
    """
    folder = read_folder(tasks) if tasks else None
    if folder:
        hints = replace(hints, shape=folder.images().shape, ways=folder.train.ways)
    model = import_checkpoint(checkpoint, hints)
    network = model.spec.bilevel().network
    if isinstance(network, ModuleNet) and not network.is_builtin:
        probe(network)
    if folder:
        check_fit(folder.images(), folder, model)
    if (out / "model.json").exists():
        existing = load_model(out)
        if existing.hash != model.hash:
            raise UserError(f"{out} already contains another model.", "Choose another output folder.")
        return existing
    model.metadata["command"] = command
    save_model(model, out)
    return model
