"""Read and append to the tables of the decision log, inside the caller's transaction.

Queries read the valid rows (:mod:`core.decisions.valid_rows`); what is appended goes to ``main``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.decisions.database import encode_text
from core.decisions.records import Comment, Decision, Entry, Item, Operation, Result, Snapshot
from core.decisions.valid_rows import FULL_FROM, LARGEST_ID
from core.runtime.clock import timestamp
from core.runtime.errors import UserError

ITEM = "kind, task_id, role, image_id"
_SELECT = """
SELECT e.kind, e.task_id, e.role, e.image_id, e.verdict, e.label, e.reason, e.reviewer, e.source, e.cause,
       e.seq, g.at, g.id, g.reviewer, g.undoes, g.saw
FROM entries e JOIN groups g ON g.id = e.group_id
"""
_TARGET = {
    "undo": """
SELECT root, max(id) AS last FROM groups WHERE reviewer = CAST(:reviewer AS TEXT)
GROUP BY root HAVING count(*) % 2 = 1 ORDER BY root DESC LIMIT 1
""",
    "redo": """
SELECT root, max(id) AS last FROM groups WHERE reviewer = CAST(:reviewer AS TEXT)
GROUP BY root HAVING count(*) % 2 = 0
    AND last > (SELECT max(root) FROM groups WHERE reviewer = CAST(:reviewer AS TEXT))
ORDER BY last DESC LIMIT 1
""",
}
# For each item of the group :root, its decision there and the newest decision in force once :group had been written.
# (No root leads back to a group that undoes or redoes, so the count leaves those out.)
_OUTCOME = f"""
WITH outcome AS (
    SELECT max(t.seq) AS taken, (
        SELECT max(e.seq) FROM entries e JOIN groups g ON g.id = e.group_id
        WHERE (e.kind, e.task_id, e.role, e.image_id) = (t.kind, t.task_id, t.role, t.image_id)
            AND (SELECT count(*) FROM groups r WHERE r.root = g.id AND r.id <= :group) % 2 = 1
    ) AS winner
    FROM entries t WHERE t.group_id = :root GROUP BY {ITEM}
)
"""
_ENTRY_COLUMNS = f"seq, group_id, {ITEM}, verdict, label, reason, reviewer, source, cause"


class InvalidRowError(Exception):
    """An error that an entry is invalid which was valid when it was checked (:mod:`core.decisions.valid_rows`)."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"entry {seq}")
        self.seq = seq


class NoNumberError(Exception):
    """An error that a table has a row whose number leaves too few for new ones."""

    def __init__(self, table: str, number: int) -> None:
        super().__init__(f"row {number} of {table}")


def entries(
    connection: sqlite3.Connection, where: str, values: Sequence[Any] | Mapping[str, Any] = (), prefix: str = ""
) -> list[Entry]:
    """Return the entries that a WHERE or ORDER BY clause selects; ``prefix`` is a WITH clause."""
    found = []
    for row in connection.execute(f"{prefix} {_SELECT} {where}", values):
        seq, at, group, by, undoes, saw = row[10:]
        try:
            item = Item(*row[:4])
            found.append(Entry(item, *row[4:10], seq=seq, at=at, group=group, by=by, undoes=undoes, saw=saw))
        except (UserError, TypeError) as error:
            raise InvalidRowError(seq) from error
    return found


def comments(connection: sqlite3.Connection, where: str, values: Sequence[bytes | int | None] = ()) -> list[Comment]:
    """Return the comments that a WHERE or ORDER BY clause selects."""
    rows = connection.execute(f"SELECT id, {ITEM}, reviewer, text, at FROM comments {where}", values)
    return [Comment(number, Item(*item), reviewer, text, at) for number, *item, reviewer, text, at in rows]


def snapshots(connection: sqlite3.Connection, where: str, values: Sequence[bytes | int | None] = ()) -> list[Snapshot]:
    """Return the snapshots that a WHERE or ORDER BY clause selects."""
    query = f"SELECT id, name, reviewer, note, at, seq, group_id FROM snapshots {where}"
    return [Snapshot(*row) for row in connection.execute(query, values)]


def on_item(item: Item | None, order: str) -> tuple[str, tuple[bytes, ...]]:
    """Return the clause and the values that select the rows on one item, or on all, in an order."""
    if item is None:
        return f"ORDER BY {order}", ()
    return f"WHERE ({ITEM}) = ({_texts(4)}) ORDER BY {order}", _item_values(item)


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


