"""Write tables as csv that spreadsheets open as the text that it is: the only place where the product writes csv."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd

_START = r"('*[=+\-@\t\r\n])"
"""The start of a formula, also after apostrophes of its own."""
_NUMBER = r"[+-](?:[0-9]+\.?[0-9]*|\.[0-9]+)\Z"
"""No formula: -1 is a usual name of a class."""


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for csv: text that a spreadsheet would interpret as a formula is preceded by an apostrophe."""
    return table.replace(rf"\A(?!{_NUMBER}){_START}", r"'\1", regex=True)


def unescape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of text that :func:`escape_formulas`, of this or an earlier version, escaped."""
    return table.replace(rf"\A'{_START}", r"\1", regex=True)


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as csv without its index; text that a spreadsheet would interpret as a formula is escaped."""
    # Every text is quoted: an unquoted carriage return would end the row.
    return escape_formulas(table).to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write :func:`csv_text` to a file."""
    escape_formulas(table).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)
