"""Measure the speed of what-ifs and their agreement with conjugate gradients: ``python -m benchmarks.whatif``.

On the demo ``demo-noisy-tasks``, in a temporary folder: first the preparation, timed, then random what-ifs of each
kind, printed as a table. Every estimate for a change includes the evaluation of the 100 held-out tasks. The peer is the
same what-if by conjugate gradients from a zero start, removal gradient and evaluation included, with the same curvature
and damping. ``--home`` stores the preparation for another run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from core.actions.compute import Compute
from core.actions.evaluate import evaluation
from core.actions.preparation import open_estimator, prepare
from core.editing.linear import change_gradient
from core.editing.methods import SOLVE
from core.editing.whatif import WhatIfEstimator
from core.influence.curvature import task_gradients
from core.influence.methods import DEFAULT, METHODS
from core.influence.solve import Solver
from core.influence.targets import Target, target_gradient
from core.maml.evaluation import evaluate
from core.maml.vectors import flatten, unflatten
from core.runtime.progress import LiveProgress, Progress
from core.tasks.changes import Changes
from core.workspace.demos import open_demo
from core.workspace.runs import RunWriter

DEMO = "demo-noisy-tasks"
TARGET = 0.3
"""Target in seconds for the 95th percentile of the estimates."""
SET_SIZE = 100


@dataclass(frozen=True)
class Peer:
    """A measurement of conjugate gradients from a zero start: seconds, products, and the agreement of the estimate."""

    seconds: float
    products: int
    agreement: str


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="Folder of the workspace; default: a temporary one.")
    parser.add_argument("--count", type=int, default=40, help="Number of what-ifs of each kind.")
    parser.add_argument("--peers", type=int, default=3, help="Number of them also computed by conjugate gradients.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        _run(arguments.home or Path(temporary), arguments.count, arguments.peers)


def _run(home: Path, count: int, peers: int) -> None:
    workspace, compute = open_demo(DEMO, home), Compute()
    start = time.perf_counter()
    run = prepare(workspace, compute, LiveProgress())
    print(f"prepared in {time.perf_counter() - start:.0f} s: {run.json('provenance.json')['seconds']}")
    start = time.perf_counter()
    instant = open_estimator(workspace, compute)
    report = run.json("report.json")
    print(
        f"opened in {time.perf_counter() - start:.1f} s; {report['bytes'] / 1e6:.0f} MB stored; "
        f"basis of rank {report['rank']}, residual "
        + ", ".join(f"{value:.2f} for {name}" for name, value in report["residuals"].items())
    )
    print(f"{torch.get_num_threads()} threads on {instant.loaded.device}; milliseconds of {count} what-ifs each\n")
    before = evaluation(workspace, compute, Progress()).table("heldout.parquet")["accuracy"].to_numpy()
    with tempfile.TemporaryDirectory() as scratch:
        solver = Solver(instant.loaded, instant.loaded.model, SOLVE, RunWriter(Path(scratch)), Progress())
        print(f"{'what if':<28}{'p50':>6}{'p95':>6}{'max':>6}{'CG, s':>8}{'products':>10}  agreement with CG")
        for name, generator in _removals(instant, np.random.default_rng(0)).items():
            what_ifs = [next(generator) for _ in range(count + 1)]
            instant.changes(what_ifs[0])  # untimed: the state before the first timed change
            seconds = [_timed(lambda one=one: instant.changes(one)) for one in what_ifs[1:]]
            _line(name, seconds, [_peer_removal(instant, solver, before, one) for one in what_ifs[1 : 1 + peers]])
        targets = _targets(instant, count, np.random.default_rng(1))
        seconds = [_timed(lambda one=one: instant.target(one)) for one in targets]
        _line("another target", seconds, [_peer_target(instant, solver, one) for one in targets[:peers]])
    with tempfile.TemporaryDirectory() as scratch:
        solve = METHODS[DEFAULT].estimator.solve
        assert solve is not None
        solver = Solver(instant.loaded, instant.loaded.model, solve, RunWriter(Path(scratch)), Progress())
        peer = _peer_target(instant, solver, targets[0])
        print(
            f"\nThe default ranking ({solve.curvature_tasks} tasks, damping {solve.damping:g}) of the first "
            f"target: {peer.seconds:.1f} s, {peer.products} products, {peer.agreement}"
        )


def _removals(instant: WhatIfEstimator, rng: np.random.Generator) -> dict[str, Iterator[Changes]]:
    rows = instant.loaded.train.tasks.rows
    tasks, images = (rows[column].unique() for column in ("task_id", "image_id"))

    def growing(ids: np.ndarray, make: Callable[[frozenset[str]], Changes]) -> Iterator[Changes]:
        order = rng.permutation(ids)
        for number in range(SET_SIZE, len(ids)):
            yield make(frozenset(order[:number]))

    def new(ids: np.ndarray, make: Callable[[frozenset[str]], Changes]) -> Iterator[Changes]:
        while True:
            yield make(frozenset(rng.choice(ids, SET_SIZE, replace=False)))

    def of_images(ids: frozenset[str]) -> Changes:
        return Changes(images=ids)

    classes = np.array(sorted(rows["class"].unique()))
    new_class = dict(zip(images, rng.choice(classes, len(images)), strict=True))

    def of_labels(ids: frozenset[str]) -> Changes:
        return Changes(relabelled_images=frozenset((one, str(new_class[one])) for one in ids))

    return {
        "one more task": growing(tasks, Changes),
        "one more image": growing(images, of_images),
        "one more image relabelled": growing(images, of_labels),
        f"a new set of {SET_SIZE} tasks": new(tasks, Changes),
        f"a new set of {SET_SIZE} images": new(images, of_images),
    }


def _targets(instant: WhatIfEstimator, count: int, rng: np.random.Generator) -> list[Target]:
    """Return subsets of the held-out tasks; every fourth target is one query image."""
    heldout = instant.loaded.heldout.tasks
    query = heldout.rows[heldout.rows["role"] == "query"]
    targets = []
    for number in range(count):
        if number % 4 == 3:
            row = query.iloc[int(rng.integers(len(query)))]
            targets.append(Target((row["task_id"],), row["image_id"]))
        else:
            chosen_ids = rng.choice(heldout.task_ids, int(rng.integers(1, len(heldout))), replace=False)
            targets.append(Target(tuple(chosen_ids)))
    return targets


def _peer_removal(instant: WhatIfEstimator, solver: Solver, before: np.ndarray, removal: Changes) -> Peer:
    loaded, quick = instant.loaded, instant.changes(removal)
    start = time.perf_counter()
    changed = removal.apply(loaded.train.tasks)
    gradient = change_gradient(loaded.model, loaded.params, loaded.train, changed.weights, changed.labels)
    solution = solver.solve(gradient)
    flat = flatten(loaded.params)
    result = evaluate(loaded.model, unflatten(flat + solution.x, loaded.params), loaded.heldout)
    seconds = time.perf_counter() - start
    change = float((result.heldout_table(loaded.heldout.tasks.task_ids)["accuracy"] - before).mean())
    x, _ = instant.solve(instant.change_gradient(removal))
    agreement = (
        f"step: cosine {_cosine(x, solution.x):.3f}, difference {_difference(x, solution.x):.2f}; "
        f"residual {quick.residual:.2f}; points {100 * quick.accuracy_change.mean:+.2f} against {100 * change:+.2f}"
    )
    return Peer(seconds, solution.iterations, agreement)


def _peer_target(instant: WhatIfEstimator, solver: Solver, target: Target) -> Peer:
    loaded, quick = instant.loaded, instant.target(target)
    start = time.perf_counter()
    heldout = loaded.episodes(target.weighted(loaded.heldout_tasks))
    solution = solver.solve(target_gradient(loaded.model, loaded.params, heldout)[0])
    products = task_gradients(loaded.model, loaded.params, loaded.train, directions=solution.x[None])
    scores = products[:, 0].cpu().numpy()
    seconds = time.perf_counter() - start
    estimated = quick.table.set_index("task_id").loc[loaded.train.tasks.task_ids, "score"].to_numpy()
    agreement = (
        f"scores of tasks: Pearson {np.corrcoef(estimated, scores)[0, 1]:.3f}, "
        f"Spearman {spearmanr(estimated, scores)[0]:.3f}; residual {quick.residual:.2f}"
    )
    return Peer(seconds, solution.iterations, agreement)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def _difference(a: Tensor, b: Tensor) -> float:
    """Return the norm of the difference relative to ``b``."""
    return float((a - b).norm() / b.norm())


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _line(name: str, took: list[float], peers: list[Peer]) -> None:
    median, p95, maximum = (1000 * float(np.quantile(took, share)) for share in (0.5, 0.95, 1.0))
    missed = "" if p95 <= 1000 * TARGET else "  (target missed)"
    seconds = float(np.median([peer.seconds for peer in peers])) if peers else float("nan")
    products = max((peer.products for peer in peers), default=0)
    print(f"{name:<28}{median:>6.0f}{p95:>6.0f}{maximum:>6.0f}{seconds:>8.1f}{products:>10}{missed}")
    for peer in peers:
        print(f"{'':<66}{peer.agreement}")


if __name__ == "__main__":
    main()
