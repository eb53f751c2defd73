"""Hand over the decisions: who decided what, when, why and from which ranking, with the provenance of all of it."""

from __future__ import annotations

import csv
import json
import math
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from core import __version__
from core.actions.queue import newest_queue
from core.decisions.agreement import agreement
from core.decisions.log import Entry, Item
from core.decisions.table import ITEM, escape_formulas, given_classes
from core.runtime.clock import timestamp
from core.runtime.errors import UserError
from core.runtime.files import replacing_folder, write_json
from core.workspace.runs import Run
from core.workspace.workspace import Workspace

FORMATS = ("csv", "parquet", "json")
TABLES = ("decisions", "conflicts", "corrected-labels", "comments")
PROVENANCE = "provenance.json"
_FILES = {f"{table}.{ending}" for table in TABLES for ending in FORMATS} | {PROVENANCE}


def decision_table(workspace: Workspace) -> pd.DataFrame:
    """Every decision that counts, and beside it those of other reviewers that agree or are in conflict with it.

    Returns:
        One row a decision; rows on one item stand together, the present decision last. kind, task_id, role, image_id,
        given (class), verdict, label (new class), reason, reviewer, source, at (UTC), standing (``counts``, ``agrees``,
        or ``conflict``: then nothing is done with the item until somebody resolves it), and of the review queue, where
        there is one that has the item: queue (run), rank, suspicion, probability, suggested.
    """
    log, project = workspace.decisions, workspace.project()
    current, conflicts = log.current(), log.conflicts()
    own = {who: log.own(who) for who in {entry.reviewer for entry in log.history()}}
    rows = []
    for item, entry in current.items():
        others = [mine[item] for who, mine in own.items() if who != entry.reviewer and item in mine]
        shown = {one for one in others if one.said == entry.said} | set(conflicts.get(item, ())) - {entry}
        shown = {one for one in shown if one.reviewer != entry.reviewer}
        rows += [*sorted(shown, key=lambda one: one.seq), entry]
    names, given = project.images.class_names, given_classes(project.tasks.train.rows)
    records = [
        {
            **asdict(entry.item),
            "given": given.get(entry.item, ""),
            "verdict": entry.verdict,
            "label": "" if entry.label is None else _class_name(names, entry.label),
            "reason": entry.reason,
            "reviewer": entry.reviewer,
            "source": entry.source,
            "at": entry.at,
            "standing": _standing(entry, current[entry.item], conflicts),
        }
        for entry in rows
    ]
    columns = [*ITEM, "given", "verdict", "label", "reason", "reviewer", "source", "at", "standing"]
    return _with_queue(pd.DataFrame(records, columns=columns, dtype=object), newest_queue(workspace))


def conflict_table(workspace: Workspace, decisions: pd.DataFrame | None = None) -> pd.DataFrame:
    """The rows of :func:`decision_table` that are in conflict."""
    table = decision_table(workspace) if decisions is None else decisions
    return table[table["standing"] == "conflict"].reset_index(drop=True)


def corrected_labels(workspace: Workspace, decisions: pd.DataFrame | None = None) -> pd.DataFrame:
    """The labels that were corrected: image_id, given, corrected; task_id and role where only one task is meant."""
    table = decision_table(workspace) if decisions is None else decisions
    chosen = table[(table["standing"] == "counts") & (table["verdict"] == "relabel")]
    chosen = chosen.rename(columns={"label": "corrected"})
    return chosen[["image_id", "given", "corrected", "task_id", "role"]].reset_index(drop=True)


def comment_table(workspace: Workspace) -> pd.DataFrame:
    """What was said about items: kind, task_id, role, image_id, reviewer, comment, at."""
    rows = [
        {**asdict(said.item), "reviewer": said.reviewer, "comment": said.text, "at": said.at}
        for said in workspace.decisions.comments()
    ]
    return pd.DataFrame(rows, columns=[*ITEM, "reviewer", "comment", "at"], dtype=object)


def provenance(workspace: Workspace) -> dict[str, Any]:
    """What the decisions are about and what made the tables: hashes, versions, queue, reviewers, their agreement."""
    log, project, queue = workspace.decisions, workspace.project(), newest_queue(workspace)
    current, conflicts = log.current(), log.conflicts()
    by_reviewer: dict[str, list[Entry]] = {}
    for entry in log.history():
        if entry.undoes is None and entry.verdict != "clear":
            by_reviewer.setdefault(entry.reviewer, []).append(entry)
    reviewers = [
        {"reviewer": who, "decisions": len(made), "first": made[0].at, "last": made[-1].at}
        for who, made in sorted(by_reviewer.items())
    ]
    summary = queue.json("summary.json") if queue else {}
    return {
        "tasklens": __version__,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pandas": pd.__version__,
            "pyarrow": pa.__version__,
        },
        "written": timestamp(),
        "workspace": workspace.name,
        "images": project.images.name,
        "hashes": {**project.hashes, "changes": workspace.changes().hash},
        "log_version": log.version(),
        "queue": {"run": queue.id, "finished": queue.finished, **summary} if queue else None,
        "counts": dict(sorted(Counter(entry.verdict for entry in current.values()).items())),
        "conflicts": len(conflicts),
        "reviewers": reviewers,
        "agreement": _agreements(workspace, sorted(by_reviewer)),
    }


