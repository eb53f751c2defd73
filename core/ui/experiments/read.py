"""Results of experiments on this machine, read once for all sessions and again when they have changed."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import streamlit as st

from core.experiments.conduct import result_folder
from core.experiments.profiles import PROFILES
from core.experiments.results import Result, Table, read_result


@dataclass(frozen=True)
class Found:
    """A result on the disk, not read yet; ``stamp`` changes when it does."""

    folder: Path
    profile: str
    stamp: int

    @property
    def label(self) -> str:
        """``small · 2026-01-31 12:00 UTC``."""
        return f"{self.profile} · {datetime.fromtimestamp(self.stamp / 1e9, UTC):%Y-%m-%d %H:%M} UTC"


def results_of(name: str) -> dict[str, Found]:
    """By profile, the newest first."""
    found = []
    for profile in PROFILES:
        folder = result_folder(name, profile)
        if (stamp := _stamp(folder / "config.json")) is not None:
            found.append(Found(folder, profile, stamp))
    return {one.profile: one for one in sorted(found, key=lambda one: one.stamp, reverse=True)}


def read(found: Found) -> Result:
    """The result, shared by all sessions, so it must not be changed.

    Raises:
        UserError: it is damaged.
    """
    return _read(str(found.folder), found.stamp)


def frame_of(table: Table) -> pd.DataFrame:
    """The table as it is, without markup."""
    return pd.DataFrame(table.rows, columns=pd.Index(table.columns))


def sheet_of(found: Found, name: str) -> str | None:
    """The picture of a grid as a data URI; None where it is missing."""
    path = found.folder / "grids" / f"{name}.png"
    stamp = _stamp(path)
    return None if stamp is None else _data_uri(str(path), stamp)


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@st.cache_resource(max_entries=16, show_spinner=False)
def _read(folder: str, stamp: int) -> Result:
    return read_result(Path(folder))


@st.cache_resource(max_entries=32, show_spinner=False)
def _data_uri(path: str, stamp: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
