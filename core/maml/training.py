"""Train by second-order meta-learning: Adam on tasks drawn without replacement, then optionally full-batch L-BFGS.

If there are validation tasks, the step of Adam that is best on them is kept. They are neither training nor held-out
tasks, so that no accuracy is reported on tasks that chose something.

Influence estimates are derivatives at a minimum of the objective. Adam alone leaves a nonzero gradient, even with very
small final steps. L-BFGS removes it if the problem is small or smooth enough (docs/method.md). The state is saved to
``state.safetensors`` in the output folder about 20 times per run, and a run that finds this file resumes from it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.adam import adam

from core.maml.backbone import Params
from core.maml.episodes import Chunk, Episodes, OnChunk, no_progress
from core.maml.evaluation import evaluate
from core.maml.objective import Bilevel
from core.maml.passes import passes_of
from core.maml.settings import TrainSettings
from core.maml.vectors import flatten, flatten_each, unflatten
from core.runtime.distributed import world
from core.runtime.errors import UserError
from core.runtime.hashing import content_hash
from core.runtime.progress import Progress
from core.runtime.replacing import replacing

STATE_FILE = "state.safetensors"
SNAPSHOT_COUNT = 8  # saved during training
_ITERATIONS_PER_CHECK = 10  # L-BFGS iterations between two convergence checks


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of the meta-parameters during training, with the learning rate of the Adam step."""

    params: Params
    rate: float


@dataclass(frozen=True)
class TrainingResult:
    """A result of a training run.

    Attributes:
        history: Measurements (:func:`read_history`).
        trajectory: Evenly spaced snapshots of the Adam phase, including its end.
        kept: The Adam step whose parameters are kept, or from which the refinement started.
    """

    params: Params
    history: list[dict[str, Any]]
    trajectory: list[Snapshot]
    kept: int


@dataclass(frozen=True)
class Stationarity:
    """A measure of the distance of parameters from a stationary point of the objective.

    Attributes:
        objective: L(lambda), a sum over tasks (:mod:`core.maml.objective`).
        gradient_norm: Euclidean norm of its gradient.
        ratio: ``|sum_k g_k + delta lambda| / (sum_k |g_k| + |delta lambda|)``, in [0, 1]: the fraction of the task
            gradients that remains after cancellation. It is 0 at a stationary point.
    """

    objective: float
    gradient_norm: float
    ratio: float


def stationarity(model: Bilevel, params: Params, episodes: Episodes, progress: Progress | None = None) -> Stationarity:
    """Measure the stationarity of ``params`` on all tasks of ``episodes``."""
    progress = progress or Progress()
    progress.stage("gradient of every task", len(episodes))
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        gradients, losses = passes.gradients(params, chunk.task)
        rows = flatten_each(gradients)
        return [rows.sum(0), rows.norm(dim=1).sum(), losses.sum()]

    gradient, norms, loss = episodes.sum_chunks(of_chunk, on_chunk=progress.advance)
    decay = model.delta * flatten(params)
    norm, sum_of_norms = float((gradient + decay).norm()), float(norms) + float(decay.norm())
    value = float(loss) + model.delta / 2 * float((flatten(params) ** 2).sum())
    return Stationarity(value, norm, norm / sum_of_norms if sum_of_norms else 0.0)


def objective_gradient(
    model: Bilevel,
    params: Params,
    episodes: Episodes,
    positions: np.ndarray | None = None,
    on_chunk: OnChunk = no_progress,
) -> tuple[Params, float]:
    """Return the sums over tasks (all, or those at ``positions``) of gradients and losses, without weight decay."""
    passes = passes_of(model)

    def of_chunk(chunk: Chunk) -> list[Tensor]:
        gradient, losses = passes.gradient(params, chunk.task)
        return [flatten(gradient), losses.double().sum()]

    gradient, loss = episodes.sum_chunks(of_chunk, positions, on_chunk)
    return unflatten(gradient, params), float(loss)


def check_finite(report: Stationarity) -> None:
    """Raise UserError if the objective or its gradient is not finite."""
    if not np.isfinite([report.objective, report.gradient_norm]).all():
        raise UserError(f"The training diverged: its objective is {report.objective}.", "Lower the learning rate.")


ADAM_STAGE = "meta-training"
"""The progress stage of the Adam steps, unless another name is given."""


