"""Leave one item out at an optimum: ``python -m benchmarks.left_out`` prints Spearman's correlations over seeds.

The problem is that of ``tests/influence/test_retraining.py``: 24 small tasks whose labels name three digits, float64,
exact curvature without damping, Newton's method to the optimum before and after. Every task, every 6th query row and
every 8th support row is removed, entirely and, for support rows, also by half. A seed determines the tasks and the
initial parameters. A seed for which Newton's method finds no optimum is reported as such and not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import typer
from scipy.stats import spearmanr

from core.influence.curvature import Curvature
from core.influence.scores import instance_table, task_table
from core.influence.solvers import IndefiniteError, conjugate_gradients
from core.influence.targets import target_gradient
from core.maml.adaptation import Unrolled
from core.maml.backbone import MLP, ConvNet
from core.maml.objective import Bilevel
from core.maml.training import TrainSettings, train
from core.maml.vectors import flatten, unflatten
from tests.influence.optima import Optimum, episodes_of, gradient_of, hessian_at, minimise

NETWORKS: dict[str, Callable[[], ConvNet | MLP]] = {
    "linear": lambda: MLP(3, hidden=(), shape=(7, 7, 1)),
    "mlp": lambda: MLP(3, hidden=(5,), shape=(7, 7, 1), activation="tanh"),
    "convnet": lambda: ConvNet(3, filters=3, shape=(7, 7, 1), blocks=1),
}
COLUMNS = ("tasks", "query rows", "support rows, half", "support rows")


def optimum(name: str, seed: int) -> Optimum:
    """Return the trained problem of one seed."""
    network = NETWORKS[name]()
    model = Bilevel(network, Unrolled(1, 0.3), delta=0.6)
    episodes, heldout = episodes_of(24, queries=3, seed=seed), episodes_of(4, queries=4, seed=seed + 900)
    settings = TrainSettings(iterations=0, polish=200, tolerance=1e-5)
    params = train(model, network.init(seed, torch.float64), episodes, settings).params
    params = unflatten(minimise(model, flatten(params), params, episodes, None), params)
    gradient, loss = target_gradient(model, params, heldout)
    curvature = Curvature("exact", model, params, episodes)
    solution = conjugate_gradients(curvature, gradient, shift=model.delta, tolerance=1e-9, iterations=1000)
    inverse = torch.linalg.inv(hessian_at(flatten(params), gradient_of(model, params, episodes)))
    instances = instance_table(model, params, solution.x, episodes)
    return Optimum(model, params, episodes, heldout, inverse, loss, instances)


def correlations(found: Optimum) -> list[float]:
    """Return one value per column of :data:`COLUMNS`."""
    tasks, scores = task_table(found.instances), found.instances["score"].to_numpy()
    masks = [(found.instances["task_id"] == task).to_numpy() for task in tasks["task_id"]]
    out = [(found.changes(masks), tasks["score"].to_numpy())]
    for role, every, share in (("query", 6, 1.0), ("support", 8, 0.5), ("support", 8, 1.0)):
        rows = found.rows(role, every)
        out.append((found.changes(found.one_row(rows), share), scores[rows]))
    return [float(spearmanr(*pair).statistic) for pair in out]


def main(
    networks: Annotated[str, typer.Option(help="With commas.")] = ",".join(NETWORKS),
    seeds: Annotated[int, typer.Option(help="How many.")] = 5,
) -> None:
    """Print a table: one row per network and seed, then the mean over seeds."""
    print("| network | seed | " + " | ".join(COLUMNS) + " |\n" + "|---" * (2 + len(COLUMNS)) + "|", flush=True)
    for name in networks.split(","):
        rows = []
        for seed in range(seeds):
            try:
                rows.append(correlations(optimum(name, seed)))
            except (AssertionError, IndefiniteError) as error:  # minimise raises these where there is no optimum
                print(f"| {name} | {seed} | no optimum: {str(error).splitlines()[0]} |" + " |" * 3, flush=True)
                continue
            print(f"| {name} | {seed} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |", flush=True)
        if rows:
            print(f"| {name} | mean of {len(rows)} | " + " | ".join(f"{v:.3f}" for v in np.mean(rows, 0)) + " |")


if __name__ == "__main__":
    typer.run(main)
