"""Named sets of changes, kept to be compared: one JSON file each in the folder ``sets`` of a workspace.

A set never changes; it can be deleted, and then its name is free again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from core.runtime.clock import timestamp
from core.runtime.errors import UserError
from core.runtime.files import disk_errors, write_json
from core.runtime.json_cache import read_json_cached
from core.tasks.changes import Changes

FORMAT = 1
_NAME = re.compile(r"[\w][\w .,()+-]{0,59}")


@dataclass(frozen=True)
class NamedSet:
    """A set of changes with its name, who saved it and when (UTC, ISO 8601), and a note."""

    name: str
    changes: Changes
    who: str
    at: str
    note: str


class Sets:
    """The named sets in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, changes: Changes, *, who: str = "", note: str = "") -> NamedSet:
        """Keep ``changes`` under ``name``; the same changes once more are no fault, and leave the set as it was.

        Raises:
            UserError: the name cannot be one, is used for other changes, or there is nothing to keep.
        """
        if not _NAME.fullmatch(name) or name != name.strip():
            raise UserError(
                f"A set cannot be called {name!r}.", "Use up to 60 letters, digits, blanks and . , ( ) + - _"
            )
        if not len(changes):
            raise UserError("Nothing is removed or relabelled.", "Decide on tasks or images first.")
        if self._file(name).exists():
            kept = self.get(name)
            if kept.changes.hash != changes.hash:
                raise UserError(f"There is a set {name!r} of other changes.", "Choose another name or delete it.")
            return kept
        made = NamedSet(name, changes, who, timestamp(), note)
        told = {"format": FORMAT, "name": name, "who": who, "at": made.at, "note": note, "changes": changes.described()}
        write_json(self._file(name), told)
        return made

    def get(self, name: str) -> NamedSet:
        """One set.

        Raises:
            UserError: there is none of this name, or its file is damaged.
        """
        path = self._file(name)
        if not path.exists():
            raise UserError(f"There is no set {name!r}.", f"There is {', '.join(self.names()) or 'none yet'}.")
        told = read_json_cached(path)
        if not isinstance(told, dict) or told.get("format") != FORMAT or not isinstance(told.get("changes"), dict):
            raise UserError(f"{path} is not a set of changes.", "Restore the file or delete it.")
        who, at, note = (str(told.get(key, "")) for key in ("who", "at", "note"))
        return NamedSet(name, Changes.from_described(told["changes"]), who, at, note)

    def names(self) -> list[str]:
        """Names of all sets, oldest first."""
        files = [path for path in self.folder.glob("*.json") if not path.name.startswith(".")]
        return [path.stem for path in sorted(files, key=lambda path: (path.stat().st_mtime, path.stem))]

    def delete(self, name: str) -> None:
        """Forget a set.

        Raises:
            UserError: there is none of this name.
        """
        path = self._file(name)
        if not path.exists():
            raise UserError(f"There is no set {name!r}.", f"There is {', '.join(self.names()) or 'none yet'}.")
        with disk_errors(path):
            path.unlink()

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UserError(f"There is no set {name!r}.", f"There is {', '.join(self.names()) or 'none yet'}.")
        return self.folder / f"{name}.json"
