"""Compare edit methods: what each gained, what it cost, and how close it came to a measured retraining."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from core.editing.steps import start_text
from core.maml.evaluation import Interval
from core.ui.edit.results import EditOutcome, accuracy_difference, changes_effect, direction, in_points

UNKNOWN = "unknown until retrained"
REFERENCE = "(reference)"
AGAINST_RETRAINING = "Compared with retraining"
AGAINST_CONTROL = "Compared with as many steps without the changes"
NO_CONTROL = "How much of it is due to longer training is unknown without the control."
STARTED_AT = "The steps started at"
COST_NOTE = (
    "Unit of cost: one meta-gradient, the gradient of one task through its adaptation; a product with its curvature "
    "counts as two, adaptation alone as half."
)


@dataclass(frozen=True)
class ShareOfRetraining:
    """A comparison of an edit with retraining.

    Attributes:
        share: The edit's change of accuracy over that of retraining; None where the latter is not clear.
        effect: ``gain`` or ``loss``: the direction of retraining's change.
        difference: Accuracy of the edit minus that of retraining.
    """

    share: float | None
    effect: str
    difference: Interval

    @property
    def words(self) -> str:
        """Return ``91 % of retraining's gain; -0.3 points [-0.9, +0.2] relative to it``."""
        share = "" if self.share is None else f"{100 * self.share:.0f} % of retraining's {self.effect}; "
        return f"{share}{in_points(self.difference)} relative to it"


def share_of_retraining(edit: EditOutcome, retrained: EditOutcome) -> ShareOfRetraining:
    """Compare an edit with a retraining on the same held-out tasks."""
    change, full_change = (outcome.figures["accuracy_change"] for outcome in (edit, retrained))
    is_clear = full_change["low"] > 0 or full_change["high"] < 0
    share = change["mean"] / full_change["mean"] if is_clear else None
    effect = "gain" if full_change["mean"] > 0 else "loss"
    return ShareOfRetraining(share, effect, accuracy_difference(edit, retrained))


def methods_table(found: dict[str, EditOutcome]) -> pd.DataFrame:
    """Return one row of texts per edit: changes with 95 % intervals, comparison with retraining, cost and seconds."""
    rows = []
    for method, outcome in found.items():
        figures = outcome.figures
        loss, predicted = figures["loss_change"], figures.get("predicted_loss_change")
        cost, share = _cost_words(outcome)
        rows.append(
            {
                "model": outcome.label,
                "kind": "estimate" if outcome.estimate else "measured",
                "accuracy change": in_points(figures["accuracy_change"]),
                "compared with retraining": _comparison_words(method, found),
                "meta-gradients": cost,
                "share of retraining's": share,
                "seconds": round(outcome.seconds, 1),
                "loss change": f"{loss['mean']:+.4f} [{loss['low']:+.4f}, {loss['high']:+.4f}]",
                "loss change predicted to first order": "" if predicted is None else f"{predicted:+.4f}",
            }
        )
    return pd.DataFrame(rows)


def _comparison_words(method: str, found: dict[str, EditOutcome]) -> str:
    if method == "retrain":
        return REFERENCE
    return share_of_retraining(found[method], found["retrain"]).words if "retrain" in found else UNKNOWN


def _cost_words(outcome: EditOutcome) -> tuple[str, str]:
    """Return the meta-gradients, and their share of a retraining's; empty where that is unknown."""
    cost = outcome.figures.get("cost")  # edits of earlier versions have no cost
    if cost is None:
        return "", ""
    share = cost["share_of_retraining"]
    return f"{cost['meta_gradients']:,.0f}", "" if share is None else f"{100 * share:.1f} %"


def approximation_findings(found: dict[str, EditOutcome]) -> list[str]:
    """Return a sentence on the best measured edit other than retraining, if any: its gain, its cost and its limits."""
    best = next((found[method] for method in ("steps", "newton") if method in found), None)
    if best is None:
        return []
    change, (_, share) = best.figures["accuracy_change"], _cost_words(best)
    cost = f", for {share} of the cost of retraining" if share else ""
    comparison = (
        f"{AGAINST_RETRAINING}: {share_of_retraining(best, found['retrain']).words}."
        if "retrain" in found
        else f"The difference to retraining is {UNKNOWN}."
    )
    control = ""
    if best.method == "steps":
        effect = changes_effect(found, "steps")
        control = (
            f" {NO_CONTROL}" if effect is None else f" {AGAINST_CONTROL}: {in_points(effect)}: {direction(effect)}."
        )
    start = f" {STARTED_AT} {words}." if (words := start_text(best.figures)) else ""
    return [f"**{best.label}, measured:** {in_points(change)}: {direction(change)}{cost}. {comparison}{control}{start}"]
