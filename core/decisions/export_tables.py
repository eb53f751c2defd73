"""Export tables of what reviewers decided: decisions, conflicts, corrected labels, comments, and what was changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.decisions.causes import CAUSE_WORDS, CAUSES
from core.decisions.checks import class_name
from core.decisions.log import DecisionLog
from core.decisions.records import Entry, Item
from core.decisions.table import ITEM
from core.runtime.csv_files import write_csv
from core.runtime.errors import UserError
from core.runtime.files import write_json
from core.runtime.replacing import check_export_folder, replacing_folder

FORMATS = ("csv", "parquet", "json")
TABLES = ("decisions", "conflicts", "corrected-labels", "comments")
PROVENANCE = "provenance.json"
_FILES = {f"{table}.{ending}" for table in TABLES for ending in FORMATS} | {PROVENANCE}


def decision_table(log: DecisionLog, class_names: Sequence[str], given: Mapping[Item, str]) -> pd.DataFrame:
    """Return every decision that counts, with those of other reviewers that agree or conflict with it.

    Args:
        class_names: Of the image set, by label.
        given: :func:`core.decisions.table.given_classes` of the training tasks.

    Returns:
        One row per decision; rows on one item are adjacent, the present decision last. kind, task_id, role,
        image_id, given (class), verdict, label (new class), cause, reason, reviewer, source, at (UTC), standing
        (``counts``, ``agrees``, or ``conflict``: then the item is left unchanged until somebody resolves it).

    Raises:
        UserError: an item was relabelled to a class that the images do not have.
    """
    current, conflicts = log.current(), log.conflicts()
    by_reviewer = {reviewer: log.decisions_of(reviewer) for reviewer in {entry.reviewer for entry in log.history()}}
    records = []
    for item, entry in current.items():
        opinions = {decisions[item] for decisions in by_reviewer.values() if item in decisions}
        shown = {other for other in opinions if other.outcome == entry.outcome} | set(conflicts.get(item, ()))
        others = sorted((other for other in shown if other.reviewer != entry.reviewer), key=lambda other: other.seq)
        for one in (*others, entry):
            texts = {
                "given": given.get(item, ""),
                "label": "" if one.label is None else class_name(class_names, one.label),
                "standing": "conflict" if item in conflicts else "counts" if one is entry else "agrees",
            }
            records.append(asdict(item) | asdict(one) | texts)
    columns = [*ITEM, "given", "verdict", "label", "cause", "reason", "reviewer", "source", "at", "standing"]
    return pd.DataFrame(records, columns=columns, dtype=object)


def with_queue(table: pd.DataFrame, run_id: str, items: pd.DataFrame | None) -> pd.DataFrame:
    """Return a decision table with what the review queue says: queue (run), rank, suspicion, probability, suggested.

    Without a queue, ``run_id`` is empty and ``items`` (its ``items.parquet``) is None.
    """
    if items is None:
        return table.assign(queue="", rank=np.nan, suspicion=np.nan, probability=np.nan, suggested="")
    items = items.rename(columns={"level": "kind"})
    of_queue = [name for name in ("rank", "suspicion", "probability", "suggested") if name in items]
    merged = table.merge(items[[*ITEM, *of_queue]].drop_duplicates(list(ITEM)), how="left", on=list(ITEM))
    in_queue = merged["rank"].notna()
    merged.insert(len(table.columns), "queue", np.where(in_queue, run_id, ""))
    merged["suggested"] = merged["suggested"].astype(object).where(in_queue, "")
    return merged


def corrected_labels(decisions: pd.DataFrame) -> pd.DataFrame:
    """Return the corrected labels: image_id, given, corrected; task_id and role where only one task is meant."""
    relabelled = decisions[(decisions["standing"] == "counts") & (decisions["verdict"] == "relabel")]
    relabelled = relabelled.rename(columns={"label": "corrected"})
    return relabelled[["image_id", "given", "corrected", "task_id", "role"]].reset_index(drop=True)


def comment_table(log: DecisionLog) -> pd.DataFrame:
    """Return the comments on items: kind, task_id, role, image_id, reviewer, comment, at."""
    rows = [asdict(comment.item) | asdict(comment) | {"comment": comment.text} for comment in log.comments()]
    return pd.DataFrame(rows, columns=[*ITEM, "reviewer", "comment", "at"], dtype=object)


def removed_items(log: DecisionLog) -> pd.DataFrame:
    """Return what is removed, by whom, when and why: one row per decision, without items in conflict."""
    conflicts = log.conflicts()
    rows = [
        asdict(item) | asdict(entry)
        for item, entry in log.current().items()
        if entry.verdict == "remove" and item not in conflicts
    ]
    return pd.DataFrame(rows, columns=[*ITEM, "cause", "reason", "reviewer", "source", "at"])


def changed_items(log: DecisionLog, class_names: Sequence[str]) -> pd.DataFrame:
    """Return every removed or relabelled item, newest first, with the decision in words; conflicts are marked."""
    conflicts, names = log.conflicts(), dict(enumerate(class_names))
    rows = []
    for item, entry in log.current().items():
        if entry.verdict not in ("remove", "relabel"):
            continue
        new = "?" if entry.label is None else names.get(entry.label, "?")
        words = f"→ {new}" if entry.verdict == "relabel" else f"removed ({CAUSE_WORDS[entry.cause]})"
        if item in conflicts:
            words += " (in conflict: left out)"
        rows.append(asdict(item) | asdict(entry) | {"decision": words})
    return pd.DataFrame(rows[::-1], columns=[*ITEM, "decision", "reviewer", "at", "reason", "source"])


def reviewer_table(log: DecisionLog) -> list[dict[str, Any]]:
    """Return every reviewer with the number of decisions made, the first and the last time (UTC), by name."""
    by_reviewer: dict[str, list[Entry]] = {}
    for entry in log.history():
        if entry.undoes is None and entry.verdict != "clear":
            by_reviewer.setdefault(entry.reviewer, []).append(entry)
    return [
        {"reviewer": reviewer, "decisions": len(entries), "first": entries[0].at, "last": entries[-1].at}
        for reviewer, entries in sorted(by_reviewer.items())
    ]


def verdict_counts(log: DecisionLog) -> dict[str, int]:
    """Return the number of present decisions by verdict."""
    return dict(sorted(Counter(entry.verdict for entry in log.current().values()).items()))


def removal_counts(log: DecisionLog) -> dict[str, int]:
    """Return the number of removed images and rows by cause, for the causes that have any; without items in conflict.

    Removed tasks are not counted: they say nothing about single items.
    """
    conflicts = log.conflicts()
    counts = Counter(
        entry.cause
        for item, entry in log.current().items()
        if entry.verdict == "remove" and item.kind != "task" and item not in conflicts
    )
    return {cause: counts[cause] for cause in CAUSES if counts[cause]}


def check_target(out: Path, formats: Sequence[str]) -> None:
    """Raise UserError if a format is unknown, or if ``out`` is a file or holds something other than an export."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"There is no format {name!r}.", f"Use {', '.join(FORMATS)}.")
    check_export_folder(out, PROVENANCE)


