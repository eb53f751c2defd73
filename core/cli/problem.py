"""The commands that make a problem of images, tasks and a model, check it, and open it as a workspace."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from core.actions.image_settings import ImportOptions
from core.cli.common import announce_device, interval_text, live_progress, message, open_workspace, this_command
from core.cli.options import Fields, SelectedFields, WorkspaceOption, with_settings
from core.cli.streams import print_row
from core.maml.settings import Compute, ModelFields, TrainSettings
from core.runtime.distributed import single_process
from core.runtime.errors import UserError, printable
from core.runtime.progress import format_count, format_names
from core.runtime.settings import arguments_of, declared
from core.tasks.settings import TaskSettings

if TYPE_CHECKING:
    from core.actions.inspect import Inspection

FOUND, FAULTS, COSTS = "found:", "does not fit:", "cost on this machine, measured on a few tasks:"
"""Headings of a report."""
_READING = tuple(field.name for field in fields(ImportOptions) if field.name != "skip_unreadable")
_HINTS = ("backbone", "algorithm", "shape", "ways", "steps", "rate")
_FURTHER = ("pooling", "activation", "proximity", "delta")


@with_settings
def data(
    *,
    path: Annotated[
        Path | None, Option(help="Folder, zip archive or manifest; with --download, the folder to download to.")
    ] = None,
    name: Annotated[str, Option(help="Name of the image set. Default: that of the files.")] = "",
    options: ImportOptions,
    download: Annotated[
        bool, Option("--download", help="Download the data set that --format names to --path first.")
    ] = False,
    list_: Annotated[bool, Option("--list", help="List the image sets and exit.")] = False,
) -> None:
    """Import labelled images as an image set.

    Prints the folder of the image set, which tasks can be drawn from.
    """
    from core.actions.images import add_images, known_images
    from core.data.download import download as download_data
    from core.data.store import damaged_image_sets, stored_image_sets

    if list_:
        for row in known_images():
            print_row(*row)
        for fault in damaged_image_sets():
            message(fault)
        return
    if path is None:
        raise UserError("--path is missing.", "Give --path, or --list to see the image sets.")
    progress = live_progress()
    if download:
        download_data(options.format, path, progress)
    stored = add_images(path, options, name=name, command=this_command(), progress=progress)
    for sentence in (*stored.story.get("description", ()), *stored.notes):
        message(sentence)
    if len(stored.names) > 1:
        message(f"These images are also stored as {format_names(stored.names[:-1])}.")
    if others := [one for one in stored_image_sets() if stored.name in one.names and one.folder != stored.folder]:
        counts = ", ".join(f"{one.count:,} images" for one in others)
        message(f"There are other image sets called {stored.name!r} ({counts}); the name means this one from now on.")
    height, width, channels = stored.shape
    unreadable = f"; {stored.unreadable:,} unreadable left out" if stored.unreadable else ""
    message(
        f"{stored.name}: {stored.count:,} images of {height} x {width} x {channels}, {stored.classes:,} classes"
        f"{unreadable}"
    )
    message(f"To draw tasks: tasklens tasks --data {stored.name} --out tasks/{stored.name}")
    print(stored.folder)


@with_settings
def tasks(
    *,
    out: Annotated[Path, Option(help="Folder to write.")],
    settings: TaskSettings,
    train_list: Annotated[
        Path | None, Option(help="Your own training tasks instead of drawn ones; needs --heldout-list.")
    ] = None,
    heldout_list: Annotated[
        Path | None, Option(help="Your own held-out tasks instead of drawn ones; needs --train-list.")
    ] = None,
    validation_list: Annotated[
        Path | None, Option(help="Your own validation tasks, with --train-list and --heldout-list.")
    ] = None,
) -> None:
    """Draw training, validation and held-out tasks.

    Training chooses the step to keep by the validation tasks; accuracy is reported on the held-out tasks. Label noise
    can be injected into the training tasks. Instead of drawing, your own lists can be imported.
    """
    from core.tasks.generate import from_lists, generate, write_folder

    if (train_list is None) != (heldout_list is None):
        raise UserError("One of the two task lists is missing.", "Give both --train-list and --heldout-list.")
    if validation_list and not train_list:
        raise UserError("--validation-list is given without the other lists.", "Give --train-list and --heldout-list.")
    if train_list and heldout_list:
        folder = from_lists(settings.data, train_list, heldout_list, validation_list)
    else:
        folder = generate(settings)
    folder.description["command"] = this_command()
    write_folder(folder, out)
    validation = folder.validation_count
    message(f"{len(folder.train)} training, {validation} validation and {len(folder.heldout)} held-out tasks")
    if not validation and settings.validation is None:
        why = "your lists have none" if train_list else "there are too few images, classes or groups"
        message(f"No validation tasks, as {why}: training will keep its last step.")
    print(out)


@with_settings
def train(
    *,
    tasks: Annotated[Path, Option(help="Folder written by the tasks command.")],
    out: Annotated[Path, Option(help="Folder to write; an interrupted training in it is resumed.")],
    model: Annotated[Fields, SelectedFields(ModelFields, "algorithm", "backbone", with_defaults=True)],
    network: Annotated[
        Fields, SelectedFields(ModelFields, "filters", "blocks", "pooling", "hidden", "shrink", "activation")
    ],
    adaptation: Annotated[Fields, SelectedFields(ModelFields, "steps", "rate")],
    objective: Annotated[
        Fields, SelectedFields(ModelFields, "proximity", "inner_tolerance", "delta", with_defaults=True)
    ],
    settings: Annotated[Fields, SelectedFields(TrainSettings, "iterations", "meta_batch", "learning_rate")],
    further: Annotated[
        Fields, SelectedFields(TrainSettings, "polish", "tolerance", "checks", "patience", "seed", with_defaults=True)
    ],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Estimate the cost of training and of the work after it, and exit.")
    ] = False,
    compute: Compute,
) -> None:
    """Meta-train a MAML model.

    Options without a default take that of the recipe for the kind of images, for example 3,600 steps of 4 tasks with
    mean pooling (docs/training.md), or of the network. Reports the accuracy on the held-out tasks and how close the
    model is to a stationary point.
    """
    from core.actions.inspect import inspect_problem
    from core.actions.train import kept_step_text, train_model
    from core.checkpoints.model import check_unused_fields, spec_of
    from core.maml.recipes import recipe_for
    from core.tasks.generate import read_folder

    network |= _backbone_fields(model["backbone"])
    check_unused_fields(network["backbone"], network.keys())
    recipe = recipe_for(read_folder(tasks).images().shape)
    spec = spec_of({"ways": 2} | recipe.model_fields(model | adaptation | objective | network))  # ways: of the tasks
    training = replace(recipe.training, **settings, **further)
    message(f"recipe for {recipe.words}: {spec.description}; {training.words}")
    if dry_run:
        with single_process():
            _print_report(inspect_problem(tasks, None, spec, training, announce_device(compute), live_progress()))
        return
    trained = train_model(tasks, out, spec, training, announce_device(compute), live_progress(), this_command())
    report = trained.metadata["report"]
    stationarity = report["stationarity"]
    if kept := kept_step_text(trained):
        message(kept)
    message(
        f"held-out accuracy {interval_text(report['heldout_accuracy'])}, "
        f"gradient norm {stationarity['gradient_norm']:.3g}, gradient ratio {stationarity['ratio']:.1e}"
    )
    print(out)


@with_settings
def model_command(
    *,
    checkpoint: Annotated[
        Path | None, Option(help="State dict (.pt, .pth), .safetensors file, or model folder of TaskLens.")
    ] = None,
    out: Annotated[Path | None, Option(help="Folder to write.")] = None,
    tasks: Annotated[Path | None, Option(help="Folder written by the tasks command; sets --ways and --shape.")] = None,
    hints: Annotated[Fields, SelectedFields(ModelFields, *_HINTS, *_FURTHER)],
    allow: Annotated[
        str, Option(help="Allow this package.module:factory to be imported on this machine; runs its code.")
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
    _backbone_fields(hints.get("backbone", ""))
    further = {name: hints.pop(name) for name in _FURTHER if name in hints}
    model = import_model(checkpoint, out, CheckpointHints(**hints, more=further), tasks, this_command())
    for note in model.metadata.get("origin", {}).get("notes", []):
        message(note)
    message(f"{model.spec.description}; {model.size:,} parameters")
    print(out)


def _backbone_fields(name: str) -> dict[str, Any]:
    """Return the fields of a model that a backbone sets; allow a factory, as the user named it."""
    from core.checkpoints.factory import allow_factory, is_factory

    if not is_factory(name):
        return {"backbone": name}
    allow_factory(name)
    return {"backbone": "module", "factory": name}


@with_settings
def inspect_command(
    *,
    path: Annotated[Path | None, Option(help="Images to import, as for the data command.")] = None,
    options: Annotated[Fields, SelectedFields(ImportOptions, *_READING, with_defaults=True)],
    checkpoint: Annotated[Path | None, Option(help="Checkpoint to import, as for the model command.")] = None,
    hints: Annotated[Fields, SelectedFields(ModelFields, "backbone")],
    tasks: Annotated[Path | None, Option(help="Folder written by the tasks command.")] = None,
    model: Annotated[Path | None, Option(help="Folder written by the train or model command; needs --tasks.")] = None,
    workspace: Annotated[str, Option("--workspace", "-w", help="Workspace whose tasks and model to inspect.")] = "",
    as_json: Annotated[bool, Option("--json", help="Print the findings as JSON.")] = False,
    compute: Compute,
) -> None:
    """Check inputs and estimate costs before long work starts.

    Reports what the inputs contain, what does not fit, and what the work would cost on this machine. Exits with code 2
    if something does not fit.
    """
    from core.actions.inspect import Inspection, inspect_checkpoint_file, inspect_images, inspect_problem

    reading = ImportOptions(**options)
    _check_inspected(path, options, checkpoint, hints, tasks, model, workspace)
    if workspace:
        folder = open_workspace(workspace).folder
        tasks, model = folder / "tasks", folder / "model"
    report = Inspection()
    if path:
        report += inspect_images(path, reading, live_progress())[0]
    if checkpoint:
        backbone = hints.get("backbone", "")
        _backbone_fields(backbone)  # allows a factory that is named here
        report += inspect_checkpoint_file(checkpoint, backbone, tasks)
    if tasks:
        report += inspect_problem(tasks, model, None, None, announce_device(compute), live_progress())
    _print_report(report, as_json)
    if path:
        message(f"To import them: tasklens {shlex.join(['data', '--path', str(path), *arguments_of(reading)])}")


def _check_inspected(
    path: Path | None,
    options: Fields,
    checkpoint: Path | None,
    hints: Fields,
    tasks: Path | None,
    model: Path | None,
    workspace: str,
) -> None:
    """Raise UserError if there is nothing to inspect, or if an option would be ignored."""
    if workspace and (tasks or model):
        given = "--tasks" if tasks else "--model"
        raise UserError(f"{given} is given with --workspace, which has its own tasks and model.", "Omit one of them.")
    if model and not tasks:
        raise UserError("--model is given without --tasks.", "Give the folder of the tasks that the model is for.")
    if not (path or checkpoint or tasks or workspace):
        raise UserError("There is nothing to inspect.", "Give --path, --checkpoint, --tasks or --workspace.")
    if hints.get("backbone") and not checkpoint:
        raise UserError("--backbone is given without --checkpoint.", "Give the checkpoint to inspect, or omit it.")
    changed = [
        field.option
        for name, field in declared(ImportOptions).items()
        if options.get(name, field.default) != field.default
    ]
    if changed and not path:
        raise UserError(f"--{changed[0]} is given without --path.", "Give the images to inspect, or omit it.")


def _print_report(report: Inspection, as_json: bool = False) -> None:
    """Print the report; raise UserError, so that the exit code is 2, if it has faults."""
    print(json.dumps(asdict(report)) if as_json else _report_text(report))
    if report.faults:
        raise UserError(f"{format_count(len(report.faults), 'fault')} found: see above.")


def _report_text(report: Inspection) -> str:
    lines = [FOUND, *(f"  {printable(line)}" for line in report.found)]
    if report.faults:
        lines += [FAULTS, *(f"  {printable(line)}" for line in report.faults)]
    if report.costs:
        lines.append(COSTS)
    for cost in report.costs:
        lines.append(f"  {cost.stage:<10} {cost.time:<26} {cost.gb:>5.1f} GB   {cost.how_much}")
    return "\n".join(lines)


def open_command(
    tasks: Annotated[Path, Option(help="Folder written by the tasks command.")],
    model: Annotated[Path, Option(help="Folder written by the train or model command.")],
    workspace: WorkspaceOption,
) -> None:
    """Create a workspace from tasks and a model.

    Prints its folder.
    """
    from core.workspace.workspace import create, locate

    print(create(locate(workspace), tasks, model).folder)
