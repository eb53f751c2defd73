"""Decisions as rows of a table, which people may write by hand and spreadsheets may open.

========= ==================================================================================================
column    meaning
========= ==================================================================================================
kind      ``task``, ``instance`` (one image in one role of one task) or ``image``; optional, as the next
          three say it
task_id   the task, as the task list names it; empty for an image
role      ``support`` or ``query``, of an instance only
image_id  the image, as the image set names it; empty for a task
verdict   ``keep``, ``remove``, ``relabel`` or ``unsure``; empty where the row is a comment and nothing else
label     the new class of a ``relabel``, by its name; else empty
reason    why; optional
reviewer  who decided; optional, default whoever reads the file in
source    the ranking or run that brought the item up; optional, default the file's name
comment   something said about the item, apart from the decision; optional
========= ==================================================================================================
"""

from __future__ import annotations

from collections import Counter

import pandas as pd

from core.decisions.log import Item

ITEM = ("kind", "task_id", "role", "image_id")
COLUMNS = (*ITEM, "verdict", "label", "reason", "reviewer", "source", "comment")
VERDICTS = ("keep", "remove", "relabel", "unsure")

_FORMULA = r"^('*[=+\-@\t\r\n])"
_GUARDED = r"^'('*[=+\-@\t\r\n])"


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a csv file: text that a spreadsheet would take for a formula begins with one apostrophe more."""
    return table.replace(_FORMULA, r"'\1", regex=True)


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """What :func:`escape_formulas` was given, of a table of text."""
    return table.replace(_GUARDED, r"\1", regex=True)


def given_classes(rows: pd.DataFrame) -> dict[Item, str]:
    """The class that every image and every instance of a task table was given; an image's is its most frequent one."""
    seen: dict[str, Counter[str]] = {}
    found: dict[Item, str] = {}
    for task, role, image, name in rows[["task_id", "role", "image_id", "class"]].itertuples(index=False):
        found[Item("instance", task, role, image)] = name
        seen.setdefault(image, Counter())[name] += 1
    for image, counts in seen.items():
        most = max(counts.values())
        found[Item("image", image_id=image)] = min(name for name, count in counts.items() if count == most)
    return found