def export_decisions(workspace: Workspace, out: Path, *, formats: Sequence[str] = FORMATS) -> Path:
    """Write decisions, conflicts, corrected labels, comments and provenance into the folder ``out``.

    csv and parquet: a file a table (:data:`TABLES`); json: all in ``decisions.json``. In csv, text that a spreadsheet
    would take for a formula begins with an apostrophe (:func:`core.decisions.table.escape_formulas`); bringing the file
    in again takes it off. :mod:`core.actions.import_decisions` reads each of the files.

    Raises:
        UserError: there is no such format, ``out`` holds something else, or it cannot be written; an earlier export
            there is then as it was.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"There is no format {name!r}.", f"Use {', '.join(FORMATS)}.")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file.", "Choose a folder.")
    if out.exists() and any(out.iterdir()) and not (out / PROVENANCE).exists():
        raise UserError(f"{out} is not empty and not an earlier export.", "Choose another folder.")
    decisions = decision_table(workspace)
    tables = dict(
        zip(
            TABLES,
            (
                decisions,
                conflict_table(workspace, decisions),
                corrected_labels(workspace, decisions),
                comment_table(workspace),
            ),
            strict=True,
        )
    )
    about = provenance(workspace)
    with replacing_folder(out, _FILES) as folder:
        for name, table in tables.items():
            if "csv" in formats:
                clean = escape_formulas(_encodable(table))
                # Every text is quoted: a carriage return outside quotes would end the row.
                clean.to_csv(folder / f"{name}.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
            if "parquet" in formats:
                _encodable(table).to_parquet(folder / f"{name}.parquet", index=False)
        if "json" in formats:
            lists = {name.replace("-", "_"): _records(table) for name, table in tables.items()}
            with (folder / "decisions.json").open("w", encoding="utf-8") as stream:
                json.dump({"provenance": about, **lists}, stream, indent=1)
        write_json(folder / PROVENANCE, about)
    return out


def _agreements(workspace: Workspace, reviewers: Sequence[str]) -> list[dict[str, Any]]:
    """Of every two who firmly decided on some of the same items."""
    log = workspace.decisions
    firm = {who: {item for item, entry in log.own(who).items() if entry.is_final} for who in reviewers}
    found = []
    for one, two in combinations(reviewers, 2):
        if firm[one] & firm[two]:
            figures = agreement(log, one, two)
            numbers = {name: getattr(figures, name) for name in ("equal", "kappa", "low", "high")}
            known = {name: None if math.isnan(value) else value for name, value in numbers.items()}
            found.append({"reviewers": [one, two], "items": figures.items, **known})
    return found


def _standing(entry: Entry, present: Entry, conflicts: dict[Item, tuple[Entry, ...]]) -> str:
    if entry.item in conflicts:
        return "conflict"
    return "counts" if entry is present else "agrees"


def _class_name(names: tuple[str, ...], label: int) -> str:
    if not 0 <= label < len(names):
        raise UserError(f"There is no class number {label}.", "Undo the relabelling, or choose an existing class.")
    return names[label]


def _with_queue(table: pd.DataFrame, queue: Run | None) -> pd.DataFrame:
    columns = ["rank", "suspicion", "probability", "suggested"]
    if queue is None:
        return table.assign(queue="", rank=np.nan, suspicion=np.nan, probability=np.nan, suggested="")
    items = queue.table("items.parquet").rename(columns={"level": "kind"})
    wanted = items[[*ITEM, *(name for name in columns if name in items)]]
    merged = table.merge(wanted.drop_duplicates(list(ITEM)), how="left", on=list(ITEM))
    found = merged["rank"].notna()
    merged.insert(len(table.columns), "queue", np.where(found, queue.id, ""))
    merged["suggested"] = merged["suggested"].astype(object).where(found, "")
    return merged


def _encodable(table: pd.DataFrame) -> pd.DataFrame:
    """Names of undecodable files hold what UTF-8 cannot; it is written as an escape."""

    def clean(value: Any) -> Any:
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value

    return table.map(clean)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON, which has no NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
