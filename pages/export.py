"""Export: the cleaned task list, the removed items with reasons, and an edited model."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.actions.export import FILES, export, export_notes
from core.decisions.causes import causes_text
from core.decisions.export_tables import removal_counts
from core.tasks.changes import Changes
from core.tasks.tasklist import FORMATS, TaskList
from core.ui.export.decisions_panel import decisions_panel
from core.ui.export.results import cleaned_tasks, edited_models, files_of, mime_of, written_at, zip_files
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, page
from core.ui.shell.guard import guarded_data
from core.ui.shell.text import count, plain

_PREVIEW_ROWS = 50


def main() -> None:
    """Draw the page."""
    with page("Export") as context:
        removal = context.workspace.changes()
        if not len(removal):
            st.info(
                "Nothing is removed or relabelled, so the export equals the present task list. "
                "To change it, decide on tasks or images on the pages Tasks, Images, Review or Edit."
            )
        formats, drop_rows, model = _choices(context, removal)
        tasks = cleaned_tasks(context.project.tasks.train, removal, drop_rows)
        _summary(context, removal, tasks)
        _write(context, removal, tasks, formats, drop_rows, model)
        st.subheader("First rows of the cleaned list")
        st.dataframe(tasks.rows.head(_PREVIEW_ROWS), hide_index=True, height=246)
        options = ["--formats", ",".join(formats), *(["--drop-rows"] if drop_rows else [])]
        command_block(context, ["export", *options, *(["--model", model] if model else [])])

        st.header("Import and export decisions")
        decisions_panel(context)


def _choices(context: Context, removal: Changes) -> tuple[list[str], bool, str | None]:
    models = edited_models(context, removal)
    with st.container(border=True):
        left, right = st.columns(2, gap="large")
        formats = left.multiselect("Formats of the task list", list(FILES), FORMATS, key="export_formats")
        model = right.selectbox(
            "Edited model to include",
            [None, *models],
            format_func=lambda run_id: models[run_id] if run_id else "none",
            key=f"export_model_{removal.hash[:12]}",
            help="Finished edits for the present changes, from the Edit page.",
        )
        drop_rows = left.toggle("Drop removed rows", key="export_drop")
        left.caption(
            "Off: removed rows stay in the list with weight 0, and losses are averaged over all rows, as on the Edit "
            "page. On: removed rows are dropped, for tools without weights; losses are then averaged over fewer rows. "
            "Lists for learn2learn, torchmeta and easyfsl never contain removed rows."
        )
        if not models and len(removal):
            right.caption("There is no edited model for these changes yet. Create one on the Edit page.")
    return formats, drop_rows, model


def _summary(context: Context, removal: Changes, tasks: TaskList) -> None:
    train = context.project.tasks.train
    used, used_after = int((train.rows["weight"] > 0).sum()), int((tasks.rows["weight"] > 0).sum())
    figures = (
        ("Training tasks", f"{len(tasks):,}", len(tasks) - len(train)),
        ("Active rows", f"{used_after:,}", used_after - used),
        ("Tasks removed", f"{len(removal.tasks):,}", 0),
        ("Images removed", f"{len(removal.images):,}", 0),
        ("Individual rows removed", f"{len(removal.instances):,}", 0),
        ("Labels corrected", f"{sum(removal.relabelled.values()):,}", 0),
    )
    for column, (label, value, delta) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, value, f"{delta:,}" if delta else None, delta_color="off", border=True, height="stretch")
    if counts := removal_counts(context.workspace.decisions):
        st.caption(f"Images and individual rows removed, by cause: {causes_text(counts)}.")


def _write(
    context: Context, removal: Changes, tasks: TaskList, formats: list[str], drop_rows: bool, model: str | None
) -> None:
    """Write the export, and offer the existing files for download if they are up to date."""
    folder = context.workspace.folder / "exports" / "cleaned"
    if st.button("Write the export", type="primary", disabled=not formats, key="export_write"):
        edited = context.workspace.runs.get(model) if model else None
        with st.spinner("Writing"):
            export(context.workspace, folder, formats=tuple(formats), drop_rows=drop_rows, edited=edited)
    if not formats:
        st.caption("Choose at least one format.")
    elif at := written_at(context, folder, tasks, removal, formats, model):
        st.success(f"Written to {plain(folder)} ({at})")
        for note in export_notes(folder):
            st.caption(plain(note))
        _downloads(context, folder)
    elif (folder / "export.json").exists():
        st.caption(f"{plain(folder)} contains an earlier export with other choices. Writing the export replaces it.")


def _downloads(context: Context, folder: Path) -> None:
    files = [path for path in files_of(folder) if path.name != "export.json"]
    with st.container(horizontal=True):
        st.download_button(
            f"Download all (ZIP, {count(len(files) + 1, 'file')})",
            guarded_data(lambda: zip_files(folder), "The download of all files"),
            file_name=f"{context.workspace.name}-cleaned.zip",
            mime="application/zip",
            on_click="ignore",
            type="primary",
            key="export_zip",
        )
        for path in files:
            name = str(path.relative_to(folder))
            st.download_button(
                plain(name),
                guarded_data(path.read_bytes, f"The download of {path.name}"),
                file_name=path.name,
                mime=mime_of(path),
                on_click="ignore",
                key=f"export_get_{name}",
            )


main()
