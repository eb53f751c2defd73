"""Import decisions from files and from cleanlab; export them to files and to a report."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.actions.export_decisions import export_decisions
from core.actions.import_decisions import import_decisions, plan_import
from core.actions.report import write_report
from core.decisions.cleanlab import ISSUE_VERDICTS
from core.decisions.export_files import FORMATS, PROVENANCE
from core.decisions.table import COLUMNS
from core.ui.export.results import zip_files
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, shown_errors
from core.ui.shell.text import count, plain
from core.ui.shell.uploads import save_upload

_DONE = "_decisions_brought_in"
_WORDS = {
    "unsure": "unsure: to look at",
    "remove": "remove",
    "relabel": "relabel to cleanlab's class",
}


def decisions_panel(context: Context) -> None:
    """Draw the import and the export of decisions side by side."""
    left, right = st.columns(2, gap="large")
    with left, st.container(border=True, height="stretch"):
        st.subheader("Bring decisions in")
        with shown_errors():
            _in(context)
    with right, st.container(border=True, height="stretch"):
        st.subheader("Hand decisions over")
        with shown_errors():
            _out(context)
    command_block(context, ["review", "import", "FILE", "--dry-run"], ["review", "export"], ["review", "report"])


def _in(context: Context) -> None:
    if message := st.session_state.pop(_DONE, ""):
        st.success(message)
    upload = st.file_uploader(
        "Decisions, or a table of cleanlab's",
        type=[*FORMATS],
        key="decisions_file",
        help=f"Columns: {', '.join(COLUMNS)}",
    )
    as_ = st.segmented_control(
        "An issue of cleanlab's becomes",
        ISSUE_VERDICTS,
        default=ISSUE_VERDICTS[0],
        format_func=lambda one: _WORDS[one],
        key="decisions_as",
    )
    if upload is None:
        st.caption(
            "A row names a task_id, an image_id, or with a role both; then verdict (keep, remove, relabel, unsure), "
            "label for a relabel, and as you like reason, reviewer and comment. Rows that name no reviewer are those "
            "of “import”, cleanlab's those of “cleanlab”. Nothing is written before you have seen what it would do."
        )
        return
    path = save_upload(upload)
    made = plan_import(context.workspace, path, as_=as_ or ISSUE_VERDICTS[0])
    st.markdown("\n".join(f"- {plain(sentence)}" for sentence in made.sentences))
    if made.changing:
        with st.expander(f"What it changes ({len(made.changing):,})"):
            st.dataframe(
                [
                    {
                        "Item": ", ".join(filter(None, (new.item.task_id, new.item.role, new.item.image_id))),
                        "Now": f"{was.verdict} by {was.reviewer}",
                        "In the file": f"{new.verdict} by {new.reviewer}",
                    }
                    for new, was in made.changing[:1000]
                ],
                hide_index=True,
            )
    if st.button("Bring it in", type="primary", disabled=made.is_empty, key="decisions_bring_in"):
        done = import_decisions(context.workspace, path, as_=as_ or ISSUE_VERDICTS[0])
        said = count(len(done.decisions), "decision")
        st.session_state[_DONE] = f"{said} of {plain(done.source)} brought in. Undo takes back those of one reviewer."
        st.rerun()


def _out(context: Context) -> None:
    folder, report = (context.workspace.folder / "exports" / name for name in ("decisions", "review.html"))
    formats = st.multiselect("Formats of the decisions", list(FORMATS), FORMATS, key="decisions_formats")
    version = context.workspace.decisions.change_counter()
    with st.container(horizontal=True):
        if st.button("Write the decisions", disabled=not formats, key="decisions_write"):
            with st.spinner("Writing"):
                export_decisions(context.workspace, folder, formats=tuple(formats))
            st.session_state["_decisions_written"] = version
        if st.button("Write the report", key="decisions_report"):
            with st.spinner("Writing"):
                write_report(context.workspace, report)
            st.session_state["_report_written"] = version
    st.caption(
        "Decisions with who, when, why, ranking, suspicion and probability; conflicts, corrected labels and comments "
        "apart; hashes and versions. The report is one HTML file with pictures, curves, figures and the method."
    )
    with st.container(horizontal=True):
        if (folder / PROVENANCE).exists():
            _download(
                "Decisions (zip)",
                lambda: zip_files(folder),
                f"{context.workspace.name}-decisions.zip",
                "application/zip",
            )
        if report.exists():
            _download("Report (HTML)", report.read_bytes, f"{context.workspace.name}-review.html", "text/html")
    for key, what in (("_decisions_written", "these decisions were"), ("_report_written", "this report was")):
        if st.session_state.get(key, version) != version:
            st.caption(f"Something was decided or said since {what} written.")


def _download(label: str, data: Callable[[], bytes], name: str, mime: str) -> None:
    st.download_button(label, data, file_name=name, mime=mime, on_click="ignore", key=f"decisions_get_{mime}")
