"""Read finished removal curves and summarise them in sentences."""

from __future__ import annotations

import pandas as pd

from core.actions.curve import KIND
from core.ui.shell.context import Context
from core.ui.shell.text import count, minute_of
from core.workspace.runs import Run

ORDER_NAMES = {
    "recommended": "recommended order",
    "harmful": "most harmful first",
    "loss": "highest loss first",
    "random": "random order",
}
NO_GAIN = "No gain"
ONE_SEED = "with one seed, so it may be due to chance"
UNCLEAR = "the sign differs between seeds, so there is no clear difference"
START = "none"
"""The order of the point at share 0, where the line of every order starts."""


def curves(context: Context) -> dict[str, Run]:
    """Return the finished curves of the present problem by run id, newest first."""
    return {run.id: run for run in context.workspace.runs.all(KIND, context.project.hashes)}


def curve_label(run: Run) -> str:
    """Return ``tasks · harmful, random · up to 40 % · 3 seeds · 40 steps · 2026-01-31 12:00 UTC``."""
    config = run.config
    return (
        f"{config['by']} · {', '.join(config['orders'])} · up to {max(config['shares']):.0%} · "
        f"{count(config['seeds'], 'seed')} · {count(config['finetune']['iterations'], 'step')} · "
        f"{minute_of(run.finished)} UTC · {run.id[-6:]}"
    )


def averages(points: pd.DataFrame) -> pd.DataFrame:
    """Return mean, lowest and highest accuracy over seeds, one row per order and share."""
    return points.groupby(["order", "share"], sort=False, as_index=False).agg(
        removed=("removed", "first"),
        seeds=("seed", "size"),
        accuracy=("accuracy", "mean"),
        lowest=("accuracy", "min"),
        highest=("accuracy", "max"),
        loss=("loss", "mean"),
    )


def observations(points: pd.DataFrame) -> list[str]:
    """Return sentences on the results that claim no more than the points show."""
    leading = "recommended" if (points["order"] == "recommended").any() else "harmful"
    others = [order for order in ("random", "loss", "harmful") if order != leading]
    return [text for text in (_best(points), *(_comparison(points, leading, other) for other in others)) if text]


def _best(points: pd.DataFrame) -> str:
    means = averages(points)
    top = means.iloc[int(means["accuracy"].to_numpy().argmax())]
    bias = f"the best of {count(len(means), 'average')}, so optimistically biased"
    if top["order"] == START:
        return f"{NO_GAIN}: no removal exceeds the {top['accuracy']:.1%} of removing nothing ({bias})."
    start = means[means["order"] == START]
    reference = "" if start.empty else f", compared with {start['accuracy'].iloc[0]:.1%} with nothing removed"
    order = ORDER_NAMES[str(top["order"])]
    return f"Highest: {top['accuracy']:.1%} at {top['share']:.0%} removed, {order}{reference} ({bias})."


def _comparison(points: pd.DataFrame, leading: str, other: str) -> str:
    """Compare an order with another one at the largest share, seed by seed; empty if not measured."""
    last = points[(points["share"] == points["share"].max()) & (points["order"] != START)]
    by_seed = last.pivot_table(index="seed", columns="order", values="accuracy")
    if not {leading, other} <= set(by_seed.columns):
        return ""
    difference = 100 * (by_seed[leading] - by_seed[other])
    text = (
        f"At {last['share'].iloc[0]:.0%} removed, {ORDER_NAMES[leading]} compared with {ORDER_NAMES[other]}: "
        f"{difference.mean():+.1f} points"
    )
    if len(difference) == 1:
        return f"{text} {ONE_SEED}."
    is_clear = (difference > 0).all() or (difference < 0).all()
    verdict = "the same sign with every seed" if is_clear else UNCLEAR
    return f"{text} ({difference.min():+.1f} to {difference.max():+.1f} over {len(difference)} seeds): {verdict}."
