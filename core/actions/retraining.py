"""Retrain models on other tasks or from other seeds: the ground truth that rankings are compared with.

Each retraining is a run, which all methods and sweeps share; so an interrupted sweep resumes.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from core.checkpoints.model import Model, load_model, save_model
from core.editing.retraining import RetrainSettings
from core.maml.backbone import Params
from core.maml.evaluation import evaluate
from core.maml.loaded import Loaded
from core.maml.training import check_finite, stationarity, train
from core.runtime.hashing import content_hash
from core.runtime.progress import Progress
from core.tasks.tasklist import TaskList
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KIND = "retraining"


def retraining(
    workspace: Workspace,
    model: Model,
    loaded: Loaded,
    tasks: TaskList,
    options: RetrainSettings,
    seed: int,
    progress: Progress,
) -> Run:
    """Train ``model`` again on ``tasks`` and measure it on the held-out tasks, or find the run that did.

    The run holds ``model/``, ``heldout.parquet`` (task_id, accuracy, loss) and ``retraining.json`` (accuracy, loss,
    stationarity, seconds).

    Raises:
        UserError: the model's metadata does not say how it was trained, or the training diverged.
    """
    settings = options.settings(model, seed)
    start = options.initial_params(model, loaded, settings)
    key = {
        **loaded.hashes,
        "tasks": tasks.hash,
        "start": content_hash(*(value.cpu().numpy() for value in start.values())),
        "spec": model.spec.model_dump(mode="json", exclude_defaults=True),
        **settings.cache_key(validation=loaded.validation is not None),
        "dtype": loaded.compute.dtype,
    }
    if options.start == "fresh":
        key["model"] = ""  # a fresh start does not depend on the present model

    def work(run: RunWriter) -> None:
        begin = time.perf_counter()
        episodes = loaded.episodes(tasks)
        trained = train(
            loaded.model,
            start,
            episodes,
            settings,
            validation=loaded.validation,
            folder=run.folder / "memory",
            progress=progress,
        )
        params = trained.params
        report = stationarity(loaded.model, params, episodes)
        check_finite(report)
        result = evaluate(loaded.model, params, loaded.heldout)
        new = Model(model.spec, {name: value.cpu() for name, value in params.items()}, {"training": asdict(settings)})
        run.write(lambda folder: save_model(new, folder / "model"))
        run.write_table("heldout.parquet", result.heldout_table(loaded.heldout_tasks.task_ids))
        figures: dict[str, Any] = result.summary() | {"stationarity": asdict(report)}
        run.write_json("retraining.json", figures | {"seconds": time.perf_counter() - begin})

    return workspace.runs.get_or_compute(KIND, key, work)


def retrained_params(run: Run, loaded: Loaded) -> Params:
    """Return the parameters of a finished retraining, on the device of ``loaded``."""
    return loaded.place(load_model(run.folder / "model").params)
