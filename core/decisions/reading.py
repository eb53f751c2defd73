"""Queries on the tables of the decision log."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from core.decisions.database import encode_text
from core.decisions.records import Comment, Entry, Item, Snapshot
from core.runtime.errors import UserError

ITEM = "kind, task_id, role, image_id"

_SELECT = """
SELECT e.kind, e.task_id, e.role, e.image_id, e.verdict, e.label, e.reason, e.reviewer, e.source,
       e.seq, g.at, g.id, g.reviewer, g.undoes, g.saw
FROM entries e JOIN groups g ON g.id = e.group_id
"""


def entries(
    connection: sqlite3.Connection, where: str, values: Sequence[Any] | Mapping[str, Any] = (), prefix: str = ""
) -> list[Entry]:
    """Return the entries that a WHERE or ORDER BY clause selects; ``prefix`` is a WITH clause."""
    rows = connection.execute(f"{prefix} {_SELECT} {where}", values)
    return [
        Entry(Item(*row[:4]), *row[4:9], seq=seq, at=at, group=group, by=by, undoes=undoes, saw=saw)
        for row in rows
        for seq, at, group, by, undoes, saw in (row[9:],)
    ]


def entries_on(connection: sqlite3.Connection, item: Item | None) -> list[Entry]:
    """Return the entries on one item, or on all, oldest first."""
    if item is None:
        return entries(connection, "ORDER BY e.seq")
    return entries(connection, f"WHERE ({ITEM}) = ({text_placeholders(4)}) ORDER BY e.seq", item_values(item))


def comments(connection: sqlite3.Connection, where: str, values: Sequence[bytes | int | None] = ()) -> list[Comment]:
    """Return the comments that a WHERE or ORDER BY clause selects."""
    rows = connection.execute(f"SELECT id, {ITEM}, reviewer, text, at FROM comments {where}", values)
    return [Comment(number, Item(*item), reviewer, text, at) for number, *item, reviewer, text, at in rows]


def comments_on(connection: sqlite3.Connection, item: Item | None) -> list[Comment]:
    """Return the comments on one item, or on all, oldest first."""
    if item is None:
        return comments(connection, "ORDER BY id")
    return comments(connection, f"WHERE ({ITEM}) = ({text_placeholders(4)}) ORDER BY id", item_values(item))


def snapshots(connection: sqlite3.Connection, where: str, values: Sequence[bytes | int | None] = ()) -> list[Snapshot]:
    """Return the snapshots that a WHERE or ORDER BY clause selects."""
    query = f"SELECT id, name, reviewer, note, at, seq, group_id FROM snapshots {where}"
    return [Snapshot(*row) for row in connection.execute(query, values)]


def state(connection: sqlite3.Connection, at: int | str | None) -> dict[Item, Entry]:
    """Return the decision on each item after an entry, in a snapshot, or (None) now."""
    if isinstance(at, str):
        named = snapshots(connection, "WHERE name = CAST(? AS TEXT)", (encode_text(at),))
        if not named:
            names = ", ".join(snapshot.name for snapshot in snapshots(connection, "ORDER BY id"))
            raise UserError(f"There is no snapshot “{at}”.", f"There are: {names}." if names else "Save one first.")
        at = named[0].seq
    upto = "" if at is None else "WHERE seq <= ?"
    latest = f"SELECT max(seq) FROM entries {upto} GROUP BY {ITEM}"
    where = f"WHERE e.seq IN ({latest}) AND e.verdict != 'clear' ORDER BY e.seq"
    return {entry.item: entry for entry in entries(connection, where, () if at is None else (at,))}


def difference(before: dict[Item, Entry], after: dict[Item, Entry]) -> dict[Item, tuple[Entry | None, Entry | None]]:
    """Return the items whose decision differs between two states, with both decisions."""
    pairs = {item: (before.get(item), after.get(item)) for item in before | after}
    return {item: (old, new) for item, (old, new) in pairs.items() if (old and old.outcome) != (new and new.outcome)}


def newest_id(connection: sqlite3.Connection, table: str, key: str = "id") -> int:
    """Return the largest id of a table; 0 if it is empty."""
    return int(connection.execute(f"SELECT coalesce(max({key}), 0) FROM {table}").fetchone()[0])


def text_placeholders(count: int) -> str:
    """Return SQL placeholders for values of :func:`core.decisions.database.encode_text`."""
    return ", ".join(["CAST(? AS TEXT)"] * count)


def item_values(item: Item) -> tuple[bytes, ...]:
    """Return the values of an item's columns."""
    return tuple(map(encode_text, (item.kind, item.task_id, item.role, item.image_id)))
