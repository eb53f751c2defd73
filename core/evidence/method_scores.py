"""Scores of every training task for every target by any method, each a run of its own, shared by all evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.actions.compute import Compute, Loaded
from core.actions.rank import ENGINE_VERSION, configure_gradient, ranking
from core.evidence.methods import ENSEMBLE_SIZES, ENSEMBLES, INFLUENCE, base
from core.influence.curvature import gradient_products, task_gradients
from core.influence.methods import METHODS, Estimator, parse
from core.influence.scores import check_scores
from core.influence.solve import Solver, difficulty
from core.influence.targets import Target
from core.maml.backbone import Params
from core.maml.training import Snapshot
from core.runtime.files import content_hash
from core.runtime.memory import peak_memory
from core.runtime.progress import Progress
from core.workspace.runs import RunWriter
from core.workspace.workspace import Workspace

KIND = "scores"
POOLED_EPOCHS = 16
TRAK_DIMENSION = 512
_MANY = "task-if:solver=low-rank:rank=60:damping=0.01"


@dataclass(frozen=True)
class MethodScores:
    """What a method says, and what it cost.

    Attributes:
        scores: ``(N, T)``, positive is helpful.
        seconds, processor_seconds: By the clock, and of the processor.
        residual: The worst relative residual of its solves; NaN where there is none.
        note: Something a reader must know; may be empty.
    """

    scores: np.ndarray
    seconds: float
    processor_seconds: float
    memory_gb: float
    residual: float
    note: str


def method_scores(
    workspace: Workspace,
    loaded: Loaded,
    name: str,
    targets: np.ndarray,
    members: Callable[[int], list[Params]],
    compute: Compute,
    progress: Progress,
) -> MethodScores:
    """The scores of method ``name`` for the held-out tasks at ``targets``.

    Args:
        members: Gives that many models trained on all tasks from other seeds.

    Raises:
        UserError: the method cannot run here, or its scores rank nothing.
    """
    models = members(ENSEMBLE_SIZES.get(name, 0))
    question = {
        **loaded.project.hashes,
        "engine": ENGINE_VERSION,
        "method": name,
        "targets": targets.tolist(),
        "members": [content_hash(*(value.cpu().numpy() for value in params.values())) for params in models],
        "dtype": loaded.compute.dtype,
    }
    estimator = parse(name) if base(name) in METHODS else None
    question |= estimator.question() if estimator else {}

    def work(run: RunWriter) -> None:
        begun = time.perf_counter()
        context = _Context(workspace, loaded, targets, models, compute, run, progress)
        with peak_memory() as peak:
            scores, residual = context.scores(name)
        check_scores(scores)
        columns = [loaded.project.tasks.heldout.task_ids[i] for i in targets]
        run.write_table("scores.parquet", pd.DataFrame(scores, columns=columns))
        note = context.note
        seconds = max(time.perf_counter() - begun, context.earlier)
        run.write_json("scores.json", {"seconds": seconds, "memory_gb": peak.gb, "residual": residual, "note": note})

    run = workspace.runs.get_or_compute(KIND, question, work)
    told = run.json("scores.json")
    residual = float("nan") if told["residual"] is None else told["residual"]
    return MethodScores(
        run.table("scores.parquet").to_numpy(),
        told["seconds"],
        run.processor_seconds,
        told["memory_gb"],
        residual,
        told["note"],
    )


class _Context:
    """What the methods work on."""

    def __init__(
        self,
        workspace: Workspace,
        loaded: Loaded,
        targets: np.ndarray,
        models: list[Params],
        compute: Compute,
        run: RunWriter,
        progress: Progress,
    ) -> None:
        self.workspace, self.loaded, self.targets, self.models = workspace, loaded, targets, models
        self.compute, self.run, self.progress, self.note = compute, run, progress, ""
        self.earlier = 0.0  # seconds of a run that is shared with the pages and may have been there before
        ids = loaded.project.tasks.heldout.task_ids
        self.chosen = loaded.project.tasks.heldout.select([ids[i] for i in targets])

    def scores(self, name: str) -> tuple[np.ndarray, float | None]:
        """``(N, T)`` and the worst residual."""
        here = self.loaded
        if base(name) in INFLUENCE:
            return self._influence(here, parse(name))
        if name == "dot":
            return self._along(here, self._targets(here, "total"), "total"), None
        if name in ENSEMBLES:
            many = parse(_MANY)  # a basis serves all targets of a model at once
            places = [here.with_params(params) for params in self.models] or [
                here.with_params(s.params) for s in self._later()
            ]
            found = [self._influence(place, many) for place in places]
            self.note = f"averaged over {len(found)} models"
            return np.mean([scores for scores, _ in found], 0), max(r or 0.0 for _, r in found)
        if name == "task-if+loss":
            alone = method_scores(
                self.workspace, here, "task-if", self.targets, lambda _: [], self.compute, self.progress
            )
            self.earlier = alone.seconds
            return standard(alone.scores) + standard(self._constant(-self._difficulty("loss"))), alone.residual
        if name == "tracin":
            total = np.zeros((len(here.train), len(self.targets)))
            for snapshot in self.workspace.trajectory():
                place = here.with_params(snapshot.params)
                total += snapshot.rate * self._along(place, self._targets(place, "total"), "total")
            return total, None
        if name == "self-influence":
            run = ranking(self.workspace, Target(), METHODS[name].estimator, self.compute, self.progress)
            self.earlier = sum(run.json("provenance.json")["seconds"].values())
            return self._constant(run.table("tasks.parquet")["score"].to_numpy()), run.json("solver.json")["residual"]
        if name.startswith("trak-"):
            return self._trak(), None
        return self._baseline(name), None

    def _baseline(self, name: str) -> np.ndarray:
        project = self.loaded.project
        if name == "ekfac":
            from core.baselines.ekfac import ekfac_scores

            self.note = f"its own classifier, {POOLED_EPOCHS} epochs"
            return ekfac_scores(project.images, project.tasks.train, self.chosen, epochs=POOLED_EPOCHS, seed=0)
        if name == "self-confidence":
            from core.baselines.confidence import self_confidence

            found = self_confidence(project.images, project.tasks.train, epochs=POOLED_EPOCHS, seed=0)
            of = found.set_index(["image_id", "class"])["self_confidence"]
            rows = project.tasks.train.rows
            value = np.log(of.loc[list(zip(rows["image_id"], rows["class"], strict=True))].to_numpy().clip(1e-12))
            mean = pd.Series(value).groupby(rows["task_id"].to_numpy(), sort=False).mean()
            return self._constant(mean.to_numpy())
        sign = 1 if name == "margin" else -1
        return self._constant(sign * self._difficulty(name))

    def _difficulty(self, name: str) -> np.ndarray:
        self.progress.stage(f"{name} of the tasks", len(self.loaded.train))
        return difficulty(self.loaded, self.progress)[("loss", "entropy", "margin").index(name)]

    def _constant(self, values: np.ndarray) -> np.ndarray:
        """The same for every target."""
        return np.repeat(values[:, None], len(self.targets), 1)

    def _later(self) -> list[Snapshot]:
        trajectory = self.workspace.trajectory()
        return trajectory[len(trajectory) // 2 :]

    def _targets(self, loaded: Loaded, gradient: str, inner: str = "cg") -> Tensor:
        """Gradients of the targets' losses ``(T, P)``."""
        self.progress.stage("target gradients", len(self.targets))
        model = configure_gradient(loaded.model, gradient, inner)
        return task_gradients(model, loaded.params, loaded.episodes(self.chosen), on_chunk=self.progress.advance)

    def _along(self, loaded: Loaded, directions: Tensor, gradient: str, inner: str = "cg") -> np.ndarray:
        """Products ``(N, T)`` of the training tasks' gradients with ``(T, P)``."""
        self.progress.stage("scores", len(loaded.train))
        model = configure_gradient(loaded.model, gradient, inner)
        found = gradient_products(model, loaded.params, loaded.train, directions, self.progress.advance)
        return found.double().cpu().numpy()

    def _influence(self, loaded: Loaded, estimator: Estimator) -> tuple[np.ndarray, float | None]:
        v = self._targets(loaded, estimator.evaluation, estimator.inner)
        if estimator.solve is None:
            return self._along(loaded, v, estimator.gradient, estimator.inner), None
        model = configure_gradient(loaded.model, estimator.gradient, estimator.inner)
        solver = Solver(loaded, model, estimator.solve, self.run, self.progress)
        solver.solve(v.mean(0))  # fixes the damping for all targets alike
        solutions = [solver.solve(one) for one in v]
        u = torch.stack([solution.x for solution in solutions])
        return self._along(loaded, u, estimator.gradient, estimator.inner), max(
            solution.residual for solution in solutions
        )

    def _trak(self) -> np.ndarray:
        from core.baselines.trak import trak_scores

        models: Sequence[Params] = self.models or [self.loaded.params]
        train, heldout = self.loaded.train, self.loaded.episodes(self.chosen)
        self.progress.stage("TRAK", len(models) * (len(train) + len(heldout)))
        return trak_scores(
            self.loaded.model,
            models,
            train,
            heldout,
            dimension=TRAK_DIMENSION,
            on_step=self.progress.advance,
        )


def standard(values: np.ndarray) -> np.ndarray:
    """Each column in standard deviations from its mean."""
    spread = values.std(0)
    return (values - values.mean(0)) / np.where(spread > 0, spread, 1)