def write_decision_files(
    tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any], out: Path, formats: Sequence[str]
) -> None:
    """Write tables, by name (:data:`TABLES`), into the folder ``out``; an earlier export there is replaced as a whole.

    csv and parquet: one file per table; json: all tables in ``decisions.json``. In csv, text that a spreadsheet would
    interpret as a formula begins with an apostrophe (:func:`core.runtime.csv_files.escape_formulas`), which importing
    the file removes.

    Raises:
        UserError: the folder cannot be written; an earlier export there is then unchanged.
    """
    with replacing_folder(out, _FILES) as folder:
        for name, table in tables.items():
            if "csv" in formats:
                write_csv(_encodable(table), folder / f"{name}.csv")
            if "parquet" in formats:
                _encodable(table).to_parquet(folder / f"{name}.parquet", index=False)
        if "json" in formats:
            # JSON has no NaN.
            clean = {name: table.astype(object).where(table.notna(), None) for name, table in tables.items()}
            lists = {name.replace("-", "_"): table.to_dict("records") for name, table in clean.items()}
            with (folder / "decisions.json").open("w", encoding="utf-8") as stream:
                json.dump({"provenance": provenance, **lists}, stream, indent=1)
        write_json(folder / PROVENANCE, provenance)


def _encodable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with escapes for what UTF-8 cannot encode, as in the names of undecodable files."""
    return table.map(
        lambda value: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
    )
