"""Show the result of an experiment: findings, tables, plots, images, and the download."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from core.experiments.catalog import Experiment
from core.experiments.picture_sheet import score_text
from core.experiments.results import ExperimentResult, Grid, Plot, Table
from core.runtime.csv_files import csv_text
from core.runtime.progress import format_duration
from core.ui.charts.common import CONFIG
from core.ui.charts.experiments import plot_figure
from core.ui.experiments.read import StoredResult, read, results_of, sheet_of
from core.ui.export.results import zip_files
from core.ui.shell.guard import guarded_data, report_errors
from core.ui.shell.text import count, plain

PAPER_NOTE = "Grey columns: values from the paper, not measured here."
NO_RESULT = (
    "This experiment has no result on this machine yet. Choose a size above and start it. The result will appear here, "
    "with a download of its tables, plots and the measurements of every seed."
)
MISSING_IMAGE = "is missing. Run the experiment again; measurements are kept."


def results_panel(experiment: Experiment) -> None:
    """Show the newest result of an experiment, or the one chosen."""
    st.subheader(f"Result of {plain(experiment.title)}")
    found = results_of(experiment.name)
    if not found:
        st.info(NO_RESULT)
        return
    chosen = st.segmented_control(
        "Result",
        list(found),
        default=next(iter(found)),
        format_func=lambda profile: found[profile].label,
        key=f"experiment_result_{experiment.name}_{'_'.join(found)}",
        label_visibility="collapsed",
        required=True,
    )
    with report_errors():
        one = found[chosen or next(iter(found))]  # a browser can send none
        _result(one, read(one))


def _result(stored: StoredResult, result: ExperimentResult) -> None:
    st.caption(plain(_provenance(result.config)))
    st.markdown("\n".join(f"- {finding_markdown(finding)}" for finding in result.findings))
    name = stored.folder.name
    for table in result.tables:
        _table(table, name)
    for plot in result.plots:
        with report_errors():
            _plot(plot, name)
    for grid in result.grids:
        _grid(grid, stored)
    with st.expander("Settings, versions and command"):
        st.json(result.config)
    st.download_button(
        "Download everything (ZIP)",
        guarded_data(lambda: zip_files(stored.folder), "The download of the result"),
        f"{name}.zip",
        "application/zip",
        on_click="ignore",
        key=f"experiment_zip_{name}",
        help="Tables, measurements of every seed, plots as PNG and SVG, images, settings.",
    )


def _provenance(config: dict[str, Any]) -> str:
    parts = [count(int(config.get("seeds", 0)), "seed"), ", ".join(config.get("images", {}).values())]
    if "processor_seconds" in config:
        parts.append(f"{format_duration(config['processor_seconds'])} of processor time on {config.get('device', '')}")
    return " · ".join(part for part in parts if part)


def finding_markdown(finding: str) -> str:
    """Escape a finding except for the bold text between two pairs of stars."""
    parts = finding.split("**")
    if len(parts) % 2 == 0:
        return plain(finding)
    return " ".join(f"**{text}**" if at % 2 else text for at, part in enumerate(parts) if (text := plain(part)))


def _csv(table: Table) -> bytes:
    return csv_text(pd.DataFrame(table.rows, columns=pd.Index(table.columns))).encode("utf-8")


def _table(table: Table, result: str) -> None:
    st.markdown(f"##### {plain(table.title)}")
    shown, has_paper = mark_paper_columns(table)
    st.table(shown, border="horizontal")
    text, button = st.columns([5, 1], vertical_alignment="top")
    text.caption("  \n".join(plain(note) for note in (PAPER_NOTE if has_paper else "", table.note) if note))
    button.download_button(
        "Download (CSV)",
        guarded_data(lambda: _csv(table), "The download of the table"),
        f"{result}-{table.name}.csv",
        "text/csv",
        on_click="ignore",
        key=f"experiment_csv_{result}_{table.name}",
        help=f"Download the table {plain(table.title)}.",
        width="stretch",
    )


def mark_paper_columns(table: Table) -> tuple[pd.DataFrame, bool]:
    """Return the table as escaped Markdown with the paper's columns grey, and whether there are any."""
    is_paper = [name.lower().startswith("paper") for name in table.columns]

    def line(cells: list[str]) -> list[str]:
        texts = (plain(cell) for cell in cells)
        return [f":gray[{text}]" if grey and text else text for text, grey in zip(texts, is_paper, strict=True)]

    return pd.DataFrame([line(row) for row in table.rows], columns=pd.Index(line(table.columns))), any(is_paper)


def _plot(plot: Plot, result: str) -> None:
    st.markdown(f"##### {plain(plot.title)}")
    st.plotly_chart(plot_figure(plot), config=CONFIG, key=f"experiment_plot_{result}_{plot.name}")
    if plot.note:
        st.caption(plain(plot.note))


def _grid(grid: Grid, stored: StoredResult) -> None:
    """Show the sheet of a grid, which contains title and note, with the same text for screen readers."""
    if (picture := sheet_of(stored, grid.name)) is None:
        st.caption(f"The image of “{plain(grid.title)}” {MISSING_IMAGE}")
        return
    scores = "; ".join(f"{one.title}: {score_text(one)}, {one.words}" for one in grid.pictures)
    style = "max-width:100%;height:auto;border-radius:8px;border:1px solid rgba(127,127,127,0.35)"
    st.html(f'<img src="{picture}" alt="{escape(f"{grid.title}. {scores}. {grid.note}")}" style="{style}">')
