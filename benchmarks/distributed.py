"""Compare passes over tasks by two processes with those by one, in one run: ``python -m benchmarks.distributed``.

Starts two processes of one thread each under ``torchrun`` (gloo). Alternately, one process works while the other waits,
both share the tasks, and both process all the tasks independently, which shows the limit of the machine. Tasks are
5-way 5-shot with 10 queries per class, images of 28 x 28, one second-order inner step. Tasks per second are from the
fastest repetition. Communication is counted in bytes passed to torch.distributed: sums are all-reduced, scores are
gathered by all ranks.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from core.checkpoints.model import load_model
from core.data import ImageSet
from core.influence.curvature import Curvature
from core.influence.scores import instance_table
from core.maml.adaptation import Unrolled
from core.maml.backbone import ConvNet, Params
from core.maml.episodes import Episodes
from core.maml.objective import Bilevel
from core.maml.passes import default_chunk_size
from core.maml.training import objective_gradient
from core.maml.vectors import flatten
from core.runtime.distributed import joined, single_process, world
from core.runtime.memory import disable_malloc_trim
from core.tasks.sampling import pool_of, sample_tasks

ROOT = Path(__file__).parents[1]
REPETITIONS = 4
WAYS, SHOTS, QUERIES = 5, 5, 10


@dataclass
class Wire:
    """A counter of the bytes that a process passes to torch.distributed."""

    reduced: int = 0
    gathered: int = 0

    def watch(self) -> None:
        """Wrap the collectives of torch.distributed so that their bytes are counted."""
        reduce, gather = dist.all_reduce, dist.all_gather_object

        def all_reduce(tensor: torch.Tensor, *args: Any, **more: Any) -> Any:
            self.reduced += tensor.numel() * tensor.element_size()
            return reduce(tensor, *args, **more)

        def all_gather_object(values: list[Any], value: Any, *args: Any, **more: Any) -> Any:
            self.gathered += len(pickle.dumps(value))
            return gather(values, value, *args, **more)

        dist.all_reduce, dist.all_gather_object = all_reduce, all_gather_object

    def clear(self) -> None:
        """Reset the counts to zero."""
        self.reduced = self.gathered = 0


def images_of(count: int = 400) -> ImageSet:
    """Return a set of random 28 x 28 images in 20 classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(count) % 20
    names, ids = tuple(f"class {n}" for n in range(20)), np.array([f"image-{n}" for n in range(count)], dtype=object)
    return ImageSet("random", pixels, labels, names, ids)


def problems() -> dict[str, tuple[Bilevel, Params, int]]:
    """Return models, parameters, and the number of tasks to run, by name."""
    network = ConvNet(WAYS, 32, (28, 28, 1), "max", 4, "relu")
    demo = load_model(ROOT / "assets" / "demo" / "demo-noisy-tasks" / "model")
    return {
        "32 filters, max pooling": (Bilevel(network, Unrolled(1, 0.4), 0.1), network.init(0), 24),
        "the demo's model": (demo.spec.bilevel(), demo.params, 96),
    }


def steps(model: Bilevel, params: Params, tasks: int) -> dict[str, Callable[[], object]]:
    """Return the steps to time, by name."""
    images = images_of()
    sampled = sample_tasks(
        images,
        pool_of(images.labels, np.arange(len(images))),
        ways=WAYS,
        shots=SHOTS,
        queries=QUERIES,
        count=tasks,
        prefix="t",
        rng=np.random.default_rng(0),
    )
    rows = WAYS * (SHOTS + QUERIES)
    chunk = default_chunk_size(model, images.shape, rows, torch.device("cpu"), torch.float32)
    episodes = Episodes(sampled, images, chunk=chunk)
    v = torch.randn(len(flatten(params)), generator=torch.Generator().manual_seed(0))
    return {
        "gradient": lambda: objective_gradient(model, params, episodes),
        "Gauss-Newton product": lambda: Curvature("gauss-newton", model, params, episodes)(v),
        "Hessian product": lambda: Curvature("exact", model, params, episodes)(v),
        "scores": lambda: instance_table(model, params, v, episodes),
    }


def timed(step: Callable[[], object]) -> float:
    """Return the seconds from when all ranks are ready until all are done."""
    world().agree(None)
    start = time.perf_counter()
    step()
    world().agree(None)
    return time.perf_counter() - start


def by_itself(step: Callable[[], object], ranks: int) -> Callable[[], None]:
    """Return a function that runs the whole step independently on each of the first ``ranks`` ranks."""

    def run() -> None:
        if world().rank < ranks:
            with single_process():
                step()

    return run


def work() -> None:
    """Time all steps on this rank; rank 0 prints the table."""
    disable_malloc_trim()
    with joined() as process:
        wire = Wire()
        wire.watch()
        print_row = print if process.rank == 0 else lambda *_: None
        heads = ("one", 8), ("two", 8), ("ratio", 7), ("separate", 10), ("ratio", 7), ("reduced", 11), ("gathered", 11)
        print_row(f"{'tasks per second':<26}" + "".join(f"{word:>{width}}" for word, width in heads))
        for name, (model, params, tasks) in problems().items():
            size = len(flatten(params))
            vector = torch.ones(size)
            reduce = min(timed(lambda v=vector: dist.all_reduce(v)) for _ in range(20))  # type: ignore[misc]
            print_row(f"{name}: {size:,} parameters, all-reduced in {1e3 * reduce:.1f} ms; {tasks} tasks")
            for kind, step in steps(model, params, tasks).items():
                variants = by_itself(step, 1), step, by_itself(step, 2)
                took = np.array([[timed(variant) for variant in variants] for _ in range(REPETITIONS + 1)])[1:].min(0)
                wire.clear()
                step()
                single, shared, separate = tasks / took * (1, 1, 2)
                rates = f"{single:>8.1f}{shared:>8.1f}{shared / single:>7.2f}{separate:>10.1f}{separate / single:>7.2f}"
                kb = f"{wire.reduced / 1e3:>8.1f} kB{wire.gathered / 1e3:>8.1f} kB"
                print_row(f"  {kind:<24}{rates}{kb}")
        print_row("Bytes are those that each process sends in one pass over the tasks.")


def main() -> None:
    """Start the two processes, or run one of them."""
    if "WORLD_SIZE" in os.environ:
        work()
        return
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    raise SystemExit(subprocess.run([*start, "-m", "benchmarks.distributed"], cwd=ROOT, env=environment).returncode)


if __name__ == "__main__":
    main()
