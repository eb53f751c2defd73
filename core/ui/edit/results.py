"""Summarise the finished edits for one set of changes in sentences, and find those that are still missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.actions.compute import Compute
from core.actions.edit import cache_key, run_kind, step_settings
from core.actions.edit_cost import control_cost, retraining_seconds
from core.actions.edit_results import EditResult, edit_results, procedure_finding
from core.editing.methods import SOLVE
from core.editing.retraining import training_settings
from core.editing.settings import CONTROLS, DEFAULT_EDIT_METHODS, EDIT_METHODS, FINETUNE, NEWTON
from core.maml.evaluation import Interval
from core.runtime.progress import format_duration
from core.tasks.changes import Changes
from core.ui.ranking.method_text import solve_differences
from core.ui.shell.context import Context, table
from core.ui.shell.text import plain

LABELS = {
    "linear": "Linear edit (estimate)",
    "newton": "Newton step",
    "steps": "Small steps",
    "finetune": "Fine-tuned",
    "retrain": "Retrained in full",
}
NO_RESULTS = "No results for these changes yet."
NET_EFFECT = "Net effect on held-out accuracy"
ESTIMATED_EFFECT = "Estimated net effect"
ONLY_RETRAINING = "Only retraining measures it."
NOT_MEASURED = "No control yet"
NON_DEFAULT = "Options other than the defaults"
OWN_START = "started at the present model"
NET_NOTE = "Net effect: the difference to the same procedure without the changes (the control), paired by task."


def results(context: Context, changes: Changes) -> list[EditResult]:
    """Return the newest finished edit by each method for exactly these changes, the largest net effect first."""
    return edit_results(context.workspace, context.project, changes, table)


def default_edits(context: Context, changes: Changes) -> set[str]:
    """Return the methods whose edit for these changes with the command line's default settings is finished."""
    methods = [method for method in EDIT_METHODS if method not in CONTROLS]
    keys = {method: cache_key(context.project, method, changes, compute=Compute()) for method in methods}
    return {method for method, key in keys.items() if context.workspace.runs.find(run_kind(method), key)}


def options_words(context: Context, found: Sequence[EditResult]) -> str:
    """Return a sentence on the edits with options other than the defaults; empty if there are none."""
    options = {one.method: _options(context, one.method, one.run.config) for one in found}
    named = [f"{plain(LABELS[method])}: {plain(', '.join(changed))}" for method, changed in options.items() if changed]
    return f"{NON_DEFAULT}: {'; '.join(named)}." if named else ""


def _options(context: Context, method: str, config: dict[str, Any]) -> list[str]:
    changed = []
    match method:
        case "linear":
            changed = solve_differences(config, asdict(SOLVE))
        case "newton":
            changed = _differences(config["newton"], asdict(NEWTON))
        case "steps":
            defaults = asdict(step_settings(context.project))
            same_start = config["steps"].get("rewind_tasks", 0) == defaults.pop("rewind_tasks")
            changed = _differences(config["steps"], defaults) + ([] if same_start else [OWN_START])
        case "finetune":
            changed = _differences(config, FINETUNE.cache_key())
    return changed + ([] if config["dtype"] == Compute().dtype else [str(config["dtype"])])


