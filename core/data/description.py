"""Describe in sentences what was taken for what in a listing of images."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

import pandas as pd

from core.data.listing import SPLITS, Listing
from core.runtime.progress import format_count, format_names

_SHOWN_CLASSES = 5
_COPY = re.compile(r"(?: - copy)?(?: \(\d+\))?$")
_MISSING = {"nan", "none", "null", "n/a", "na", "-1", "?", "unknown", "unlabeled", "unlabelled"}


def describe_listing(listing: Listing) -> list[str]:
    """Return sentences on the classes, the images per class and the split."""
    sizes = listing.table["class"].value_counts(sort=False).sort_index()
    return [
        f"{listing.name}: {format_count(len(listing), 'image')} of {format_count(len(sizes), 'class', 'classes')}: "
        f"{format_names([*sizes.index], _SHOWN_CLASSES)}.",
        f"Images per class: {_spread_text(sizes)}.",
        _split_text(listing.table),
        *_lookalike_text([*sizes.index]),
        *_missing_text([*sizes.index]),
    ]


def _spread_text(sizes: pd.Series) -> str:
    if sizes.min() == sizes.max():
        return f"{sizes.min():,} in each"
    least, most = sizes.idxmin(), sizes.idxmax()
    return f"least {sizes.min():,} ({least!r}), median {sizes.median():,.0f}, most {sizes.max():,} ({most!r})"


def _split_text(table: pd.DataFrame) -> str:
    placed = table[table["split"] != ""]
    if placed.empty:
        return "No official split: hold out images of every class, or whole classes."
    sizes = placed.groupby("split")["class"].agg(["nunique", "size"])
    parts = [
        f"{split} {format_count(sizes['nunique'][split], 'class', 'classes')}, "
        f"{format_count(sizes['size'][split], 'image')}"
        for split in SPLITS
        if split in sizes.index
    ]
    rest = len(table) - len(placed)
    return f"Official split: {'; '.join(parts)}" + (f"; {format_count(rest, 'image')} in none." if rest else ".")


def _lookalike_text(names: list[str]) -> list[str]:
    """Return a sentence on classes whose names differ only by case, by Unicode form or by blanks."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = _COPY.sub("", unicodedata.normalize("NFKC", name).casefold())
        groups["".join(character for character in plain if character.isalnum()) or plain].append(name)
    alike = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    if not alike:
        return []
    shown = "; ".join(alike[:3]) + (f"; and {len(alike) - 3:,} more" if len(alike) > 3 else "")
    return [
        "Separate classes, though their names differ only by case, blanks, punctuation, Unicode form or the ending of "
        f"a copy: {shown}. If they are one class, give them one name."
    ]


def _missing_text(names: list[str]) -> list[str]:
    """Return a sentence on classes whose names usually mean that a label is missing."""
    if found := [name for name in names if name.strip().lower() in _MISSING]:
        return [f"Read as ordinary classes, though they may mean a missing label: {format_names(found)}."]
    return []