def difference(
    connection: sqlite3.Connection, before: int | str | None, after: int | str | None
) -> dict[Item, tuple[Entry | None, Entry | None]]:
    """Return the items whose decision or its cause differs between two states (:func:`state`), with both decisions."""
    old, new = state(connection, before), state(connection, after)
    pairs = {item: (old.get(item), new.get(item)) for item in old | new}
    same = {item for item, (a, b) in pairs.items() if a and b and (a.outcome, a.cause) == (b.outcome, b.cause)}
    return {item: pair for item, pair in pairs.items() if item not in same}


def newest_id(connection: sqlite3.Connection, table: str, key: str = "id") -> int:
    """Return the largest id of a table, also of invalid rows; 0 if it is empty."""
    query = f"SELECT coalesce(max({key}), 0) FROM main.{table} WHERE {key} BETWEEN 1 AND {LARGEST_ID}"
    return int(connection.execute(query).fetchone()[0])


def _next_id(connection: sqlite3.Connection, table: str, key: str = "id") -> int:
    """Return one more than :func:`newest_id`; raise NoNumberError if new rows would get invalid numbers."""
    if (newest := newest_id(connection, table, key)) >= FULL_FROM:
        raise NoNumberError(table, newest)
    return newest + 1


def apply_idempotent(connection: sqlite3.Connection, operation: Operation) -> Result:
    """Apply an operation unless its token is known, and return its result."""
    write = _decide if operation.act == "decide" else _reverse
    return _result(
        connection,
        _once(connection, "group", operation.token, operation.reviewer, lambda: write(connection, operation)),
    )


def restore(connection: sqlite3.Connection, name: str, reviewer: str, token: str) -> Result:
    """Append decisions that restore a snapshot, unless the token is known, and return the result."""

    def write() -> int | None:
        changes = difference(connection, None, name)
        restored = {item: saved or Decision(item, "clear") for item, (_, saved) in changes.items()}
        decisions = tuple(
            Decision(item, *saved.outcome, saved.reason, reviewer, f"snapshot {name}", saved.cause)
            for item, saved in restored.items()
        )
        if not decisions:
            return None
        saw = newest_id(connection, "groups")
        return _decide(connection, Operation("decide", reviewer, token, decisions, saw))

    return _result(connection, _once(connection, "group", token, reviewer, write))


def comment(connection: sqlite3.Connection, item: Item, reviewer: str, text: str, token: str) -> Comment:
    """Append a comment, unless its token is known, and return it."""

    def write() -> int:
        number = _next_id(connection, "comments")
        connection.execute(
            f"INSERT INTO main.comments (id, {ITEM}, reviewer, text, at) VALUES (?, {_texts(6)}, ?)",
            (number, *_item_values(item), encode_text(reviewer), encode_text(text), timestamp()),
        )
        return number

    number = _once(connection, "comment", token, reviewer, write)
    found = comments(connection, "WHERE id = ?", (number,))
    return found[0] if found else Comment(number or 0, item, reviewer, text, "")  # it has become unreadable since


def snapshot(connection: sqlite3.Connection, name: str, reviewer: str, note: str, token: str) -> Snapshot:
    """Append a snapshot, unless its token is known, and return it."""

    def write() -> int:
        same_name = "SELECT 1 FROM main.snapshots WHERE name = CAST(? AS TEXT)"
        if connection.execute(same_name, (encode_text(name),)).fetchone():
            raise UserError(f"A snapshot “{name}” exists already.", "Choose another name.")
        number = _next_id(connection, "snapshots")
        seq, group = newest_id(connection, "entries", "seq"), newest_id(connection, "groups")
        connection.execute(
            "INSERT INTO main.snapshots (id, name, reviewer, note, at, seq, group_id) "
            f"VALUES (?, {_texts(3)}, ?, ?, ?)",
            (number, encode_text(name), encode_text(reviewer), encode_text(note), timestamp(), seq, group),
        )
        return number

    number = _once(connection, "snapshot", token, reviewer, write)
    found = snapshots(connection, "WHERE id = ?", (number,))
    return found[0] if found else Snapshot(number or 0, name, reviewer, note, "", 0, 0)  # as for a comment


