"""Named views: filters saved with the workspace, in ``views/<name>.json``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from core.decisions.texts import text_fault
from core.review.filters import Filters, from_params
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.files import write_json
from core.runtime.hashing import content_hash
from core.runtime.stored import OPEN, Text, read_stored

FORMAT = 1
_NAME_LENGTH = 60


class ViewFile(TypedDict):
    """The file of a view; ``filters`` are those of :meth:`core.review.filters.Filters.to_params`."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: Literal[1]
    name: NotRequired[Text]
    filters: dict[Text, list[Text]]


def saved_views(folder: Path) -> dict[str, Filters]:
    """Return the views in a workspace's folder by name; damaged files are left out (:func:`damaged_views`)."""
    views = {
        found.get("name", path.stem): from_params(found["filters"])
        for path, found in _scan(folder)
        if not isinstance(found, UserError)
    }
    return dict(sorted(views.items()))


def damaged_views(folder: Path) -> list[UserError]:
    """Return an error for every file in a workspace's folder that is no view."""
    return [found for _, found in _scan(folder) if isinstance(found, UserError)]


def _scan(folder: Path) -> Iterator[tuple[Path, ViewFile | UserError]]:
    for path in sorted((folder / "views").glob("*.json")):
        if not path.name.startswith("."):
            try:
                yield path, read_stored(path, ViewFile, fix="Restore the file or delete it.")
            except UserError as error:  # one damaged view must not hide the others
                yield path, error


def save_view(folder: Path, name: str, filters: Filters) -> None:
    """Save a view in place of one of the same name; raise UserError if the name is empty or too long."""
    name = " ".join(name.split())
    if fault := text_fault(name, _NAME_LENGTH):
        raise UserError(f"The name of the view {fault}.", "Enter another name.")
    write_json(_path(folder, name), {"format": FORMAT, "name": name, "filters": filters.to_params()})


def delete_view(folder: Path, name: str) -> None:
    """Delete a view, if there is one of that name."""
    path = _path(folder, name)
    with disk_errors(path):
        path.unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    """Return the file of a view; two names never share a file, whatever characters they have."""
    readable = re.sub(r"[^\w-]+", "-", name).strip("-")[:40]
    return folder / "views" / f"{readable}-{content_hash(name)[:8]}.json"
