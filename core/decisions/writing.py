"""Append operations to the tables of the decision log, inside the caller's transaction."""

from __future__ import annotations

import sqlite3

from core.decisions.database import encode_text
from core.decisions.reading import (
    ITEM,
    comments,
    difference,
    entries,
    item_values,
    newest_id,
    snapshots,
    state,
    text_placeholders,
)
from core.decisions.records import Comment, Decision, Entry, Item, Operation, Result, Snapshot
from core.runtime.clock import timestamp
from core.runtime.errors import UserError

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
_ENTRY_COLUMNS = f"group_id, {ITEM}, verdict, label, reason, reviewer, source"


def apply_idempotent(connection: sqlite3.Connection, operation: Operation) -> Result:
    """Apply an operation unless its token is known, and return its result."""
    known, group = _token_result(connection, "group", operation.token)
    if not known:
        group = _decide(connection, operation) if operation.act == "decide" else _reverse(connection, operation)
        _save_token(connection, "group", operation.token, group)
    return _result(connection, group)


def _decide(connection: sqlite3.Connection, operation: Operation) -> int:
    group = _add_group(connection, operation)
    reviewer = encode_text(operation.reviewer)
    connection.executemany(
        f"INSERT INTO entries ({_ENTRY_COLUMNS}) VALUES (?, {text_placeholders(4)}, ?, ?, {text_placeholders(3)})",
        (
            (
                group,
                *item_values(decision.item),
                decision.verdict,
                None if decision.label is None else int(decision.label),
                encode_text(decision.reason),
                reviewer,
                encode_text(decision.source),
            )
            for decision in operation.decisions
        ),
    )
    return group


def _reverse(connection: sqlite3.Connection, operation: Operation) -> int | None:
    values: dict[str, bytes | int] = {"reviewer": encode_text(operation.reviewer)}
    target = connection.execute(_TARGET[operation.act], values).fetchone()
    if target is None:
        return None
    root, latest = target
    group = _add_group(connection, operation, root, latest)
    connection.execute(
        f"""{_OUTCOME} INSERT INTO entries ({_ENTRY_COLUMNS})
        SELECT :group, t.kind, t.task_id, t.role, t.image_id, coalesce(w.verdict, 'clear'), w.label,
            coalesce(w.reason, ''), coalesce(w.reviewer, CAST(:reviewer AS TEXT)), coalesce(w.source, '')
        FROM outcome JOIN entries t ON t.seq = taken LEFT JOIN entries w ON w.seq = winner
        WHERE coalesce(winner, 0) <= taken ORDER BY taken""",
        {**values, "root": root, "group": group},
    )
    return group


def _result(connection: sqlite3.Connection, group: int | None) -> Result:
    """Return the effect of the operation that wrote ``group``."""
    if group is None:
        return Result()
    (root,) = connection.execute("SELECT root FROM groups WHERE id = ?", (group,)).fetchone()
    if root == group:
        return Result(group)

    def entries_by(selection: str) -> tuple[Entry, ...]:
        where = f"WHERE e.seq IN (SELECT {selection}) ORDER BY e.seq"
        return tuple(entries(connection, where, {"root": root, "group": group}, _OUTCOME))

    return Result(
        group,
        reversed_entries=entries_by("taken FROM outcome WHERE coalesce(winner, 0) <= taken"),
        newer_entries=entries_by("winner FROM outcome WHERE winner > taken"),
    )


def restore(connection: sqlite3.Connection, name: str, reviewer: str, token: str) -> Result:
    """Append decisions that restore a snapshot."""
    known, group = _token_result(connection, "group", token)
    if known:
        return _result(connection, group)
    changes = difference(state(connection, None), state(connection, name))
    if not changes:
        _save_token(connection, "group", token, None)
        return Result()
    source = f"snapshot {name}"
    decisions = tuple(
        Decision(item, restored.verdict, restored.label, restored.reason, reviewer, source)
        if restored
        else Decision(item, "clear", None, "", reviewer, source)
        for item, (_, restored) in changes.items()
    )
    return apply_idempotent(
        connection, Operation("decide", reviewer, token, decisions, saw=newest_id(connection, "groups"))
    )


def comment(connection: sqlite3.Connection, item: Item, reviewer: str, text: str, token: str) -> Comment:
    """Append a comment, unless its token is known, and return it."""
    known, number = _token_result(connection, "comment", token)
    if not known:
        number = newest_id(connection, "comments") + 1
        connection.execute(
            f"INSERT INTO comments (id, {ITEM}, reviewer, text, at) VALUES (?, {text_placeholders(6)}, ?)",
            (number, *item_values(item), encode_text(reviewer), encode_text(text), timestamp()),
        )
        _save_token(connection, "comment", token, number)
    (written,) = comments(connection, "WHERE id = ?", (number,))
    return written


def snapshot(connection: sqlite3.Connection, name: str, reviewer: str, note: str, token: str) -> Snapshot:
    """Append a snapshot, unless its token is known, and return it."""
    known, number = _token_result(connection, "snapshot", token)
    if not known:
        if snapshots(connection, "WHERE name = CAST(? AS TEXT)", (encode_text(name),)):
            raise UserError(f"A snapshot “{name}” exists already.", "Choose another name.")
        number = newest_id(connection, "snapshots") + 1
        seq, group = newest_id(connection, "entries", "seq"), newest_id(connection, "groups")
        connection.execute(
            "INSERT INTO snapshots (id, name, reviewer, note, at, seq, group_id) "
            f"VALUES (?, {text_placeholders(3)}, ?, ?, ?)",
            (number, encode_text(name), encode_text(reviewer), encode_text(note), timestamp(), seq, group),
        )
        _save_token(connection, "snapshot", token, number)
    (saved,) = snapshots(connection, "WHERE id = ?", (number,))
    return saved


def _add_group(
    connection: sqlite3.Connection, operation: Operation, root: int | None = None, undoes: int | None = None
) -> int:
    newest = newest_id(connection, "groups")
    group = newest + 1
    # A page may show a newer version than the log has, if a backup has replaced the log.
    saw = None if operation.saw is None else min(operation.saw, newest)
    connection.execute(
        "INSERT INTO groups (id, root, undoes, at, reviewer, saw) VALUES (?, ?, ?, ?, CAST(? AS TEXT), ?)",
        (group, group if root is None else root, undoes, timestamp(), encode_text(operation.reviewer), saw),
    )
    return group


def _token_result(connection: sqlite3.Connection, kind: str, token: str) -> tuple[bool, int | None]:
    """Return whether a token is known, and the id of what was written under it."""
    if not token:
        return False, None
    query = "SELECT id FROM tokens WHERE kind = ? AND token = CAST(? AS TEXT)"
    row = connection.execute(query, (kind, encode_text(token))).fetchone()
    return row is not None, row[0] if row else None


def _save_token(connection: sqlite3.Connection, kind: str, token: str, number: int | None) -> None:
    if token:
        connection.execute(
            "INSERT INTO tokens (kind, token, id) VALUES (?, CAST(? AS TEXT), ?)", (kind, encode_text(token), number)
        )
