"""Named views: filters saved with the workspace, in ``views/<name>.json``."""

from __future__ import annotations

import re
from pathlib import Path

from core.review.filters import Filters, from_params
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.files import content_hash, read_json, write_json

FORMAT = 1
_NAME_LENGTH = 60


def saved_views(folder: Path) -> dict[str, Filters]:
    """Return the views in a workspace's folder by name; damaged files are left out."""
    views = {}
    for path in sorted((folder / "views").glob("*.json")):
        try:
            content = read_json(path)
        except UserError:
            continue  # one damaged view must not hide the others
        if isinstance(content, dict) and content.get("format") == FORMAT and isinstance(content.get("filters"), dict):
            views[str(content.get("name", path.stem))] = from_params(
                {str(name): [str(value) for value in values] for name, values in content["filters"].items()}
            )
    return dict(sorted(views.items()))


def save_view(folder: Path, name: str, filters: Filters) -> None:
    """Save a view in place of one of the same name; raise UserError if the name is empty or too long."""
    name = " ".join(name.split())
    if not name or len(name) > _NAME_LENGTH:
        raise UserError("A view needs a name.", f"Give it one of at most {_NAME_LENGTH} characters.")
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
