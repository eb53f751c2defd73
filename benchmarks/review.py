"""Measure how well the review queue finds label errors: ``python -m benchmarks.review --out FOLDER`` prints the tables.

For every seed, noise (:mod:`core.tasks.noise`) is injected into the training tasks before a model is trained on them.
MNIST: (a) easy, 40 % of the tasks with 80 % of their labels flipped; (b) hard, 15 % with 30 %; (c) image, 10 % of the
images mislabelled uniformly; (d) confusion, 10 % as similar classes. Omniglot, with ``--omniglot ZIP``: image. Items
are rows of tasks for (a) and (b), images for the others.

- **queue**: the ranking that the product selects by injecting label errors itself; it does not know the errors injected
  by this benchmark.
- its individual scores; the slow ones are computed separately.
- **cleanlab**: self-confidence (cleanlab.rank) of five-fold cross-validated probabilities of a small network.
- **remaining**: whether the 90 % interval of the number of remaining label errors covers the truth, before any
  decision, and after the first items are decided (as many as 0.25, 0.5, 1 and 1.5 times the number of errors).

Everything uses the product's actions, so an interrupted benchmark resumes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from sklearn.metrics import average_precision_score

from core.actions.compute import Compute
from core.actions.images import ImportOptions, add_images
from core.actions.queue import QueueSettings, queue
from core.actions.train import train_model
from core.baselines.confidence import self_confidence
from core.checkpoints.model import ModelSpec
from core.maml.training import TrainSettings
from core.review.forecast import forecast
from core.review.member_scores import EPOCHS, FAST, ROWS
from core.runtime.files import HOME_VARIABLE, write_json
from core.runtime.memory import disable_malloc_trim
from core.runtime.progress import LiveProgress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.tasks.tasklist import KEY
from core.workspace.workspace import Workspace, create

OMNIGLOT = "omniglot-background"
PROTOCOLS = ("easy", "hard", "image", "confusion")
SLOW = ("self_influence", "harm")
DECIDED = (0.0, 0.25, 0.5, 1.0, 1.5)
ITERATIONS = 600


def problem(out: Path, data: str, protocol: str, seed: int) -> Workspace:
    """Return a workspace with a model trained on noisy tasks."""
    folder = out / f"{data}-{protocol}-{seed}"
    if data == OMNIGLOT:
        settings = TaskSettings(
            data=data, noise=protocol, seed=seed, count=2000, queries=5, split="classes", heldout_share=0.1
        )
    else:
        settings = TaskSettings(data=data, noise=protocol, seed=seed)
    if not (folder / "tasks" / "tasks.json").exists():
        write_folder(generate(settings), folder / "tasks")
    training = TrainSettings(iterations=ITERATIONS, seed=seed)
    train_model(folder / "tasks", folder / "model", ModelSpec(ways=5), training, Compute(), LiveProgress(), "")
    return create(folder / "workspace", folder / "tasks", folder / "model")


def wrong_items(workspace: Workspace, items: pd.DataFrame) -> np.ndarray:
    """Return which items have injected label errors, ``(n,)`` of bool."""
    planted = workspace.project().tasks.planted
    assert planted is not None
    if "task_id" not in planted:
        return items["image_id"].isin(planted["image_id"]).to_numpy()
    return pd.MultiIndex.from_frame(items[KEY]).isin(pd.MultiIndex.from_frame(planted[KEY]))


def figures(wrong: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Return the average precision, and the share of label errors among as many first items as there are errors.

    ``k`` is the number of label errors.
    """
    found = wrong[np.argsort(-score, kind="stable")]
    return {
        "average_precision": float(average_precision_score(wrong, score)),
        "recall": float(found[: wrong.sum()].mean()),
    }


def by_cleanlab(workspace: Workspace, items: pd.DataFrame) -> tuple[np.ndarray, float]:
    """Return the suspicion of the items, and the seconds it took."""
    project, start = workspace.project(), time.perf_counter()
    confidence = self_confidence(project.images, project.tasks.train, epochs=EPOCHS, seed=0)
    seconds = time.perf_counter() - start
    by_pair = confidence.set_index(["image_id", "class"])["self_confidence"]
    return -by_pair.loc[list(zip(items["image_id"], items["class"], strict=True))].to_numpy(), seconds


