"""The context of one repetition on one data set: its problems, rankings of them, and timed edits of their models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pandas as pd
import torch

from core.actions.compute import Compute
from core.actions.evidence import method_scores
from core.actions.rank import ranking
from core.actions.recommend import recommend
from core.actions.retraining import retrained_params, retraining
from core.editing import methods
from core.editing.retraining import RetrainSettings
from core.editing.settings import NewtonSettings
from core.editing.steps import REWIND_TASKS, StepSettings, select_snapshot
from core.evidence.method_scores import POOLED_EPOCHS
from core.experiments.problems import Problem, Repetition, build_problem, problem_settings
from core.experiments.profiles import WAYS
from core.influence.curvature import configure_gradient
from core.influence.methods import METHODS
from core.influence.targets import Target
from core.maml.backbone import Params
from core.maml.cost import training_cost
from core.maml.loaded import Loaded
from core.maml.training import TrainSettings
from core.maml.vectors import flatten, unflatten
from core.recommendation.settings import RecommendSettings
from core.runtime.progress import Progress, SubProgress
from core.tasks.changes import Changes, cleaned
from core.tasks.sampling import pool_of, sample_tasks
from core.tasks.tasklist import TaskList
from core.workspace.runs import MEMORY, Run, RunWriter, StepCache

TRAINING_WEIGHT, RANKING_WEIGHT, EDIT_WEIGHT = 1000, 800, 100
"""Rough durations of a training, a ranking and an edit, for the progress bar alone."""
COST_GOAL = 0.02
"""The share of retraining's cost within which an edit should give most of retraining's gain."""
_LINEAR_CURVATURES = {
    "linear": "gauss-newton",
    "task-if-paper": "gamma",
    "task-if": "gauss-newton",
    "task-if-exact": "exact",
    "direct-if": "direct",
}


@dataclass(frozen=True)
class TimedEdit:
    """An edited model that knows its cost.

    Attributes:
        seconds: Processor time.
        cost: In meta-gradients of one task; NaN where the edit is not made of passes over tasks.
    """

    params: Params
    seconds: float
    cost: float


@dataclass(frozen=True, eq=False)
class ExperimentContext:
    """A repetition with everything that is needed to measure it."""

    unit: Repetition
    compute: Compute
    work: RunWriter
    progress: Progress
    command: str
    _edits: Iterator[int] = field(default_factory=count)

    def expect(self, weight: int) -> None:
        """Announce the total weight of the parts of the work."""
        self.progress.stage("measurements", weight)

    @contextmanager
    def part(self, weight: int) -> Iterator[Progress]:
        """Provide the progress of a part of the work that takes about as long as ``weight`` says."""
        inner = SubProgress(self.progress, weight)
        yield inner
        inner.finish()

    def problem(self, noise: str, *, seed: int | None = None) -> Problem:
        """Return the problem with some label noise (:func:`core.experiments.problems.problem_settings`)."""
        settings = problem_settings(self.unit, noise, seed=seed)
        with self.part(TRAINING_WEIGHT) as progress:
            return build_problem(settings, self.compute, progress, self.command)

    def rank(self, problem: Problem, method: str) -> Run:
        """Return the ranking for all targets, solved as precisely as the profile says."""
        estimator, size = METHODS[method].estimator, self.unit.profile.solve
        if estimator.solve is not None and estimator.solve.solver == "cg":
            solve = replace(estimator.solve, curvature_tasks=size.curvature_tasks, tolerance=size.tolerance)
            estimator = replace(estimator, solve=solve)
        with self.part(RANKING_WEIGHT) as progress:
            return ranking(problem.workspace, Target(), estimator, self.compute, progress)

    def recommendation(self, problem: Problem) -> Run:
        """Return the recommendation for the problem by the default settings, made once and kept in its workspace."""
        with self.part(RANKING_WEIGHT) as progress:
            return recommend(problem.workspace, RecommendSettings(), self.compute, progress)

    def task_scores(self, problem: Problem, method: str) -> tuple[np.ndarray, float]:
        """Return ``(N,)`` scores of the training tasks for all targets, positive is helpful, and processor seconds."""
        ids = problem.project.tasks.train.task_ids
        if method in METHODS or method == "loss":
            run = self.rank(problem, "task-if" if method == "loss" else method)
            table = run.table("tasks.parquet").set_index("task_id").loc[ids]
            score = -table["loss"] if method == "loss" else table["score"]
            # The loss needs one evaluation of every task, not the ranking that it is read from.
            return score.to_numpy(), 0.0 if method == "loss" else run.processor_seconds
        if method == "recommended":
            run = self.recommendation(problem)
            table = run.table("tasks.parquet").set_index("task_id").loc[ids]
            return -table["suspicion"].to_numpy(), run.processor_seconds
        if method == "ekfac":
            return self._pooled_ekfac_scores(problem)
        workspace, loaded = problem.workspace, problem.loaded
        targets = np.arange(len(loaded.heldout))
        with self.part(RANKING_WEIGHT) as progress:
            result = method_scores(workspace, loaded, method, targets, lambda _: [], self.compute, progress)
        return result.scores.mean(1), result.processor_seconds

    def _pooled_ekfac_scores(self, problem: Problem) -> tuple[np.ndarray, float]:
        """Return the EK-FAC influence in a classifier of the pooled images (kronfluence), and processor seconds.

        The classifier can score only the training classes. For targets of other classes, it gets tasks of the training
        classes instead, correctly labelled and, if there are enough, of images that no training task has: more
        information than the other methods get.
        """
        from core.baselines.ekfac import ekfac_mean_scores

        project = problem.project
        targets = project.tasks.heldout
        if not set(targets.rows["class"]) <= set(project.tasks.train.rows["class"]):
            targets = _known_class_tasks(problem, self.unit)
        cache_key = {**project.hashes, "targets": targets.hash, "epochs": POOLED_EPOCHS}

        def work(run: RunWriter) -> None:
            score = ekfac_mean_scores(project.images, project.tasks.train, targets, epochs=POOLED_EPOCHS, seed=0)
            run.write_table("scores.parquet", pd.DataFrame({"score": score}))

        with self.part(RANKING_WEIGHT):
            run = problem.workspace.runs.get_or_compute("pooled-ekfac", cache_key, work)
        return run.table("scores.parquet")["score"].to_numpy(), run.processor_seconds

    def unedited(self, problem: Problem) -> TimedEdit:
        """Return the unedited model."""
        return TimedEdit(problem.loaded.params, 0.0, 0.0)

    def retrain(self, problem: Problem, changes: Changes, seed: int = 0) -> TimedEdit:
        """Train on the remaining tasks in the same way; ``seed`` is added to the seed of the model's training."""
        tasks, settings = cleaned(problem.project.tasks.train, changes), RetrainSettings()
        with self.part(TRAINING_WEIGHT) as progress:
            run = retraining(problem.workspace, problem.project.model, problem.loaded, tasks, settings, seed, progress)
        cost = self.retraining_cost(problem, changes)
        return TimedEdit(retrained_params(run, problem.loaded), run.processor_seconds, cost)

    def retraining_cost(self, problem: Problem, changes: Changes) -> float:
        """Return the meta-gradients that retraining takes."""
        project = problem.project
        return training_cost(RetrainSettings().settings(project.model, 0), len(cleaned(project.tasks.train, changes)))

    def linear(self, problem: Problem, changes: Changes, curvature: str, gradient: str = "total") -> TimedEdit:
        """Edit linearly: subtract the influence functions of what changes."""
        size = self.unit.profile.solve
        solve = replace(size, curvature=curvature, damping=0.0 if curvature == "gamma" else size.damping)
        loaded = copy(problem.loaded)
        loaded.model, loaded.train = configure_gradient(loaded.model, gradient), problem.loaded.train
        return self._timed(methods.linear, loaded, changes, solve, store=problem.workspace.runs, predict=False)

    def newton(self, problem: Problem, changes: Changes) -> TimedEdit:
        """Take one Newton step on the objective of the remaining tasks, within a trust region."""
        return self._timed(methods.newton, problem.loaded, changes, NewtonSettings(seed=self.unit.seed))

    def best_snapshot(self, problem: Problem) -> TimedEdit:
        """Return the training snapshot with the lowest loss on some targets, and the cost of choosing it."""

        def choose(loaded: Loaded, *_: object) -> methods.EditedModel:
            snapshots = [loaded.place(snapshot.params) for snapshot in problem.workspace.trajectory()]
            choice = select_snapshot(loaded.model, snapshots, loaded.heldout, REWIND_TASKS, self.unit.seed)
            return methods.EditedModel(choice.params, {}, choice.cost.meta_gradients)

        return self._timed(choose, problem.loaded)

    def steps(self, problem: Problem, changes: Changes, share: float, start: TimedEdit | None = None) -> TimedEdit:
        """Take preconditioned steps on the remaining tasks, for a ``share`` of retraining's cost, start included."""
        start = start or self.unedited(problem)
        budget = max(1, round(share * self.retraining_cost(problem, changes) - start.cost))
        loaded, settings = problem.loaded.with_params(start.params), StepSettings(budget=budget, seed=self.unit.seed)
        edit = self._timed(methods.steps, loaded, changes, settings, [])
        return TimedEdit(edit.params, edit.seconds + start.seconds, edit.cost + start.cost)

    def finetune(self, problem: Problem, changes: Changes, settings: TrainSettings | None = None) -> TimedEdit:
        """Train briefly on the remaining tasks."""
        settings = replace(settings or self.unit.profile.finetune, seed=self.unit.seed)
        return self._timed(methods.finetune, problem.loaded, changes, settings)

    def edit(self, problem: Problem, changes: Changes, method: str) -> TimedEdit:
        """Edit by one of the methods that several experiments compare, in the settings of the profile."""
        if method in _LINEAR_CURVATURES:
            gradient = "direct" if method == "direct-if" else "total"
            return self.linear(problem, changes, _LINEAR_CURVATURES[method], gradient)
        edits: dict[str, Callable[[], TimedEdit]] = {
            "unedited": lambda: self.unedited(problem),
            "retrain": lambda: self.retrain(problem, changes),
            "retrain-again": lambda: self.retrain(problem, changes, seed=1),
            "newton": lambda: self.newton(problem, changes),
            "steps": lambda: self.steps(problem, changes, COST_GOAL),
            "finetune": lambda: self.finetune(problem, changes),
            "finetune-all": lambda: self.finetune(problem, Changes()),
        }
        return edits[method]()

    def _timed(
        self, edit: Callable[..., methods.EditedModel], loaded: Loaded, *args: object, **options: object
    ) -> TimedEdit:
        """Edit and measure. A finished edit is stored; an interrupted one starts again, so that all its time counts."""
        work = RunWriter(self.work.folder / MEMORY / f"edit-{next(self._edits):03d}")
        cache, like = StepCache(work.folder), loaded.params
        work.clear_steps()
        with self.part(EDIT_WEIGHT) as progress:
            arrays = cache.get("made")
            if arrays is None:
                clock = time.process_time()
                edited = edit(loaded, *args, work, progress, **options)
                seconds_used = time.process_time() - clock
                arrays = [flatten(edited.params).cpu().numpy(), np.array([seconds_used, edited.meta_gradients])]
                cache.put("made", arrays)
        values, (seconds, cost) = arrays
        return TimedEdit(unflatten(torch.from_numpy(values).to(flatten(like)), like), float(seconds), float(cost))


