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
    setting = declared(cls)[field]
    low, high = bounds_of(setting)
    low, high = low if minimum is None else minimum, high if maximum is None else maximum
    if setting.kind is float:
        options.setdefault("format", "%g")
        low, high = (None if bound is None else float(bound) for bound in (low, high))
    initial = setting.default if value is MISSING else value
    entered = place.number_input(_label(setting, options), low, high, initial, key=key, **_help(setting, options))
    return None if entered is None else setting.kind(entered)


def bounds_of(setting: Declared) -> tuple[Any, Any]:
    """Return the smallest and the largest value of a widget; None where there is none."""
    low: Any = setting.minimum
    high: Any = setting.maximum
    for bound in setting.bounds:
        if isinstance(bound, Gt):
            low = setting.kind(bound.gt) + _MARGIN
        elif isinstance(bound, Lt):
            high = setting.kind(bound.lt) - _MARGIN
    return low, high


def select(
    place: Any, cls: Any, field: str, *, key: str, value: Any = MISSING, choices: Sequence[Any] = (), **options: Any
) -> Any:
    """Draw a select box and return the choice; ``choices`` names some of them, or those of an open set."""
    setting = declared(cls)[field]
    choices = list(choices or setting.choices)
    initial = setting.default if value is MISSING else value
    index = choices.index(initial) if initial in choices else 0
    return place.selectbox(_label(setting, options), choices, index, key=key, **_help(setting, options))


def segments(place: Any, cls: Any, field: str, *, key: str, **options: Any) -> Any:
    """Draw a segmented control of all choices and return the chosen value."""
    setting = declared(cls)[field]
    return place.segmented_control(
        _label(setting, options),
        list(setting.choices),
        default=setting.default,
        key=key,
        required=True,
        **_help(setting, options),
    )


def several(
    place: Any, cls: Any, field: str, *, key: str, choices: Sequence[Any] = (), value: Any = MISSING, **options: Any
) -> list[Any]:
    """Draw a multiselect and return the chosen values, for a setting that is a tuple."""
    setting = declared(cls)[field]
    initial = setting.default if value is MISSING else value
    chosen = place.multiselect(
        _label(setting, options), list(choices or setting.choices), list(initial), key=key, **_help(setting, options)
    )
    return list(chosen)


def checkbox(place: Any, cls: Any, field: str, *, key: str, **options: Any) -> bool:
    """Draw a checkbox and return whether it is checked."""
    setting = declared(cls)[field]
    return bool(place.checkbox(_label(setting, options), setting.default, key=key, **_help(setting, options)))


def text(place: Any, cls: Any, field: str, *, key: str, **options: Any) -> str:
    """Draw a text input and return what was entered, without spaces around it."""
    setting = declared(cls)[field]
    entered = place.text_input(_label(setting, options), setting.default or "", key=key, **_help(setting, options))
    return str(entered).strip()


def _label(setting: Declared, options: dict[str, Any]) -> str:
    return str(options.pop("label", setting.label))


def _help(setting: Declared, options: dict[str, Any]) -> dict[str, Any]:
    return {"help": setting.setting.help, **options}
