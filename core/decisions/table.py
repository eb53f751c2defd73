"""Decisions as rows of a table that people can write by hand and spreadsheets can open.

========= ==================================================================================================
column    meaning
========= ==================================================================================================
kind      ``task``, ``instance`` (one image in one role of one task) or ``image``; optional, as the next
          three columns imply it
task_id   the task, as the task list names it; empty for an image
role      ``support`` or ``query``, of an instance only
image_id  the image, as the image set names it; empty for a task
verdict   ``keep``, ``remove``, ``relabel`` or ``unsure``; empty if the row is only a comment
label     the new class of a ``relabel``, by its name; else empty
cause     of a removal, why: ``label-error``, ``harmful`` (to the target), ``duplicate`` or ``other``; of ``keep``
          what was ruled out, of ``unsure`` what is suspected. Optional: it then follows from reason and source
          (:func:`core.decisions.causes.implied_cause`), else it is a label error, or ``other`` for a task
reason    any text on why; optional
reviewer  who decided; optional, default the reviewer who imports the file
source    the ranking or run that listed the item; optional, default the file's name
comment   a comment on the item, independent of the decision; optional
========= ==================================================================================================
"""

from __future__ import annotations

from collections import Counter

import pandas as pd

from core.decisions.records import Item

ITEM = ("kind", "task_id", "role", "image_id")
COLUMNS = (*ITEM, "verdict", "label", "cause", "reason", "reviewer", "source", "comment")
VERDICTS = ("keep", "remove", "relabel", "unsure")


def given_classes(rows: pd.DataFrame) -> dict[Item, str]:
    """Return the given class of every image and every instance of a task table.

    Of an image with several classes it is the most frequent one, of equally frequent ones the first by name.
    """
    counts_of_image: dict[str, Counter[str]] = {}
    given: dict[Item, str] = {}
    for task, role, image, name in rows[["task_id", "role", "image_id", "class"]].itertuples(index=False):
        given[Item("instance", task, role, image)] = name
        counts_of_image.setdefault(image, Counter())[name] += 1
    for image, counts in counts_of_image.items():
        given[Item("image", image_id=image)] = min(counts, key=lambda name: (-counts[name], name))
    return given


def table_items(table: pd.DataFrame) -> list[Item]:
    """Return the item of every row of a table with the columns kind, task_id, role and image_id."""
    return [Item(*key) for key in table[list(ITEM)].itertuples(index=False, name=None)]
