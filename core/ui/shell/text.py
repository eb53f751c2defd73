"""Strings from data, files and people are shown as text, never as markup."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$&^=\"'])")


def plain(text: object) -> str:
    """``text`` such that Streamlit's Markdown shows it to the letter, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def shortened(name: str, most: int) -> str:
    """A name of at most ``most`` characters; of a longer one both ends, as names of classes often differ at the end."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[-end:]}"


def percent(interval: dict[str, float], sign: str = "") -> str:
    """``93.1 % [92.0, 94.2]`` from an interval of shares; ``sign="+"`` for differences."""
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.1f} % [{low:{sign}.1f}, {high:{sign}.1f}]"


def count(number: int, one: str, many: str = "") -> str:
    """``1 task``, ``2 tasks``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
