"""Compare edit methods: the net effect of each, what it cost, and how close it came to a measured retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from core.actions.edit_results import EditResult
from core.editing.net_effect import NO_CONTROL, heldout_difference
from core.editing.steps import start_text
from core.maml.evaluation import Interval
from core.ui.edit.results import LABELS, in_points
from core.ui.shell.context import table

UNKNOWN = "unknown until retrained"
REFERENCE = "(reference)"
AGAINST_RETRAINING = "compared with retraining"
STARTED_AT = "The steps started at"
COST_NOTE = (
    "Sorted by net effect. Unit of cost: one meta-gradient, the gradient of one task through its adaptation; a product "
    "with its curvature counts as two, adaptation alone as half. Cost and seconds are those of the edit, without its "
    "control."
)


@dataclass(frozen=True)
class ShareOfRetraining:
    """A comparison of an edit with retraining.

    Attributes:
        share: The edit's net effect over that of retraining; None where the latter is not known or not clear.
        effect: ``gain`` or ``loss``: the direction of retraining's net effect.
        difference: Accuracy of the edited model minus that of the retrained one.
    """

    share: float | None
    effect: str
    difference: Interval

    @property
    def words(self) -> str:
        """Return ``91 % of its net gain; accuracy -0.3 points [-0.9, +0.2] relative to it``."""
        share = "" if self.share is None else f"{100 * self.share:.0f} % of its net {self.effect}; "
        return f"{share}accuracy {in_points(self.difference)} relative to it"


def share_of_retraining(edit: EditResult, retrained: EditResult) -> ShareOfRetraining:
    """Compare an edit with a retraining on the same held-out tasks."""
    edited, full_table = (table(one.run, "heldout.parquet") for one in (edit, retrained))
    difference = heldout_difference(edited, full_table)
    if edit.effect is None or retrained.effect is None:
        return ShareOfRetraining(None, "", difference)
    net, full = edit.effect.accuracy, retrained.effect.accuracy
    share = net.mean / full.mean if full.low > 0 or full.high < 0 else None
    return ShareOfRetraining(share, "gain" if full.mean > 0 else "loss", difference)


def methods_table(found: Sequence[EditResult]) -> pd.DataFrame:
    """Return one row of texts per edit: net effect with its 95 % interval, cost and seconds, and the parts of it."""
    retrained = next((one for one in found if one.method == "retrain"), None)
    return pd.DataFrame([_row(one, retrained) for one in found])


def _row(one: EditResult, retrained: EditResult | None) -> dict[str, object]:
    effect, predicted = one.effect, one.figures.get("predicted_loss_change")
    cost, share = _cost_words(one)
    return {
        "model": LABELS[one.method],
        "kind": "estimate" if one.is_estimate else "measured",
        "net effect": NO_CONTROL if effect is None else in_points(effect.accuracy),
        "meta-gradients": cost,
        "seconds": round(one.seconds, 1),
        "share of retraining's": share,
        "procedure by itself": "" if effect is None or effect.procedure is None else in_points(effect.procedure),
        "from the unedited model": in_points(one.change),
        AGAINST_RETRAINING: _comparison_words(one, retrained),
        "net change of the loss": "" if effect is None else effect.loss.text("+.4f"),
        "predicted to first order": "" if predicted is None else f"{predicted:+.4f}",
    }


def _comparison_words(one: EditResult, retrained: EditResult | None) -> str:
    if one.method == "retrain":
        return REFERENCE
    return UNKNOWN if retrained is None else share_of_retraining(one, retrained).words


def _cost_words(one: EditResult) -> tuple[str, str]:
    """Return the meta-gradients, and their share of a retraining's; empty where that is unknown."""
    cost = one.figures.get("cost")  # edits of earlier versions have no cost
    if cost is None:
        return "", ""
    share = cost["share_of_retraining"]
    return f"{cost['meta_gradients']:,.0f}", "" if share is None else f"{100 * share:.1f} %"


def start_finding(found: Sequence[EditResult]) -> list[str]:
    """Return a sentence on the training snapshot that the small steps started at, if they selected one."""
    starts = [start_text(one.figures) for one in found if one.method == "steps"]
    return [f"{STARTED_AT} {start}." for start in starts if start]
