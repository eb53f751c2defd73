"""Export the decisions: who decided what, when, why and from which ranking, with the provenance of all of it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from core import __version__
from core.actions.queue import newest_queue
from core.decisions import export_tables as tables
from core.decisions.agreement import pairwise_agreement
from core.decisions.export_tables import FORMATS, TABLES, check_target, write_decision_files
from core.decisions.table import given_classes
from core.runtime.clock import timestamp
from core.workspace.workspace import Workspace


def decision_table(workspace: Workspace) -> pd.DataFrame:
    """Return every decision that counts and those that agree or conflict with it, with the ranks of the newest queue.

    The columns are those of :func:`core.decisions.export_tables.decision_table` and
    :func:`core.decisions.export_tables.with_queue`.
    """
    project, queue = workspace.project(), newest_queue(workspace)
    given = given_classes(project.tasks.train.rows)
    decisions = tables.decision_table(workspace.decisions, project.images.class_names, given)
    items = queue.table("items.parquet") if queue else None
    return tables.with_queue(decisions, queue.id if queue else "", items)


def provenance(workspace: Workspace) -> dict[str, Any]:
    """Return the provenance of the decisions and their tables: hashes, versions, queue, reviewers, agreement."""
    log, project, queue = workspace.decisions, workspace.project(), newest_queue(workspace)
    reviewers = tables.reviewer_table(log)
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
        "counts": tables.verdict_counts(log),
        "removals": tables.removal_counts(log),
        "conflicts": len(log.conflicts()),
        "unreadable_rows": [str(row) for row in log.unreadable_rows()],
        "reviewers": reviewers,
        "agreement": pairwise_agreement(log, [row["reviewer"] for row in reviewers]),
    }


def export_decisions(workspace: Workspace, out: Path, *, formats: Sequence[str] = FORMATS) -> Path:
    """Write decisions, conflicts, corrected labels, comments and provenance into the folder ``out``.

    :func:`core.decisions.export_tables.write_decision_files` says how; :mod:`core.actions.import_decisions` reads each
    of the files.

    Raises:
        UserError: a format is unknown, ``out`` holds something else, or it cannot be written; an earlier export there
            is then unchanged.
    """
    check_target(out, formats)
    decisions = decision_table(workspace)
    contents = (
        decisions,
        decisions[decisions["standing"] == "conflict"].reset_index(drop=True),
        tables.corrected_labels(decisions),
        tables.comment_table(workspace.decisions),
    )
    write_decision_files(dict(zip(TABLES, contents, strict=True)), provenance(workspace), out, formats)
    return out
