"""Read the finished edits for one set of changes and summarise them in sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from core.actions.compute import Compute
from core.actions.edit import cache_key, finished_edits, retraining_seconds, run_kind, step_settings
from core.editing.methods import SOLVE
from core.editing.retraining import training_settings
from core.editing.settings import CONTROLS, EDIT_METHODS, FINETUNE, NEWTON
from core.maml.evaluation import Interval
from core.runtime.progress import format_duration
from core.tasks.changes import Changes
from core.ui.ranking.method_text import solve_differences
from core.ui.shell.context import Context, table
from core.ui.shell.text import plain
from core.workspace.runs import Run

LABELS = {
    "linear": "Linear edit (estimate)",
    "newton": "Newton step",
    "steps": "Small steps with the changes",
    "steps-all": "Small steps without the changes (control)",
    "finetune": "Fine-tuned with the changes",
    "finetune-all": "Fine-tuned without the changes (control)",
    "retrain": "Retrained in full with the changes",
}
NO_RESULTS = "No results for these changes yet."
CHANGES_EFFECT = "Effect of the changes alone"
MEASURED_EFFECT = "Effect measured by retraining"
ESTIMATED_EFFECT = "Estimated effect of retraining"
NON_DEFAULT = "Options other than the defaults"
OWN_START = "started at the present model"


@dataclass(frozen=True)
class EditOutcome:
    """A finished edit by one of the ``EDIT_METHODS``.

    Attributes:
        figures: Contents of its ``edit.json``.
        options: Options that differ from the defaults, in words.
    """

    method: str
    run: Run
    figures: dict[str, Any]
    seconds: float
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return the display name of the edit method."""
        return LABELS[self.method]

    @property
    def estimate(self) -> bool:
        """Return whether the result is an estimate of retraining rather than a measurement of it."""
        return self.method == "linear"


def outcomes(context: Context, changes: Changes) -> dict[str, EditOutcome]:
    """Return the newest finished edit by each method for exactly these changes, whatever its options.

    Of a control, the run with the same options as the edit that it is compared with is preferred.
    """
    edits = {method: finished_edits(context.workspace, context.project, method, changes) for method in EDIT_METHODS}
    found = {method: runs for method, runs in edits.items() if runs}
    newest = {method: runs[0] for method, runs in found.items()}
    for control in CONTROLS:
        method = control.removesuffix("-all")
        if {method, control} <= newest.keys():
            comparable = (run for run in found[control] if _same_options(run, newest[method]))
            newest[control] = next(comparable, newest[control])
    return {
        method: EditOutcome(
            method,
            run,
            run.json("edit.json"),
            sum(run.json("provenance.json")["seconds"].values()),
            tuple(_options(context, method, run.config)),
        )
        for method, run in newest.items()
    }


def default_edits(context: Context, changes: Changes) -> set[str]:
    """Return the methods whose edit for these changes with the command line's default settings is finished."""
    keys = {method: cache_key(context.project, method, changes, compute=Compute()) for method in EDIT_METHODS}
    return {method for method, key in keys.items() if context.workspace.runs.find(run_kind(method), key)}


def _options(context: Context, method: str, config: dict[str, Any]) -> list[str]:
    changed = []
    match method.removesuffix("-all"):
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


def _same_options(one: Run, other: Run) -> bool:
    """Return whether two fine-tunes, or two runs of steps, have the same options."""
    return all(one.config.get(key) == other.config.get(key) for key in ("dtype", "steps", *FINETUNE.cache_key()))


def options_words(found: dict[str, EditOutcome]) -> str:
    """Return a sentence on the edits with options other than the defaults; empty if there are none."""
    options = [f"{plain(edit.label)}: {plain(', '.join(edit.options))}" for edit in found.values() if edit.options]
    return f"{NON_DEFAULT}: {'; '.join(options)}." if options else ""


def results_of_other_sets(context: Context, changes: Changes) -> int:
    """Return the number of finished edits of this problem that belong to other changes."""
    model = context.project.hashes["model"]
    configs = [run.config for method in EDIT_METHODS for run in context.workspace.runs.all(run_kind(method))]
    return sum(key["model"] == model and key.get("removal", changes.hash) != changes.hash for key in configs)


def changes_effect(found: dict[str, EditOutcome], method: str) -> Interval | None:
    """Return the gain in accuracy due to the changes alone: an edit with them minus its control without them.

    None until both are measured with the same options.
    """
    edit, control = found.get(method), found.get(f"{method}-all")
    if edit is None or control is None or not _same_options(edit.run, control.run):
        return None
    return accuracy_difference(edit, control)


def accuracy_difference(edit: EditOutcome, other: EditOutcome) -> Interval:
    """Return the accuracy of one edited model minus that of another, paired by held-out task."""
    one, two = (table(each.run, "heldout.parquet").set_index("task_id")["accuracy"] for each in (edit, other))
    return Interval.of((one - two).to_numpy())


def retraining_note(context: Context) -> str:
    """Return how long retraining with the changes takes, or why it is impossible."""
    if training_settings(context.project.model) is None:
        return "This model does not record how it was trained, so it cannot be retrained in the same way."
    seconds = retraining_seconds(context.workspace, context.project)
    duration = "as long as the original training" if seconds is None else f"about {format_duration(seconds)}"
    return f"Retraining repeats the whole training with the changes: {duration}."


def in_points(interval: dict[str, float] | Interval) -> str:
    """Return ``+1.2 points [+0.3, +2.1]`` for a difference of shares."""
    return (interval if isinstance(interval, Interval) else Interval(**interval)).percent("+", " points")


def direction(interval: dict[str, float] | Interval) -> str:
    """Return ``higher``, ``lower`` or ``not clearly different``, by whether the interval includes 0."""
    interval = interval if isinstance(interval, Interval) else Interval(**interval)
    if interval.low > 0:
        return "higher"
    return "lower" if interval.high < 0 else "not clearly different (the confidence interval includes 0)"


def findings(found: dict[str, EditOutcome]) -> list[str]:
    """Return sentences on the results that claim no more than the intervals do."""
    sentences = []
    if (effect := changes_effect(found, "finetune")) is not None:
        sentences.append(
            f"**{CHANGES_EFFECT}:** fine-tuned with the changes compared with fine-tuned without them, "
            f"{in_points(effect)}: {direction(effect)}."
        )
    changes = {method: edit.figures["accuracy_change"] for method, edit in found.items()}
    if "retrain" in found:
        sentences.append(
            f"**{MEASURED_EFFECT}:** {in_points(changes['retrain'])} compared with the unedited model (one seed): "
            f"{direction(changes['retrain'])}."
        )
        if "linear" in found:
            sentences.append(f"{ESTIMATED_EFFECT}, by the linear edit: {in_points(changes['linear'])}.")
    elif "linear" in found:
        sentences.append(
            f"**{ESTIMATED_EFFECT}:** {in_points(changes['linear'])}: {direction(changes['linear'])}. "
            "Only retraining measures it."
        )
    return sentences
