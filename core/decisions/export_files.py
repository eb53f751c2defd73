"""Write the tables of decisions as csv, parquet and JSON files with their provenance."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from core.decisions.table import escape_formulas
from core.runtime.errors import UserError
from core.runtime.files import check_export_folder, replacing_folder, write_json

FORMATS = ("csv", "parquet", "json")
TABLES = ("decisions", "conflicts", "corrected-labels", "comments")
PROVENANCE = "provenance.json"
_FILES = {f"{table}.{ending}" for table in TABLES for ending in FORMATS} | {PROVENANCE}


def check_target(out: Path, formats: Sequence[str]) -> None:
    """Raise UserError if a format is unknown, or if ``out`` is a file or holds something other than an export."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"There is no format {name!r}.", f"Use {', '.join(FORMATS)}.")
    check_export_folder(out, PROVENANCE)


def write_decision_files(
    tables: Mapping[str, pd.DataFrame], provenance: Mapping[str, Any], out: Path, formats: Sequence[str]
) -> None:
    """Write tables, by name (:data:`TABLES`), into the folder ``out``; an earlier export there is replaced as a whole.

    csv and parquet: one file per table; json: all tables in ``decisions.json``. In csv, text that a spreadsheet would
    interpret as a formula begins with an apostrophe (:func:`core.decisions.table.escape_formulas`), which importing the
    file removes.

    Raises:
        UserError: the folder cannot be written; an earlier export there is then unchanged.
    """
    with replacing_folder(out, _FILES) as folder:
        for name, table in tables.items():
            if "csv" in formats:
                safe = escape_formulas(_encodable(table))
                # Every text is quoted: a carriage return outside quotes would end the row.
                safe.to_csv(folder / f"{name}.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
            if "parquet" in formats:
                _encodable(table).to_parquet(folder / f"{name}.parquet", index=False)
        if "json" in formats:
            # JSON has no NaN.
            clean = {name: table.astype(object).where(table.notna(), None) for name, table in tables.items()}
            lists = {name.replace("-", "_"): table.to_dict("records") for name, table in clean.items()}
            with (folder / "decisions.json").open("w", encoding="utf-8") as stream:
                json.dump({"provenance": provenance, **lists}, stream, indent=1)
        write_json(folder / PROVENANCE, provenance)


def _encodable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with escapes for what UTF-8 cannot encode, as in the names of undecodable files."""
    return table.map(
        lambda value: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
    )
