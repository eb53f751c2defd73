"""Read the finished edits for one set of changes: their net effects, sorted, and what they say of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from core.actions.edit import find_control, finished_edits, method_of
from core.editing.methods import cost_text
from core.editing.net_effect import EditMeasurement, NetEffect, net_effect
from core.editing.settings import CONTROLS, EDIT_METHODS, ESTIMATES
from core.maml.evaluation import Interval
from core.tasks.changes import Changes
from core.workspace.runs import Run
from core.workspace.workspace import Project, Workspace

ReadTable = Callable[[Run, str], pd.DataFrame]
FURTHER_TRAINING_GAINS = "Further training alone gains"
_FURTHER_TRAINING = {"newton": "a Newton step", "steps": "small steps", "finetune": "fine-tuning"}
"""Procedures that start at the model, so that their gain without changes shows whether its training was finished."""


@dataclass(frozen=True)
class EditResult:
    """A finished edit.

    Attributes:
        control: None if it is not computed, or there is none: for an estimate, and for a control itself.
        effect: None without a control, except for an estimate.
    """

    method: str
    run: Run
    control: Run | None
    effect: NetEffect | None

    @property
    def figures(self) -> dict[str, Any]:
        """Return the contents of its ``edit.json``."""
        return self.run.json("edit.json")

    @property
    def seconds(self) -> float:
        """Return the wall-clock seconds of the edit, without those of its control."""
        return float(sum(self.run.json("provenance.json")["seconds"].values()))

    @property
    def is_estimate(self) -> bool:
        """Return whether the result is an estimate of retraining rather than a measurement."""
        return self.method in ESTIMATES

    @property
    def lacks_control(self) -> bool:
        """Return whether the control is still to be computed."""
        return self.effect is None and self.method not in CONTROLS

    @property
    def change(self) -> Interval:
        """Return the accuracy minus that of the unedited model: the effect of the changes and of the procedure."""
        return Interval(**self.figures["accuracy_change"])

    @property
    def cost_text(self) -> str:
        """Return :func:`core.editing.methods.cost_text` of this edit."""
        return cost_text(self.figures, self.seconds)


def edit_result(workspace: Workspace, run: Run, read_table: ReadTable = Run.table) -> EditResult:
    """Return a finished edit with its net effect.

    Args:
        read_table: Reads a table of a run, for callers with a cache.
    """
    method, control = method_of(run), find_control(workspace, run)

    def measured(one: Run) -> EditMeasurement:
        return EditMeasurement(one.json("edit.json"), read_table(one, "heldout.parquet"))

    effect = net_effect(method, measured(run), None if control is None else measured(control))
    return EditResult(method, run, control, effect)


def edit_results(
    workspace: Workspace, project: Project, changes: Changes, read_table: ReadTable = Run.table
) -> list[EditResult]:
    """Return the newest finished edit by each method for exactly these changes, whatever its settings, sorted."""
    methods = [method for method in EDIT_METHODS if method not in CONTROLS]
    found = (finished_edits(workspace, project, method, changes) for method in methods)
    return by_net_effect(edit_result(workspace, runs[0], read_table) for runs in found if runs)


def by_net_effect(results: Iterable[EditResult]) -> list[EditResult]:
    """Sort results: measured net effects, the largest first, then those without a control, then estimates."""

    def order(result: EditResult) -> tuple[bool, bool, float]:
        effect = result.effect
        return result.is_estimate, effect is None, 0.0 if effect is None else -effect.accuracy.mean

    return sorted(results, key=order)


def procedure_finding(results: Iterable[EditResult]) -> str:
    """Return a sentence on what further training gives without the changes; empty if that is not measured."""
    gains = {
        _FURTHER_TRAINING[one.method]: one.effect.procedure
        for one in results
        if one.method in _FURTHER_TRAINING and one.effect is not None and one.effect.procedure is not None
    }
    if not gains:
        return ""
    name, gain = max(gains.items(), key=lambda item: item[1].mean)
    if gain.low > 0:
        return f"{FURTHER_TRAINING_GAINS} {gain.percent('', ' points')} ({name} on all tasks)."
    name, gain = max(gains.items(), key=lambda item: abs(item[1].mean))
    verdict = "lowers the accuracy" if gain.high < 0 else "makes no clear difference"
    return f"Further training alone {verdict}: {gain.percent('+', ' points')} ({name} on all tasks)."
