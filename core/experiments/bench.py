"""What one repetition on one data set works with: its problems, the edits of their models, and what these cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pandas as pd
import torch

from core.actions.compute import Compute
from core.actions.rank import configure_gradient, ranking
from core.actions.retraining import retrained_params, retraining
from core.editing.linear import change_gradient, row_change, touched_tasks
from core.editing.newton import NewtonSettings, newton_edit
from core.editing.retraining import RetrainSettings
from core.editing.steps import REWIND_TASKS, StepSettings, select_snapshot, single_task_finetune
from core.evidence.method_scores import POOLED_EPOCHS, method_scores
from core.experiments.problems import Problem, problem, recipe
from core.experiments.profiles import WAYS, Profile
from core.influence.methods import METHODS, Estimator
from core.influence.solve import Solver
from core.influence.targets import Target
from core.maml.backbone import Params
from core.maml.cost import Cost, training_cost
from core.maml.episodes import Episodes
from core.maml.training import TrainSettings, train
from core.maml.vectors import flatten, unflatten
from core.runtime.progress import Progress, SubProgress
from core.tasks.changes import Changes, cleaned
from core.tasks.sampling import pool_of, sample_tasks
from core.tasks.tasklist import TaskList
from core.workspace.runs import MEMORY, Run, RunWriter, StepCache

TRAINING, RANKING, EDIT = 10, 8, 1
"""About how long a training, a ranking and an edit take, for the progress alone."""
_FINE = 100


@dataclass(frozen=True)
class Unit:
    """One repetition on one data set; ``images`` is the image set that stands for the paper's ``data``."""

    profile: Profile
    data: str
    images: str
    seed: int


@dataclass(frozen=True)
class Edited:
    """A model and what it cost.

    Attributes:
        seconds: Of the processor.
        cost: In meta-gradients of one task; NaN where it is not made of passes over tasks.
    """

    params: Params
    seconds: float
    cost: float


