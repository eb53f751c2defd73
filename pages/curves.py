"""Curves: accuracy on held-out tasks as an increasing share of the training data is removed."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from core.actions.edit_cost import finetune_pace
from core.actions.recommend import newest_recommendation
from core.editing.curves import points
from core.editing.settings import FINETUNE, CurveSettings, FinetuneSettings, possible_orders
from core.maml.cost import seconds_of, training_passes
from core.runtime.csv_files import csv_text
from core.runtime.progress import format_duration
from core.runtime.settings import arguments_of
from core.ui.charts.common import CONFIG
from core.ui.charts.edit import curve_figure
from core.ui.edit.curve_results import ORDER_NAMES, averages, curve_label, curves, observations
from core.ui.ranking.panel import rank_now
from core.ui.shell import settings_widgets as widgets
from core.ui.shell.command import command_block
from core.ui.shell.context import RUN_HASH, Context, choose_ranking, page, ranking_label, table
from core.ui.shell.guard import guarded_data
from core.ui.shell.jobs import is_running, job_panel, start
from core.ui.shell.precomputed import precomputed_note
from core.ui.shell.text import count, plain
from core.workspace.runs import Run

_SHARES = tuple(range(0, 95, 5))


def main() -> None:
    """Draw the page."""
    with page("Curves") as context:
        st.caption(
            "For each order (as recommended, if there is a recommendation; most harmful first; highest loss first; at "
            "random) and each share, TaskLens removes that share of the training data, fine-tunes the model on the "
            "rest and measures it on held-out tasks."
        )
        ranking = choose_ranking(context)
        if ranking is None:
            st.info("Removal curves need a ranking of the training data. There is none yet.")
            rank_now(context, key="curve_rank")
            commands = [["rank"], ["curve", "--ranking", "newest"]]
        else:
            commands = [_form(context, ranking)]
            job_panel(context.workspace.jobs, "curve")
        _finished(context)
        command_block(context, *commands)


def _form(context: Context, ranking: Run) -> list[str]:
    """Draw the controls for a curve and start it; return its command."""
    has_recommendation = newest_recommendation(context.workspace, context.project) is not None
    choices = possible_orders(has_recommendation)
    with st.container(border=True):
        shares_place, orders_place = st.columns([2, 3])
        by_place, seeds_place, steps_place, button_place = st.columns([2, 2, 2, 2], vertical_alignment="bottom")
        by = widgets.segments(by_place, CurveSettings, "by", key="curve_by")
        shares = widgets.several(
            shares_place,
            CurveSettings,
            "shares",
            key="curve_shares",
            label="Shares removed, %",
            choices=_SHARES,
            value=[round(100 * share) for share in CurveSettings.shares],
        )
        orders = widgets.several(
            orders_place,
            CurveSettings,
            "orders",
            key="curve_orders_recommended" if has_recommendation else "curve_orders",
            choices=choices,
            value=choices,
            format_func=lambda name: ORDER_NAMES[name].removesuffix(" first").removesuffix(" order"),
        )
        seeds = widgets.number(seeds_place, CurveSettings, "seeds", key="curve_seeds")
        length = widgets.number(steps_place, FinetuneSettings, "finetune_steps", key="curve_steps")
        running = is_running(context.workspace.jobs, "curve")
        ready = bool(shares and orders)
        settings = CurveSettings(by, seeds=seeds)
        if ready:
            settings = replace(settings, shares=tuple(share / 100 for share in sorted(shares)), orders=tuple(orders))
            st.caption(_effort(context, settings, length))
        else:
            st.caption("Choose at least one share and one order.")
        args = ["curve", "--ranking", ranking.id, *arguments_of(settings), *arguments_of(FinetuneSettings(length))]
        if button_place.button(
            "Measure", type="primary", disabled=running or not ready, key="curve_start", width="stretch"
        ):
            start(context, f"Removal curve by {by}", args)
    return args


def _effort(context: Context, settings: CurveSettings, steps: int) -> str:
    """Return the amount of work of a curve, with the time where the pace of fine-tuning is known."""
    fits, pace = len(list(points(settings))), finetune_pace(context.workspace, context.project)
    recommended = "the newest recommendation and " if "recommended" in settings.orders else ""
    text = f"{count(fits, 'fine-tune')} of {count(steps, 'step')}, ordered by {recommended}the ranking in the sidebar"
    if pace is None:
        return text
    passes = training_passes(replace(FINETUNE, iterations=steps), len(context.project.tasks.train))
    seconds = fits * seconds_of(passes, pace)
    return f"{text}; about {format_duration(seconds)}"


def _finished(context: Context) -> None:
    found = curves(context)
    if not found:
        st.caption("No curve has been measured for this problem yet.")
        return
    labels = {run_id: curve_label(run) for run_id, run in found.items()}
    chosen = st.selectbox("Finished curves", list(found), format_func=lambda run_id: labels[run_id], key="curve_run")
    run = found[chosen]
    precomputed_note(context, run)
    measured, by = table(run, "points.parquet"), run.config["by"]
    sentences, means = _summary(run)
    st.markdown("\n".join(f"- {sentence}" for sentence in sentences))
    st.plotly_chart(curve_figure(measured, means, by), config=CONFIG, key=f"curve_chart_{run.id}")
    st.caption(
        f"Lines: mean over {count(run.config['seeds'], 'seed')}; bands: lowest to highest seed; faint dots: single "
        "seeds. The seed determines the random part and the task order of the fine-tune, not the held-out tasks, "
        "so ranges over seeds are not confidence intervals. "
        f"{_ranked_by(context, run)}"
    )
    with st.expander("Values"):
        st.dataframe(means.assign(order=means["order"].replace("none", "nothing removed")), hide_index=True)
        st.download_button(
            "Download all points (CSV)",
            guarded_data(lambda: csv_text(measured).encode("utf-8"), "The download of the points"),
            file_name=f"{run.id}.csv",
            mime="text/csv",
            on_click="ignore",
        )


@st.cache_data(max_entries=32, show_spinner=False, hash_funcs=RUN_HASH)
def _summary(run: Run) -> tuple[list[str], pd.DataFrame]:
    """Return the findings of a curve as sentences, and its averages over seeds."""
    measured = table(run, "points.parquet")
    return observations(measured), averages(measured)


def _ranked_by(context: Context, run: Run) -> str:
    known = {one.id: one for one in context.workspace.runs.all("rank")}
    ranking = known.get(run.config["ranking"])
    recommendation = f" Recommendation: {plain(one)}." if (one := run.config.get("recommendation")) else ""
    return f"Ranking: {plain(ranking_label(ranking) if ranking else run.config['ranking'])}.{recommendation}"


main()
