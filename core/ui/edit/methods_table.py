"""Compare edit methods: what each gained, what it cost, and how close it came to a measured retraining."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from core.editing.steps import start_text
from core.maml.evaluation import Interval
from core.ui.edit.results import EditOutcome, direction, in_points, steps_effect
from core.ui.shell.context import table

NOT_MEASURED = "not measured: retrain to know"
COST_WORDS = (
    "Cost: one meta-gradient is the gradient of one task through its adaptation; a product with its curvature counts "
    "as two, adapting alone as half."
)


@dataclass(frozen=True)
class ShareOfRetraining:
    """A comparison of an edit with retraining.

    Attributes:
        share: The edit's change of accuracy over that of retraining; None where the latter is not clearly different
            from 0.
        word: ``gain`` or ``loss``: the direction of retraining's change.
        apart: Accuracy of the edit minus that of retraining, paired by held-out task.
    """

    share: float | None
    word: str
    apart: Interval

    @property
    def words(self) -> str:
        """Return ``91 % of retraining's gain, -0.3 points [-0.9, +0.2] from it``."""
        share = "" if self.share is None else f"{100 * self.share:.0f} % of retraining's {self.word}, "
        return f"{share}{in_points(self.apart)} from it"


def share_of_retraining(one: EditOutcome, retrained: EditOutcome) -> ShareOfRetraining:
    """Compare an edit with a retraining on the same held-out tasks."""
    whole, change = (found.figures["accuracy_change"] for found in (retrained, one))
    have, want = (table(found.run, "heldout.parquet").set_index("task_id")["accuracy"] for found in (one, retrained))
    clear = whole["low"] > 0 or whole["high"] < 0
    share = change["mean"] / whole["mean"] if clear else None
    return ShareOfRetraining(share, "gain" if whole["mean"] > 0 else "loss", Interval.of((have - want).to_numpy()))


def ladder_table(found: dict[str, EditOutcome]) -> pd.DataFrame:
    """Return one row of texts per edit.

    The columns are the changes against the unedited model with 95 % intervals, closeness to retraining, cost and
    seconds.
    """
    rows = []
    for way, outcome in found.items():
        figures = outcome.figures
        loss, predicted = figures["loss_change"], figures.get("predicted_loss_change")
        cost, share = cost_words(outcome)
        rows.append(
            {
                "model": outcome.label,
                "kind": "estimate" if outcome.estimate else "measured",
                "accuracy change": in_points(figures["accuracy_change"]),
                "closeness to retraining": _closeness_words(way, found),
                "meta-gradients": cost,
                "share of retraining's": share,
                "seconds": round(outcome.seconds, 1),
                "loss change": f"{loss['mean']:+.4f} [{loss['low']:+.4f}, {loss['high']:+.4f}]",
                "loss change predicted to first order": "" if predicted is None else f"{predicted:+.4f}",
            }
        )
    return pd.DataFrame(rows)


def _closeness_words(way: str, found: dict[str, EditOutcome]) -> str:
    if way == "retrain":
        return "itself"
    return share_of_retraining(found[way], found["retrain"]).words if "retrain" in found else NOT_MEASURED


def cost_words(outcome: EditOutcome) -> tuple[str, str]:
    """Return the meta-gradients, and their share of a retraining's; empty where that is unknown."""
    cost = outcome.figures.get("cost")  # edits of earlier versions have no cost
    if cost is None:
        return "", ""
    share = cost["share_of_retraining"]
    return f"{cost['meta_gradients']:,.0f}", "" if share is None else f"{100 * share:.1f} %"


def ladder_sentence(found: dict[str, EditOutcome]) -> str | None:
    """Return a sentence on the best method below retraining: its gain, its cost and how far it can be trusted.

    None if there is no such edit.
    """
    rung = next((found[way] for way in ("steps", "newton") if way in found), None)
    if rung is None:
        return None
    change = rung.figures["accuracy_change"]
    _, share = cost_words(rung)
    price = f", for {share} of the cost of retraining" if share else ""
    close = (
        f"Against retraining: {share_of_retraining(rung, found['retrain']).words}."
        if "retrain" in found
        else "How close that is to retraining is not measured until it is retrained."
    )
    longer = ""
    if rung.way == "steps":
        effect = steps_effect(found)
        longer = (
            " How much of it comes of training for longer is not measured without the control."
            if effect is None
            else f" As many steps without the changes leave this to them: {in_points(effect)}: {direction(effect)}."
        )
    began = f" They began at {words}." if (words := start_text(rung.figures)) else ""
    return f"**{rung.label}, measured:** {in_points(change)}: {direction(change)}{price}. {close}{longer}{began}"
