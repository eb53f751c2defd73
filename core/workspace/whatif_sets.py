"""Named sets of changes, for comparison: one JSON file each in the folder ``sets`` of a workspace.

A set never changes; after it is deleted its name can be used again.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from core.decisions.records import check_reviewer
from core.runtime.clock import timestamp
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.files import read_json_cached, write_json
from core.tasks.changes import Changes

FORMAT = 1
_NAME = re.compile(r"[\w][\w .,()+-]{0,59}")


@dataclass(frozen=True)
class NamedSet:
    """A named set of changes, with the reviewer who saved it, the time (UTC, ISO 8601) and a comment."""

    name: str
    changes: Changes
    who: str
    at: str
    note: str


@dataclass(frozen=True)
class Sets:
    """A folder of named sets."""

    folder: Path

    def save(self, name: str, changes: Changes, *, who: str, note: str = "") -> NamedSet:
        """Save ``changes`` under ``name``; an existing set with the same changes is unchanged.

        Raises:
            UserError: the name is invalid or used for other changes, there are no changes, or ``who`` is empty.
        """
        check_reviewer(who)
        if not _NAME.fullmatch(name) or name != name.strip():
            raise UserError(
                f"{name!r} is not a valid name of a set.", "Use up to 60 letters, digits, spaces and . , ( ) + - _"
            )
        changes.check_not_empty()
        if self._file(name).exists():
            existing = self.get(name)
            if existing.changes.hash != changes.hash:
                raise UserError(f"The set {name!r} exists with other changes.", "Choose another name or delete it.")
            return existing
        fields = {"format": FORMAT, "name": name, "who": who, "at": timestamp(), "note": note}
        write_json(self._file(name), {**fields, "changes": changes.to_json()})
        now = time.time_ns()  # finer than the clock of many file systems, so that the order of names() is certain
        with disk_errors(self._file(name)):
            os.utime(self._file(name), ns=(now, now))
        return self.get(name)

    def get(self, name: str) -> NamedSet:
        """Read one set; raise UserError if it does not exist or its file is damaged."""
        path = self._existing_file(name)
        fields = read_json_cached(path)
        is_set = isinstance(fields, dict) and fields.get("format") == FORMAT
        if not is_set or not isinstance(fields.get("changes"), dict):
            raise UserError(f"{path} is not a set of changes.", "Restore the file or delete it.")
        who, at, note = (str(fields.get(key, "")) for key in ("who", "at", "note"))
        return NamedSet(name, Changes.from_json(fields["changes"]), who, at, note)

    def names(self) -> list[str]:
        """Return the names of all sets, oldest first."""
        files = [path for path in self.folder.glob("*.json") if not path.name.startswith(".")]
        return [path.stem for path in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.stem))]

    def delete(self, name: str) -> None:
        """Delete a set; raise UserError if it does not exist."""
        path = self._existing_file(name)
        with disk_errors(path):
            path.unlink()

    def _existing_file(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or not self._file(name).exists():
            raise UserError(f"Unknown set {name!r}.", f"Known: {', '.join(self.names()) or 'none'}.")
        return self._file(name)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"
