"""Import decisions from files and from cleanlab; export them to files and to a report."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.actions.export_decisions import export_decisions
from core.actions.report import write_report
from core.decisions.export_tables import FORMATS, PROVENANCE
from core.decisions.records import ISSUE_VERDICTS
from core.decisions.table import COLUMNS
from core.runtime.errors import UserError
from core.ui.export.results import zip_files
from core.ui.shell.command import command_block
from core.ui.shell.context import Context
from core.ui.shell.guard import guarded_data, report_errors
from core.ui.shell.isolated import call_value, is_started, prepare_calls, start_call
from core.ui.shell.text import plain
from core.ui.shell.uploads import save_upload

_PLAN, _IMPORT, _IMPORTING, _DONE = "decisions_plan", "decisions_import", "_decisions_importing", "_decisions_done"
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
    prepare_calls()
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
    if _is_importing():
        return
    if upload is None:
        st.caption(
            "Each row has a task_id, an image_id, or both with a role; a verdict (keep, remove, relabel, unsure); a "
            "label if the verdict is relabel; and optionally cause, reason, reviewer and comment. A column of file "
            "names can replace image_id. The reviewer of rows without one is “import”, or “cleanlab” for cleanlab "
            "issues. You see the effect before anything is written."
        )
        return
    call = {
        "workspace": str(context.workspace.folder),
        "path": str(save_upload(upload)),
        "options": {"as_": as_ or ISSUE_VERDICTS[0], "by_position": by_position},
    }
    done_call, text = st.session_state.get(_DONE, (None, ""))
    if done_call == call:
        st.success(text)
    # The plan depends on the log, so that another one is made when somebody decides.
    planned = {**call, "log": context.workspace.decisions.change_counter()}
    if not is_started(_PLAN, "plan", planned):
        start_call(_PLAN, "plan", planned)
    if (plan := call_value(_PLAN, "plan", planned)) is None:
        return
    st.markdown("\n".join(f"- {plain(sentence)}" for sentence in plan["sentences"]))
    if plan["changing"]:
        with st.expander(f"Decisions that change ({plan['number_changing']:,})"):
            st.dataframe(plan["changing"], hide_index=True)
    if st.button("Import decisions", type="primary", disabled=plan["is_empty"], key="decisions_import"):
        st.session_state[_IMPORTING] = call
        start_call(_IMPORT, "import", call, ends_with_tab=False)
        st.rerun()


def _is_importing() -> bool:
    """Follow the import that was started, if one was; return whether it runs."""
    if (call := st.session_state.get(_IMPORTING)) is None:
        return False
    is_running = is_started(_IMPORT, "import", call)  # not if it was cancelled
    try:
        done = call_value(_IMPORT, "import", call)
    except UserError:
        del st.session_state[_IMPORTING]
        raise
    if is_running and done is None:
        return True
    del st.session_state[_IMPORTING]
    if done is not None:
        text = f"Imported {done['written']} from {plain(done['source'])}. Undo reverts those of one reviewer."
        st.session_state[_DONE] = (call, text)
    return False


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
    st.download_button(
        label,
        guarded_data(data, f"The download of {name}"),
        file_name=name,
        mime=mime,
        on_click="ignore",
        key=f"decisions_get_{mime}",
    )
