"""Find an export on disk, check whether it is up to date, and offer its files for download."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import streamlit as st

from core.actions.export import FILES, ExportFile
from core.runtime.errors import UserError
from core.runtime.stored import read_stored
from core.tasks.changes import Changes, cleaned
from core.tasks.tasklist import TaskList
from core.ui.edit.results import LABELS, results
from core.ui.shell.context import Context
from core.ui.shell.text import minute_of

_MIME = {".csv": "text/csv", ".json": "application/json", ".parquet": "application/vnd.apache.parquet"}


@st.cache_resource(
    max_entries=4,
    show_spinner=False,
    hash_funcs={TaskList: lambda tasks: tasks.hash, Changes: lambda removal: removal.hash},
)
def cleaned_tasks(tasks: TaskList, removal: Changes, drop_rows: bool) -> TaskList:
    """Return the cleaned task list, computed once per task list and removal set."""
    return cleaned(tasks, removal, drop_rows=drop_rows)


def edited_models(context: Context, removal: Changes) -> dict[str, str]:
    """Return the names of the finished edits for the present changes by run id, the largest net effect first."""
    found = results(context, removal) if len(removal) else []
    return {one.run.id: LABELS[one.method] for one in found}


def written_at(
    context: Context, folder: Path, tasks: TaskList, removal: Changes, formats: list[str], model: str | None
) -> str | None:
    """Return when the export in ``folder`` was written; None unless it equals what would be written now."""
    try:
        written = read_stored(folder / "export.json", ExportFile)
    except UserError:
        return None
    now = {**context.project.hashes, "cleaned": tasks.hash, "removal": removal.hash}
    files = {name for name, file in FILES.items() if (folder / file).exists()}
    if (written["hashes"], written["edited_model"], files) != (now, model, set(formats)):
        return None
    return minute_of(written["written"]) + " UTC"


def files_of(folder: Path) -> list[Path]:
    """Return the files of an export, by name."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def mime_of(path: Path) -> str:
    """Return the MIME type of a file by its suffix."""
    return _MIME.get(path.suffix, "application/octet-stream")


def zip_files(folder: Path) -> bytes:
    """Return all files of an export as a ZIP archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(folder):
            archive.write(path, path.relative_to(folder))
    return stream.getvalue()
