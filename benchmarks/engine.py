"""Compare passes over tasks with other implementations, in one run: ``python -m benchmarks.engine``.

Tasks per second on this machine's processor (or GPU), for 5-way 5-shot tasks with 10 queries per class of 28 x 28
images, one second-order inner step:

- ``plain``: a loop over tasks with torch.autograd, the network made of PyTorch's layers;
- ``plain, no malloc trim``: the same with the allocator set as TaskLens sets it
  (:func:`core.runtime.memory.disable_malloc_trim`);
- ``learn2learn``: the same loop with its MAML, if it is installed;
- ``vmap``: the torch.func implementation that TaskLens uses for networks without hand-written passes;
- ``ours``: :mod:`core.maml.passes` as commands and pages run it.

Each runs twice in a separate process, alternately; the better median counts. The share of the peak is relative to the
fastest convolution of the network's second layer that was measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.data import ImageSet
from core.influence.curvature import Curvature
from core.influence.scores import instance_table
from core.maml.adaptation import Unrolled
from core.maml.architectures import CNN4
from core.maml.backbone import ConvNet, Params
from core.maml.episodes import Episodes
from core.maml.evaluation import evaluate
from core.maml.objective import Bilevel
from core.maml.passes import GenericPasses, default_chunk_size
from core.maml.training import TrainSettings, objective_gradient, train
from core.maml.vectors import flatten
from core.runtime.memory import disable_malloc_trim
from core.tasks.sampling import pool_of, sample_tasks

WAYS, SHOTS, QUERIES, RATE = 5, 5, 10, 0.4
SUPPORT, QUERY = WAYS * SHOTS, WAYS * QUERIES
IMPLEMENTATIONS = ("plain", "plain, no malloc trim", "learn2learn", "vmap", "ours")
MEASURED = ("gradient", "training", "Gauss-Newton product", "exact product", "scores", "evaluation")
SECONDS, ROUNDS = 0.8, 2


@dataclass(frozen=True)
class Problem:
    """A network of four blocks."""

    filters: int
    pooling: str
    activation: str

    @property
    def words(self) -> str:
        """Return the network in words."""
        return f"{self.filters} filters, {self.pooling}, {self.activation}"

    @property
    def bilevel(self) -> Bilevel:
        """Return the bilevel problem of the network."""
        network = ConvNet(WAYS, self.filters, (28, 28, 1), self.pooling, 4, self.activation)
        return Bilevel(network, Unrolled(1, RATE), 0.1)

    def flops(self) -> float:
        """Return the FLOP of the convolutions of one second-order gradient.

        Per layer the support set counts 9 times (3 forward and backward, 6 for the product with its Hessian) and the
        query set 3 times; no gradient with respect to the images is needed, so 6 and 2 times in the first layer.
        """
        side, channels, total = 28, 1, 0.0
        for layer in range(4):
            output_side = side if self.pooling == "max" else -(-side // 2)
            forward = 2.0 * output_side * output_side * 9 * channels * self.filters
            support, query = (6, 2) if layer == 0 else (9, 3)
            total += forward * (support * SUPPORT + query * QUERY)
            side, channels = -(-side // 2) if self.pooling == "stride" else side // 2, self.filters
        return total


PROBLEMS = (Problem(32, "max", "relu"), Problem(64, "stride", "relu"), Problem(16, "stride", "gelu"))


def rate(step: Callable[[], object], tasks: int, device: torch.device) -> float:
    """Return tasks per second: the median over steps."""

    def timed() -> float:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for _ in range(2):
        timed()
    took: list[float] = []
    while sum(took) < SECONDS or len(took) < 3:
        took.append(timed())
    return tasks / median(took)


def images_of(count: int = 400) -> ImageSet:
    """Return a set of random 28 x 28 images in 20 classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(count) % 20
    names, ids = tuple(f"class {n}" for n in range(20)), np.array([f"image-{n}" for n in range(count)], dtype=object)
    return ImageSet("random", pixels, labels, names, ids)


