"""Edits of the model that belong to one removal set, and what can be said of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from core.actions.compute import Compute
from core.actions.edit import FINETUNE, WAYS, kind_of, question_of
from core.influence.methods import SolveSettings
from core.maml.evaluation import Interval
from core.tasks.removal import Removal
from core.ui.context import Context, table
from core.workspace.runs import Run

LABELS = {
    "linear": "Linear edit (estimate)",
    "finetune": "Fine-tuned on what is left",
    "finetune-all": "Fine-tuned on everything (control)",
    "retrain": "Retrained in full on what is left",
}
_POINT = 100
"""Shares are shown in per cent, their differences in percentage points."""


@dataclass(frozen=True)
class Outcome:
    """One finished edit.

    Attributes:
        way: One of :data:`core.actions.edit.WAYS`.
        figures: Its ``edit.json``.
        seconds: How long the computing took.
    """

    way: str
    run: Run
    figures: dict[str, Any]
    seconds: float

    @property
    def label(self) -> str:
        return LABELS[self.way]

    @property
    def estimate(self) -> bool:
        """An estimate of retraining, not a measurement of it."""
        return self.way == "linear"


def outcomes(context: Context, removal: Removal) -> dict[str, Outcome]:
    """The finished edits for exactly this removal set, with the command line's default settings, by way."""
    found = {}
    for way in WAYS:
        question = question_of(context.project, way, removal, SolveSettings(), FINETUNE, Compute())
        if run := context.workspace.runs.find(kind_of(way), question):
            seconds = sum(run.json("provenance.json")["seconds"].values())
            found[way] = Outcome(way, run, run.json("edit.json"), seconds)
    return found


def results_of_other_sets(context: Context, removal: Removal) -> int:
    """How many finished edits of this problem belong to another removal set."""
    model = context.project.hashes["model"]
    configs = [run.config for way in WAYS for run in context.workspace.runs.all(kind_of(way))]
    return sum(one["model"] == model and one.get("removal", removal.hash) != removal.hash for one in configs)


def removal_effect(found: dict[str, Outcome]) -> Interval | None:
    """What the removal itself gained in accuracy: fine-tuned on what is left against fine-tuned on everything.

    Paired by held-out task; None until both are measured.
    """
    if not {"finetune", "finetune-all"} <= found.keys():
        return None
    left, everything = (
        table(found[way].run, "heldout.parquet").set_index("task_id")["accuracy"]
        for way in ("finetune", "finetune-all")
    )
    return Interval.of((left - everything).to_numpy())


def step_seconds(context: Context) -> float | None:
    """Seconds that fine-tuning took per task and step on this problem; None before any fine-tune."""
    for way in ("finetune-all", "finetune"):
        for run in context.workspace.runs.all(kind_of(way)):
            config, seconds = run.config, run.json("provenance.json")["seconds"].get("fine-tune")
            if seconds and config["model"] == context.project.hashes["model"]:
                return seconds / (config["iterations"] * config["meta_batch"])
    return None


def retrain_seconds(context: Context) -> float | None:
    """How long retraining takes if it polishes to the end, at the pace of the fine-tunes; None where not known."""
    settings, pace = context.project.model.story.get("training"), step_seconds(context)
    if not isinstance(settings, dict) or pace is None:
        return None
    full_batches = settings["polish"] * len(context.project.tasks.train)
    return pace * (settings["iterations"] * settings["meta_batch"] + full_batches)


def in_points(interval: dict[str, float] | Interval) -> str:
    """``+1.2 points [+0.3, +2.1]`` from a difference of shares."""
    values = asdict(interval) if isinstance(interval, Interval) else interval
    mean, low, high = (_POINT * values[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def direction(interval: dict[str, float] | Interval) -> str:
    """``higher``, ``lower`` or ``not clearly different``, by whether the interval holds 0."""
    values = asdict(interval) if isinstance(interval, Interval) else interval
    if values["low"] > 0:
        return "higher"
    return "lower" if values["high"] < 0 else "not clearly different (the interval holds 0)"


def findings(found: dict[str, Outcome]) -> list[str]:
    """What the results say, in sentences that claim no more than the intervals do."""
    said = []
    if (effect := removal_effect(found)) is not None:
        said.append(
            f"**What the removal itself did:** fine-tuned on what is left against fine-tuned on everything, "
            f"{in_points(effect)}: {direction(effect)}."
        )
    if "retrain" in found:
        change = found["retrain"].figures["accuracy_change"]
        said.append(
            f"**Retraining measured** {in_points(change)} against the unedited model (one seed): {direction(change)}."
        )
        if "linear" in found:
            said.append(f"The linear edit had estimated {in_points(found['linear'].figures['accuracy_change'])}.")
    elif "linear" in found:
        change = found["linear"].figures["accuracy_change"]
        said.append(
            f"**Estimated effect of retraining:** {in_points(change)}: {direction(change)}. "
            "Only a full retrain measures it."
        )
    return said


def change_table(found: dict[str, Outcome]) -> pd.DataFrame:
    """One row an edit, as texts: changes against the unedited model with 95 % intervals, and seconds."""
    rows = []
    for outcome in found.values():
        figures = outcome.figures
        loss, predicted = figures["loss_change"], figures.get("predicted_loss_change")
        rows.append(
            {
                "model": outcome.label,
                "kind": "estimate" if outcome.estimate else "measured",
                "accuracy change": in_points(figures["accuracy_change"]),
                "loss change": f"{loss['mean']:+.4f} [{loss['low']:+.4f}, {loss['high']:+.4f}]",
                "loss change predicted to first order": "" if predicted is None else f"{predicted:+.4f}",
                "seconds": round(outcome.seconds, 1),
            }
        )
    return pd.DataFrame(rows)