def train(
    model: Bilevel,
    start: Params,
    episodes: Episodes,
    settings: TrainSettings,
    *,
    validation: Episodes | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    name: str = ADAM_STAGE,
) -> TrainingResult:
    """Minimise the objective from ``start``; with :attr:`Bilevel.first_order`, use the direct gradients instead.

    Args:
        start: Initial parameters (not changed).
        validation: Tasks by which the step to keep is chosen; None keeps the last one.
        folder: Folder of the training state, from which an interrupted run resumes.
        name: Name of the progress stage.

    Raises:
        UserError: the loss became NaN or infinite, or the folder contains the state of another training.
    """
    progress = progress or Progress()
    arrays = [start[key].cpu().numpy() for key in sorted(start)]
    # The key identifies the training, so that the state of another one is never resumed.
    checked = [validation.tasks.hash] if validation and settings.checks else []
    described = settings.cache_key(validation=bool(checked))
    key = content_hash(repr(model), described, episodes.tasks.hash, *checked, *arrays)
    path = folder / STATE_FILE if folder else None
    training = _Training(model, start, episodes, validation, settings, progress, path, key)
    if training.done < settings.iterations:
        training.adam(name)
    if settings.polish:
        training.lbfgs()
    return TrainingResult(training.params, training.history, training.trajectory, training.kept)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the measurements of an unfinished training in ``folder`` so far, about 20; empty if there is none.

    Entries of the phase ``adam`` have done (steps) and loss (mean over the batches since the last entry, in nats), and
    at a validation check training_loss, training_accuracy, validation_loss and validation_accuracy, all of the same
    step, the former two on as many training tasks as there are validation tasks. Entries of the phase ``polish`` have
    done (iterations) and the fields of :class:`Stationarity`.
    """
    try:
        with safe_open(folder / STATE_FILE, "pt") as stream:
            return list(json.loads(stream.metadata()["state"])["history"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return []  # not written yet, or damaged: reported when the training resumes


_ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")
_ADAM: dict[str, Any] = {
    "amsgrad": False,
    "beta1": 0.9,
    "beta2": 0.999,
    "weight_decay": 0,  # the objective has its own
    "eps": 1e-8,
    "maximize": False,
}
"""The defaults of :class:`torch.optim.Adam`. Training calls the functional form, because constructing the class imports
PyTorch's compiler, which takes seconds."""


