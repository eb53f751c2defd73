"""Trust: how well each ranking predicts the effect of retraining, and its cost."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.evidence.agreement import MEASURES, agreement_of
from core.runtime.csv_files import csv_text
from core.ui.charts.common import CONFIG
from core.ui.charts.evidence import agreement_figure, methods_figure
from core.ui.shell.command import command_block
from core.ui.shell.context import page, table
from core.ui.shell.guard import guarded_data
from core.ui.shell.precomputed import precomputed_note
from core.ui.shell.text import plain
from core.ui.trust.evidence_panel import evidence_panel
from core.ui.trust.evidence_results import (
    caution,
    evidence_label,
    evidence_runs,
    figures_table,
    findings,
    points,
    ranked_methods,
    settings_words,
    spearman,
)
from core.workspace.runs import Run

_ALL = "mean of all targets"


def main() -> None:
    """Draw the page."""
    with page("Trust") as context:
        st.caption(
            "TaskLens retrains models on subsets of the tasks. A method is reliable if the losses that it predicts "
            "rank these models in the same order as their measured losses."
        )
        found = evidence_runs(context)
        if found:
            run = _chosen(found)
            precomputed_note(context, run)
            _result(run)
            with st.expander("Measure again, with other methods or more retrainings"):
                args = evidence_panel(context)
        else:
            st.info(
                "No ranking of this problem has been validated against retraining yet, so scores are unchecked "
                "estimates. The panel below validates every method on the same retrained models."
            )
            args = evidence_panel(context)
        command_block(context, args)


def _chosen(found: dict[str, Run]) -> Run:
    labels = {run_id: evidence_label(run) for run_id, run in found.items()}
    chosen = st.selectbox("Finished measurements", list(found), format_func=lambda name: labels[name], key="trust_run")
    return found[chosen]


def _result(run: Run) -> None:
    methods, about = table(run, "methods.parquet"), run.json("evidence.json")
    measure = st.segmented_control(
        "Rank correlation over",
        list(MEASURES),
        default="lds",
        format_func=lambda name: MEASURES[name],
        key="trust_measure",
        required=True,
    )
    measure = measure or "lds"  # a browser can send none
    agreement = agreement_of(methods, measure)
    if first := caution(run, measure):
        (st.info if agreement.allows_ranking else st.warning)(first)
    st.markdown("\n".join(f"- {sentence}" for sentence in findings(run, measure)))
    rated = ranked_methods(methods, measure)
    if agreement.allows_ranking:
        st.plotly_chart(methods_figure(rated, agreement.ceiling, measure), config=CONFIG, key="trust_chart")
        st.caption(
            "Measured, with 95 % bootstrap intervals over subsets. 1: the predicted losses rank the retrained models "
            "as the measured losses do; 0: no better than chance. Methods are compared with the mean of all seeds, but "
            "the ceiling compares one half of the seeds with the other, so a method can exceed it."
        )
    st.caption(settings_words(about))
    st.subheader("Rank correlations and cost" if agreement.allows_ranking else "Cost of the methods")
    st.dataframe(figures_table(methods, measure), hide_index=True, column_config=_COLUMNS)
    text, button = st.columns([5, 1], vertical_alignment="top")
    text.caption(
        "Seconds: the method alone; for the ceiling, all retrainings. Memory: peak memory of the process during the "
        "computation. The file has the figures of every method, also those that are not shown because retrainings do "
        "not agree."
    )
    button.download_button(
        "Download (CSV)",
        guarded_data(lambda: csv_text(methods).encode("utf-8"), "The download of the table"),
        f"{run.id}.csv",
        "text/csv",
        on_click="ignore",
        key="trust_csv",
        width="stretch",
    )
    if agreement.allows_ranking and not rated.empty:
        _one_method(run, methods, rated)


def _one_method(run: Run, methods: pd.DataFrame, rated: pd.DataFrame) -> None:
    """Show predicted against measured losses of a method, for a target on which the retrainings agree."""
    single, mean = (agreement_of(methods, measure).allows_ranking for measure in MEASURES)
    targets = [*([_ALL] if mean else []), *(run.json("evidence.json")["targets"] if single else [])]
    st.subheader("Predicted and measured loss of one method")
    left, right = st.columns([1, 3], gap="large")
    method = left.selectbox("Method", rated["method"].tolist(), key=f"trust_method_{run.id}")
    target = left.selectbox("Target", targets, key=f"trust_target_{run.id}")
    shown = points(run, method, None if target == _ALL else target)
    row = rated[rated["method"] == method].iloc[0]
    left.metric("Rank correlation of these points", f"{spearman(shown):.2f}", help="Spearman's rank correlation.")
    left.caption(plain(row["words"]) + (f"  \nNote: {plain(row['note'])}" if row["note"] else ""))
    right.plotly_chart(agreement_figure(shown, row["kind"]), config=CONFIG, key="trust_agreement")
    right.caption(
        "One dot per subset. Horizontal: predicted loss, an estimate. Vertical: measured loss, mean and range of seeds."
    )


_NUMBER = st.column_config.NumberColumn
_COLUMNS: dict[str, Any] = {
    "method": "Method",
    "kind": "Kind",
    "words": st.column_config.TextColumn("Description", width="large"),
    "lds": _NUMBER("Each target", format="%.2f", help="Rank correlation, mean over targets."),
    "lds_low": _NUMBER("Low", format="%.2f"),
    "lds_high": _NUMBER("High", format="%.2f"),
    "lds_mean": _NUMBER("Mean loss", format="%.2f", help="Rank correlation with the mean loss of all targets."),
    "lds_mean_low": _NUMBER("Low ", format="%.2f"),
    "lds_mean_high": _NUMBER("High ", format="%.2f"),
    "auc": _NUMBER(
        "AUC, injected noise",
        format="%.3f",
        help="Area under the ROC curve for finding the tasks with injected label noise; another question than "
        "predicting retraining.",
    ),
    "seconds": _NUMBER("Seconds", format="%.1f"),
    "memory_gb": _NUMBER("Memory, GB", format="%.2f"),
    "residual": _NUMBER("Residual", format="%.0e", help="The largest relative residual of its solves."),
    "note": st.column_config.TextColumn("Note", width="medium"),
}

main()
