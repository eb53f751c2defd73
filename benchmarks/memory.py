"""Measure time and memory of a ranking by number of tasks: ``python -m benchmarks.memory --counts 100,1000,10000``.

5-way 5-shot tasks with 5 queries per class, sampled from the digits that are included in a package, and a network of
four blocks of 64 filters (112,000 parameters, untrained: the cost of a ranking does not depend on the accuracy).
For each number of tasks, ``inspect`` predicts the cost, then ``evaluate`` and ``rank`` run with their default settings,
each in a separate process. Processor seconds are those of all threads, and are not increased by other processes. The
size of the tensors of all tasks at once, which no chunk reaches, is shown for scale.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from core.checkpoints.model import Model, ModelSpec, save_model
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import create

SPEC = ModelSpec(backbone="convnet", ways=5, filters=64, activation="relu")
ROWS = 50


def prepare(folder: Path, count: int) -> Path:
    """Return a workspace with ``count`` training tasks."""
    tasks, model = folder / f"tasks-{count}", folder / f"model-{count}"
    write_folder(generate(TaskSettings(ways=5, shots=5, queries=5, count=count, heldout=20)), tasks)
    save_model(Model(SPEC, SPEC.init(0, torch.float32), {}), model)
    return create(folder / f"workspace-{count}", tasks, model).folder


def run(*command: str) -> tuple[str, float, float, float]:
    """Run a command; return its standard output, seconds, processor seconds, and peak memory in GB."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, "-m", "core", *command], stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        output.seek(0), errors.seek(0)
        if status:
            raise SystemExit(errors.read())
        return output.read(), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def predicted_costs(workspace: Path) -> dict[str, Any]:
    """Return the predicted costs by stage."""
    report = json.loads(run("inspect", "--workspace", str(workspace), "--json")[0])
    return {cost["stage"]: cost for cost in report["costs"]}


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", default="100,1000")
    counts = [int(count) for count in parser.parse_args().counts.split(",")]
    head = f"{'seconds':>9}{'predicted':>14}{'processor s':>13}{'ms per task':>13}{'GB':>7}{'predicted':>11}"
    print(f"{'tasks':>7}  {'stage':<10}{head}")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TASKLENS_HOME"] = temporary
        for count in counts:
            workspace = prepare(Path(temporary), count)
            costs = predicted_costs(workspace)
            for stage in ("Evaluate", "Rank"):
                _, seconds, busy, gb = run(stage.lower(), "--workspace", str(workspace))
                cost = costs[stage]
                prediction = (
                    f"{cost['low']:.0f} to {cost['high']:.0f}" if cost["low"] < cost["high"] else f"{cost['low']:.0f}"
                )
                times = f"{seconds:>9.1f}{prediction:>14}{busy:>13.1f}{1e3 * busy / count:>13.1f}"
                print(f"{count:>7,}  {stage:<10}{times}{gb:>7.2f}{cost['gb']:>11.2f}", flush=True)
            pixels = count * ROWS * 28 * 28 * 4 / 1e9
            print(
                f"{'':>9}all pixels of all tasks as float32: {pixels:.2f} GB; first layer of all: {pixels * 16:.1f} GB"
            )


if __name__ == "__main__":
    main()
