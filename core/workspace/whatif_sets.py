"""Named sets of changes, for comparison: one JSON file each in the folder ``sets`` of a workspace.

A set never changes; after it is deleted its name can be used again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from core.decisions.records import check_reviewer
from core.runtime.clock import timestamp
from core.runtime.disk_errors import disk_errors
from core.runtime.errors import UserError
from core.runtime.files import write_json
from core.runtime.sequence import next_number
from core.runtime.stored import OPEN, Count, Text, read_stored
from core.tasks.changes import Changes

FORMAT = 1
_NAME = re.compile(r"[\w][\w .,()+-]{0,59}")


class SetFile(TypedDict):
    """The file of a set; ``sequence`` counts the sets of a folder, so that their order does not depend on a clock."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    format: Literal[1]
    who: NotRequired[Text]
    at: NotRequired[Text]
    note: NotRequired[Text]
    sequence: NotRequired[Count]
    changes: Changes


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
        with disk_errors(self._file(name)), next_number(self.folder, self._numbers) as sequence:
            write_json(self._file(name), {**fields, "sequence": sequence, "changes": changes.to_json()})
        return self.get(name)

    def get(self, name: str) -> NamedSet:
        """Read one set; raise UserError if it does not exist or its file is damaged."""
        fields = self._fields(self._existing_file(name))
        who, at, note = fields.get("who", ""), fields.get("at", ""), fields.get("note", "")
        return NamedSet(name, fields["changes"], who, at, note)

    def names(self) -> list[str]:
        """Return the names of all sets, oldest first; damaged files are left out (:meth:`damaged`).

        Those of earlier versions, which have no number, are older than all others, and ordered by the time of their
        file.
        """
        order = {path: (fields.get("sequence", 0), path.stat().st_mtime_ns) for path, fields in self._intact()}
        return [path.stem for path in sorted(order, key=lambda path: (*order[path], path.stem))]

    def damaged(self) -> list[UserError]:
        """Return an error for every file that is no set."""
        return [error for _, found in self._scan() if isinstance(error := found, UserError)]

    def _numbers(self) -> list[int]:
        return [fields.get("sequence", 0) for _, fields in self._intact()]

    def _intact(self) -> list[tuple[Path, SetFile]]:
        return [(path, found) for path, found in self._scan() if not isinstance(found, UserError)]

    def _scan(self) -> Iterator[tuple[Path, SetFile | UserError]]:
        for path in sorted(self.folder.glob("*.json")):
            if not path.name.startswith("."):
                try:
                    yield path, self._fields(path)
                except UserError as error:  # one damaged set must not hide the others
                    yield path, error

    def _fields(self, path: Path) -> SetFile:
        return read_stored(path, SetFile, fix="Restore the file or delete it.")

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
