"""Export the results: a cleaned task list, what was removed and why, and an edited model."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from core import __version__
from core.actions.export_decisions import decision_table
from core.checkpoints.foreign import write_state
from core.checkpoints.model import load_model
from core.decisions.export_tables import corrected_labels, removed_items
from core.runtime.clock import timestamp
from core.runtime.csv_files import write_csv
from core.runtime.errors import UserError
from core.runtime.files import write_json
from core.runtime.replacing import check_export_folder, copy_folder, replacing_folder
from core.runtime.stored import OPEN, Text, Time, read_stored
from core.tasks.changes import cleaned
from core.tasks.exchange import LIBRARIES, write_foreign
from core.tasks.tasklist import FORMATS, write_tasks
from core.workspace.runs import Run
from core.workspace.workspace import Workspace

FILES = {name: f"cleaned-tasks.{name}" for name in FORMATS} | {name: f"cleaned-tasks.{name}.json" for name in LIBRARIES}
"""The file of the task list in every format."""


class ExportFile(TypedDict):
    """``export.json``: when and from what an export was written, and sentences on what it leaves out."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    written: Time
    hashes: dict[Text, Text]
    edited_model: Text | None
    notes: NotRequired[list[Text]]


_EXPORT_NAMES = {*FILES.values(), "removed.csv", "relabelled.csv", "model", "export.json"}


def export(
    workspace: Workspace,
    out: Path,
    *,
    formats: tuple[str, ...] = FORMATS,
    drop_rows: bool = False,
    edited: Run | None = None,
) -> Path:
    """Write ``cleaned-tasks.*``, ``removed.csv``, ``export.json`` and, if ``edited`` is given, ``model/`` into ``out``.

    Where labels were corrected, ``relabelled.csv`` lists them. Both lists are for spreadsheets: text that would be
    interpreted as a formula is preceded by an apostrophe. The task list is for programs; its names are unchanged. A
    model of a network of learn2learn or of the user is exported with a state dict for that network.

    Args:
        formats: Of the task list: keys of :data:`FILES`.
        drop_rows: Take removed rows out of the table instead of giving them weight 0. Lists for other libraries never
            hold removed rows, nor those of images that torchvision's ImageFolder does not list.
        edited: A run of :func:`core.actions.edit.edit`.

    Raises:
        UserError: a format is unknown, nothing would be left, a list for another library cannot do without the
            removed rows or those of images without a position, or ``out`` holds something else or cannot be written; an
            earlier export is then unchanged.
    """
    for name in formats:
        if name not in FILES:
            raise UserError(f"There is no format {name!r}.", f"Use {', '.join(FILES)}.")
    if edited is not None and not (edited.folder / "model").is_dir():
        raise UserError(f"The run {edited.id} contains no edited model.", "Give the id of an edit run.")
    check_export_folder(out, "export.json")
    project, removal = workspace.project(), workspace.changes()
    tasks = cleaned(project.tasks.train, removal, drop_rows=drop_rows)
    record = {
        "tasklens": __version__,
        "written": timestamp(),
        "workspace": workspace.name,
        "hashes": {**project.hashes, "cleaned": tasks.hash, "removal": removal.hash},
        "removed": removal.removed,
        "relabelled": removal.relabelled,
        "removed_rows": {
            name: "dropped" if drop_rows or name in LIBRARIES else "kept with weight 0" for name in formats
        },
        "tasks": {"before": len(project.tasks.train), "after": len(tasks)},
        "edited_model": edited.id if edited else None,
    }
    notes: dict[str, None] = {}
    with replacing_folder(out, _EXPORT_NAMES) as folder:
        for name in formats:
            if name in LIBRARIES:
                notes |= dict.fromkeys(write_foreign(tasks, project.images, name, folder / FILES[name]))
            else:
                write_tasks(tasks, folder / FILES[name])
        write_csv(removed_items(workspace.decisions), folder / "removed.csv")
        relabelled = corrected_labels(decision_table(workspace))
        if len(relabelled):
            write_csv(relabelled, folder / "relabelled.csv")
        if edited is not None:
            copy_folder(edited.folder / "model", folder / "model", is_hidden=True)
            write_state(load_model(folder / "model"), folder / "model")
        write_json(folder / "export.json", {**record, "notes": list(notes)})
    return out


def export_notes(out: Path) -> list[str]:
    """Return sentences on an export for the user: whose positions its task lists contain, and what they leave out."""
    return list(read_stored(out / "export.json", ExportFile).get("notes", ()))  # earlier versions wrote none