@dataclass(frozen=True, eq=False)
class Bench:
    """A unit with all that measuring it takes."""

    unit: Unit
    compute: Compute
    work: RunWriter
    progress: Progress
    command: str
    _edits: Iterator[int] = field(default_factory=count)

    def begin(self, name: str, weight: int) -> None:
        """Say how much there is to do, in the weights of :meth:`piece`."""
        self.progress.stage(name, _FINE * weight)

    @contextmanager
    def piece(self, weight: int) -> Iterator[Progress]:
        """A part of the work that takes about as long as ``weight`` quick edits."""
        inner = SubProgress(self.progress, _FINE * weight)
        yield inner
        inner.finish()

    def problem(
        self,
        noise: str,
        *,
        seed: int | None = None,
        model_seed: int | None = None,
        training: TrainSettings | None = None,
    ) -> Problem:
        """The unit's problem with some noise; ``seed`` and ``training`` otherwise than the unit's where given."""
        unit = self.unit
        made_by = recipe(
            unit.profile,
            unit.data,
            unit.images,
            noise,
            unit.seed if seed is None else seed,
            training=training,
            model_seed=model_seed,
        )
        with self.piece(TRAINING) as progress:
            return problem(made_by, self.compute, progress, self.command)

    def ranked(self, on: Problem, method: str) -> Run:
        """The ranking of everything for all targets."""
        estimator = METHODS[method].estimator
        if estimator.solve is not None and estimator.solve.solver == "cg":
            estimator = self._lighter(estimator)
        with self.piece(RANKING) as progress:
            return ranking(on.workspace, Target(), estimator, self.compute, progress)

    def _lighter(self, estimator: Estimator) -> Estimator:
        """Its curvature of as many tasks, and its solve as precise, as the profile says."""
        solve, profile = estimator.solve, self.unit.profile
        assert solve is not None
        own = replace(solve, curvature_tasks=profile.solve.curvature_tasks, tolerance=profile.solve.tolerance)
        return replace(estimator, solve=own)

    def task_scores(self, on: Problem, method: str) -> tuple[np.ndarray, float]:
        """``(N,)`` of the training tasks for all targets, positive is helpful, and the processor's seconds."""
        ids = on.loaded.project.tasks.train.task_ids
        if method in METHODS or method == "loss":
            run = self.ranked(on, "task-if" if method == "loss" else method)
            table = run.table("tasks.parquet").set_index("task_id").loc[ids]
            score = -table["loss"] if method == "loss" else table["score"]
            # The loss needs one evaluation of every task, not the ranking that it is read from.
            return score.to_numpy(), 0.0 if method == "loss" else run.processor_seconds
        if method == "ekfac":
            return self._pooled(on)
        targets = np.arange(len(on.loaded.heldout))
        with self.piece(RANKING) as progress:
            found = method_scores(on.workspace, on.loaded, method, targets, lambda _: [], self.compute, progress)
        return found.scores.mean(1), found.processor_seconds

    def _pooled(self, on: Problem) -> tuple[np.ndarray, float]:
        """EK-FAC influence of a classifier of the pooled images (kronfluence).

        It can rate nothing but classes of its own. Where new tasks have others, its targets are tasks of the training
        classes, rightly labelled, drawn of images that no training task has, if enough are left: more than the other
        methods are given.
        """
        from core.baselines.ekfac import ekfac_mean_scores

        project = on.loaded.project
        targets = project.tasks.heldout
        if not set(targets.rows["class"]) <= set(project.tasks.train.rows["class"]):
            targets = _of_known_classes(on, self.unit)
        question = {**project.hashes, "targets": targets.hash, "epochs": POOLED_EPOCHS}

        def work(run: RunWriter) -> None:
            score = ekfac_mean_scores(project.images, project.tasks.train, targets, epochs=POOLED_EPOCHS, seed=0)
            run.write_table("scores.parquet", pd.DataFrame({"score": score}))

        with self.piece(RANKING):
            run = on.workspace.runs.get_or_compute("pooled-ekfac", question, work)
        return run.table("scores.parquet")["score"].to_numpy(), run.processor_seconds

    def kept(self, on: Problem, changes: Changes) -> Episodes:
        """The training tasks after the changes."""
        return on.loaded.episodes(cleaned(on.loaded.project.tasks.train, changes))

    def unedited(self, on: Problem) -> Edited:
        return Edited(on.loaded.params, 0.0, 0.0)

    def retrained(self, on: Problem, changes: Changes, seed: int = 0) -> Edited:
        """From the same initial parameters in the same way, on what is left; ``seed`` counts from the model's."""
        tasks, how = cleaned(on.loaded.project.tasks.train, changes), RetrainSettings()
        with self.piece(TRAINING) as progress:
            run = retraining(on.workspace, on.loaded.project.model, on.loaded, tasks, how, seed, progress)
        return Edited(retrained_params(run, on.loaded), run.processor_seconds, self.price(on, changes))

    def price(self, on: Problem, changes: Changes) -> float:
        """What retraining costs, in meta-gradients."""
        tasks = cleaned(on.loaded.project.tasks.train, changes)
        return training_cost(RetrainSettings().settings(on.loaded.project.model, 0), len(tasks))

    def linear(self, on: Problem, changes: Changes, curvature: str, gradient: str = "total") -> Edited:
        """The linear edit: lambda minus the influence functions of what changes."""
        solve = replace(self.unit.profile.solve, curvature=curvature)
        if curvature == "gamma":
            solve = replace(solve, damping=0.0)
        loaded = on.loaded

        def do(progress: Progress, work: RunWriter) -> tuple[Params, float]:
            model, after = configure_gradient(loaded.model, gradient), changes.applied(loaded.project.tasks.train)
            g = change_gradient(model, loaded.params, loaded.train, after.weights, after.labels)
            solver = Solver(loaded, model, solve, work, progress)
            solution = solver.solve(g)
            touched = len(touched_tasks(loaded.train, row_change(loaded.train, after.weights, after.labels)))
            cost = solver.cost + Cost(products=touched)
            return unflatten(flatten(loaded.params) + solution.x, loaded.params), cost.meta_gradients

        return self._clocked(on, do)

    def newton(self, on: Problem, changes: Changes) -> Edited:
        """One Newton step on the objective of what is left, damped by a trust region."""

        def do(progress: Progress, _: RunWriter) -> tuple[Params, float]:
            made = newton_edit(
                on.loaded.model,
                on.loaded.params,
                self.kept(on, changes),
                NewtonSettings(seed=self.unit.seed),
                progress,
            )
            return made.params, made.cost.meta_gradients

        return self._clocked(on, do)

    def rewound(self, on: Problem) -> Edited:
        """The snapshot of the training that some of the targets like best, and what choosing it took."""

        def do(_: Progress, __: RunWriter) -> tuple[Params, float]:
            loaded = on.loaded
            snapshots = [loaded.place(one.params) for one in on.workspace.trajectory()]
            chosen = select_snapshot(loaded.model, snapshots, loaded.heldout, REWIND_TASKS, self.unit.seed)
            return chosen.params, chosen.cost.meta_gradients

        return self._clocked(on, do)

    def steps(self, on: Problem, changes: Changes, share: float, start: Edited | None = None) -> Edited:
        """A few preconditioned steps on what is left, for a ``share`` of the cost of retraining in all."""
        begun = start or self.unedited(on)
        budget = max(1, round(share * self.price(on, changes) - begun.cost))

        def do(progress: Progress, _: RunWriter) -> tuple[Params, float]:
            settings = StepSettings(budget=budget, seed=self.unit.seed)
            made = single_task_finetune(on.loaded.model, begun.params, self.kept(on, changes), settings, progress)
            return made, budget + begun.cost

        edited = self._clocked(on, do)
        return replace(edited, seconds=edited.seconds + begun.seconds)

    def finetuned(self, on: Problem, changes: Changes, settings: TrainSettings | None = None) -> Edited:
        """A short fine-tune on what is left."""
        settings = replace(settings or self.unit.profile.finetune, seed=self.unit.seed)
        kept = self.kept(on, changes)

        def do(progress: Progress, _: RunWriter) -> tuple[Params, float]:
            params = train(
                on.loaded.model, on.loaded.params, kept, settings, progress=progress, name="fine-tune"
            ).params
            return params, training_cost(settings, len(kept))

        return self._clocked(on, do)

    def _clocked(self, on: Problem, do: Callable[[Progress, RunWriter], tuple[Params, float]]) -> Edited:
        """An edit and what it took. A finished one is kept; an interrupted one begins again, to be timed whole."""
        work = RunWriter(self.work.folder / MEMORY / f"edit-{next(self._edits):03d}")
        kept, like = StepCache(work.folder), on.loaded.params
        work.clear_steps()
        with self.piece(EDIT) as progress:
            made = kept.get("made")
            if made is None:
                clock = time.process_time()
                params, cost = do(progress, work)
                made = [flatten(params).cpu().numpy(), np.array([time.process_time() - clock, cost])]
                kept.put("made", made)
        values, (seconds, cost) = made
        return Edited(unflatten(torch.from_numpy(values).to(flatten(like)), like), float(seconds), float(cost))


def _of_known_classes(on: Problem, unit: Unit) -> TaskList:
    """Tasks of the classes that training tasks have; of images that none of them has, where enough are left."""
    project, profile = on.loaded.project, unit.profile
    rows, images = project.tasks.train.rows, project.images
    classes = np.isin(np.array(images.class_names, dtype=object)[images.labels], rows["class"].unique())
    pools = [
        pool_of(images.labels, np.flatnonzero(those)).without_small(profile.shots + profile.queries)
        for those in (classes & ~np.isin(images.ids, rows["image_id"].unique()), classes)
    ]
    pool = next(pool for pool in pools if len(pool.by_class) >= WAYS)
    rng = np.random.default_rng([unit.seed, 45])
    shape = {"ways": WAYS, "shots": profile.shots, "queries": profile.queries}
    return sample_tasks(images, pool, **shape, count=profile.targets, prefix="k", rng=rng)