def ours(problem: Problem, device: torch.device, *, generic: bool = False) -> dict[str, float]:
    """Return the tasks per second of TaskLens; ``generic`` selects its torch.func implementation."""
    model, dtype, images = problem.bilevel, torch.float32, images_of()
    assert isinstance(model.network, ConvNet)
    params = {name: value.to(device) for name, value in model.network.init(0).items()}
    chunk = 8 if generic else default_chunk_size(model, images.shape, SUPPORT + QUERY, device, dtype)
    rng = np.random.default_rng(0)
    pool = pool_of(images.labels, np.arange(len(images)))
    count = 2 * chunk * (torch.get_num_threads() if device.type == "cpu" else 1)
    tasks = sample_tasks(images, pool, ways=WAYS, shots=SHOTS, queries=QUERIES, count=count, prefix="t", rng=rng)
    episodes = Episodes(tasks, images, device=device, dtype=dtype, chunk=chunk)
    v = torch.randn(len(flatten(params)), generator=torch.Generator().manual_seed(0)).to(device)
    rates = {}
    if generic:
        passes = GenericPasses(model)
        parts = [part.task for part in episodes.chunks()]
        steps: dict[str, Callable[[], object]] = {
            "gradient": lambda: [passes.gradient(params, part) for part in parts],
        }
    else:
        products = {"Gauss-Newton product": "gauss-newton", "exact product": "exact"}
        curvatures = {name: Curvature(kind, model, params, episodes) for name, kind in products.items()}
        steps = {
            "gradient": lambda: objective_gradient(model, params, episodes),
            **{name: (lambda c=curvature: c(v)) for name, curvature in curvatures.items()},  # type: ignore[misc]
            "scores": lambda: instance_table(model, params, v, episodes),
            "evaluation": lambda: evaluate(model, params, episodes),
        }
        settings = TrainSettings(iterations=10, meta_batch=min(12, count))
        rates["training"] = rate(
            lambda: train(model, params, episodes, settings), settings.iterations * settings.meta_batch, device
        )
    return rates | {name: rate(step, count, device) for name, step in steps.items()}


class Strided(nn.Module):
    """A network with stride 2 and mean pooling, made of PyTorch's layers."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        sizes = [1, *[problem.filters] * 4]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(problem.filters) for _ in range(4))
        self.act = F.relu if problem.activation == "relu" else F.gelu
        self.head = nn.Linear(problem.filters, WAYS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.act(norm(convolution(x)))
        return self.head(x.mean((2, 3)))


def module_of(problem: Problem) -> nn.Module:
    """Return the network of a problem, made of PyTorch's layers."""
    if problem.pooling == "max":
        return CNN4(WAYS, (28, 28, 1), problem.filters, 4, "max")
    return Strided(problem)


def plain_loop(problem: Problem, device: torch.device, learner: str) -> dict[str, float]:
    """Return the tasks per second of a straightforward loop over tasks."""
    torch.manual_seed(0)
    module = module_of(problem).to(device)
    xs, xq = torch.rand(SUPPORT, 1, 28, 28, device=device), torch.rand(QUERY, 1, 28, 28, device=device)
    ys, yq = (torch.arange(WAYS, device=device).repeat(count) for count in (SHOTS, QUERIES))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    if learner == "learn2learn":
        from learn2learn.algorithms import MAML

        maml = MAML(module, lr=RATE, first_order=False)

        def task() -> None:
            clone = maml.clone()
            clone.adapt(F.cross_entropy(clone(xs), ys))
            F.cross_entropy(clone(xq), yq).backward()
    else:

        def task() -> None:
            params: Params = dict(module.named_parameters())
            loss = F.cross_entropy(torch.func.functional_call(module, params, (xs,)), ys)
            gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
            theta = {n: p - RATE * g for (n, p), g in zip(params.items(), gradients, strict=True)}
            F.cross_entropy(torch.func.functional_call(module, theta, (xq,)), yq).backward()

    def step() -> None:
        optimiser.zero_grad()
        for _ in range(12):
            task()
        optimiser.step()

    return {"gradient": rate(lambda: [task() for _ in range(4)], 4, device), "training": rate(step, 12, device)}


