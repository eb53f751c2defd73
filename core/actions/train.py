"""Train a model on a folder of tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from core.actions.compute import Compute, load
from core.checkpoints.model import Model, ModelSpec, load_model, save_model, save_trajectory
from core.maml.evaluation import evaluate
from core.maml.module import ModuleNet, probe
from core.maml.settings import TrainSettings
from core.maml.training import STATE_FILE, check_finite, stationarity, train
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.generate import read_folder
from core.workspace.workspace import Project


def train_model(
    tasks: Path, out: Path, spec: ModelSpec, settings: TrainSettings, compute: Compute, progress: Progress, command: str
) -> Model:
    """Train, and write the model folder ``out``; an interrupted training resumes, a finished one is read.

    Args:
        command: The command line, recorded in the model's metadata.

    Raises:
        UserError: ``out`` holds a model of another training, or the training diverged.
    """
    folder = read_folder(tasks)
    images = folder.images()
    spec = spec.model_copy(update={"ways": folder.train.ways, "shape": images.shape}).pinned()
    network = spec.network()
    if isinstance(network, ModuleNet) and not network.own:
        probe(network)
    metadata: dict[str, Any] = {
        "command": command,
        "training": asdict(settings),
        "data": folder.data,
        "data_hash": images.hash,
        "tasks_hash": folder.train.hash,
        "heldout_hash": folder.heldout.hash,
    }
    ranks = world()
    existing = ranks.on_rank_zero(lambda: load_model(out) if (out / "model.json").exists() else None)
    if existing is not None:
        identity = {key: metadata[key] for key in ("training", "data_hash", "tasks_hash")}
        if existing.spec != spec or any(existing.story.get(key) != value for key, value in identity.items()):
            raise UserError(f"{out} holds a model of another training.", "Choose another output folder.")
        return existing
    loaded = load(Project(images, folder, Model(spec, spec.init(settings.seed, torch.float64), metadata)), compute)
    trained = train(loaded.model, loaded.params, loaded.train, settings, folder=out, progress=progress)
    params = trained.params
    report = stationarity(loaded.model, params, loaded.train, progress)
    check_finite(report)
    result = evaluate(loaded.model, params, loaded.heldout)
    metadata["report"] = {
        "stationarity": asdict(report),
        "heldout_accuracy": asdict(result.mean_accuracy),
        "heldout_loss": asdict(result.mean_loss),
    }
    metadata["history"] = trained.history
    model = Model(spec, {name: value.cpu().float() for name, value in params.items()}, metadata)

    def write() -> None:
        save_trajectory(trained.trajectory, out)
        save_model(model, out)
        (out / STATE_FILE).unlink(missing_ok=True)

    ranks.on_rank_zero(write)
    return model
