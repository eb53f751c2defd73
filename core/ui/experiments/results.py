"""One result of an experiment on the page: sentences, tables, plots, pictures, and everything to download."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from core.experiments.catalog import Experiment
from core.experiments.picture_sheet import score_words
from core.experiments.results import Grid, Plot, Result, Table
from core.runtime.progress import format_duration
from core.ui.charts.experiments import plot_figure
from core.ui.charts.scores import CONFIG
from core.ui.experiments.read import Found, frame_of, read, results_of, sheet_of
from core.ui.export.results import zip_files
from core.ui.shell.context import shown_errors
from core.ui.shell.text import count, plain

_PAPER = "paper"


def results_panel(experiment: Experiment) -> None:
    """The newest result of an experiment, or another one that is there."""
    st.subheader(f"Result of {plain(experiment.title)}")
    found = results_of(experiment.name)
    if not found:
        st.info(
            "This experiment has no result on this machine yet. Choose a size above and start it; the result will "
            "appear here, and can be downloaded as a folder of tables, plots and figures of every seed."
        )
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
    with shown_errors():
        _result(found[chosen], read(found[chosen]))


def _result(found: Found, result: Result) -> None:
    st.caption(plain(_made(result.config)))
    st.markdown("\n".join(f"- {sentence(said)}" for said in result.says))
    name = found.folder.name
    for table in result.tables:
        _table(table, name)
    for plot in result.plots:
        with shown_errors():
            _plot(plot, name)
    for grid in result.grids:
        _grid(grid, found)
    with st.expander("How it was made: settings, versions, command"):
        st.json(result.config)
    st.download_button(
        "Download everything (zip)",
        lambda: zip_files(found.folder),
        f"{name}.zip",
        "application/zip",
        on_click="ignore",
        key=f"experiment_zip_{name}",
        help="Tables, figures of every seed, plots as PNG and SVG, pictures, settings.",
    )


def _made(config: dict[str, Any]) -> str:
    """How much it is worth: seeds, image sets, and what it took."""
    parts = [count(int(config.get("seeds", 0)), "seed"), ", ".join(config.get("images", {}).values())]
    if "processor_seconds" in config:
        parts.append(f"{format_duration(config['processor_seconds'])} of processor time on {config.get('device', '')}")
    return " · ".join(part for part in parts if part)


def sentence(said: str) -> str:
    """To the letter, but for what stands between two pairs of stars: bold."""
    parts = said.split("**")
    if len(parts) % 2 == 0:
        return plain(said)
    return " ".join(f"**{text}**" if at % 2 else text for at, one in enumerate(parts) if (text := plain(one)))


def _table(table: Table, result: str) -> None:
    st.markdown(f"##### {plain(table.title)}")
    shown, papers = marked(table)
    st.table(shown, border="horizontal")
    notes = ["Grey columns: as printed in the paper, not measured here."] if papers else []
    notes += [table.note] if table.note else []
    text, button = st.columns([5, 1], vertical_alignment="top")
    text.caption("  \n".join(plain(note) for note in notes))
    button.download_button(
        "Download (csv)",
        lambda: frame_of(table).to_csv(index=False).encode("utf-8"),
        f"{result}-{table.name}.csv",
        "text/csv",
        on_click="ignore",
        key=f"experiment_csv_{result}_{table.name}",
        help=f"Download the table {plain(table.title)}.",
        width="stretch",
    )


def marked(table: Table) -> tuple[pd.DataFrame, bool]:
    """The table as Markdown that shows every cell to the letter, the paper's columns grey; are there any?"""
    papers = [name.lower().startswith(_PAPER) for name in table.columns]

    def line(cells: list[str]) -> list[str]:
        return [_grey(cell) if theirs else plain(cell) for cell, theirs in zip(cells, papers, strict=True)]

    return pd.DataFrame([line(row) for row in table.rows], columns=pd.Index(line(table.columns))), any(papers)


def _grey(text: str) -> str:
    return f":gray[{plain(text)}]" if text.strip() else ""


def _plot(plot: Plot, result: str) -> None:
    st.markdown(f"##### {plain(plot.title)}")
    st.plotly_chart(plot_figure(plot), config=CONFIG, key=f"experiment_plot_{result}_{plot.name}")
    if plot.note:
        st.caption(plain(plot.note))


def _grid(grid: Grid, found: Found) -> None:
    """The sheet of a grid, which holds its title and note; both are told to those who do not see it, too."""
    if (picture := sheet_of(found, grid.name)) is None:
        st.caption(f"The picture of “{plain(grid.title)}” is missing. Run the experiment again; figures are kept.")
        return
    said = "; ".join(f"{one.title}: {score_words(one)}, {one.words}" for one in grid.pictures)
    style = "max-width:100%;height:auto;border-radius:8px;border:1px solid rgba(127,127,127,0.35)"
    st.html(f'<img src="{picture}" alt="{escape(f"{grid.title}. {said}. {grid.note}")}" style="{style}">')
