"""Read the finished edits for one set of changes and summarise them in sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from core.actions.compute import Compute
from core.actions.edit import cache_key, run_kind, step_settings
from core.actions.rank import ENGINE_VERSION
from core.editing.methods import SOLVE
from core.editing.settings import CONTROLS, EDIT_METHODS, FINETUNE, NEWTON
from core.maml.evaluation import Interval
from core.tasks.changes import Changes
from core.ui.ranking.method_text import solve_differences
from core.ui.shell.context import Context, table
from core.ui.shell.text import plain
from core.workspace.runs import Run

LABELS = {
    "linear": "Linear edit (estimate)",
    "newton": "Newton step",
    "steps": "Small steps with the changes",
    "steps-all": "Small steps without them (control)",
    "finetune": "Fine-tuned with the changes",
    "finetune-all": "Fine-tuned without them (control)",
    "retrain": "Retrained in full with the changes",
}
_POINT = 100
"""Factor that turns shares into per cent and their differences into percentage points."""


@dataclass(frozen=True)
class EditOutcome:
    """A finished edit.

    Attributes:
        way: One of :data:`core.actions.edit.EDIT_METHODS`.
        figures: Contents of its ``edit.json``.
        seconds: Duration of the computation.
        options: Options that differ from the defaults, in words.
    """

    way: str
    run: Run
    figures: dict[str, Any]
    seconds: float
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return the display name of the edit method."""
        return LABELS[self.way]

    @property
    def estimate(self) -> bool:
        """Return whether the result is an estimate of retraining rather than a measurement of it."""
        return self.way == "linear"


def outcomes(context: Context, changes: Changes) -> dict[str, EditOutcome]:
    """Return the newest finished edit by each method for exactly these changes, whatever its options.

    Of a control, the run with the same options as the edit that it is compared with is preferred.
    """
    found = {way: runs for way in EDIT_METHODS if (runs := _edits(context, way, changes))}
    newest = {way: runs[0] for way, runs in found.items()}
    for control in CONTROLS:
        way = control.removesuffix("-all")
        if {way, control} <= newest.keys():
            alike = (run for run in found[control] if _same_options(run, newest[way]))
            newest[control] = next(alike, newest[control])
    return {way: _outcome(context, way, run) for way, run in newest.items()}


def has_default_options(context: Context, changes: Changes) -> set[str]:
    """Return the methods whose edit for these changes with the command line's default settings is finished."""
    found = context.workspace.runs.find
    questions = {way: cache_key(context.project, way, changes, SOLVE, FINETUNE, Compute()) for way in EDIT_METHODS}
    return {way for way, question in questions.items() if found(run_kind(way), question)}


def _edits(context: Context, way: str, changes: Changes) -> list[Run]:
    """Return the finished edits by one method that belong to the changes, newest first."""
    belongs: dict[str, Any] = dict(context.project.hashes)
    if way not in CONTROLS:
        belongs["removal"] = changes.hash
    if way == "linear":
        belongs["engine"] = ENGINE_VERSION
    return context.workspace.runs.all(run_kind(way), belongs)


def _outcome(context: Context, way: str, run: Run) -> EditOutcome:
    seconds = sum(run.json("provenance.json")["seconds"].values())
    return EditOutcome(way, run, run.json("edit.json"), seconds, tuple(_options(context, way, run.config)))


def _options(context: Context, way: str, config: dict[str, Any]) -> list[str]:
    """Return the options of an edit that differ from the defaults."""
    changed = [] if config["dtype"] == Compute().dtype else [str(config["dtype"])]
    if way == "linear":
        changed = solve_differences(config, asdict(SOLVE)) + changed
    if way == "newton":
        changed = _differing(config["newton"], asdict(NEWTON)) + changed
    if way in ("steps", "steps-all"):
        usual = asdict(step_settings(context.project))
        begun_alike = config["steps"].get("rewind_tasks", 0) == usual.pop("rewind_tasks")
        began = [] if begun_alike else ["begun at the present model"]
        changed = _differing(config["steps"], usual) + began + changed
    if way.startswith("finetune"):
        changed = _differing(config, asdict(FINETUNE)) + changed
    return changed


def _differing(config: dict[str, Any], usual: dict[str, Any]) -> list[str]:
    now = {key: config.get(key, value) for key, value in usual.items()}
    return [f"{key.replace('_', ' ')} {now[key]:g}" for key in usual if now[key] != usual[key]]


def _same_options(one: Run, other: Run) -> bool:
    """Return whether two fine-tunes, or two runs of steps, have the same options."""
    keys = ("dtype", "steps", *asdict(FINETUNE))
    first, second = one.config, other.config
    return all(first.get(key) == second.get(key) for key in keys)


def options_words(found: dict[str, EditOutcome]) -> str:
    """Return a sentence on the edits with options other than the defaults; empty if there are none."""
    named = [f"{plain(one.label)}: {plain(', '.join(one.options))}" for one in found.values() if one.options]
    return f"Not the usual options. {'; '.join(named)}." if named else ""


def results_of_other_sets(context: Context, changes: Changes) -> int:
    """Return the number of finished edits of this problem that belong to other changes."""
    model = context.project.hashes["model"]
    configs = [run.config for way in EDIT_METHODS for run in context.workspace.runs.all(run_kind(way))]
    return sum(one["model"] == model and one.get("removal", changes.hash) != changes.hash for one in configs)


def changes_effect(found: dict[str, EditOutcome]) -> Interval | None:
    """Return the gain in accuracy due to the changes alone: fine-tuned with them against fine-tuned without them.

    Paired by held-out task; None until both are measured with the same options.
    """
    return _against_control(found, "finetune")


def steps_effect(found: dict[str, EditOutcome]) -> Interval | None:
    """Return the same for steps: with the changes against the same number of steps without them."""
    return _against_control(found, "steps")


def _against_control(found: dict[str, EditOutcome], way: str) -> Interval | None:
    """Return the difference of accuracies to the control, paired by held-out task.

    None without a control that has the same options.
    """
    control = f"{way}-all"
    if not {way, control} <= found.keys() or not _same_options(found[way].run, found[control].run):
        return None
    one, other = (table(found[name].run, "heldout.parquet").set_index("task_id")["accuracy"] for name in (way, control))
    return Interval.of((one - other).to_numpy())


def in_points(interval: dict[str, float] | Interval) -> str:
    """Return ``+1.2 points [+0.3, +2.1]`` for a difference of shares."""
    values = asdict(interval) if isinstance(interval, Interval) else interval
    mean, low, high = (_POINT * values[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def direction(interval: dict[str, float] | Interval) -> str:
    """Return ``higher``, ``lower`` or ``not clearly different``, by whether the interval includes 0."""
    values = asdict(interval) if isinstance(interval, Interval) else interval
    if values["low"] > 0:
        return "higher"
    return "lower" if values["high"] < 0 else "not clearly different (the interval holds 0)"


def findings(found: dict[str, EditOutcome]) -> list[str]:
    """Return sentences on the results that claim no more than the intervals do."""
    said = []
    if (effect := changes_effect(found)) is not None:
        said.append(
            f"**What the changes themselves did:** fine-tuned with them against fine-tuned without them, "
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
