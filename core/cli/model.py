"""The commands that import a checkpoint and create a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli.common import message, this_command
from core.cli.options import Fields, SelectedFields, WorkspaceOption, with_settings
from core.maml.settings import ModelFields
from core.runtime.errors import UserError

_HINTS = ("backbone", "algorithm", "shape", "ways", "steps", "rate")
_FURTHER = ("pooling", "activation", "proximity", "delta")


@with_settings
def model_command(
    *,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="State dict (.pt, .pth), .safetensors file, or model folder of TaskLens."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Folder written by the tasks command; sets --ways and --shape.")
    ] = None,
    hints: Annotated[Fields, SelectedFields(ModelFields, *_HINTS, *_FURTHER)],
    allow: Annotated[
        str,
        typer.Option(help="Allow this package.module:factory to be imported on this machine; runs its code."),
    ] = "",
) -> None:
    """Import a checkpoint that was trained elsewhere.

    The checkpoint can come from learn2learn, or be a state dict of your own network. Options that describe the model
    are read from the checkpoint if it contains them. --delta defaults to 0.
    """
    from core.actions.train import import_model
    from core.checkpoints.factory import allow_factory
    from core.checkpoints.matching import CheckpointHints

    if allow:
        allow_factory(allow)
        message(f"{allow} may be imported on this machine.")
        if checkpoint is None:
            return
    if checkpoint is None or out is None:
        raise UserError("--checkpoint or --out is missing.", "Give both.")
    hints = {name: value for name, value in hints.items() if value != ""}
    if "backbone" in hints:
        backbone_fields(hints["backbone"])
    further = {name: hints.pop(name) for name in _FURTHER if name in hints}
    model = import_model(checkpoint, out, CheckpointHints(**hints, more=further), tasks, this_command())
    for note in model.metadata.get("origin", {}).get("notes", []):
        message(note)
    message(f"{model.spec.description}; {model.size:,} parameters")
    print(out)


def backbone_fields(name: str) -> dict[str, Any]:
    """Return the fields of a model that a backbone sets; allow a factory, as the user named it."""
    from core.checkpoints.factory import allow_factory, is_factory

    if not is_factory(name):
        return {"backbone": name}
    allow_factory(name)
    return {"backbone": "module", "factory": name}


def open_command(
    tasks: Annotated[Path, typer.Option(help="Folder written by the tasks command.")],
    model: Annotated[Path, typer.Option(help="Folder written by the train or model command.")],
    workspace: WorkspaceOption,
) -> None:
    """Create a workspace from tasks and a model.

    Prints its folder.
    """
    from core.workspace.workspace import create, locate

    print(create(locate(workspace), tasks, model).folder)
