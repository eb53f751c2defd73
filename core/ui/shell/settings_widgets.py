"""Draw widgets for declared settings: label, help, default, bounds and choices come from the declaration.

Each takes the place to draw in (``st`` or a column), the settings class, its field, and a key. A page may narrow bounds
and choices to what its data allow, and may set another initial value; it never widens them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING
from typing import Any

from annotated_types import Gt, Lt

from core.runtime.settings import Declared, declared

_MARGIN = 1e-8
"""Distance from a bound that is exclusive; Streamlit's bounds are inclusive."""


def number(
    place: Any,
    cls: Any,
    field: str,
    *,
    key: str,
    value: Any = MISSING,
    minimum: Any = None,
    maximum: Any = None,
    **options: Any,
) -> Any:
    """Draw a number input and return its value; None where ``value`` is None and nothing was entered.

    Args:
        value: Initial value; default: that of the class.
        minimum, maximum: Narrower bounds.
        options: Further arguments of ``st.number_input``, such as ``label`` and ``help``.
    """
    one = declared(cls)[field]
    low, high = bounds_of(one)
    low, high = low if minimum is None else minimum, high if maximum is None else maximum
    if one.kind is float:
        options.setdefault("format", "%g")
        low, high = (None if bound is None else float(bound) for bound in (low, high))
    begin = one.default if value is MISSING else value
    entered = place.number_input(_label(one, options), low, high, begin, key=key, **_help(one, options))
    return None if entered is None else one.kind(entered)


def bounds_of(one: Declared) -> tuple[Any, Any]:
    """Return the smallest and the largest value of a widget; None where there is none."""
    low: Any = one.minimum
    high: Any = one.maximum
    for bound in one.bounds:
        if isinstance(bound, Gt):
            low = one.kind(bound.gt) + _MARGIN
        elif isinstance(bound, Lt):
            high = one.kind(bound.lt) - _MARGIN
    return low, high


def select(
    place: Any, cls: Any, field: str, *, key: str, value: Any = MISSING, choices: Sequence[Any] = (), **options: Any
) -> Any:
    """Draw a select box and return the choice; ``choices`` names some of them, or those of an open set."""
    one = declared(cls)[field]
    choices = list(choices or one.choices)
    begin = one.default if value is MISSING else value
    index = choices.index(begin) if begin in choices else 0
    return place.selectbox(_label(one, options), choices, index, key=key, **_help(one, options))


def segments(place: Any, cls: Any, field: str, *, key: str, **options: Any) -> Any:
    """Draw a segmented control of all choices and return the chosen one."""
    one = declared(cls)[field]
    return place.segmented_control(
        _label(one, options),
        list(one.choices),
        default=one.default,
        key=key,
        required=True,
        **_help(one, options),
    )


def several(
    place: Any, cls: Any, field: str, *, key: str, choices: Sequence[Any] = (), value: Any = MISSING, **options: Any
) -> list[Any]:
    """Draw a multiselect and return the chosen values, for a setting that is a tuple."""
    one = declared(cls)[field]
    begin = one.default if value is MISSING else value
    chosen = place.multiselect(
        _label(one, options), list(choices or one.choices), list(begin), key=key, **_help(one, options)
    )
    return list(chosen)


def checkbox(place: Any, cls: Any, field: str, *, key: str, **options: Any) -> bool:
    """Draw a checkbox and return whether it is checked."""
    one = declared(cls)[field]
    return bool(place.checkbox(_label(one, options), one.default, key=key, **_help(one, options)))


def text(place: Any, cls: Any, field: str, *, key: str, **options: Any) -> str:
    """Draw a text input and return what was entered, without spaces around it."""
    one = declared(cls)[field]
    entered = place.text_input(_label(one, options), one.default or "", key=key, **_help(one, options))
    return str(entered).strip()


def _label(one: Declared, options: dict[str, Any]) -> str:
    return str(options.pop("label", one.label))


def _help(one: Declared, options: dict[str, Any]) -> dict[str, Any]:
    return {"help": one.setting.help, **options}
