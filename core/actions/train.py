"""Make a model: train it on tasks, in memory or as a folder, or import a checkpoint of another program."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from core.actions.compute import Compute, load
from core.checkpoints.foreign import import_checkpoint
from core.checkpoints.matching import CheckpointHints
from core.checkpoints.model import Model, ModelSpec, load_model, save_model, save_trajectory
from core.data import ImageSet
from core.maml.evaluation import evaluate
from core.maml.module import ModuleNet, probe
from core.maml.settings import TrainSettings
from core.maml.training import STATE_FILE, Snapshot, check_finite, stationarity, train
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.runtime.replacing import delete_scratch
from core.tasks.generate import TaskFolder, read_folder
from core.workspace.workspace import Project, check_fit


def fit_model(
    images: ImageSet,
    tasks: TaskFolder,
    spec: ModelSpec,
    settings: TrainSettings,
    compute: Compute,
    progress: Progress,
    *,
    command: str = "",
    folder: Path | None = None,
) -> tuple[Model, list[Snapshot]]:
    """Train and evaluate a model; return it with the snapshots of its training.

    Args:
        spec: The network and its adaptation; classes per task and image size are taken from the tasks.
        command: The command line, recorded in the model's metadata.
        folder: Where the state of an interrupted training is stored; None: nowhere.

    Raises:
        UserError: the training diverged.
    """
    spec, metadata = _fitted_spec(spec, images, tasks), _metadata(images, tasks, settings, command)
    loaded = load(Project(images, tasks, Model(spec, spec.init(settings.seed, torch.float64), metadata)), compute)
    trained = train(
        loaded.model,
        loaded.params,
        loaded.train,
        settings,
        validation=loaded.validation,
        folder=folder,
        progress=progress,
    )
    distance = stationarity(loaded.model, trained.params, loaded.train, progress)
    check_finite(distance)
    result = evaluate(loaded.model, trained.params, loaded.heldout)
    metadata["report"] = {
        "stationarity": asdict(distance),
        "heldout_accuracy": asdict(result.mean_accuracy),
        "heldout_loss": asdict(result.mean_loss),
        "kept_step": trained.kept,
    }
    metadata["history"] = trained.history
    params = {name: value.cpu().float() for name, value in trained.params.items()}
    return Model(spec, params, metadata), trained.trajectory


def kept_step_text(model: Model) -> str:
    """Return which step of its training was kept, and by which accuracy; empty if it was the last one by default."""
    kept = model.metadata.get("report", {}).get("kept_step")
    checks = {entry["done"]: entry for entry in model.metadata.get("history", []) if "validation_accuracy" in entry}
    if kept not in checks:
        return ""
    steps = model.metadata["training"]["iterations"]
    accuracy = checks[kept]["validation_accuracy"]
    return f"kept step {kept:,} of {steps:,}, with the highest accuracy on the validation tasks ({accuracy:.1%})"


def train_model(
    tasks: Path, out: Path, spec: ModelSpec, settings: TrainSettings, compute: Compute, progress: Progress, command: str
) -> Model:
    """Train, and write the model folder ``out``; an interrupted training resumes, a finished one is read.

    Raises:
        UserError: ``out`` holds a model of another training, or the training diverged.
    """
    folder = read_folder(tasks)
    images, ranks = folder.images(), world()
    existing = ranks.on_rank_zero(lambda: load_model(out) if (out / "model.json").exists() else None)
    if existing is not None:
        metadata = _metadata(images, folder, settings, command)
        chosen_by = ["validation_hash"] if settings.checks else []
        identity = {key: metadata.get(key) for key in ("training", "data_hash", "tasks_hash", *chosen_by)}
        is_same = all(existing.metadata.get(key) == value for key, value in identity.items())
        if existing.spec != _fitted_spec(spec, images, folder) or not is_same:
            raise UserError(f"{out} already contains a model of another training.", "Choose another output folder.")
        ranks.on_rank_zero(lambda: _delete_unfinished(out))
        return existing
    model, trajectory = fit_model(images, folder, spec, settings, compute, progress, command=command, folder=out)

    def write() -> None:
        save_trajectory(trajectory, out)
        save_model(model, out)
        _delete_unfinished(out)

    ranks.on_rank_zero(write)
    return model


def _delete_unfinished(out: Path) -> None:
    """Delete, as far as that is possible, what a complete model does not need: the state to resume from, leftovers."""
    with suppress(OSError):
        (out / STATE_FILE).unlink(missing_ok=True)
        delete_scratch(out)


def import_model(checkpoint: Path, out: Path, hints: CheckpointHints, tasks: Path | None, command: str) -> Model:
    """Write the model folder ``out``; repeating the same import finds it there.

    Args:
        tasks: A folder of tasks for the model: they determine the image size and the number of classes.

    Raises:
        UserError: the checkpoint or its network cannot be used, does not fit the tasks, or ``out`` has another model.
    """
    folder = read_folder(tasks) if tasks else None
    if folder:
        hints = replace(hints, shape=folder.images().shape, ways=folder.train.ways)
    model = import_checkpoint(checkpoint, hints)
    _check_network(model.spec.bilevel().network)
    if folder:
        check_fit(folder.images(), folder, model)
    if (out / "model.json").exists():
        existing = load_model(out)
        if existing.hash != model.hash:
            raise UserError(f"{out} already contains another model.", "Choose another output folder.")
        _delete_unfinished(out)
        return existing
    model.metadata["command"] = command
    save_model(model, out)
    return model


def _fitted_spec(spec: ModelSpec, images: ImageSet, tasks: TaskFolder) -> ModelSpec:
    """Return the specification with the classes per task and the image size of the tasks, its network checked."""
    spec = spec.model_copy(update={"ways": tasks.train.ways, "shape": images.shape}).with_code_hash()
    _check_network(spec.network())
    return spec


def _check_network(network: object) -> None:
    """Raise UserError if a network of the user cannot be used."""
    if isinstance(network, ModuleNet) and not network.is_builtin:
        probe(network)


def _metadata(images: ImageSet, tasks: TaskFolder, settings: TrainSettings, command: str) -> dict[str, Any]:
    validation = {} if tasks.validation is None else {"validation_hash": tasks.validation.hash}
    return validation | {
        "command": command,
        "training": asdict(settings),
        "data": tasks.data,
        "data_hash": images.hash,
        "tasks_hash": tasks.train.hash,
        "heldout_hash": tasks.heldout.hash,
    }
