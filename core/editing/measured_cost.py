"""Time and memory of the work on a problem on this machine, measured on a few of its tasks before long work begins."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from core.editing.settings import FINETUNE
from core.influence.curvature import Curvature
from core.influence.methods import METHODS, SolveSettings
from core.influence.scores import instance_table
from core.maml.cost import Cost, Pace, seconds_of, training_passes
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.loaded import Loaded
from core.maml.settings import TrainSettings
from core.maml.training import objective_gradient
from core.maml.vectors import flatten
from core.runtime.memory import peak_memory
from core.runtime.progress import Progress, format_duration

_CHUNKS = 2  # per thread, so that the overhead of a chunk is the same share of the time as in the real work
_MAX_REPEATS, _SPEEDUP = 6, 0.8  # a pass is repeated while it takes less than this share of the fastest before
_SOLVE_PRODUCTS = (40, 85)
"""Curvature products of a solve at the default damping and tolerance. At a condition number of 1,000 conjugate
gradients need at most 84 to a residual of 1e-2 (Saad 2003, equation 6.128); those measured took 45 to 75."""
_STARTUP_SECONDS = 2.5  # until a command has loaded PyTorch, the task table and the images
_ROW_BYTES = 600  # of memory per row of the task list, while the table of scores is computed and written


@dataclass(frozen=True)
class WorkEstimate:
    """The predicted time and memory of one stage of the work.

    Attributes:
        how_much: Its amount of work, in words (the name in the JSON of the inspect command).
        low, high: Seconds; they differ where the work depends on how fast a solve converges.
        gb: Peak memory of the process.
    """

    stage: str
    how_much: str
    low: float
    high: float
    gb: float

    @property
    def time(self) -> str:
        """Return the time, in words."""
        low, high = format_duration(self.low), format_duration(self.high)
        return f"about {low}" if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class PassTime:
    """The measured seconds per task, additional seconds of the first run, and peak memory of one kind of pass."""

    seconds: float
    warmup: float
    gb: float


def measure_pace(loaded: Loaded) -> Pace:
    """Measure the seconds per meta-gradient on a few training tasks."""
    model, params, sample = loaded.model, loaded.params, _few_tasks(loaded)
    return Pace(_pass_time(lambda: objective_gradient(model, params, sample), len(sample), loaded.device).seconds)


def estimate_costs(loaded: Loaded, training: TrainSettings | None, progress: Progress) -> list[WorkEstimate]:
    """Predict time and memory of each stage with the default settings; ``training`` of None leaves that stage out."""
    solve = METHODS["task-if"].estimator.solve or SolveSettings()
    model, params, sample = loaded.model, loaded.params, _few_tasks(loaded)
    direction = torch.ones_like(flatten(params))
    product = Curvature(solve.curvature, model, params, sample, None)
    passes: dict[str, Callable[[], object]] = {
        "evaluation": lambda: evaluate(model, params, sample),
        "gradient": lambda: objective_gradient(model, params, sample),
        "product": partial(product, direction),
        "scores": lambda: instance_table(model, params, direction, sample),
    }
    progress.stage("measuring each kind of pass on a few tasks", len(passes))
    times = {}
    for name, run in passes.items():
        times[name] = _pass_time(run, len(sample), loaded.device)
        progress.advance()
    evaluation, gradient, products, scores = times.values()
    pace = Pace(gradient.seconds, products.seconds, evaluation.seconds)
    n, heldout, rows = len(loaded.train), len(loaded.heldout), len(loaded.tasks.rows)
    curvature_tasks = min(solve.curvature_tasks or n, n)
    rank_low, rank_high = (
        _STARTUP_SECONDS
        + seconds_of(Cost(gradients=heldout, products=count * curvature_tasks), pace)
        + scores.seconds * n
        + sum(pass_time.warmup for pass_time in (gradient, products, scores))
        for count in _SOLVE_PRODUCTS
    )
    estimates = [
        _estimate(
            "Evaluate",
            f"{heldout:,} held-out tasks, gradients of {n:,} tasks",
            seconds_of(Cost(gradients=n, evaluations=heldout), pace) + evaluation.warmup + gradient.warmup,
            gradient.gb,
        ),
        WorkEstimate(
            "Rank",
            f"scores of {n:,} tasks and {rows:,} rows, a solve over {curvature_tasks} tasks",
            rank_low,
            rank_high,
            max(pass_time.gb for pass_time in (gradient, products, scores)) + _ROW_BYTES * rows / 1e9,
        ),
        _training_estimate("Fine-tune", FINETUNE, n, pace, gradient, with_control=True),
    ]
    if training is None:
        return estimates
    return [_training_estimate("Train", training, n, pace, gradient, loaded.validation_count), *estimates]


def _training_estimate(
    stage: str,
    settings: TrainSettings,
    tasks: int,
    pace: Pace,
    gradient: PassTime,
    validation: int = 0,
    *,
    with_control: bool = False,
) -> WorkEstimate:
    refinement = f", {settings.polish} L-BFGS iterations on all tasks" if settings.polish else ""
    amount = f"{settings.iterations:,} steps of {min(settings.meta_batch, tasks)} tasks{refinement}"
    seconds = seconds_of(training_passes(settings, tasks, validation), pace)
    if with_control:
        amount, seconds = f"{amount}, and the same without the changes", 2 * seconds
    return _estimate(stage, amount, seconds + gradient.warmup, gradient.gb)


def _estimate(stage: str, amount: str, seconds: float, gb: float) -> WorkEstimate:
    return WorkEstimate(stage, amount, _STARTUP_SECONDS + seconds, _STARTUP_SECONDS + seconds, gb)


def _few_tasks(loaded: Loaded) -> Episodes:
    """Return training tasks of one shape, two chunks per thread."""
    train = loaded.train
    threads = torch.get_num_threads() if loaded.device.type == "cpu" else 1
    ids = train.tasks.task_ids
    positions = train.same_shape_positions(_CHUNKS * train.chunk * threads)
    few = train.tasks.select([ids[position] for position in positions])
    return Episodes(few, loaded.images, device=loaded.device, dtype=train.dtype, chunk=train.chunk)


def _pass_time(run: Callable[[], object], tasks: int, device: torch.device) -> PassTime:
    """Measure the fastest of several runs: the first two or three of a kind also compile and fill caches."""
    seconds: list[float] = []
    with peak_memory() as peak:
        while len(seconds) < 2 or (len(seconds) < _MAX_REPEATS and seconds[-1] < _SPEEDUP * min(seconds[:-1])):
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    best = min(seconds)
    cuda_gb = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return PassTime(best / tasks, seconds[0] - best, max(peak.gb, cuda_gb))
