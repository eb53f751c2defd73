"""What a folder of workspaces holds, as far as the same work always makes the same, and what should not be there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from core.checkpoints.model import load_model
from core.data.store import open_stored, stored_image_sets
from core.tasks.generate import read_folder
from core.workspace.workspace import Workspace, all_workspaces

_OF_THE_MOMENT = re.compile(
    "at|started|finished|written|exported|added|command|seconds|processor_seconds|sequence|threads|versions"
)
_TEMPORARY = re.compile(r"\..*|.*\.tmp.*")
_ALLOWED = re.compile(r"\.start\.lock|\.lock|.*\.replaced")  # the last go after 14 days


def contents(folder: Path) -> dict[str, str]:
    """Open everything that is there, as the program does; return a digest per part. Raises what cannot be opened."""
    parts: dict[str, str] = {}
    for workspace in map(Workspace, all_workspaces()):
        parts |= _workspace(workspace)
    for stored in stored_image_sets():
        images = open_stored(stored)
        parts[f"images {stored.names}"] = _digest(images.images.tobytes() + repr([*images.ids]).encode())
    for path in sorted(folder.glob("tasks*/tasks.json")):
        parts[f"tasks {path.parent.name}"] = read_folder(path.parent).train.hash
    for path in sorted(folder.glob("model*/model.json")):
        parts[f"model {path.parent.name}"] = load_model(path.parent).hash
    for name in ("exported", "old"):
        if (folder / name).exists():
            parts[name] = _folder(folder / name)
    if (folder / "report.html").exists():
        parts["report"] = re.sub(r"\d\d:\d\d(:\d\d)?|\d+ s", "", (folder / "report.html").read_text())[-40:]
    return parts


def _workspace(workspace: Workspace) -> dict[str, str]:
    name = workspace.folder.name
    project, log = workspace.project(), workspace.decisions
    parts = {f"{name} problem": repr(project.hashes)}
    decided = {repr(item): (one.verdict, one.label, one.reviewer) for item, one in log.current().items()}
    parts[f"{name} decisions"] = repr(sorted(decided.items()))
    parts[f"{name} comments"] = repr(sorted({(one.item, one.reviewer, one.text) for one in log.comments()}, key=repr))
    parts[f"{name} snapshots"] = repr([one.name for one in log.snapshots()])
    parts[f"{name} sets"] = repr([(one, workspace.sets.get(one).changes.hash) for one in workspace.sets.names()])
    for run_folder in sorted((workspace.folder / "runs").glob("[!.]*")):
        run = workspace.runs.get(run_folder.name)
        assert run.config["kind"] == run.kind
        assert run.finished
        parts[f"{name} {run.id}"] = _folder(run.folder)
    return parts


def _folder(folder: Path) -> str:
    """Return one digest of all files, so that a folder of some of them is neither the old nor the new one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "provenance.json")
    return _digest(repr([(str(path.relative_to(folder)), _file(path)) for path in files]).encode())


def _file(path: Path) -> str:
    if path.suffix == ".json":
        return _digest(json.dumps(_lasting(json.loads(path.read_text()))).encode())
    if path.suffix in (".csv", ".parquet"):
        table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        return _digest(table.drop(columns="at", errors="ignore").to_csv().encode())
    return _digest(path.read_bytes()) if path.is_file() else "folder"


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if not _OF_THE_MOMENT.fullmatch(key)}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def leftovers(folder: Path) -> list[str]:
    """Return files and folders that a finished command should not have left."""
    hidden = [path for path in folder.rglob("*") if _TEMPORARY.fullmatch(path.name)]
    return sorted(str(path.relative_to(folder)) for path in hidden if not _ALLOWED.fullmatch(path.name))