def measure_problem(out: Path, data: str, protocol: str, seed: int) -> dict[str, Any]:
    """Return all figures of one problem, read from the folder or measured now."""
    path = out / f"{data}-{protocol}-{seed}" / "figures.json"
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    workspace, compute = problem(out, data, protocol, seed), Compute()
    built = queue(workspace, QueueSettings(), compute, LiveProgress())
    items, summary = built.table("items.parquet"), built.json("summary.json")
    wrong = wrong_items(workspace, items)
    scores = {"queue": -items["rank"].to_numpy(dtype=float)}
    scores |= {name: items[name].to_numpy() for name in (*FAST, *ROWS) if name in items}
    slow = queue(workspace, QueueSettings(slow=SLOW, calibrate=False), compute, LiveProgress()).table("items.parquet")
    aligned = slow.set_index(KEY).loc[list(items[KEY].itertuples(index=False, name=None))]
    scores |= {name: aligned[name].to_numpy() for name in SLOW}
    scores["cleanlab"], seconds = by_cleanlab(workspace, items)
    scores["chance"] = np.random.default_rng(seed).random(len(items))
    remaining = []
    for share in DECIDED:
        depth = min(round(share * wrong.sum()), len(items))
        expected = forecast(items, {at: bool(wrong[at]) for at in range(depth)})
        assert expected is not None
        low, high = expected.remaining_low[depth], expected.remaining_high[depth]
        remaining.append([share, int(wrong[depth:].sum()), expected.remaining[depth], low, high])
    clock = summary["seconds"]
    planted = workspace.project().tasks.planted
    assert planted is not None
    true = planted.set_index(KEY if "task_id" in planted else "image_id")["true"]
    mislabelled = items[wrong].set_index(list(true.index.names))["suggested"]
    result = {
        "suggested": float((mislabelled == true.loc[mislabelled.index]).mean()),
        "scores": {name: figures(wrong, score) for name, score in scores.items()},
        "ranking": summary["ranking"],
        "seconds": {
            "scores": clock["features"] + clock["scores"],
            "planted labels": clock["planted labels"],
            "cleanlab": round(seconds, 2),
        },
        "remaining": [[float(value) for value in row] for row in remaining],
    }
    write_json(path, result)
    return result


def mean_and_spread(values: list[float]) -> str:
    """Return the mean and the spread of some values as text."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1 if len(values) > 1 else 0):.3f}"


def report(name: str, results: list[dict[str, Any]]) -> None:
    """Print the tables of one data set and protocol."""
    print(
        f"\n### {name}, {len(results)} seeds\n\n| score | average precision | recall at the noise rate |\n|---|---|---|"
    )
    scores = results[0]["scores"]
    mean = {score: np.mean([result["scores"][score]["average_precision"] for result in results]) for score in scores}
    for score in sorted(scores, key=lambda score: (score != "queue", -mean[score])):
        cells = [
            mean_and_spread([result["scores"][score][figure] for result in results])
            for figure in ("average_precision", "recall")
        ]
        bold = "**" if score == "queue" else ""
        print(f"| {bold}{score.replace('_', ' ')}{bold} | {' | '.join(cells)} |")
    seconds = {key: np.mean([result["seconds"][key] for result in results]) for key in results[0]["seconds"]}
    share = np.mean([result["seconds"]["scores"] / result["seconds"]["cleanlab"] for result in results])
    print("\nseconds: " + ", ".join(f"{key} {value:.1f}" for key, value in seconds.items()), end="")
    print(
        f"; true class suggested for {np.mean([result['suggested'] for result in results]):.3f} of the label errors",
        end="",
    )
    print(f"; scores in {share:.2f} of cleanlab's time; ranked by {', '.join(result['ranking'] for result in results)}")
    for place, share in enumerate(DECIDED):
        rows = [result["remaining"][place] for result in results]
        inside = sum(low <= truth <= high for _, truth, _, low, high in rows)
        texts = "; ".join(f"{mean:.0f} [{low:.0f}, {high:.0f}] of {truth:.0f}" for _, truth, mean, low, high in rows)
        print(f"- remaining, {share:.0%} as many decisions as errors: {inside} of {len(rows)} covered: {texts}")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the problems and results; an interrupted benchmark resumes.")],
    seeds: Annotated[str, typer.Option(help="Seeds to run, separated by commas.")] = "0,1,2,3,4",
    protocols: Annotated[str, typer.Option(help="Noise for MNIST, separated by commas.")] = ",".join(PROTOCOLS),
    omniglot: Annotated[Path | None, typer.Option(help="images_background.zip; without it no Omniglot.")] = None,
) -> None:
    """Run all problems and print the tables."""
    disable_malloc_trim()
    os.environ.setdefault(HOME_VARIABLE, str((out / "home").resolve()))
    problems = [("mnist5k", protocol) for protocol in protocols.split(",") if protocol]
    if omniglot is not None:
        add_images(omniglot, ImportOptions(format="omniglot", size="28"), name=OMNIGLOT, progress=LiveProgress())
        problems.append((OMNIGLOT, "image"))
    for data, protocol in problems:
        report(f"{data}, {protocol}", [measure_problem(out, data, protocol, int(seed)) for seed in seeds.split(",")])


if __name__ == "__main__":
    typer.run(main)
