"""Show how a queue was made, how reliable it is and how many label errors it predicts; start a new one."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.actions.queue import KIND, QueueSettings
from core.review.calibration import COMBINATION
from core.review.forecast import Forecast
from core.review.review_queue import SCORES, Queue
from core.runtime.progress import format_duration
from core.runtime.settings import arguments_of
from core.ui.charts.review import curves_figure, forecast_figure
from core.ui.charts.scores import CONFIG
from core.ui.review.forecast import latest_forecast
from core.ui.review.live import current_state
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, table
from core.ui.shell.jobs import jobs_of, start_button
from core.ui.shell.text import count, plain
from core.workspace.runs import Run

NAMES = {
    COMBINATION: "Combination",
    "classifier": "Both classifiers",
    "discriminant": "Discriminant classifier",
    "kernel": "Kernel classifier",
    "task_loss": "Loss in its own task",
    "others": "Doubt of the rest of its task",
    "votes": "Other tasks' labels",
    **{name: words for name, words in SCORES.items() if name not in ("classifier", "suspicion", "probability")},
}
"""Display names of the candidates."""
_PLANTED = {
    "uniform": "any other class",
    "look-alike": "the class that looks most alike",
    "hardest": "the class that is hardest to tell",
    "within tasks": "half of the labels of few tasks",
}
_STAGES = ("features", "scores", "planted labels", "map")
_EVERY_SECONDS = 2.0
_MEASURED_ON = (
    "Measured on labels that were flipped on purpose on a copy, not on the data's own wrong labels, which may be of "
    "another kind."
)


def queue_panels(context: Context, queue: Queue, blind: bool) -> None:
    """Draw the forecast and how the queue was made; each is computed only while it is open."""
    forecast = st.expander("How many wrong labels are left", key="review_open_forecast", on_change="rerun")
    if forecast.open:
        with forecast:
            _forecast(context, queue, blind)
    made = st.expander("How this queue was made, and making another", key="review_open_queue", on_change="rerun")
    if made.open:
        with made:
            _made(context, Run(queue.folder))


@st.fragment(run_every=_EVERY_SECONDS)
def _forecast(context: Context, queue: Queue, blind: bool) -> None:
    if not Run(queue.folder).json("summary.json")["calibrated"]:
        st.info(
            "This queue is not calibrated: it was built without injected errors, so the number of label errors is "
            "unknown. Build another queue below, with injected errors."
        )
        return
    told = latest_forecast(queue, current_state(context, queue, blind), context.reviewer if blind else None)
    if told is None:
        st.caption("Being worked out …")
        return
    if told.forecast is None:
        st.info("This queue has no injected errors, so there is no forecast.")
        return
    n = len(queue)
    key = f"review_forecast_depth_{queue.run_id}"
    st.session_state.setdefault(key, min(n, max(1, round(float(told.forecast.found[-1])))))
    ask, words = st.columns([1, 4], vertical_alignment="bottom")
    depth = int(ask.number_input("If I check the first", 1, n, step=10, key=key))
    words.markdown(depth_words(told.forecast, depth, told.on_items.errors_found))
    st.plotly_chart(
        forecast_figure(told.forecast, told.on_items.is_wrong, depth), config=CONFIG, key="review_forecast_chart"
    )
    st.caption(
        "Dotted: estimates with 90 % intervals, from how likely a classifier that has not seen them finds the labels, "
        "corrected by what has been decided. Solid: wrong labels (removed or relabelled) found down to each depth, as "
        "decided. Below: the expected share of wrong ones among all down to that depth."
    )


def depth_words(told: Forecast, depth: int, found: int) -> str:
    """Return ``… about 310 of them are wrong [290, 330], and 46 [30, 66] wrong labels remain below.``"""

    def span(middle: Any, low: Any, high: Any) -> str:
        return f"**{middle[depth]:,.0f}** [{low[depth]:,.0f}, {high[depth]:,.0f}]"

    done = f" {found:,} are found by now, anywhere in the queue." if found else ""
    return (
        f"of {len(told.found) - 1:,}, about {span(told.found, told.found_low, told.found_high)} of them are wrong, and "
        f"{span(told.remaining, told.remaining_low, told.remaining_high)} wrong labels remain below "
        f"(estimates, 90 % intervals).{done}"
    )


def _made(context: Context, run: Run) -> None:
    summary = run.json("summary.json")
    st.markdown("\n".join(f"- {line}" for line in method_lines(run)))
    if summary["calibrated"]:
        _candidates(run)
    st.markdown("**Make another**")
    _another(context, summary)


def method_lines(run: Run) -> list[str]:
    """Return sentences, as Markdown, on how the queue was made."""
    summary, config = run.json("summary.json"), run.config
    unit = "image" if summary["level"] == "image" else "row"
    why = (
        "an item is an image, as each has one class in all its tasks"
        if summary["level"] == "image"
        else "an item is a row of a task, as some images have different classes in different tasks"
    )
    ranking = str(summary["ranking"])
    lines = [f"{count(summary['items'], unit)}: {why}"]
    if summary["calibrated"]:
        lines.append(
            f"Ranked by **{plain(_named(ranking))}**, which finds planted wrong labels best, weighed by how "
            "common each kind seems here"
        )
    else:
        lines.append(
            f"Ranked by **{plain(_named(ranking))}**. **Not calibrated**: nothing was planted, so neither the best "
            "score nor the number of wrong labels is known"
        )
    weights = {name: value for name, value in summary.get("weights", {}).items() if value > 0}
    if ranking == COMBINATION and weights:
        largest = sorted(weights.items(), key=lambda one: -one[1])
        lines.append("Weights of the combination: " + ", ".join(f"{plain(_named(k))} {v:.2f}" for k, v in largest))
    if planted := summary.get("planted"):
        parts = [f"{number:,} to {_PLANTED.get(kind, plain(kind))}" for kind, number in planted.items()]
        lines.append(f"Planted on {count(len(planted), 'copy', 'copies')}: {'; '.join(parts)}")
    if "rounds" in config:
        slow = ", ".join(_named(name) for name in config.get("slow", ())) or "none"
        lines.append(f"Rounds of tasks drawn for scoring: {config['rounds']}; slow scores: {plain(slow)}")
    if seconds := _seconds(summary):
        parts = [
            f"{name} {format_duration(summary['seconds'][name])}" for name in _STAGES if name in summary["seconds"]
        ]
        lines.append(f"It took {format_duration(seconds)}: {', '.join(parts)}")
    return lines


def _named(candidate: str) -> str:
    return NAMES.get(candidate, candidate)


def _seconds(summary: dict[str, Any]) -> float:
    return float(sum(summary.get("seconds", {}).get(name, 0.0) for name in _STAGES))


def _candidates(run: Run) -> None:
    """Show how well each score finds the injected label errors, as a table and as curves."""
    curves = table(run, "curves.parquet")
    shown = _candidate_table(str(run.folder), run)
    st.dataframe(
        shown, hide_index=True, height="content", column_config={"mean": st.column_config.NumberColumn(format="%.3f")}
    )
    st.caption(
        f"Average precision with its 95 % interval, and recall: the share of the planted found once as many are "
        f"checked. Items that a classifier doubts are set aside: they may be wrong labels of the data. {_MEASURED_ON}"
    )
    kinds = curves["planted"].unique().tolist()
    order = shown["candidate"].tolist()
    ranking = str(run.json("summary.json")["ranking"])
    best = next((name for name in order if _id(name) != ranking), "")
    usual = [name for name in order if _id(name) in (ranking, "loss") or name == best]
    left, right = st.columns([2, 3])
    kind = left.selectbox(
        "Planted", kinds, format_func=lambda name: _PLANTED.get(name, name), key=f"review_planted_{run.id}"
    )
    drawn = right.multiselect("Curves", order, usual, key=f"review_curves_{run.id}")
    st.plotly_chart(
        curves_figure(
            curves[curves["planted"] == kind],
            [_id(name) for name in drawn],
            ranking,
            {_id(name): name for name in order},
        ),
        config=CONFIG,
        key="review_curves_chart",
    )


def _id(name: str) -> str:
    return next((one for one, words in NAMES.items() if words == name), name)


@st.cache_resource(max_entries=16, show_spinner=False)
def _candidate_table(folder: str, _run: Run) -> pd.DataFrame:
    return candidate_table(table(_run, "candidates.parquet"))


def candidate_table(candidates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per candidate, the best on average first.

    The columns are whether it ranks the queue (a tick), the mean, and precision and recall by kind as text.

    Args:
        candidates: See :class:`core.review.calibration.Calibration`.
    """
    lines = []
    for name, part in candidates.groupby("candidate", sort=False):
        line: dict[str, Any] = {
            "candidate": _named(str(name)),
            "ranks": "✓" if part["chosen"].any() else "",
            "mean": round(float(part["average_precision"].mean()), 3),
        }
        for one in part.itertuples():
            line[f"precision, {one.planted}"] = f"{one.average_precision:.3f} [{one.low:.3f}, {one.high:.3f}]"
            line[f"recall, {one.planted}"] = f"{one.recall:.0%}"
        lines.append(line)
    return pd.DataFrame(lines).sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _another(context: Context, summary: dict[str, Any]) -> None:
    one, two, three = st.columns([3, 1, 2], vertical_alignment="bottom")
    slow = widgets.several(one, QueueSettings, "slow", key="review_slow", format_func=_named, placeholder="None")
    rounds = widgets.number(two, QueueSettings, "rounds", key="review_rounds")
    planting = widgets.checkbox(three, QueueSettings, "calibrate", key="review_calibrate")
    settings = QueueSettings(tuple(slow), rounds, planting)
    args = queue_args(settings)
    running = any(job.status() == "running" for job in jobs_of(context.workspace.jobs, "review queue"))
    if _exists(context, settings):
        st.caption("There is a queue of just these settings already; it would not be made again.")
    elif not running:
        start_button(context, "Make the queue again", "Review queue", args, key="review_make_again")
    st.caption(time_words(_seconds(summary), settings, summary["calibrated"]))
    command_block(context, args)


def queue_args(settings: QueueSettings) -> list[str]:
    """Return the command that builds a queue with these settings."""
    return ["review", "queue", *arguments_of(settings)]


def time_words(seconds: float, settings: QueueSettings, planted: bool) -> str:
    """Return the expected duration, based on that of the last queue."""
    if not seconds:
        return "How long it takes is not known: the last one does not say."
    words = f"The present queue took {format_duration(seconds)} {'with' if planted else 'without'} planting"
    if settings.calibrate != planted:
        words += "; planting rates all labels again for every copy, about four times the work in all"
    if settings.slow:
        words += (
            "; slow scores come on top and were not timed here: expect minutes, several times as many with planting"
        )
    return f"{words}. It runs in the background; you can go on reviewing."


def _exists(context: Context, settings: QueueSettings) -> bool:
    wanted = {
        **context.project.hashes,
        "slow": list(settings.slow),
        "rounds": settings.rounds,
        "calibrate": settings.calibrate,
    }
    return any(wanted.items() <= run.config.items() for run in context.workspace.runs.all(KIND))
