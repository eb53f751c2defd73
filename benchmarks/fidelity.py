"""Measure how faithful each method is: ``python -m benchmarks.fidelity --out FOLDER`` prints one table for MNIST.

For every seed (it determines tasks, noise, initial parameters and subsets) small models are trained, and every method
is validated against retraining and against injected noise:

- **LDS**: 100 5-way 5-shot tasks with noise b, an MLP trained by 600 Adam steps; 20 random halves, retrained
  from 2 seeds each; 20 held-out targets. The ceiling is the agreement of the two retrainings.
- **Leave one out**: a smaller problem trained to an optimum in float64, where the effect of a single removal is not
  noise; 20 tasks are left out in turn and training continues to the new optimum. Methods that follow the training, or
  train models themselves, are not part of it.
- **Noise**: area under ROC of ranking the noisy tasks (a: 40 % of the tasks, 80 % of their labels; b: 15 %, 30 %) or
  the mislabelled images (c: 10 % uniformly, d: 10 % as similar classes) first.

Everything uses the product's actions, so an interrupted benchmark resumes. Seconds and memory are those of the LDS
scores: 100 tasks, 20 targets.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from sklearn.metrics import roc_auc_score

from core.actions.compute import Compute
from core.actions.evidence import EvidenceSettings, evidence
from core.actions.rank import detection_of, ranking
from core.actions.train import train_model
from core.baselines.confidence import self_confidence
from core.checkpoints.model import ModelSpec
from core.evidence.methods import kind
from core.influence.methods import parse
from core.influence.targets import Target
from core.maml.training import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import LiveProgress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.workspace import Workspace, create

LOW_RANK = "solver=low-rank:curvature_tasks=0"
RANKS = {0.1: 100, 0.01: 100, 0.003: 150, 0.001: 200}
"""The rank at which the low-rank error is small, by damping."""


def varied(name: str, *shares: float) -> tuple[str, ...]:
    """Return the names of a method at several dampings, with the curvature of all tasks."""
    return tuple(f"{name}:{LOW_RANK}:rank={RANKS[share]}:damping={share}" for share in shares)


SHIPPED = (
    "task-if",
    "task-if-exact",
    "task-if-fisher",
    "task-if-paper",
    "direct-if",
    "dot",
    "tracin",
    "self-influence",
)
METHODS = (
    "task-if",
    "task-if:curvature_tasks=32:damping=0.003",
    *varied("task-if", 0.1, 0.01, 0.001),
    "task-if-exact",
    *varied("task-if-exact", 0.001),
    "task-if-fisher",
    "task-if-paper",
    "direct-if",
    *varied("direct-if", 0.1),
    "task-if-5",
    "task-if-path",
    "task-if+loss",
    "dot",
    "tracin",
    "trak-1",
    "trak-5",
    "trak-10",
    "ekfac",
    "self-influence",
    "self-confidence",
    "loss",
    "margin",
    "entropy",
)
# At an optimum of a small problem the curvature of all tasks is used, and hardly any damping is needed.
LEFT_OUT = (
    *(f"{name}:curvature_tasks=0" for name in ("task-if", "task-if-exact", "direct-if")),
    "task-if-exact:curvature_tasks=0:damping=0.0001:tolerance=0.001",
    "task-if-fisher",
    "task-if-paper",
    "dot",
    "loss",
)
PROTOCOLS = {"a": "easy", "b": "hard", "c": "image", "d": "confusion"}
MLP = ModelSpec(ways=2, backbone="mlp", hidden=(32,), shrink=2, activation="tanh", rate=0.5, delta=1.0)
TRAINING = TrainSettings(iterations=600, learning_rate=0.01)
SMALL = ModelSpec(ways=2, backbone="mlp", hidden=(16,), shrink=4, activation="tanh", rate=0.5, delta=0.5)
TO_OPTIMUM = TrainSettings(iterations=300, learning_rate=0.01, polish=1500, tolerance=2e-5)
COMPUTE = Compute("cpu", chunk=25)
EXACT = Compute("cpu", "float64", chunk=30)


def workspace(
    folder: Path, noise: str, seed: int, spec: ModelSpec, training: TrainSettings, compute: Compute, count: int = 100
) -> Workspace:
    """Return a workspace with sampled tasks and a trained model."""
    if not (folder / "tasks" / "tasks.json").exists():
        write_folder(generate(TaskSettings(count=count, heldout=60, noise=noise, seed=seed)), folder / "tasks")
    settings = replace(training, seed=1000 * seed)
    train_model(folder / "tasks", folder / "model", spec, settings, compute, LiveProgress(), "benchmarks.fidelity")
    return create(folder / "workspace", folder / "tasks", folder / "model")


def lds_rows(folder: Path, seed: int, subsets: int) -> pd.DataFrame:
    """Return LDS, seconds and memory of every method, and its AUC on protocol b."""
    opened = workspace(folder / "b", PROTOCOLS["b"], seed, MLP, TRAINING, COMPUTE)
    settings = EvidenceSettings(METHODS, subsets=subsets, seeds=2, targets=20, seed=seed)
    run = evidence(opened, settings, COMPUTE, LiveProgress())
    return run.table("methods.parquet").assign(ratio=run.json("evidence.json")["ratio"])


def left_out_rows(folder: Path, seed: int, count: int) -> pd.Series:
    """Return Spearman's correlation of leaving one task out with the mean held-out loss, by method."""
    opened = workspace(folder / "one", PROTOCOLS["b"], seed, SMALL, TO_OPTIMUM, EXACT, count=60)
    settings = EvidenceSettings(LEFT_OUT, "one", count, seeds=1, retrain="warm", targets=5, seed=seed)
    run = evidence(opened, settings, EXACT, LiveProgress())
    print(f"leave one out: gradient ratio {run.json('evidence.json')['ratio']:.1e}")
    table = run.table("methods.parquet")
    named = table[table["kind"] != "ceiling"].set_index("method")["lds_mean"]
    return named.rename(index=lambda name: name.removesuffix(":curvature_tasks=0"))