def peak(problem: Problem, device: torch.device) -> float:
    """Return the FLOP per second of the second layer's forward convolution, the better of both memory formats."""
    side, stride = (14, 1) if problem.pooling == "max" else (14, 2)
    rates = []
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.rand(QUERY, problem.filters, side, side, device=device).to(memory_format=layout)
        w = torch.rand(problem.filters, problem.filters, 3, 3, device=device).to(memory_format=layout)
        output = F.conv2d(x, w, stride=stride, padding=1)
        flops = 2.0 * output.numel() * 9 * problem.filters

        def convolutions(x: Tensor = x, w: Tensor = w) -> None:
            for _ in range(20):
                F.conv2d(x, w, stride=stride, padding=1)

        rates.append(rate(convolutions, 20, device) * flops)
    return max(rates)


def measure(implementation: str, device: torch.device) -> list[dict[str, float]]:
    """Return the measurements of one implementation for every problem."""
    if implementation in ("plain, no malloc trim", "vmap", "ours"):
        disable_malloc_trim()
    rows = []
    for problem in PROBLEMS:
        if implementation in ("ours", "vmap"):
            with torch.no_grad():
                rates = ours(problem, device, generic=implementation == "vmap")
        else:
            rates = plain_loop(problem, device, implementation)
        rows.append(rates | ({"peak": peak(problem, device)} if implementation == "ours" else {}))
    return rows


def run_all(device: str) -> dict[str, list[dict[str, float]]]:
    """Run every implementation in a separate process, round after round."""
    results: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for implementation in IMPLEMENTATIONS:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine"]
            command += ["--device", device, "--implementation", implementation]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                if implementation != "learn2learn":
                    raise SystemExit(process.stderr)
                continue
            rows: list[dict[str, Any]] = json.loads(process.stdout.splitlines()[-1])
            best = results.get(implementation, [{} for _ in rows])
            results[implementation] = [
                {k: max(v, b.get(k, 0.0)) for k, v in row.items()} for row, b in zip(rows, best, strict=True)
            ]
    return results


def show(results: dict[str, list[dict[str, float]]]) -> None:
    """Print the table."""
    if "learn2learn" not in results:
        print("learn2learn is not installed: make learn2learn")
    for number, problem in enumerate(PROBLEMS):
        rows = {implementation: by_problem[number] for implementation, by_problem in results.items()}
        best = rows["ours"]
        share = best["gradient"] * problem.flops() / best["peak"]
        print(
            f"\n{problem.words}: {problem.flops() / 1e9:.2f} GFLOP per gradient; peak {best['peak'] / 1e9:.0f} GFLOP/s"
        )
        print(f"{'tasks per second':<24}{'gradient':>10}{'ours is':>10}{'training':>10}{'ours is':>10}{'of peak':>10}")
        for name, row in rows.items():
            ratios = [
                f"{best[pass_name] / row[pass_name]:.2f} x" if pass_name in row else ""
                for pass_name in ("gradient", "training")
            ]
            training = f"{row['training']:.1f}" if "training" in row else ""
            of_peak = f"{share * row['gradient'] / best['gradient']:.0%}"
            print(f"{name:<24}{row['gradient']:>10.1f}{ratios[0]:>10}{training:>10}{ratios[1]:>10}{of_peak:>10}")
        gradient, product = best["gradient"], best["Gauss-Newton product"]
        print(
            f"cost in gradients: Gauss-Newton product {gradient / product:.2f}, exact product "
            f"{gradient / best['exact product']:.2f}, scores of all tasks and rows {gradient / best['scores']:.2f} "
            f"({product / best['scores']:.2f} Gauss-Newton products), evaluation {gradient / best['evaluation']:.2f}"
        )


def main() -> None:
    """Run the benchmark, or one implementation in its own process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS)
    arguments = parser.parse_args()
    if arguments.implementation:
        print(json.dumps(measure(arguments.implementation, torch.device(arguments.device))))
        return
    print(f"{arguments.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    show(run_all(arguments.device))


if __name__ == "__main__":
    main()
