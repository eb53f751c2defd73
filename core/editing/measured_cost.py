"""What the work on a problem will cost on this machine, measured on a few of its tasks before anything long begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from core.actions.compute import Loaded
from core.editing.settings import FINETUNE
from core.influence.curvature import Curvature
from core.influence.methods import METHODS, SolveSettings
from core.influence.scores import instance_table
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.training import TrainSettings, objective
from core.maml.vectors import flatten
from core.runtime.memory import peak_memory
from core.runtime.progress import Progress, format_duration

_CHUNKS = 2  # of every thread, so that what a chunk begins with is a share of the time as in the real work
_MOST_RUNS, _SETTLED = 6, 0.8  # runs of one pass; the last is not clearly faster than the one before
_USUAL_PRODUCTS = (40, 85)
"""Curvature products of a solve at the usual damping and tolerance. At a condition number of 1,000 conjugate gradients
need 84 at most to a residual of 1e-2 (Saad 2003, equation 6.128); those measured took 45 to 75."""
_LOADING = 2.5  # seconds until a command has PyTorch, the task table and the images
_ROW_BYTES = 600  # of the table of scores, a row of the task list, while it is made and written


@dataclass(frozen=True)
class WorkEstimate:
    """Of one stage.

    Attributes:
        stage: What is done.
        how_much: Of what it is made, in words.
        low, high: Seconds; they differ where the work depends on how fast a solve converges.
        gb: Most memory of the process meanwhile.
    """

    stage: str
    how_much: str
    low: float
    high: float
    gb: float

    @property
    def time(self) -> str:
        """In words."""
        low, high = format_duration(self.low), format_duration(self.high)
        return f"about {low}" if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class _Pace:
    """Seconds a task, seconds that the first run takes longer, and the most memory of the process meanwhile, in GB."""

    seconds: float
    start: float
    gb: float


def estimate_costs(loaded: Loaded, training: TrainSettings | None, progress: Progress) -> list[WorkEstimate]:
    """Time and memory of each stage on the problem, with the settings that commands and pages use by default.

    Runs each kind of pass on a few chunks of tasks a few times, and multiplies.

    Args:
        training: How the model is (to be) trained; None leaves that stage out.
    """
    solve = METHODS["task-if"].estimator.solve or SolveSettings()
    model, params, train = loaded.model, loaded.params, loaded.train
    here = train.same_shape_positions(
        _CHUNKS * train.chunk * (torch.get_num_threads() if loaded.device.type == "cpu" else 1)
    )
    few = Episodes(
        train.tasks.select([train.tasks.task_ids[position] for position in here]),
        loaded.project.images,
        device=loaded.device,
        dtype=train.dtype,
        chunk=train.chunk,
    )
    direction = torch.ones_like(flatten(params))
    product = Curvature(solve.curvature, model, params, few, None)
    passes: dict[str, Callable[[], object]] = {
        "forward": lambda: evaluate(model, params, few),
        "gradient": lambda: objective(model, params, few),
        "product": partial(product, direction),
        "scores": lambda: instance_table(model, params, direction, few),
    }
    progress.stage("trying each kind of pass on a few tasks", len(passes))
    pace = {}
    for name, run in passes.items():
        pace[name] = _pace(run, len(few), loaded.device)
        progress.advance()
    n, heldout = len(train), len(loaded.heldout)
    curved = min(solve.curvature_tasks or n, n)
    gradient, scored = pace["gradient"], pace["scores"]
    per_product = pace["product"].seconds * curved
    once = gradient.seconds * heldout + scored.seconds * n + gradient.start + pace["product"].start + scored.start
    once += _LOADING
    most = max(gradient.gb, scored.gb, pace["product"].gb) + _ROW_BYTES * len(train.tasks.rows) / 1e9
    steps, batch = FINETUNE.iterations, min(FINETUNE.meta_batch, n)
    found = [
        _cost(
            "Evaluate",
            f"{heldout:,} held-out tasks, gradients of {n:,} tasks",
            pace["forward"].seconds * heldout + gradient.seconds * n + pace["forward"].start + gradient.start,
            gradient.gb,
        ),
        WorkEstimate(
            "Rank",
            f"scores of {n:,} tasks and {len(train.tasks.rows):,} rows, a solve over {curved} tasks",
            once + _USUAL_PRODUCTS[0] * per_product,
            once + _USUAL_PRODUCTS[1] * per_product,
            most,
        ),
        _cost(
            "Fine-tune",
            f"{steps} steps of {batch} tasks",
            gradient.seconds * steps * batch + gradient.start,
            gradient.gb,
        ),
    ]
    if training is not None:
        batch = min(training.meta_batch, n)
        seconds = gradient.seconds * (training.iterations * batch + training.polish * n) + gradient.start
        polish = f", {training.polish} passes over all tasks" if training.polish else ""
        found.insert(0, _cost("Train", f"{training.iterations:,} steps of {batch} tasks{polish}", seconds, gradient.gb))
    return found


def _cost(stage: str, how_much: str, seconds: float, gb: float) -> WorkEstimate:
    return WorkEstimate(stage, how_much, _LOADING + seconds, _LOADING + seconds, gb)


def _pace(run: Callable[[], object], tasks: int, device: torch.device) -> _Pace:
    """The fastest of several runs: the first two or three of a kind also compile and fill caches."""
    took: list[float] = []
    with peak_memory() as peak:
        while len(took) < 2 or (len(took) < _MOST_RUNS and took[-1] < _SETTLED * min(took[:-1])):
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            took.append(time.perf_counter() - start)
    best = min(took)
    on_card = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return _Pace(best / tasks, took[0] - best, max(peak.gb, on_card))
