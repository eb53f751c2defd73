"""Models trained again on other tasks or from other seeds: the truth that rankings are held against.

Each is a run of its own, so that every method, every number of subsets and every later question shares them, and an
interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from core.actions.compute import Loaded
from core.checkpoints.model import Model, load_model, save_model
from core.editing.settings import STARTS
from core.maml.backbone import Params
from core.maml.evaluation import evaluate
from core.maml.training import TrainSettings, check_finite, objective, stationarity, train
from core.runtime.errors import UserError
from core.runtime.files import content_hash
from core.runtime.progress import Progress
from core.tasks.tasklist import TaskList
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace

KIND = "retraining"
WARM_RATE, WARM_ITERATIONS = 1e-3, 100


@dataclass(frozen=True)
class Retrain:
    """How to train again.

    Attributes:
        start: ``fresh``, from initial parameters as the model was, or ``warm``, from the present model: quicker, and
            without the chance of which optimum is found, so that it sees less of what a real retraining would change.
        iterations: Adam steps; 0 means as the model was trained where fresh; where warm, none if the training had a
            polish, which alone leads to the new optimum, else 100.
    """

    start: str = "fresh"
    iterations: int = 0

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise UserError(f"There is no start {self.start!r} of a retraining.", f"Use {' or '.join(STARTS)}.")
        if self.iterations < 0:
            raise UserError("Iterations must be 0 or more.")

    def settings(self, model: Model, seed: int) -> TrainSettings:
        """The settings of one retraining; ``seed`` counts from that of the model.

        Raises:
            UserError: the model does not say how it was trained.
        """
        try:
            trained = TrainSettings(**model.story["training"])
        except (KeyError, TypeError) as error:
            raise UserError(
                "The model's description does not say how it was trained, so it cannot be retrained the same way.",
                "Train it with the train command.",
            ) from error
        trained = replace(trained, seed=trained.seed + seed)
        if self.start == "fresh":
            return replace(trained, iterations=self.iterations or trained.iterations)
        iterations = self.iterations or (0 if trained.polish else WARM_ITERATIONS)
        return replace(trained, iterations=iterations, learning_rate=min(trained.learning_rate, WARM_RATE))


def start_of(loaded: Loaded, how: Retrain, settings: TrainSettings) -> Params:
    """The parameters that a retraining starts from."""
    if how.start == "warm":
        return loaded.params
    return loaded.place(loaded.project.model.spec.init(settings.seed, loaded.compute.torch_dtype()))


def retraining(
    workspace: Workspace, loaded: Loaded, tasks: TaskList, how: Retrain, seed: int, progress: Progress
) -> Run:
    """Train on ``tasks`` and measure on the held-out tasks.

    The run holds ``model/``, ``heldout.parquet`` (task_id, accuracy, loss) and ``retraining.json`` (accuracy, loss,
    stationarity, seconds).
    """
    model = loaded.project.model
    settings = how.settings(model, seed)
    start = start_of(loaded, how, settings)
    question = {
        **loaded.project.hashes,
        "tasks": tasks.hash,
        "start": content_hash(*(value.cpu().numpy() for value in start.values())),
        "spec": model.spec.model_dump(mode="json", exclude_defaults=True),
        **asdict(settings),
        "dtype": loaded.compute.dtype,
    }
    if how.start == "fresh":
        question["model"] = ""  # nothing of the present model enters

    def work(run: RunWriter) -> None:
        begun = time.perf_counter()
        episodes = loaded.episodes(tasks)
        params = train(loaded.model, start, episodes, settings, folder=run.folder / "memory", progress=progress).params
        reached = stationarity(loaded.model, params, episodes)
        check_finite(reached)
        result = evaluate(loaded.model, params, loaded.heldout)
        made = Model(model.spec, {k: v.cpu() for k, v in params.items()}, {"training": asdict(settings)})
        run.write(lambda folder: save_model(made, folder / "model"))
        run.write_table("heldout.parquet", result.heldout_table(loaded.project.tasks.heldout.task_ids))
        figures: dict[str, Any] = result.summary() | {"stationarity": asdict(reached)}
        run.write_json("retraining.json", figures | {"seconds": time.perf_counter() - begun})

    return workspace.runs.get_or_compute(KIND, question, work)


def retrained_params(run: Run, loaded: Loaded) -> Params:
    """The parameters of a finished retraining, where ``loaded`` computes."""
    return loaded.place(load_model(run.folder / "model").params)


def retraining_seconds(loaded: Loaded, settings: TrainSettings, tasks: int) -> float:
    """About how long one retraining takes here, from the time of one chunk's meta-gradient."""
    few = np.arange(min(settings.meta_batch, len(loaded.train)))
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        objective(loaded.model, loaded.params, loaded.train, few)
        times.append(time.perf_counter() - begun)
    gradients = settings.iterations * settings.meta_batch + 1.3 * settings.polish * tasks
    return min(times) / len(few) * gradients
