"""Read the results of experiments on this machine, once for all sessions and again after a change."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import streamlit as st

from core.experiments.profiles import PROFILES
from core.experiments.results import CONFIG, ExperimentResult, read_result, result_sequence
from core.experiments.run import result_folder


@dataclass(frozen=True)
class StoredResult:
    """A result on disk that has not been read yet; ``stamp`` changes with it."""

    folder: Path
    profile: str
    stamp: int

    @property
    def label(self) -> str:
        """Return ``small · 2026-01-31 12:00 UTC``."""
        return f"{self.profile} · {datetime.fromtimestamp(self.stamp / 1e9, UTC):%Y-%m-%d %H:%M} UTC"


def results_of(name: str) -> dict[str, StoredResult]:
    """Return the results of an experiment by profile, newest first."""
    folders = {profile: result_folder(name, profile) for profile in PROFILES}
    stamps = {profile: stamp for profile in folders if (stamp := _stamp(folders[profile] / CONFIG)) is not None}
    order = {profile: (result_sequence(folders[profile]), stamp) for profile, stamp in stamps.items()}
    newest_first = sorted(order, key=order.__getitem__, reverse=True)
    return {profile: StoredResult(folders[profile], profile, stamps[profile]) for profile in newest_first}


@st.cache_resource(max_entries=16, show_spinner=False)
def read(stored: StoredResult) -> ExperimentResult:
    """Return the result, which all sessions share and must not change; raise UserError if it is damaged."""
    return read_result(stored.folder)


def sheet_of(stored: StoredResult, name: str) -> str | None:
    """Return the image of a grid as a data URI; None where it is missing."""
    path = stored.folder / "grids" / f"{name}.png"
    return None if (stamp := _stamp(path)) is None else _data_uri(str(path), stamp)


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@st.cache_resource(max_entries=32, show_spinner=False)
def _data_uri(path: str, stamp: int) -> str:
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode()}"
