"""Show how a queue was built, how reliable it is and how many label errors it predicts; build a new one."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.actions.compute import Compute
from core.actions.queue import KIND, QueueSettings, cache_key
from core.review.calibration import COMBINATION
from core.review.forecast import Forecast
from core.review.review_queue import SCORES, Queue
from core.runtime.progress import format_duration
from core.runtime.settings import arguments_of
from core.ui.charts.common import CONFIG
from core.ui.charts.review import curves_figure, forecast_figure
from core.ui.review.forecast import latest_forecast
from core.ui.review.live import current_state
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, table
from core.ui.shell.guard import fragment
from core.ui.shell.jobs import is_running, start_button
from core.ui.shell.precomputed import precomputed_note
from core.ui.shell.text import count, plain
from core.workspace.runs import Run

NAMES = {
    COMBINATION: "Combination",
    "classifier": "Both classifiers",
    "discriminant": "Discriminant classifier",
    "kernel": "Kernel classifier",
    "task_loss": "Loss in its own task",
    "others": "Disagreement with the rest of its task",
    "votes": "Votes of other tasks' labels",
    **{name: words for name, words in SCORES.items() if name not in ("classifier", "suspicion", "probability")},
}
"""Display names of the candidates."""
_ERROR_KINDS = {
    "uniform": "any other class",
    "look-alike": "the most similar class",
    "hardest": "the class that is hardest to distinguish",
    "within tasks": "half of the labels of a few tasks",
}
_STAGES = {"features": "features", "scores": "scores", "planted labels": "injected errors", "map": "map"}
"""Names of the stages in ``summary.json``, and how they are shown."""
_EVERY_SECONDS = 2.0
MEASURED_ON = (
    "Measured on errors injected into a copy of the data, not on its own label errors, which may be of another kind."
)
COMPUTING = "Computing …"
UNKNOWN_DURATION = "The duration is unknown, as the present queue did not record it."
SLOW_SCORES = "the time of slow scores"
NOT_CALIBRATED = "Not calibrated"


def queue_panels(context: Context, queue: Queue, blind: bool) -> None:
    """Draw the forecast and how the queue was built; each is computed only while it is open."""
    forecast = st.expander("Remaining label errors", key="review_open_forecast", on_change="rerun")
    if forecast.open:
        with forecast:
            _forecast(context, queue, blind)
    method = st.expander("How this queue was built", key="review_open_queue", on_change="rerun")
    if method.open:
        with method:
            precomputed_note(context, Run(queue.folder))
            _method(context, Run(queue.folder))


@fragment("The forecast", run_every=_EVERY_SECONDS)
def _forecast(context: Context, queue: Queue, blind: bool) -> None:
    if not Run(queue.folder).json("summary.json")["calibrated"]:
        st.info(
            f"{NOT_CALIBRATED}: this queue was built without injected errors, so the number of label errors is "
            "unknown. Build another queue below, with injected errors."
        )
        return
    newest = latest_forecast(queue, current_state(context, queue, blind), context.reviewer if blind else None)
    if newest is None:
        st.caption(COMPUTING)
        return
    if newest.fault is not None:
        raise newest.fault
    if newest.forecast is None:
        st.info("This queue has no injected errors, so there is no forecast.")
        return
    n = len(queue)
    key = f"review_forecast_depth_{queue.run_id}"
    st.session_state.setdefault(key, min(n, max(1, round(float(newest.forecast.found[-1])))))
    ask, words = st.columns([1, 4], vertical_alignment="bottom")
    depth = int(ask.number_input("If you check the first", 1, n, step=10, key=key))
    words.markdown(depth_words(newest.forecast, depth, newest.decisions.errors_found))
    st.plotly_chart(
        forecast_figure(newest.forecast, newest.decisions.is_wrong, depth), config=CONFIG, key="review_forecast_chart"
    )
    st.caption(
        "Dotted: estimates with 90 % intervals, from the label probabilities of a classifier that has not seen these "
        "items, corrected by the decisions so far. Solid: label errors found (removed or relabelled) down to each "
        "depth. Lower plot: expected share of label errors among the items down to that depth."
    )


def depth_words(expected: Forecast, depth: int, found: int) -> str:
    """Return ``of 400: about **310** [290, 330] label errors among them and **46** [30, 66] remaining below.``"""

    def span(middle: Any, low: Any, high: Any) -> str:
        return f"**{middle[depth]:,.0f}** [{low[depth]:,.0f}, {high[depth]:,.0f}]"

    so_far = f" Found so far in the whole queue: {found:,}." if found else ""
    return (
        f"of {len(expected.found) - 1:,}: about {span(expected.found, expected.found_low, expected.found_high)} label "
        f"errors among them and {span(expected.remaining, expected.remaining_low, expected.remaining_high)} remaining "
        f"below (estimates, 90 % intervals).{so_far}"
    )


def _method(context: Context, run: Run) -> None:
    summary = run.json("summary.json")
    st.markdown("\n".join(f"- {line}" for line in _method_lines(run)))
    if summary["calibrated"]:
        _candidates(run)
    st.markdown("**Build another queue**")
    _build_another(context, summary)


def _method_lines(run: Run) -> list[str]:
    """Return sentences, as Markdown, on how the queue was built."""
    summary, config = run.json("summary.json"), run.config
    unit, why = (
        ("image", "an item is an image, as every image has one class in all its tasks")
        if summary["level"] == "image"
        else ("row", "an item is a row of a task, as some images have different classes in different tasks")
    )
    lines = [f"{count(summary['items'], unit)}: {why}", f"Ranked by **{plain(_candidate_name(summary['ranking']))}**"]
    if summary["calibrated"]:
        lines[-1] += ", which finds injected errors best, weighted by how common each kind seems to be in this data"
    else:
        lines.append(
            f"**{NOT_CALIBRATED}**: no errors were injected, so neither the best score nor the number of label "
            "errors is known"
        )
    largest = sorted(summary.get("weights", {}).items(), key=lambda one: -one[1])
    weights = ", ".join(f"{plain(_candidate_name(name))} {value:.2f}" for name, value in largest if value > 0)
    if summary["ranking"] == COMBINATION and weights:
        lines.append(f"Weights of the combination: {weights}")
    if injected := summary.get("planted"):
        parts = [f"{number:,} to {_ERROR_KINDS.get(kind, plain(kind))}" for kind, number in injected.items()]
        lines.append(f"Errors injected into {count(len(injected), 'copy', 'copies')} of the labels: {'; '.join(parts)}")
    if "rounds" in config:
        slow = ", ".join(_candidate_name(name) for name in config.get("slow", ())) or "none"
        lines.append(f"Rounds of tasks drawn for scoring: {config['rounds']}; slow scores: {plain(slow)}")
    if seconds := _seconds(summary):
        times = summary["seconds"]
        parts = [f"{words} {format_duration(times[name])}" for name, words in _STAGES.items() if name in times]
        lines.append(f"Duration: {format_duration(seconds)} ({', '.join(parts)})")
    return lines


def _candidate_name(candidate: str) -> str:
    return NAMES.get(candidate, candidate)


def _seconds(summary: dict[str, Any]) -> float:
    return float(sum(summary.get("seconds", {}).get(name, 0.0) for name in _STAGES))


def _candidates(run: Run) -> None:
    curves, shown = table(run, "curves.parquet"), candidate_table(table(run, "candidates.parquet"))
    columns = {"mean": st.column_config.NumberColumn(format="%.3f")}
    st.dataframe(shown, hide_index=True, height="content", column_config=columns)
    st.caption(
        "Average precision with its 95 % interval, and recall: the share of injected errors found after checking as "
        "many items as errors were injected. Items whose own label a classifier doubts are left out, as they may be "
        f"label errors. {MEASURED_ON}"
    )
    kinds, ranking = curves["planted"].unique().tolist(), str(run.json("summary.json")["ranking"])
    id_of = {words: name for name, words in NAMES.items()}
    names = {id_of.get(words, words): words for words in shown["candidate"]}
    best = next((name for name in names if name != ranking), "")
    initial = [name for name in names if name in (ranking, "loss", best)]
    left, right = st.columns([2, 3])
    kind = left.selectbox(
        "Injected errors", kinds, format_func=lambda name: _ERROR_KINDS.get(name, name), key=f"review_planted_{run.id}"
    )
    drawn = right.multiselect(
        "Curves", list(names), initial, format_func=names.__getitem__, key=f"review_curves_{run.id}"
    )
    figure = curves_figure(curves[curves["planted"] == kind], drawn, ranking, names)
    st.plotly_chart(figure, config=CONFIG, key="review_curves_chart")


@st.cache_resource(max_entries=16, show_spinner=False)
def candidate_table(candidates: pd.DataFrame) -> pd.DataFrame:
    """Return one row per candidate, the best on average first.

    The columns are whether it ranks the queue ("in use"), the mean, and precision and recall by kind as text.

    Args:
        candidates: See :class:`core.review.calibration.Calibration`.
    """
    lines = []
    for name, part in candidates.groupby("candidate", sort=False):
        line: dict[str, Any] = {
            "candidate": _candidate_name(str(name)),
            "in use": "✓" if part["chosen"].any() else "",
            "mean": round(float(part["average_precision"].mean()), 3),
        }
        for one in part.itertuples():
            line[f"precision, {one.planted}"] = f"{one.average_precision:.3f} [{one.low:.3f}, {one.high:.3f}]"
            line[f"recall, {one.planted}"] = f"{one.recall:.0%}"
        lines.append(line)
    return pd.DataFrame(lines).sort_values("mean", ascending=False, kind="stable", ignore_index=True)


def _build_another(context: Context, summary: dict[str, Any]) -> None:
    one, two, three = st.columns([3, 1, 2], vertical_alignment="bottom")
    slow = widgets.several(
        one, QueueSettings, "slow", key="review_slow", format_func=_candidate_name, placeholder="None"
    )
    rounds = widgets.number(two, QueueSettings, "rounds", key="review_rounds")
    calibrate = widgets.checkbox(three, QueueSettings, "calibrate", key="review_calibrate")
    settings = QueueSettings(tuple(slow), rounds, calibrate)
    args = queue_args(settings)
    if context.workspace.runs.find(KIND, cache_key(context.project, settings, Compute())):
        st.caption("A queue with these settings already exists.")
    elif not is_running(context.workspace.jobs, "review queue"):
        start_button(context, "Rebuild queue", "Build review queue", args, key="review_make_again")
    st.caption(time_words(_seconds(summary), settings, summary["calibrated"]))
    command_block(context, args)


def queue_args(settings: QueueSettings) -> list[str]:
    """Return the command that builds a queue with these settings."""
    return ["review", "queue", *arguments_of(settings)]


def time_words(seconds: float, settings: QueueSettings, was_calibrated: bool) -> str:
    """Return the expected duration, based on that of the present queue."""
    if not seconds:
        return UNKNOWN_DURATION
    words = (
        f"The present queue took {format_duration(seconds)} {'with' if was_calibrated else 'without'} injected errors"
    )
    if settings.calibrate != was_calibrated:
        words += "; with injected errors all labels are scored again for every copy, about four times the work"
    if settings.slow:
        words += f"; {SLOW_SCORES} was not measured here: expect minutes, several times as long with injected errors"
    return f"{words}. It runs in the background; you can continue to review."
