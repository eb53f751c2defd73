"""Step 4 of the Load page: check the fit, predict the cost, and create the workspace."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from core.actions.inspect import InspectionResult
from core.editing.measured_cost import WorkEstimate
from core.runtime.errors import UserError
from core.ui.load.shared import show_report, start_job
from core.ui.shell.command import show_commands
from core.ui.shell.context import open_next
from core.ui.shell.jobs import job_panel, jobs_of
from core.ui.shell.navigation import page
from core.workspace.workspace import create, library_jobs, locate


def workspace_step(tasks: Path, model: Path) -> None:
    """Show the predicted cost of the problem, and a button that creates a workspace for it."""
    st.subheader("4 · Check and open")
    line = ["inspect", "--tasks", str(tasks), "--model", str(model), "--json"]
    jobs = jobs_of(library_jobs(), "inspect")
    job = next((job for job in jobs if list(job.args) == line), None)
    if job and job.status() == "done" and job.results():
        _report(job.json_result(InspectionResult))
    if st.button("Estimate costs", key="load_inspect", disabled=job is not None and job.status() == "running"):
        start_job("Estimate costs", line)
    job_panel(library_jobs(), "inspect")
    name = st.text_input("Name of the workspace", model.name, key=f"load_workspace_{model.name}").strip()
    if st.button("Open the workspace", type="primary", key="load_open"):
        if not name or "/" in name:
            raise UserError(f"{name!r} is not a valid workspace name.", "Use letters, digits, '.', '_' and '-'.")
        workspace = create(locate(name), tasks, model)
        open_next(workspace.name)
        st.switch_page(page("overview"))
    show_commands(line[:-1], ["open", "--tasks", str(tasks), "--model", str(model), "--workspace", name])


def _report(report: InspectionResult) -> None:
    show_report(report)
    if costs := [WorkEstimate(**cost) for cost in report["costs"]]:
        rows = [
            {"stage": cost.stage, "time": cost.time, "memory": f"{cost.gb:.1f} GB", "work": cost.how_much}
            for cost in costs
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True)
        st.caption("Estimates, from timing each kind of pass on a few of these tasks on this machine.")