class _Training:
    """A training in progress; ``done`` is the number of Adam steps plus L-BFGS iterations."""

    def __init__(
        self,
        model: Bilevel,
        start: Params,
        episodes: Episodes,
        validation: Episodes | None,
        settings: TrainSettings,
        progress: Progress,
        path: Path | None,
        key: str,
    ) -> None:
        self.model, self.episodes, self.settings, self.progress = model, episodes, settings, progress
        self._validation = validation if settings.checks else None
        self._path, self._key = path, key
        self.params, self.moments, self.done = start, Params(), 0
        self.kept, self._best = settings.iterations, Params()
        self.history: list[dict[str, Any]] = []
        self.trajectory: list[Snapshot] = []
        if (stored := world().on_rank_zero(self._read)) is None:
            return
        description, tensors = stored
        device = next(iter(start.values())).device
        tensors = {name: value.to(device) for name, value in tensors.items()}
        self.params = {name: tensors.pop(f"params.{name}") for name in start}
        self.kept = description.get("kept", self.kept)  # not in states of earlier versions
        self._best = {name: tensors.pop(f"best.{name}") for name in start if f"best.{name}" in tensors}
        self.trajectory = [
            Snapshot({name: tensors.pop(f"snapshot.{number}.{name}") for name in start}, rate)
            for number, rate in enumerate(description["rates"])
        ]
        self.moments, self.done, self.history = tensors, description["done"], description["history"]

    def adam(self, name: str) -> None:
        """Take the remaining Adam steps, in a progress stage of this name."""
        model, episodes, settings = self.model, self.episodes, self.settings
        params = self.params = {key: value.clone() for key, value in self.params.items()}
        moments = self.moments or {f"{m}.{key}": torch.zeros_like(params[key]) for m in _ADAM_MOMENTS for key in params}
        means, squares = ([moments[f"{m}.{key}"] for key in params] for m in _ADAM_MOMENTS)
        steps = [torch.tensor(float(self.done)) for _ in params]
        size = min(settings.meta_batch, len(episodes))
        iterations = settings.iterations
        snapshot_steps, check_steps = _even_steps(iterations, SNAPSHOT_COUNT), _even_steps(iterations, settings.checks)
        losses: list[float] = []
        self.progress.stage(name, iterations, done=self.done)
        for iteration in range(self.done, iterations):
            positions = _draw_tasks(len(episodes), size, iteration, settings.seed)
            gradient_sum, loss = objective_gradient(model, params, episodes, positions)
            decay = model.delta / len(episodes)
            gradient = [decay * value + gradient_sum[key] / size for key, value in params.items()]
            loss /= size
            if not np.isfinite(loss):
                raise UserError(
                    f"The training diverged at iteration {iteration}: the loss is {loss}.", "Lower the learning rate."
                )
            rate = settings.learning_rate * (1 + np.cos(np.pi * iteration / iterations)) / 2
            adam(list(params.values()), gradient, means, squares, [], steps, lr=rate, **_ADAM)
            losses.append(loss)
            self.progress.advance(note=f"loss {np.mean(losses[-50:]):.3f}")
            self.done = iteration + 1
            if self.done in snapshot_steps:
                self.trajectory.append(Snapshot({key: value.clone() for key, value in params.items()}, float(rate)))
            is_check = self._validation is not None and self.done in check_steps
            if is_check or self.done % max(1, iterations // 20) == 0 or self.done == iterations:
                self.history.append({"phase": "adam", "done": self.done, "loss": float(np.mean(losses))})
                losses, self.moments = [], moments
                if is_check:
                    self.history[-1] |= self._check(params)
                if is_finished := self.done == iterations or (is_check and self._is_out_of_patience()):
                    self.params, self._best = self._best or params, {}
                    self.moments, self.done = {}, iterations
                self._save()
                if is_finished:
                    break

    def _check(self, params: Params) -> dict[str, float]:
        """Measure parameters on the validation tasks and as many training tasks; remember them if they are the best."""
        assert self._validation is not None
        accuracies = [entry["validation_accuracy"] for entry in self.history if "validation_accuracy" in entry]
        measured: dict[str, float] = {}
        training = self.episodes.evenly_spaced(len(self._validation))
        for name, episodes in (("training", training), ("validation", self._validation)):
            result = evaluate(self.model, params, episodes)
            measured[f"{name}_loss"] = float(result.loss.mean())
            measured[f"{name}_accuracy"] = float(result.accuracy.mean())
        if measured["validation_accuracy"] >= max(accuracies, default=0.0):  # of equally good steps, the later one
            self._best, self.kept = {key: value.clone() for key, value in params.items()}, self.done
        return measured

    def _is_out_of_patience(self) -> bool:
        since = sum(entry["done"] > self.kept for entry in self.history if "validation_accuracy" in entry)
        return 0 < self.settings.patience <= since

    def lbfgs(self) -> None:
        """Minimise the full objective, divided by the number of tasks."""
        model, episodes, settings, n = self.model, self.episodes, self.settings, len(self.episodes)
        leaves = {key: value.clone().requires_grad_() for key, value in self.params.items()}
        optimiser = torch.optim.LBFGS(
            leaves.values(),
            max_iter=_ITERATIONS_PER_CHECK,
            max_eval=4 * _ITERATIONS_PER_CHECK,
            history_size=50,
            line_search_fn="strong_wolfe",
            tolerance_change=0,
        )

        def closure() -> Tensor:
            values = {key: leaf.detach() for key, leaf in leaves.items()}
            gradient_sum, loss = objective_gradient(model, values, episodes)
            squares = [(value**2).sum() for value in values.values()]
            decay = model.delta / 2 * sum(squares, start=torch.zeros_like(squares[0]))
            for key, leaf in leaves.items():
                leaf.grad = (model.delta * values[key] + gradient_sum[key]) / n
            return (loss + decay) / n

        done = max(self.done - settings.iterations, 0)
        self.progress.stage("L-BFGS", settings.polish, done=done)
        for start in range(done, settings.polish, _ITERATIONS_PER_CHECK):
            optimiser.step(closure)
            done = min(start + _ITERATIONS_PER_CHECK, settings.polish)
            self.params = {key: leaf.detach().clone() for key, leaf in leaves.items()}
            report = stationarity(model, self.params, episodes)
            check_finite(report)
            self.done = settings.iterations + done
            before = [entry for entry in self.history if entry["phase"] == "polish"]
            self.history.append({"phase": "polish", "done": done, **asdict(report)})
            note = f"objective {report.objective:.3f}, gradient ratio {report.ratio:.1e}"
            self.progress.advance(done - start, note=note)
            self._save()
            # Where rounding hides what is left to gain, the line search finds no better point and stays.
            is_stuck = before and before[-1]["objective"] <= report.objective and before[-1]["ratio"] <= report.ratio
            if report.ratio < settings.tolerance or is_stuck:
                break

    def _save(self) -> None:
        path = self._path
        if path is None:
            return
        tensors = {f"params.{name}": value for name, value in self.params.items()} | self.moments
        for number, snapshot in enumerate(self.trajectory):
            tensors |= {f"snapshot.{number}.{name}": value for name, value in snapshot.params.items()}
        tensors |= {f"best.{name}": value for name, value in self._best.items()}
        description = {
            "question": self._key,
            "done": self.done,
            "history": self.history,
            "kept": self.kept,
            "rates": [snapshot.rate for snapshot in self.trajectory],
        }

        def write() -> None:
            # Write a single file, so that an interruption between two writes cannot mix old tensors with a new count.
            with replacing(path) as temporary:
                contiguous = {name: value.cpu().contiguous() for name, value in tensors.items()}
                save_file(contiguous, temporary, metadata={"state": json.dumps(description)})

        world().on_rank_zero(write)

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        path = self._path
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, "pt") as stream:
                description = json.loads(stream.metadata()["state"])
                key = description["question"]
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}.", "Delete it to train from the beginning.") from error
        if key != self._key:
            raise UserError(
                f"{path.parent} contains a training with other tasks or settings.", "Choose another output folder."
            )
        return description, tensors


def _even_steps(iterations: int, count: int) -> set[int]:
    """Return ``count`` evenly spaced numbers of steps, the last being ``iterations``."""
    return {round(iterations * (n + 1) / count) for n in range(count)} - {0}


def _draw_tasks(n: int, size: int, iteration: int, seed: int) -> np.ndarray:
    """Return the positions of the tasks of one step; each pass over all tasks has its own order."""
    per_pass = n // size
    order = np.random.default_rng([seed, iteration // per_pass]).permutation(n)
    start = iteration % per_pass * size
    return np.sort(order[start : start + size])
