"""Compare training with learn2learn's loop: ``python -m benchmarks.training`` prints two tables.

Both train on the same tasks (5-way, 5 queries per class) and are measured on the same test tasks of other images, once
after the same number of meta-gradients and once after the same time:

- ``ours``: the recipe for the kind of images (:mod:`core.maml.recipes`) with its validation tasks, as the ``train``
  command runs it, with the number of its steps set to the budget, and once more with all its steps;
- ``learn2learn``: the loop and hyper-parameters of its examples ``maml_omniglot.py`` (MNIST, Omniglot) and
  ``maml_miniimagenet.py`` (FC100): a meta-batch of 32, one inner step at rate 0.5, Adam at 0.003. Its last step counts.
  The network is ``OmniglotCNN``, as the first example's own is fully connected, or ``MiniImagenetCNN``.

The first table has the speeds, measured alternately in short trainings; the second one the accuracies. How many
meta-gradients the loop makes in the time of ours follows from the ratio of the speeds, so a busy machine does not
change it. RecipeTraining includes the time of its validation.

Image sets that are not on this machine are left out. Every figure is kept in ``--out``, which is a part of the
repository, and not measured again; ``--stored`` prints what is there. All of them take some hours. Several processes
may share the folder, each with other ``--data`` or ``--shots``, once the speeds are measured on an idle machine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer

from core.actions.compute import Compute, load
from core.checkpoints.model import Model, ModelSpec, spec_of
from core.data import load_images
from core.data.store import find
from core.maml.architectures import ARCHITECTURES
from core.maml.evaluation import Interval, evaluate
from core.maml.recipes import recipe_for
from core.maml.settings import Backbone
from core.maml.training import train
from core.runtime.files import read_json, write_json
from core.runtime.hashing import content_hash
from core.runtime.memory import disable_malloc_trim
from core.tasks.generate import TaskFolder, generate
from core.tasks.settings import TaskSettings
from core.workspace.workspace import Project

DATA, SHOTS, SEEDS, BUDGET = ("mnist", "omniglot", "fc100"), (1, 5), 3, 4800
TASKS, TESTS, QUERIES = 2000, 300, 5
TIMED, ROUNDS = 96, 5
"""Meta-gradients of a timed training, and how often each is timed, after one round that does not count."""
THEIR_BATCH, THEIR_INNER_RATE, THEIR_RATE = 32, 0.5, 0.003
FIGURES = Path(__file__).with_name("measured")
DEVICE = Compute(device="cpu")


def tasks_of(data: str, shots: int, seed: int) -> TaskFolder:
    """Return the training, validation and test tasks of one row."""
    return generate(TaskSettings(data=data, shots=shots, queries=QUERIES, count=TASKS, heldout=TESTS, seed=seed))


class RecipeTraining:
    """A training by the recipe for the images."""

    def __init__(self, tasks: TaskFolder, seed: int, meta_batch: int = 0) -> None:
        images, recipe = tasks.images(), recipe_for(tasks.images().shape)
        batch = meta_batch or recipe.training.meta_batch
        self._settings = replace(recipe.training, meta_batch=batch, seed=seed)
        spec = spec_of(recipe.model_fields({"ways": tasks.train.ways})).model_copy(update={"shape": images.shape})
        self._loaded = load(Project(images, tasks, Model(spec, spec.init(seed), {})), DEVICE)

    def train(self, budget: int) -> dict[str, float]:
        """Return the test accuracy after ``budget`` meta-gradients, or after all steps for 0, and the step kept."""
        loaded, settings = self._loaded, self._settings
        settings = replace(settings, iterations=budget // settings.meta_batch or settings.iterations)
        result = train(loaded.model, loaded.params, loaded.train, settings, validation=loaded.validation)
        accuracy = evaluate(loaded.model, result.params, loaded.heldout).mean_accuracy.mean
        return {"accuracy": float(accuracy), "kept": result.kept}

    def seconds(self, count: int) -> tuple[float, float]:
        """Return the seconds of ``count`` meta-gradients, and of one evaluation of the validation tasks."""
        loaded, settings = self._loaded, self._settings
        settings = replace(settings, iterations=-(-count // settings.meta_batch))
        assert loaded.validation is not None
        start = time.perf_counter()
        train(loaded.model, loaded.params, loaded.train, settings)
        trained = time.perf_counter()
        evaluate(loaded.model, loaded.params, loaded.validation)
        return trained - start, time.perf_counter() - trained


class Learn2learnTraining:
    """A training by the loop of learn2learn."""

    def __init__(self, tasks: TaskFolder, seed: int) -> None:
        from learn2learn.algorithms import MAML  # type: ignore[import-untyped]

        images = tasks.images()
        network: Backbone = "omniglot-cnn" if images.shape[2] == 1 else "cnn4"
        spec = ModelSpec(backbone=network, ways=tasks.train.ways, shape=images.shape, rate=THEIR_INNER_RATE, delta=0.0)
        torch.manual_seed(seed)
        architecture = ARCHITECTURES[network]
        self._module = architecture.make(spec.ways, spec.shape, **architecture.defaults)
        self._maml = MAML(self._module, lr=THEIR_INNER_RATE, first_order=False)
        self._optimiser = torch.optim.Adam(self._maml.parameters(), lr=THEIR_RATE)
        self._loaded = load(Project(images, tasks, Model(spec, spec.init(seed), {})), DEVICE)
        self._episodes, self._count = self._loaded.episodes(tasks.train), len(tasks.train)
        self._rng = np.random.default_rng(seed)

    def accuracy(self) -> float:
        """Return the test accuracy."""
        params = {name: value.detach().clone() for name, value in self._module.named_parameters()}
        return float(evaluate(self._loaded.model, params, self._loaded.heldout).mean_accuracy.mean)

    def train(self, count: int) -> None:
        """Train for about ``count`` more meta-gradients."""
        for _ in range(round(count / THEIR_BATCH)):
            self._optimiser.zero_grad()
            chosen = np.sort(self._rng.choice(self._count, THEIR_BATCH, replace=False))
            for chunk in self._episodes.chunks(chosen):
                for xs, ys, xq, yq in zip(chunk.task.xs, chunk.task.ys, chunk.task.xq, chunk.task.yq, strict=True):
                    learner = self._maml.clone()
                    learner.adapt(F.cross_entropy(learner(xs), ys))
                    (F.cross_entropy(learner(xq), yq) / THEIR_BATCH).backward()
            self._optimiser.step()

    def seconds(self, count: int) -> tuple[float, float]:
        """Return the seconds of ``count`` more meta-gradients, and 0, as the loop has no validation."""
        start = time.perf_counter()
        self.train(count)
        return time.perf_counter() - start, 0.0


def stored_figures(path: Path, measure: Callable[[], dict[str, Any]], *, only_stored: bool) -> dict[str, Any] | None:
    """Return the figures in a file; if there is none, measure and store them, or with ``only_stored`` return None."""
    if not path.exists():
        if only_stored:
            return None
        write_json(path, measure())
    figures: dict[str, Any] = read_json(path)
    return figures


class StoredFigures:
    """The figures in a folder: one that is missing is measured, or is NaN with ``only_stored``."""

    def __init__(self, folder: Path, *, only_stored: bool) -> None:
        self._folder, self._only_stored = folder, only_stored

    def _get(self, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        figures = stored_figures(self._folder / f"{name}.json", measure, only_stored=self._only_stored)
        return defaultdict(lambda: nan) if figures is None else figures

    def speeds(self, data: str, shots: int) -> dict[str, Any]:
        """Return meta-gradients per second, and seconds of an evaluation of the validation tasks: medians of rounds."""

        def measure() -> dict[str, float]:
            tasks = tasks_of(data, shots, 0)
            four, twelve, theirs = RecipeTraining(tasks, 0), RecipeTraining(tasks, 0, 12), Learn2learnTraining(tasks, 0)
            trainings = (four, twelve, theirs)
            rounds = [[one.seconds(TIMED) for one in trainings] for _ in range(ROUNDS + 1)][1:]
            return {
                "threads": torch.get_num_threads(),
                "ours": median(TIMED / one[0][0] for one in rounds),
                "ours, 12 per step": median(TIMED / one[1][0] for one in rounds),
                "4 to 12 per step": median(one[1][0] / one[0][0] for one in rounds),
                "theirs": median(TIMED / one[2][0] for one in rounds),
                "ours to theirs": median(one[2][0] / one[0][0] for one in rounds),
                "validation": median(one[0][1] for one in rounds),
            }

        return self._get(f"speed-{data}-{shots}-{_recipe_key(data)}", measure)

    def ours(self, data: str, shots: int, seed: int, budget: int) -> float:
        """Return the test accuracy of our training; a budget of 0 means the whole recipe."""
        name = f"ours-{data}-{shots}-{seed}-{budget or 'recipe'}-{_recipe_key(data)}"
        figures = self._get(name, lambda: RecipeTraining(tasks_of(data, shots, seed), seed).train(budget))
        return float(figures["accuracy"])

    def theirs(self, data: str, shots: int, seed: int, budget: int) -> dict[str, Any]:
        """Return the test accuracies of the loop after as many meta-gradients and after the same time."""

        def measure() -> dict[str, float]:
            speed, checks = self.speeds(data, shots), recipe_for(load_images(data).shape).training.checks
            # A check evaluates the validation tasks and as many training tasks.
            in_time = (budget + 2 * checks * speed["validation"] * speed["ours"]) / speed["ours to theirs"]
            theirs, accuracy, done = Learn2learnTraining(tasks_of(data, shots, seed), seed), {"in time": in_time}, 0
            for name, count in sorted({"time": round(in_time), "budget": budget}.items(), key=lambda one: one[1]):
                theirs.train(count - done)
                accuracy[name], done = theirs.accuracy(), count
            return accuracy

        return self._get(f"theirs-{data}-{shots}-{seed}-{budget}-{_recipe_key(data)}", measure)


def _recipe_key(data: str) -> str:
    return content_hash(repr(recipe_for(load_images(data).shape)))[:8]


def _cell(values: list[float]) -> str:
    """Return the mean and interval of accuracies in percent; of those that are measured, if not all are."""
    known = [value for value in values if not isnan(value)]
    left_out = "" if len(known) == len(values) else f" ({len(known)} of {len(values)} seeds)"
    if not known:
        return "–"
    # One seed has no interval.
    return (Interval.of(known).percent(unit="") if len(known) > 1 else f"{100 * known[0]:.1f}") + left_out


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = FIGURES,
    budget: Annotated[int, typer.Option(help="Meta-gradients of each training.")] = BUDGET,
    data: Annotated[str, typer.Option(help="Image sets, separated by commas.")] = ",".join(DATA),
    shots: Annotated[str, typer.Option(help="Shots, separated by commas.")] = ",".join(map(str, SHOTS)),
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = SEEDS,
    stored: Annotated[bool, typer.Option("--stored", help="Measure nothing.")] = False,
) -> None:
    """Print the tables; accuracies are means over seeds with 95 % intervals."""
    disable_malloc_trim()
    measured = StoredFigures(out, only_stored=stored)
    names = [name for name in data.split(",") if find(name) is not None]
    rows = [(name, int(one)) for name in names for one in shots.split(",")]
    for missing in sorted({*data.split(",")} - {*names}):
        print(f"{missing} is not on this machine.")
    print("Meta-gradients per second\n")
    print("| data | shots | threads | ours, 4 tasks per step | 12 per step | ratio | learn2learn | ours to it |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, shot in rows:
        one = measured.speeds(name, shot)
        ours = f"{one['ours']:.1f} | {one['ours, 12 per step']:.1f} | {one['4 to 12 per step']:.2f}"
        theirs = f"{one['theirs']:.1f} | {one['ours to theirs']:.1f}"
        print(f"| {name} | {shot} | {one['threads']} | {ours} | {theirs} |", flush=True)
    print(f"\nAccuracy in percent after {budget:,} meta-gradients, {seeds} seeds\n")
    print("| data | shots | ours | learn2learn | in the same time | its meta-gradients then | ours, whole recipe |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, shot in rows:
        loops = [measured.theirs(name, shot, seed, budget) for seed in range(seeds)]
        cells = [
            _cell([measured.ours(name, shot, seed, budget) for seed in range(seeds)]),
            _cell([one["budget"] for one in loops]),
            _cell([one["time"] for one in loops]),
            f"{loops[0]['in time']:,.0f}",
            _cell([measured.ours(name, shot, seed, 0) for seed in range(seeds)]),
        ]
        print(f"| {name} | {shot} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