def _differences(config: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    return [
        f"{key.replace('_', ' ')} {config[key]:g}"
        for key in defaults
        if config.get(key, defaults[key]) != defaults[key]
    ]


def results_of_other_sets(context: Context, changes: Changes) -> int:
    """Return the number of finished edits of this problem that belong to other changes."""
    model = context.project.hashes["model"]
    configs = [run.config for method in EDIT_METHODS for run in context.workspace.runs.all(run_kind(method))]
    return sum(key["model"] == model and key.get("removal", changes.hash) != changes.hash for key in configs)


def quick_note(context: Context) -> str:
    """Return what estimating and fine-tuning computes."""
    control = _control_words(context, DEFAULT_EDIT_METHODS)
    return f"Estimating and fine-tuning takes seconds to a minute{f', {control}' if control else ''}."


def steps_note(context: Context) -> str:
    """Return what small steps compute."""
    steps, control = step_settings(context.project).budget, _control_words(context, ("steps",))
    return (
        f"Small steps are {steps:,} steps of one task each{f', {control}' if control else ''}; their share of the time "
        "of retraining is larger than their share of its cost."
    )


def retraining_note(context: Context) -> str:
    """Return how long retraining with the changes and its control take, or why retraining is impossible."""
    if training_settings(context.project.model) is None:
        return "This model does not record how it was trained, so it cannot be retrained in the same way."
    seconds = retraining_seconds(context.workspace, context.project)
    duration = "as long as the original training" if seconds is None else f"about {format_duration(seconds)}"
    control = _control_words(context, ("retrain",))
    return f"Retraining repeats the whole training with the changes: {duration}{f', {control}' if control else ''}."


def _control_words(context: Context, methods: Sequence[str]) -> str:
    """Return what the controls of some methods cost that are still to be computed; empty if they are stored."""
    cost = sum(control_cost(context.workspace, context.project, method, compute=Compute()) for method in methods)
    return f"plus once as long without the changes, for the control ({cost:,.0f} meta-gradients)" if cost else ""


def in_points(interval: dict[str, float] | Interval) -> str:
    """Return ``+1.2 points [+0.3, +2.1]`` for a difference of shares."""
    return (interval if isinstance(interval, Interval) else Interval(**interval)).percent("+", " points")


def direction(interval: dict[str, float] | Interval) -> str:
    """Return ``higher``, ``lower`` or ``not clearly different``, by whether the interval includes 0."""
    interval = interval if isinstance(interval, Interval) else Interval(**interval)
    if interval.low > 0:
        return "higher"
    return "lower" if interval.high < 0 else "not clearly different (the confidence interval includes 0)"


def headline(found: Sequence[EditResult]) -> tuple[str, str] | None:
    """Return the net effect that the page shows first, as Markdown, and what it is; None where none is known.

    Retraining is what the other methods approximate, so its net effect counts if it is measured; else the largest
    measured one, else the estimate.
    """
    known = [one for one in found if one.effect is not None]
    if not known:
        return None
    chosen = next((one for one in known if one.method == "retrain"), known[0])
    assert chosen.effect is not None
    effect = in_points(chosen.effect.accuracy)
    if chosen.is_estimate:
        return f"#### {ESTIMATED_EFFECT}: ≈ *{effect}*", f"{LABELS[chosen.method]}. {ONLY_RETRAINING} {NET_NOTE}"
    measured = sum(not one.is_estimate for one in known)
    is_largest = chosen.method != "retrain" and measured > 1
    bias = f": the largest of {measured} methods, so optimistically biased" if is_largest else ""
    return f"#### {NET_EFFECT}: {effect}", f"{LABELS[chosen.method]}, measured{bias}. {NET_NOTE}"


def findings(found: Sequence[EditResult]) -> list[str]:
    """Return sentences on the net effects, the largest first, that claim no more than the intervals do."""
    measured = [one for one in found if not one.is_estimate and one.effect is not None]
    sentences = [_finding(one) for one in measured]
    if procedure := procedure_finding(found):
        sentences.append(procedure)
    for one in found:
        if one.is_estimate and one.effect is not None:
            only = "" if any(other.method == "retrain" for other in measured) else f" {ONLY_RETRAINING}"
            estimate = in_points(one.effect.accuracy)
            sentences.append(f"{ESTIMATED_EFFECT} of retraining, by the linear edit: *{estimate}*.{only}")
    if missing := [one for one in found if one.lacks_control]:
        names = ", ".join(LABELS[one.method].lower() for one in missing)
        sentences.append(f"{NOT_MEASURED}: {names}. How much of the change is due to the procedure itself is unknown.")
    return sentences


def _finding(one: EditResult) -> str:
    assert one.effect is not None
    effect = one.effect.accuracy
    return f"**{LABELS[one.method]}, measured: {in_points(effect)}**: {direction(effect)}; {one.cost_text}."