def noise_rows(folder: Path, seed: int, protocol: str) -> pd.Series:
    """Return the AUC of finding the noise of protocol a, c or d by method: tasks in a, images in c and d."""
    opened = workspace(folder / protocol, PROTOCOLS[protocol], seed, MLP, TRAINING, COMPUTE)
    aucs: dict[str, float] = {}
    for name in SHIPPED:
        run = ranking(opened, Target(), parse(name), COMPUTE, LiveProgress())
        table = detection_of(opened, run)
        level = "tasks" if protocol == "a" else "images"
        if table is None:
            raise UserError("The injected noise is not recorded.")
        auc = table[table["level"] == level].set_index("score")["auc"]
        aucs[name], aucs["loss"] = auc["influence"], auc["adapted loss"]
    if protocol != "a":
        project = opened.project()
        confidence = self_confidence(project.images, project.tasks.train, epochs=16, seed=0)
        bad = confidence["image_id"].isin(project.tasks.planted["image_id"])
        aucs["self-confidence"] = float(roc_auc_score(bad, -confidence["self_confidence"]))
        instances = run.table("instances.parquet")
        query = instances[instances["role"] == "query"].groupby("image_id")[["margin", "entropy"]].mean()
        bad = query.index.isin(project.tasks.planted["image_id"])
        aucs |= {
            "margin": float(roc_auc_score(bad, -query["margin"])),
            "entropy": float(roc_auc_score(bad, query["entropy"])),
        }
    return pd.Series(aucs)


def one_seed(folder: Path, seed: int, subsets: int, left_out: int) -> pd.DataFrame:
    """Return one row per method."""
    seed_folder = folder / f"seed-{seed}"
    table = lds_rows(seed_folder, seed, subsets).set_index("method").rename(columns={"auc": "auc_b"})
    leave_one_out = left_out_rows(seed_folder, seed, left_out) if left_out else pd.Series(dtype=float)
    table = table.join(leave_one_out.rename("leave_one_out"), how="outer")
    for protocol in ("a", "c", "d"):
        table[f"auc_{protocol}"] = noise_rows(seed_folder, seed, protocol)
    return table.reset_index().assign(seed=seed)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds; the interval of the LDS is that of the mean over seeds (Student's t)."""
    from scipy import stats

    grouped = rows.groupby("method", sort=False)
    names = ["leave_one_out", "lds", "lds_mean", "auc_a", "auc_b", "auc_c", "auc_d", "seconds", "memory_gb"]
    table = grouped[names].mean()
    n = grouped["seed"].nunique()
    half_width = stats.t.ppf(0.975, (n - 1).clip(lower=1)) * grouped["lds"].std(ddof=1) / np.sqrt(n)
    table.insert(2, "lds_low", table["lds"] - half_width)
    table.insert(3, "lds_high", table["lds"] + half_width)
    return table.sort_values("lds", ascending=False)


def markdown(table: pd.DataFrame) -> str:
    """Return the table for docs/method.md."""
    head = "| method | kind | leave-one-out | LDS [95 %] | LDS of the mean loss | AUC a | b | c | d | seconds | GB |"
    lines = [head, "|---" * 11 + "|"]

    def figure(value: Any, digits: int = 2) -> str:
        return "" if pd.isna(value) else f"{value:.{digits}f}"

    for name, row in table.iterrows():
        interval = f"{figure(row.lds)} [{figure(row.lds_low)}, {figure(row.lds_high)}]"
        sort = "ceiling" if name == "ceiling" else kind(str(name))
        aucs = [figure(row[f"auc_{p}"]) for p in "abcd"]
        cells = [f"`{name}`", sort, figure(row.leave_one_out), interval, figure(row.lds_mean), *aucs]
        lines.append("| " + " | ".join([*cells, figure(row.seconds, 1), figure(row.memory_gb, 1)]) + " |")
    return "\n".join(lines)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the problems and results; an interrupted benchmark resumes.")],
    seeds: Annotated[str, typer.Option(help="Seeds to run, separated by commas.")] = "0,1,2,3,4",
    subsets: Annotated[int, typer.Option(help="Random halves per seed.")] = 20,
    left_out: Annotated[int, typer.Option(help="Tasks left out per seed; 0 omits that column.")] = 20,
) -> None:
    """Run the seeds, then print the table of all seeds in the folder."""
    for seed in (int(part) for part in seeds.split(",") if part):
        results = out / f"seed-{seed}.json"
        if not results.exists():
            table = one_seed(out, seed, subsets, left_out)
            results.write_text(json.dumps(json.loads(table.to_json(orient="records")), indent=1))
    rows = pd.concat([pd.read_json(path) for path in sorted(out.glob("seed-*.json"))], ignore_index=True)
    print(f"{rows['seed'].nunique()} seeds")
    print(markdown(summary(rows)))


if __name__ == "__main__":
    typer.run(main)
