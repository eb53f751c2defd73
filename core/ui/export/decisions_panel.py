"""Import decisions from files and from cleanlab; export them to files and to a report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from core.actions.export_decisions import export_decisions
from core.actions.import_decisions import import_decisions, plan_import
from core.actions.report import write_report
from core.decisions.export_tables import FORMATS, PROVENANCE
from core.decisions.records import ISSUE_VERDICTS, decision_text
from core.decisions.table import COLUMNS
from core.ui.export.results import zip_files
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, report_errors
from core.ui.shell.text import count, plain
from core.ui.shell.uploads import save_upload

_MESSAGE = "_decisions_imported"
_WORDS = {"unsure": "unsure (to be reviewed)", "relabel": "relabel to cleanlab's class"}


def decisions_panel(context: Context) -> None:
    """Draw the import and the export of decisions side by side."""
    left, right = st.columns(2, gap="large")
    with left, st.container(border=True, height="stretch"):
        st.subheader("Import decisions")
        with report_errors():
            _import(context)
    with right, st.container(border=True, height="stretch"):
        st.subheader("Export decisions")
        with report_errors():
            _export(context)
    command_block(context, ["review", "import", "FILE", "--dry-run"], ["review", "export"], ["review", "report"])


def _import(context: Context) -> None:
    if message := st.session_state.pop(_MESSAGE, ""):
        st.success(message)
    upload = st.file_uploader(
        "File of decisions or of cleanlab issues",
        type=[*FORMATS],
        key="decisions_file",
        help=f"Columns: {', '.join(COLUMNS)}",
    )
    as_ = st.segmented_control(
        "Import cleanlab issues as",
        ISSUE_VERDICTS,
        default=ISSUE_VERDICTS[0],
        format_func=lambda verdict: _WORDS.get(verdict, verdict),
        key="decisions_as",
    )
    by_position = st.checkbox(
        "Match cleanlab rows by position",
        key="decisions_by_position",
        help="Only for a table that does not name its images. Its column given_label must prove the order: every row's "
        "must be the class of the image at its position.",
    )
    if upload is None:
        st.caption(
            "Each row has a task_id, an image_id, or both with a role; a verdict (keep, remove, relabel, unsure); a "
            "label if the verdict is relabel; and optionally cause, reason, reviewer and comment. A column of file "
            "names can replace image_id. The reviewer of rows without one is “import”, or “cleanlab” for cleanlab "
            "issues. You see the effect before anything is written."
        )
        return
    path = save_upload(upload)
    plan = plan_import(context.workspace, path, as_=as_ or ISSUE_VERDICTS[0], by_position=by_position)
    st.markdown("\n".join(f"- {plain(sentence)}" for sentence in plan.sentences))
    if plan.changing:
        words = partial(decision_text, names=context.project.images.class_names)
        with st.expander(f"Decisions that change ({len(plan.changing):,})"):
            rows = [
                {
                    "Item": ", ".join(filter(None, (new.item.task_id, new.item.role, new.item.image_id))),
                    "Current": f"{words(was)} by {was.reviewer}",
                    "In the file": f"{words(new)} by {new.reviewer}",
                }
                for new, was in plan.changing[:1000]
            ]
            st.dataframe(rows, hide_index=True)
    if st.button("Import decisions", type="primary", disabled=plan.is_empty, key="decisions_import"):
        done = import_decisions(context.workspace, path, as_=as_ or ISSUE_VERDICTS[0], by_position=by_position)
        number = count(len(done.decisions), "decision")
        st.session_state[_MESSAGE] = f"Imported {number} from {plain(done.source)}. Undo reverts those of one reviewer."
        st.rerun()


def _export(context: Context) -> None:
    folder, report = (context.workspace.folder / "exports" / name for name in ("decisions", "review.html"))
    formats = st.multiselect("Formats of the decisions", list(FORMATS), FORMATS, key="decisions_formats")
    version = context.workspace.decisions.change_counter()
    with st.container(horizontal=True):
        if st.button("Write decisions", disabled=not formats, key="decisions_write"):
            with st.spinner("Writing"):
                export_decisions(context.workspace, folder, formats=tuple(formats))
            st.session_state["_decisions_written"] = version
        if st.button("Write report", key="decisions_report"):
            with st.spinner("Writing"):
                write_report(context.workspace, report)
            st.session_state["_report_written"] = version
    st.caption(
        "The files hold every decision with reviewer, time, cause, reason, ranking, suspicion and probability; "
        "conflicts, corrected labels and comments in separate files; hashes and versions. The report is one HTML file "
        "with images, curves, numbers and a description of the method."
    )
    with st.container(horizontal=True):
        if (folder / PROVENANCE).exists():
            name = f"{context.workspace.name}-decisions.zip"
            _download("Download decisions (ZIP)", lambda: zip_files(folder), name, "application/zip")
        if report.exists():
            _download("Download report (HTML)", report.read_bytes, f"{context.workspace.name}-review.html", "text/html")
    for key, what in (("_decisions_written", "these files were"), ("_report_written", "this report was")):
        if st.session_state.get(key, version) != version:
            st.caption(f"There are newer decisions or comments since {what} written.")


def _download(label: str, data: Callable[[], bytes], name: str, mime: str) -> None:
    st.download_button(label, data, file_name=name, mime=mime, on_click="ignore", key=f"decisions_get_{mime}")