def _known_class_tasks(problem: Problem, unit: Repetition) -> TaskList:
    """Draw tasks of the training classes, from images that no training task has if there are enough."""
    project, profile = problem.project, unit.profile
    rows, images = project.tasks.train.rows, project.images
    classes = np.isin(np.array(images.class_names, dtype=object)[images.labels], rows["class"].unique())
    pools = [
        pool_of(images.labels, np.flatnonzero(mask), profile.shots + profile.queries)
        for mask in (classes & ~np.isin(images.ids, rows["image_id"].unique()), classes)
    ]
    pool = next(pool for pool in pools if len(pool) >= WAYS)
    shape = {"ways": WAYS, "shots": profile.shots, "queries": profile.queries, "count": profile.targets}
    return sample_tasks(images, pool, **shape, prefix="k", rng=np.random.default_rng([unit.seed, 45]))


def measure_edit(problem: Problem, edit: TimedEdit, **columns: object) -> dict[str, object]:
    """Return one row of measurements: ``columns``, accuracy and loss on the tests, seconds and cost."""
    evaluation = problem.evaluate_tests(edit.params)
    return {
        **columns,
        "accuracy": float(evaluation.accuracy.mean()),
        "loss": float(evaluation.loss.mean()),
        "seconds": edit.seconds,
        "cost": edit.cost,
    }
