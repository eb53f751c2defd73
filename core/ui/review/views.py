"""Named views: filters kept with the workspace, in ``views/<name>.json``."""

from __future__ import annotations

import re
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import content_hash, disk_errors, read_json, write_json
from core.ui.review.filters import Filters, from_params

FORMAT = 1
_NAME_LENGTH = 60


def all_views(folder: Path) -> dict[str, Filters]:
    """The views of a workspace by name; files that are none are left out.

    Args:
        folder: The workspace's folder.
    """
    views = {}
    for path in sorted((folder / "views").glob("*.json")):
        try:
            told = read_json(path)
        except UserError:
            continue  # one damaged view must not hide the others
        if isinstance(told, dict) and told.get("format") == FORMAT and isinstance(told.get("filters"), dict):
            views[str(told.get("name", path.stem))] = from_params(
                {str(name): [str(one) for one in values] for name, values in told["filters"].items()}
            )
    return dict(sorted(views.items()))


def save_view(folder: Path, name: str, filters: Filters) -> None:
    """Keep a view; one of the same name is replaced.

    Raises:
        UserError: no name was given, or the disk is full.
    """
    name = " ".join(name.split())
    if not name or len(name) > _NAME_LENGTH:
        raise UserError("A view needs a name.", f"Give it one of at most {_NAME_LENGTH} characters.")
    write_json(_path(folder, name), {"format": FORMAT, "name": name, "filters": filters.to_params()})


def delete_view(folder: Path, name: str) -> None:
    path = _path(folder, name)
    with disk_errors(path):
        path.unlink(missing_ok=True)


def _path(folder: Path, name: str) -> Path:
    """Two names never share a file, whatever they are made of."""
    readable = re.sub(r"[^\w-]+", "-", name).strip("-")[:40]
    return folder / "views" / f"{readable}-{content_hash(name)[:8]}.json"
