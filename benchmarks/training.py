"""Compare training with learn2learn's loop: ``python -m benchmarks.training`` prints a table.

Both train on the same tasks (5-way, 5 queries per class) and are measured on the same test tasks of other images, once
after the same number of meta-gradients and once after the same seconds:

- ``ours``: the recipe for the kind of images (:mod:`core.maml.recipes`) with its validation tasks, as the ``train``
  command runs it, with the number of its steps set to the budget;
- ``learn2learn``: the loop, networks and hyper-parameters of its examples ``maml_omniglot.py`` (MNIST, Omniglot) and
  ``maml_miniimagenet.py`` (FC100): a meta-batch of 32, one inner step at rate 0.5, Adam at 0.003. Its last step counts.

Image sets that are not on this machine are left out. A finished row is kept in ``--out`` and not measured again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer

from core.actions.compute import Compute, load
from core.actions.train import fit_model
from core.checkpoints.model import Model, ModelSpec, spec_of
from core.data.store import find
from core.maml.architectures import ARCHITECTURES
from core.maml.evaluation import Interval, evaluate
from core.maml.recipes import recipe_for
from core.maml.settings import Backbone
from core.runtime.files import content_hash, read_json, write_json
from core.runtime.memory import disable_malloc_trim
from core.runtime.progress import Progress
from core.tasks.generate import TaskFolder, generate
from core.tasks.settings import TaskSettings
from core.workspace.workspace import Project

DATA, SHOTS, SEEDS = ("mnist", "omniglot", "fc100"), (1, 5), 3
TASKS, TESTS, QUERIES = 2000, 300, 5
THEIR_BATCH, THEIR_INNER_RATE, THEIR_RATE = 32, 0.5, 0.003
_DEVICE = Compute(device="cpu")


def tasks_of(data: str, shots: int, seed: int) -> TaskFolder:
    """Return the training, validation and test tasks of one row."""
    return generate(TaskSettings(data=data, shots=shots, queries=QUERIES, count=TASKS, heldout=TESTS, seed=seed))


def ours(tasks: TaskFolder, budget: int, seed: int) -> tuple[float, float]:
    """Return the test accuracy and the seconds of training by the recipe, for a budget of meta-gradients."""
    images = tasks.images()
    recipe = recipe_for(images.shape)
    settings = replace(recipe.training, iterations=budget // recipe.training.meta_batch, seed=seed)
    spec = spec_of(recipe.model_fields({"ways": tasks.train.ways}))
    start = time.perf_counter()
    model, _ = fit_model(images, tasks, spec, settings, _DEVICE, Progress())
    seconds = time.perf_counter() - start
    return model.metadata["report"]["heldout_accuracy"]["mean"], seconds


def theirs(tasks: TaskFolder, budget: int, seconds: float, seed: int) -> tuple[float, float, float, float]:
    """Return the test accuracy after ``budget`` meta-gradients and after ``seconds``, and what each one took.

    The third value is the seconds of the budget, the fourth the meta-gradients within ``seconds``.
    """
    from learn2learn.algorithms import MAML  # type: ignore[import-untyped]

    images = tasks.images()
    network: Backbone = "omniglot-cnn" if images.shape[2] == 1 else "cnn4"
    spec = ModelSpec(backbone=network, ways=tasks.train.ways, shape=images.shape, rate=THEIR_INNER_RATE, delta=0.0)
    torch.manual_seed(seed)
    architecture = ARCHITECTURES[network]
    module = architecture.make(spec.ways, spec.shape, **architecture.defaults)
    maml = MAML(module, lr=THEIR_INNER_RATE, first_order=False)
    optimiser = torch.optim.Adam(maml.parameters(), lr=THEIR_RATE)
    loaded = load(Project(images, tasks, Model(spec, spec.init(seed), {})), _DEVICE)
    one_by_one = loaded.episodes(tasks.train)
    rng = np.random.default_rng(seed)

    def accuracy() -> float:
        params = {name: value.detach().clone() for name, value in module.named_parameters()}
        return float(evaluate(loaded.model, params, loaded.heldout).mean_accuracy.mean)

    took, done, results = 0.0, 0, dict[str, tuple[float, float, int]]()
    while len(results) < 2:
        begin = time.perf_counter()
        optimiser.zero_grad()
        for chunk in one_by_one.chunks(np.sort(rng.choice(len(tasks.train), THEIR_BATCH, replace=False))):
            for xs, ys, xq, yq in zip(chunk.task.xs, chunk.task.ys, chunk.task.xq, chunk.task.yq, strict=True):
                learner = maml.clone()
                learner.adapt(F.cross_entropy(learner(xs), ys))
                (F.cross_entropy(learner(xq), yq) / THEIR_BATCH).backward()
        optimiser.step()
        took, done = took + time.perf_counter() - begin, done + THEIR_BATCH
        for name, is_reached in (("budget", done >= budget), ("seconds", took >= seconds)):
            if is_reached and name not in results:
                results[name] = accuracy(), took, done
    by_budget, by_seconds = results["budget"], results["seconds"]
    return by_budget[0], by_seconds[0], by_budget[1], by_seconds[2]


def row(data: str, shots: int, seed: int, budget: int, out: Path) -> dict[str, Any]:
    """Measure one row, or read it."""
    recipe = recipe_for(tasks_of(data, shots, seed).images().shape)
    path = out / f"{data}-{shots}-{seed}-{content_hash(repr(recipe), budget)[:8]}.json"
    if path.exists():
        return read_json(path)
    tasks = tasks_of(data, shots, seed)
    accuracy, seconds = ours(tasks, budget, seed)
    by_budget, by_seconds, their_seconds, their_gradients = theirs(tasks, budget, seconds, seed)
    measured = {
        "ours": accuracy,
        "equal meta-gradients": by_budget,
        "equal seconds": by_seconds,
        "seconds": seconds,
        "their seconds": their_seconds,
        "their meta-gradients": their_gradients,
    }
    write_json(path, measured)
    return measured


def main(
    out: Annotated[Path, typer.Option(help="Folder of the finished rows.")] = Path("training-benchmark"),
    budget: Annotated[int, typer.Option(help="Meta-gradients of each training.")] = 14_400,
    data: Annotated[str, typer.Option(help="Image sets, separated by commas.")] = ",".join(DATA),
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = SEEDS,
) -> None:
    """Print a table: one row per image set and shots, with means over seeds and their 95 % intervals."""
    disable_malloc_trim()
    print(f"{budget:,} meta-gradients, {seeds} seeds, {torch.get_num_threads()} threads; accuracy in percent\n")
    print(
        "| data | shots | ours | learn2learn, equal meta-gradients | the same, equal seconds | seconds: ours, theirs |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for name in data.split(","):
        if find(name) is None:
            print(f"| {name} | | not on this machine | | | |", flush=True)
            continue
        for shots in SHOTS:
            rows = [row(name, shots, seed, budget, out) for seed in range(seeds)]
            means = [
                Interval.of([one[column] for one in rows]).percent(unit="")
                for column in ("ours", "equal meta-gradients", "equal seconds")
            ]
            took = ", ".join(f"{np.mean([one[column] for one in rows]):.0f}" for column in ("seconds", "their seconds"))
            print(f"| {name} | {shots} | {' | '.join(means)} | {took} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
