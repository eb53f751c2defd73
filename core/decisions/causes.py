"""The cause of a decision: the question about the item that it answers.

Two questions stay apart: is the label wrong, and does the item harm a target? A decision about the label has the cause
``label-error``; only such decisions count as label errors found, or as labels found right. The other causes say why
training is better off without an item whose label may be right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, get_args

Cause = Literal["label-error", "harmful", "duplicate", "other"]
OptionalCause = Cause | Literal[""]
"""A cause; empty where none is stated."""
CAUSES: tuple[Cause, ...] = get_args(Cause)
CAUSE_WORDS: dict[str, str] = {
    "label-error": "label error",
    "harmful": "harmful to the target",
    "duplicate": "duplicate",
    "other": "other",
}
"""The causes as people read them."""
# What earlier versions, which stored no cause, wrote as the reason of a decision that was made from a list.
_WRITTEN_REASONS: tuple[tuple[str, Cause], ...] = (
    ("a duplicate, (selected|reviewed) on the Images page|a duplicate of another image", "duplicate"),
    ("its duplicate is in (the support of the task|a held-out task)", "duplicate"),
    ("highest loss, occurrences: .*", "label-error"),
    ("most harmful|most (harmful|helpful), occurrences: .*|among the [0-9]+ most harmful (tasks|images)", "harmful"),
    ("estimated to harm .* most|estimated to be (harmful|helpful) for .*", "harmful"),
)
# Kinds of runs (core.workspace.runs) whose lists are ordered by influence, and of the search for duplicates.
_SOURCES: dict[str, Cause] = {
    "rank": "harmful",
    "whatif": "harmful",
    "duplicates": "duplicate",
    "recommend": "label-error",
}


def named_cause(text: str) -> Cause | None:
    """Return the cause that a text names, by its value or in words; None if it names none."""
    text = text.strip().lower()
    return next((cause for cause in CAUSES if text in (cause, CAUSE_WORDS[cause])), None)


def causes_text(counts: Mapping[str, int]) -> str:
    """Return numbers by cause in words, such as ``label error: 12, duplicate: 3``."""
    return ", ".join(f"{CAUSE_WORDS[cause]}: {number:,}" for cause, number in counts.items())


@lru_cache(maxsize=1024)  # a log holds few different reasons and sources
def implied_cause(kind: str, reason: str, source: str) -> Cause:
    """Return the cause of a decision that states none, as in a log or a table of an earlier version.

    It follows from the reason if that names a cause or was written by a page, else from the ranking or run that listed
    the item. Else a decision on an image or a row is about its label, as decisions in a review are, and one on a task
    is not.

    Args:
        kind: Of the item: task, instance or image.
    """
    if cause := named_cause(reason):
        return cause
    for pattern, written in _WRITTEN_REASONS:
        if re.fullmatch(pattern, reason, re.DOTALL):
            return written
    return _SOURCES.get(source.partition("-")[0], "other" if kind == "task" else "label-error")
