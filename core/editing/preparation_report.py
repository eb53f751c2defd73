"""The shape of the report of prepared what-if estimates; importing it is light."""

from __future__ import annotations

from typing_extensions import TypedDict

from core.runtime.stored import OPEN, Count, Finite, Number, Text

REPORT = "report.json"


class PreparationReport(TypedDict):
    """``report.json`` of :func:`core.editing.prepared.prepare_estimates`; residuals by the name of their vector."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    basis: Text
    rank: Count
    values: list[Number]
    damping: Number
    shift: Finite
    residuals: dict[Text, Number]
