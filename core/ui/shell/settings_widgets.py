"""Draw widgets for declared settings: label, help, default, bounds and choices come from the declaration.

Each takes the place to draw in (``st`` or a column), the settings class, its field, and options of Streamlit's widget:
``key``, ``label``, ``value`` (the initial value), ``help`` and others. A page may narrow bounds and choices to what its
data allow; it never widens them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from annotated_types import Gt, Lt

from core.runtime.settings import Declared, declared
from core.ui.shell.paths import PathEntry, path_input

_MARGIN = 1e-8
"""Distance from a bound that is exclusive; Streamlit's bounds are inclusive."""


def number(place: Any, cls: Any, field: str, *, minimum: Any = None, maximum: Any = None, **options: Any) -> Any:
    """Draw a number input and return its value; None where ``value`` is None and nothing was entered."""
    setting, label, value, options = _prepare(cls, field, options)
    low, high = setting.minimum, setting.maximum
    for bound in setting.bounds:
        if isinstance(bound, Gt):
            low = setting.kind(bound.gt) + _MARGIN
        elif isinstance(bound, Lt):
            high = setting.kind(bound.lt) - _MARGIN
    low, high = low if minimum is None else minimum, high if maximum is None else maximum
    if setting.kind is float:
        low, high = (None if bound is None else float(bound) for bound in (low, high))
        options.setdefault("format", "%g")
    entered = place.number_input(label, low, high, value, **options)
    return None if entered is None else setting.kind(entered)


def select(place: Any, cls: Any, field: str, *, choices: Sequence[Any] = (), **options: Any) -> Any:
    """Draw a select box and return the choice; ``choices`` names some of them, or those of an open set."""
    setting, label, value, options = _prepare(cls, field, options)
    choices = list(choices or setting.choices)
    return place.selectbox(label, choices, choices.index(value) if value in choices else 0, **options)


def segments(place: Any, cls: Any, field: str, **options: Any) -> Any:
    """Draw a segmented control of all choices and return the chosen value."""
    setting, label, value, options = _prepare(cls, field, options)
    chosen = place.segmented_control(label, list(setting.choices), default=value, required=True, **options)
    return value if chosen is None else chosen  # a browser can send none


def several(place: Any, cls: Any, field: str, *, choices: Sequence[Any] = (), **options: Any) -> list[Any]:
    """Draw a multiselect and return the chosen values, for a setting that is a tuple."""
    setting, label, value, options = _prepare(cls, field, options)
    return list(place.multiselect(label, list(choices or setting.choices), list(value), **options))


def checkbox(place: Any, cls: Any, field: str, **options: Any) -> bool:
    """Draw a checkbox and return whether it is checked."""
    _, label, value, options = _prepare(cls, field, options)
    return bool(place.checkbox(label, value, **options))


def text(place: Any, cls: Any, field: str, **options: Any) -> str:
    """Draw a text input and return what was entered, without spaces around it."""
    _, label, value, options = _prepare(cls, field, options)
    return str(place.text_input(label, value or "", **options)).strip()


def path(place: Any, cls: Any, field: str, **options: Any) -> PathEntry:
    """Draw a text input for a path and return what was entered."""
    _, label, value, options = _prepare(cls, field, options)
    return path_input(place, label, value=str(value or ""), **options)


def _prepare(cls: Any, field: str, options: dict[str, Any]) -> tuple[Declared, str, Any, dict[str, Any]]:
    """Return the declaration, the label, the initial value, and the other options of Streamlit's widget."""
    setting = declared(cls)[field]
    options = {"label": setting.label, "value": setting.default, "help": setting.setting.help} | options
    return setting, options.pop("label"), options.pop("value"), options
