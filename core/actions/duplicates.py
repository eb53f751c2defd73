"""Look for images that occur twice, and for leaks between what tasks learn from and what they are measured on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from core.decisions.log import Item
from core.decisions.table import given_classes
from core.review.duplicates import Duplicates, find_duplicates
from core.review.leaks import find_leaks
from core.runtime.progress import Progress
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Project, Workspace

KIND = "duplicates"
VERSION = 1
"""Of the way of looking; another one is another question."""
BINS = 60


def cache_key(project: Project) -> dict[str, Any]:
    """What names the search, as :class:`core.workspace.runs.Runs` takes it."""
    return {name: project.hashes[name] for name in ("data", "tasks", "heldout")} | {"version": VERSION}


def newest_duplicates(workspace: Workspace, project: Project) -> Run | None:
    """The finished search of the problem as it now is."""
    return workspace.runs.find(KIND, cache_key(project))


def duplicates(workspace: Workspace, progress: Progress) -> Run:
    """Search the images of the training and held-out tasks. The run holds

    - ``pairs.parquet``, nearest first: image_id, other, distance, ratio (:mod:`core.review.duplicates`), exact, class,
      other_class (as given), contradiction (they differ), group (pairs that hang together), training, other_training
      (whether the image is in a training task, so that it can be decided on).
    - ``leaks.parquet`` (:func:`core.review.leaks.find_leaks`).
    - ``summary.json``: images, pairs, exact, near, contradictions, groups, leaks by kind, threshold, power, and a
      histogram of the ratios (edges, counts).
    """
    project = workspace.project()

    def work(run: RunWriter) -> None:
        images, train, heldout = project.images, project.tasks.train.rows, project.tasks.heldout.rows
        used = set(train["image_id"]) | set(heldout["image_id"])
        positions = np.array(sorted(images.index[image] for image in used), np.int64)
        progress.stage("looking for copies", 3 * len(positions))
        with run.timed("duplicates"):
            found = find_duplicates(images.images, positions, progress.advance)
        ids = images.ids[positions].astype(object)
        with run.timed("leaks"):
            leaks = find_leaks(found, ids, train, heldout)
        pairs = _pairs(found, ids, project)
        run.write_table("pairs.parquet", pairs)
        run.write_table("leaks.parquet", leaks)
        run.write_json("summary.json", _summary(found, pairs, leaks))

    return workspace.runs.get_or_compute(KIND, cache_key(project), work)


def _pairs(found: Duplicates, ids: np.ndarray, project: Project) -> pd.DataFrame:
    given = given_classes(project.tasks.train.rows)
    elsewhere = given_classes(project.tasks.heldout.rows)

    def known(image: str) -> tuple[str, bool]:
        item = Item("image", image_id=image)
        return (given[item], True) if item in given else (elsewhere[item], False)

    one, two = (ids[found.pairs[name].to_numpy()] for name in ("one", "other"))
    first, second = [known(image) for image in one], [known(image) for image in two]
    table = pd.DataFrame({"image_id": one, "other": two}, dtype=object)
    table = table.assign(**{name: found.pairs[name].to_numpy() for name in ("distance", "ratio", "exact")})
    table["class"], table["training"] = [name for name, _ in first], [inside for _, inside in first]
    table["other_class"], table["other_training"] = [name for name, _ in second], [inside for _, inside in second]
    table["contradiction"] = table["class"] != table["other_class"]
    _, table["group"] = np.unique(found.group[found.pairs["one"].to_numpy()], return_inverse=True)
    return table


def _summary(found: Duplicates, pairs: pd.DataFrame, leaks: pd.DataFrame) -> dict[str, Any]:
    counts, edges = np.histogram(found.ratios, BINS, (0.0, 1.0))
    return {
        "images": len(found.first),
        "pairs": len(pairs),
        "exact": int(pairs["exact"].sum()),
        "near": int((~pairs["exact"]).sum()),
        "contradictions": int(pairs["contradiction"].sum()),
        "groups": int(pairs["group"].nunique()),
        "leaks": {
            "support-query": int(((leaks["kind"] == "support-query") & (leaks["part"] == "training")).sum()),
            "support-query, held out": int(((leaks["kind"] == "support-query") & (leaks["part"] == "held-out")).sum()),
            "train-heldout": int((leaks["kind"] == "train-heldout").sum()),
        },
        "leaks_with_different_classes": int(leaks["contradiction"].sum()),
        "threshold": found.threshold,
        "power": None if np.isnan(found.power) else found.power,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def sentences(run: Run) -> list[str]:
    """What a search found, in words."""
    found = run.json("summary.json")
    leaks = found["leaks"]
    return [
        f"{found['images']:,} images of the tasks: {found['pairs']:,} pairs of copies in {found['groups']:,} groups, "
        f"{found['exact']:,} identical and {found['near']:,} nearly so",
        f"{found['contradictions']:,} pairs with different given classes",
        f"leaks: {leaks['support-query']:,} between support and query of a training task, "
        f"{leaks['support-query, held out']:,} of a held-out task, "
        f"{leaks['train-heldout']:,} between training and held-out tasks; "
        f"{found['leaks_with_different_classes']:,} of them with different given classes",
        f"near means: at less than {found['threshold']:.2f} of the distance of the eighth neighbour, below which one "
        "image in all is expected by chance"
        if found["threshold"]
        else "too few images to say what is near: only identical ones were sought",
    ]
