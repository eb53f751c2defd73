"""Measure what label noise costs in a demo, and what removing and relabelling data win back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core.actions.compute import Compute
from core.actions.decide import mark, worst_items
from core.actions.edit import edit
from core.actions.evaluate import evaluation
from core.actions.export import export
from core.actions.queue import queue
from core.actions.rank import detection_of, ranking
from core.actions.recommend import newest_recommendation, recommend, recommended_levels
from core.influence.methods import DEFAULT, estimator
from core.influence.targets import Target
from core.maml.evaluation import Interval
from core.recommendation.settings import RecommendSettings
from core.review.settings import QueueSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.tasks.generate import TaskFolder
from core.workspace.demos import AUTHOR, DEMOS, open_demo
from core.workspace.runs import Run
from core.workspace.workspace import Workspace

RECOMMENDED, RELABELLED, HARMFUL, RANDOM, CORRECTED = (
    "Recommended",
    "Relabelled as suggested",
    "Most harmful",
    "Random",
    "All errors corrected",
)
"""The named sets of a demo: as many items removed as recommended, by influence and at random; the recommended images
relabelled as the review queue suggests; and the injected truth."""
SET_NOTES = {
    RECOMMENDED: "What the recommendation proposes to remove.",
    RELABELLED: "The same images, with the class that the review queue suggests in place of the given one.",
    HARMFUL: "As many, with the most harmful influence on the held-out tasks.",
    RANDOM: "As many, drawn at random.",
    CORRECTED: "The truth, known because the label noise was injected: every wrong label is corrected.",
}
MEASURED_BY = ("finetune", "retrain")
"""How each set is measured."""


class DemoResult(NamedTuple):
    """What a demo shows.

    Attributes:
        before: Held-out accuracy of the model.
        proposal: Sentences of the recommendation.
        detection: How well each score finds the injected noise, as :func:`core.evidence.detection.detection` measures.
        table: One row per named set: set, items, noisy (number with injected noise), and per method the accuracy
            (:class:`core.maml.evaluation.Interval`); ``won_back``, the share of the accuracy lost to the noise that
            retraining wins back.
        lost: Accuracy of the model retrained on corrected labels minus ``before``.
    """

    before: Interval
    proposal: str
    detection: pd.DataFrame
    table: pd.DataFrame
    lost: float

    def lines(self) -> list[str]:
        """Return the result as text."""
        shown = self.table.copy()
        for method in MEASURED_BY:
            shown[method] = [one.percent() for one in shown[method]]
        shown["won_back"] = ["" if np.isnan(share) else f"{share:.0%}" for share in shown["won_back"]]
        shown.columns = ["set", "items", "noisy", "fine-tuned, %", "retrained, %", "won back"]
        return [
            self.proposal,
            self.detection.drop(columns=["bad"]).to_string(index=False, float_format="{:.3f}".format),
            f"Held-out accuracy {self.before.percent()}; retrained on corrected labels {100 * self.lost:+.1f} points.",
            shown.to_string(index=False),
        ]


def corrected(tasks: TaskFolder) -> Changes:
    """Return the relabelling that undoes the injected label noise.

    Raises:
        UserError: none was injected.
    """
    planted = tasks.planted
    if planted is None:
        raise UserError("No label noise was injected into these tasks.", "Redraw them with noise.")
    if "task_id" in planted:
        rows = planted[["task_id", "role", "image_id", "true"]].itertuples(index=False, name=None)
        return Changes(relabelled_instances=frozenset(rows))
    present = planted[planted["image_id"].isin(noisy_items(tasks, "images"))]
    return Changes(relabelled_images=frozenset(present[["image_id", "true"]].itertuples(index=False, name=None)))


def noisy_items(tasks: TaskFolder, by: str) -> set[str]:
    """Return the ids of the ``tasks`` or ``images`` of the training tasks that hold injected label noise."""
    name = f"{by[:-1]}_id"
    return set() if tasks.planted is None else set(tasks.planted[name]) & set(tasks.train.rows[name])


def save_sets(
    workspace: Workspace, by: str, recommendation: Run, ranked: Run, queued: Run | None
) -> dict[str, Changes]:
    """Save the named sets of a demo and return them; ``by`` says whether they remove ``tasks`` or ``images``.

    Only with a review queue of images there is the set :data:`RELABELLED`.

    Raises:
        UserError: nothing is recommended for removal, or a set of the same name has other changes.
    """
    count = recommended_levels(recommendation)[by].proposed
    if not count:
        raise UserError(f"No {by} are recommended for removal.", "Choose other items.")
    name, tasks = f"{by[:-1]}_id", workspace.project().tasks
    random = np.random.default_rng(0).choice(np.unique(tasks.train.rows[name].astype(str)), count, replace=False)
    ids = {
        RECOMMENDED: [getattr(item, name) for item in worst_items(recommendation, by, count)],
        HARMFUL: [getattr(item, name) for item in worst_items(ranked, by, count)],
        RANDOM: random.tolist(),
    }
    changes = {key: Changes.named(**{by: of_set}) for key, of_set in ids.items()} | {CORRECTED: corrected(tasks)}
    if queued is not None:
        items = queued.table("items.parquet")
        items = items[items["image_id"].isin(ids[RECOMMENDED]) & (items["suggested"] != items["class"])]
        relabelled = items[["image_id", "suggested"]].itertuples(index=False, name=None)
        changes[RELABELLED] = Changes(relabelled_images=frozenset(relabelled))
    ordered = {key: changes[key] for key in SET_NOTES if key in changes}
    for key in set(ordered).intersection(workspace.sets.names()):
        saved = workspace.sets.get(key)
        if saved.who == AUTHOR and saved.changes.hash != ordered[key].hash:  # of an earlier recommendation
            workspace.sets.delete(key)
    return {key: workspace.sets.save(key, one, who=AUTHOR, note=SET_NOTES[key]).changes for key, one in ordered.items()}


def measure_demo(workspace: Workspace, by: str, compute: Compute, progress: Progress) -> DemoResult:
    """Measure a workspace with injected label noise, or find what was measured before."""
    before = Interval(**evaluation(workspace, compute, progress).json("summary.json")["accuracy"])
    recommendation = recommend(workspace, RecommendSettings(), compute, progress)
    ranked = ranking(workspace, Target(), estimator(DEFAULT), compute, progress)
    queued = queue(workspace, QueueSettings(), compute, progress) if by == "images" else None
    sets = save_sets(workspace, by, recommendation, ranked, queued)
    accuracy: Mapping[str, dict[str, Interval]] = {
        name: {
            method: Interval(
                **edit(workspace, method, changes, compute=compute, progress=progress).json("edit.json")["accuracy"]
            )
            for method in MEASURED_BY
        }
        for name, changes in sets.items()
    }
    lost = accuracy[CORRECTED]["retrain"].mean - before.mean
    noisy = noisy_items(workspace.project().tasks, by)
    rows: list[dict[str, Any]] = []
    for name, changes in sets.items():
        items = (
            noisy if name == CORRECTED else getattr(changes, by) or {image for image, _ in changes.relabelled_images}
        )
        won_back = (accuracy[name]["retrain"].mean - before.mean) / lost if lost > 0 else float("nan")
        rows.append(
            {"set": name, "items": len(items), "noisy": len(noisy & items), **accuracy[name], "won_back": won_back}
        )
    found, detection = recommended_levels(recommendation)[by], detection_of(workspace, ranked, recommendation)
    assert detection is not None
    return DemoResult(before, f"{found.sentence}\n{found.proposal}", detection, pd.DataFrame(rows), lost)


def _decide(workspace: Workspace, by: str) -> None:
    """Write the decisions that the result supports: few images are better relabelled than removed."""
    recommendation = newest_recommendation(workspace, workspace.project())
    assert recommendation is not None
    why: dict[str, Any] = {"cause": "label-error", "reviewer": "demo", "source": recommendation.id}
    if by == "tasks":
        mark(workspace, tasks=sorted(workspace.sets.get(RECOMMENDED).changes.tasks), **why)
        return
    by_class: dict[str, list[str]] = {}
    for image, name in sorted(workspace.sets.get(RELABELLED).changes.relabelled_images):
        by_class.setdefault(name, []).append(image)
    for name, images in by_class.items():
        mark(workspace, images=images, verdict="relabel", label=name, **why)


def run_demo(name: str, folder: Path, compute: Compute, progress: Progress, report: Callable[[str], None]) -> Path:
    """Measure a demo, decide, and export; return the export folder.

    What came with the demo is found rather than computed. Unless there are decisions, the reviewer ``demo`` removes the
    recommended tasks, or relabels the recommended images.
    """
    workspace = open_demo(name, folder)
    demo = DEMOS[name]
    report(f"\n{name}: {workspace.about}")
    result = measure_demo(workspace, demo.by, compute, progress)
    report("\n".join(result.lines()))
    if not workspace.decisions.current():
        _decide(workspace, demo.by)
    return export(workspace, workspace.folder / "exports" / "demo")
