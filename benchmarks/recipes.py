"""Compare candidates for the training recipe of a kind of images: ``python -m benchmarks.recipes --data fc100``.

Each is trained for as many meta-gradients as the others, and the step that is kept is measured on 300 tasks of the
validation part that chose nothing. Recipes (:mod:`core.maml.recipes`) are chosen from this table. Test tasks are not
touched.

Every figure is kept in ``--out``, as those of :mod:`benchmarks.training` are; ``--stored`` prints what is there.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.training import DEVICE, FIGURES, QUERIES, TASKS, TESTS, stored_figures
from core.actions.compute import load
from core.checkpoints.model import Model, ModelSpec
from core.maml.evaluation import Interval, evaluate
from core.maml.recipes import recipe_for
from core.maml.training import train
from core.runtime.errors import UserError
from core.runtime.hashing import content_hash
from core.runtime.memory import disable_malloc_trim
from core.tasks.generate import generate
from core.tasks.settings import TaskSettings
from core.workspace.workspace import Project

MEASURED_ON = range(101, 107)
"""Seeds of the tasks that measure, 50 each."""
CHECKS = 6
"""Steps that are measured for choosing one, unless the whole recipe is trained: fewer than usual, for time."""


@dataclass(frozen=True)
class Candidate:
    """A network, an adaptation and a learning rate."""

    learning_rate: float
    rate: float
    steps: int = 1
    pooling: str = "mean"
    activation: str = "gelu"
    filters: int = 16


CANDIDATES = (
    Candidate(0.01, 0.1),
    Candidate(0.005, 0.1),
    Candidate(0.01, 0.03),
    Candidate(0.01, 0.3),
    Candidate(0.005, 0.3),
    Candidate(0.003, 0.3),
    Candidate(0.005, 0.5),
    Candidate(0.005, 0.2, steps=2),
    Candidate(0.01, 0.1, steps=3),
    Candidate(0.01, 0.1, filters=32),
    Candidate(0.01, 0.4, pooling="stride"),
    Candidate(0.005, 0.3, pooling="max"),
    Candidate(0.01, 0.1, pooling="max", activation="relu"),
)


def measure(candidate: Candidate, data: str, shots: int, budget: int) -> dict[str, Any]:
    """Train a candidate; return its fields, its validation accuracies, its seconds and the step that is kept."""
    settings = TaskSettings(data=data, shots=shots, queries=QUERIES, count=TASKS, heldout=TESTS)
    tasks = generate(settings)
    images, recipe = tasks.images(), recipe_for(tasks.images().shape).training
    fields = {name: value for name, value in asdict(candidate).items() if name != "learning_rate"}
    spec = ModelSpec(ways=tasks.train.ways, shape=images.shape, **fields)
    loaded = load(Project(images, tasks, Model(spec, spec.init(0), {})), DEVICE)
    training = replace(recipe, iterations=budget // recipe.meta_batch, learning_rate=candidate.learning_rate)
    if training.iterations < recipe.iterations:
        training = replace(training, checks=CHECKS)
    start = time.perf_counter()
    result = train(loaded.model, loaded.params, loaded.train, training, validation=loaded.validation)
    seconds = time.perf_counter() - start
    accuracies: list[float] = []
    for seed in MEASURED_ON:
        validation = generate(replace(settings, count=1, heldout=50, seed=seed)).validation
        if validation is None:
            raise UserError(f"{data} has no validation tasks.", "Choose images with a part named val.")
        accuracies += list(evaluate(loaded.model, result.params, loaded.episodes(validation)).accuracy)
    figures: dict[str, Any] = {"candidate": asdict(candidate), "seconds": seconds, "kept": result.kept}
    return figures | {"accuracies": [round(float(one), 4) for one in accuracies]}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    data: Annotated[str, typer.Option(help="Image set with a validation part.")] = "fc100",
    shots: Annotated[int, typer.Option(help="Support images per class.")] = 5,
    budget: Annotated[int, typer.Option(help="Meta-gradients of each training.")] = 3200,
    part: Annotated[str, typer.Option(help="I/N: every N-th candidate from the I-th, for several processes.")] = "0/1",
    stored: Annotated[bool, typer.Option("--stored", help="Measure nothing.")] = False,
) -> None:
    """Print a table; accuracies are means over tasks with 95 % intervals, seconds those of the training."""
    disable_malloc_trim()
    print(f"{data}, {shots} shots, accuracy in percent on validation tasks after {budget:,} meta-gradients\n")
    print("| network | inner steps | Adam | accuracy | step kept | seconds |\n|---|---|---|---|---|---|", flush=True)
    first, step = map(int, part.split("/"))
    for one in CANDIDATES[first::step]:
        path = out / f"recipe-{data}-{shots}-{budget}-{content_hash(repr(one))[:8]}.json"
        measured = partial(measure, one, data, shots, budget)
        if (figures := stored_figures(path, measured, only_stored=stored)) is None:
            continue
        accuracy = Interval.of(np.asarray(figures["accuracies"])).percent(unit="")
        network = f"{one.filters} filters, {one.pooling}, {one.activation}"
        cells = (network, f"{one.steps} at {one.rate:g}", f"{one.learning_rate:g}", accuracy, str(figures["kept"]))
        print(f"| {' | '.join(cells)} | {figures['seconds']:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