def _decide(connection: sqlite3.Connection, operation: Operation) -> int:
    group, reviewer = _add_group(connection, operation), encode_text(operation.reviewer)
    first = _next_id(connection, "entries", "seq")
    connection.executemany(
        f"INSERT INTO main.entries ({_ENTRY_COLUMNS}) VALUES (?, ?, {_texts(4)}, ?, ?, {_texts(4)})",
        (
            (
                seq,
                group,
                *_item_values(decision.item),
                decision.verdict,
                None if decision.label is None else int(decision.label),
                encode_text(decision.reason),
                reviewer,
                encode_text(decision.source),
                encode_text(decision.cause),
            )
            for seq, decision in enumerate(operation.decisions, first)
        ),
    )
    return group


def _reverse(connection: sqlite3.Connection, operation: Operation) -> int | None:
    """Append the undo or redo of a group; return None if there is nothing to undo or redo."""
    values: dict[str, bytes | int] = {"reviewer": encode_text(operation.reviewer)}
    target = connection.execute(_TARGET[operation.act], values).fetchone()
    if target is None:
        return None
    root, latest = target
    group = _add_group(connection, operation, root, latest)
    connection.execute(
        f"""{_OUTCOME} INSERT INTO main.entries ({_ENTRY_COLUMNS})
        SELECT :next - 1 + row_number() OVER (ORDER BY taken), :group,
            t.kind, t.task_id, t.role, t.image_id, coalesce(w.verdict, 'clear'), w.label,
            coalesce(w.reason, ''), coalesce(w.reviewer, CAST(:reviewer AS TEXT)), coalesce(w.source, ''),
            coalesce(w.cause, '')
        FROM outcome JOIN entries t ON t.seq = taken LEFT JOIN entries w ON w.seq = winner
        WHERE coalesce(winner, 0) <= taken ORDER BY taken""",
        {**values, "root": root, "group": group, "next": _next_id(connection, "entries", "seq")},
    )
    return group


def _result(connection: sqlite3.Connection, group: int | None) -> Result:
    """Return the effect of the operation that wrote ``group``."""
    if group is None:
        return Result()
    found = connection.execute("SELECT root FROM groups WHERE id = ?", (group,)).fetchone()
    if found in (None, (group,)):  # None: the group has become unreadable since
        return Result(group)
    (root,) = found

    def entries_by(selection: str) -> tuple[Entry, ...]:
        where = f"WHERE e.seq IN (SELECT {selection}) ORDER BY e.seq"
        return tuple(entries(connection, where, {"root": root, "group": group}, _OUTCOME))

    return Result(
        group,
        reversed_entries=entries_by("taken FROM outcome WHERE coalesce(winner, 0) <= taken"),
        newer_entries=entries_by("winner FROM outcome WHERE winner > taken"),
    )


def _add_group(
    connection: sqlite3.Connection, operation: Operation, root: int | None = None, undoes: int | None = None
) -> int:
    newest = newest_id(connection, "groups")
    # An entry without its group gets none.
    group = max(_next_id(connection, "groups"), _next_id(connection, "entries", "group_id"))
    # A page may show a newer version than the log has, if a backup has replaced the log.
    saw = None if operation.saw is None else min(operation.saw, newest)
    connection.execute(
        "INSERT INTO main.groups (id, root, undoes, at, reviewer, saw) VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)",
        (group, group if root is None else root, undoes, timestamp(), encode_text(operation.reviewer), saw),
    )
    return group


def _once(
    connection: sqlite3.Connection, kind: str, token: str, reviewer: str, write: Callable[[], int | None]
) -> int | None:
    """Return the id of what was written under a token, or call ``write`` and save its id under the token.

    Raises:
        UserError: another reviewer has used the token; what this one sent would be acknowledged, and lost.
    """
    if not token:
        return write()
    key = (kind, encode_text(token))
    known = connection.execute("SELECT id FROM tokens WHERE kind = ? AND token = CAST(? AS TEXT)", key).fetchone()
    if known:
        query = f"SELECT reviewer FROM {kind}s WHERE id = ?"
        if connection.execute(query, known).fetchone() not in (None, (reviewer,)):
            raise UserError("An operation of another reviewer has the same token.", "Reload the page, and do it again.")
        return known[0]
    number = write()
    connection.execute("INSERT INTO main.tokens (kind, token, id) VALUES (?, CAST(? AS TEXT), ?)", (*key, number))
    return number


def _texts(count: int) -> str:
    """Return SQL placeholders for values of :func:`core.decisions.database.encode_text`."""
    return ", ".join(["CAST(? AS TEXT)"] * count)


def _item_values(item: Item) -> tuple[bytes, ...]:
    return tuple(map(encode_text, (item.kind, item.task_id, item.role, item.image_id)))
