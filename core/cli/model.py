"""The commands that import a model and open a workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from core.cli.options import WorkspaceOption, command_line, say
from core.runtime.errors import UserError


def model_command(
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A state dict (.pt, .pth), a .safetensors file, or a model folder of TaskLens."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    backbone: Annotated[
        str, typer.Option(help="As for train; may be left out where the names in the checkpoint tell it.")
    ] = "",
    algorithm: Annotated[
        str, typer.Option(help="maml, fomaml, anil, meta-sgd or imaml; default: what the checkpoint tells.")
    ] = "",
    inner_steps: Annotated[
        int | None, typer.Option(min=1, help="Gradient steps of the adaptation that it was trained with.")
    ] = None,
    inner_rate: Annotated[float | None, typer.Option(help="Their learning rate.")] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Folder made by the tasks command, which the model has to fit.")
    ] = None,
    shape: Annotated[str, typer.Option(help="Instead of tasks: HEIGHT,WIDTH,CHANNELS of the images.")] = "",
    ways: Annotated[int | None, typer.Option(min=2, help="Instead of tasks: classes a task.")] = None,
    pooling: Annotated[str, typer.Option(help="As for train, where the checkpoint does not tell it.")] = "",
    activation: Annotated[str, typer.Option(help="Of convnet and mlp, as for train.")] = "",
    proximity: Annotated[float | None, typer.Option(help="Of imaml, as for train.")] = None,
    delta: Annotated[
        float | None, typer.Option(help="Weight decay that it was trained with, as for train; 0 if not said.")
    ] = None,
    allow: Annotated[
        str, typer.Option(help="Only let this package.module:factory be imported on this machine; runs its code.")
    ] = "",
) -> None:
    """Make a model of a checkpoint from elsewhere: learn2learn's, or a state dict of your own network."""
    from core.actions.import_model import import_model
    from core.checkpoints.factory import allow as allow_factory
    from core.checkpoints.matching import CheckpointHints

    if allow:
        allow_factory(allow)
        say(f"{allow} may be imported on this machine.")
        if checkpoint is None:
            return
    if checkpoint is None or out is None:
        raise UserError("There is no checkpoint or no folder to write.", "Give --checkpoint and --out.")
    if backbone:
        backbone_fields(backbone)
    more = {"pooling": pooling, "activation": activation, "proximity": proximity, "delta": delta}
    asked = CheckpointHints(
        backbone or None,
        algorithm or None,
        image_shape(shape) if shape else None,
        ways,
        inner_steps,
        inner_rate,
        {name: value for name, value in more.items() if value not in ("", None)},
    )
    made = import_model(checkpoint, out, asked, tasks, command_line())
    for note in made.story.get("origin", {}).get("notes", []):
        say(note)
    say(f"{made.spec.words}; {made.size:,} parameters")
    print(out)


def backbone_fields(name: str) -> dict[str, Any]:
    """Fields of a model's description; a factory that is named on the command line may be imported from then on."""
    from core.checkpoints.factory import allow, is_factory

    if not is_factory(name):
        return {"backbone": name}
    allow(name)
    return {"backbone": "module", "factory": name}


def image_shape(text: str) -> tuple[int, int, int]:
    try:
        height, width, channels = (int(number) for number in text.split(","))
        if min(height, width, channels) < 1:
            raise ValueError
    except ValueError as error:
        raise UserError(f"{text!r} is not a size of images.", "For example 84,84,3.") from error
    return height, width, channels


def open_command(
    tasks: Annotated[Path, typer.Option(help="Folder made by the tasks command.")],
    model: Annotated[Path, typer.Option(help="Folder made by the train command.")],
    workspace: WorkspaceOption,
) -> None:
    """Make a workspace from tasks and a model, for the dashboard and the commands below."""
    from core.workspace.workspace import create, locate

    print(create(locate(workspace), tasks, model).folder)
