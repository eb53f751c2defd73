"""The calls that the dashboard runs in processes of their own, because they read what users name or upload.

The arguments and the values are JSON; see :mod:`core.runtime.isolated`.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from core.actions.image_settings import ImportOptions
from core.actions.import_decisions import import_decisions, plan_import
from core.actions.inspect import Preview, inspect_checkpoint_file, inspect_images
from core.data.images import squeeze_grey
from core.decisions.records import decision_text
from core.runtime.fork_server import Call
from core.runtime.isolated import IsolatedCalls
from core.runtime.progress import Progress, format_count
from core.workspace.workspace import Workspace

THUMBNAILS = "thumbnails.npy"
"""The images of a preview in its folder, uint8 ``(n, height, width)`` or ``(n, height, width, 3)``."""
_THUMBNAIL_PX = 256
"""Longest side of a thumbnail; twice that of a tile on the screen, for screens of high resolution."""
_MAX_CHANGING = 1_000
"""Decisions that change which are listed one by one."""


def _inspect_images(arguments: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    options = dict(arguments["options"])
    options["splits"] = Path(options["splits"]) if options["splits"] else None
    report, preview = inspect_images(Path(arguments["path"]), ImportOptions(**options), progress)
    shown = None
    if preview is not None:
        np.save(folder / THUMBNAILS, _thumbnails(preview), allow_pickle=False)
        shown = {name: getattr(preview, name) for name in ("classes", "counts", "is_final")}
    return {"report": asdict(report), "preview": shown}


def _thumbnails(preview: Preview) -> np.ndarray:
    images = squeeze_grey(preview.pixels)
    scale = _THUMBNAIL_PX / max(images.shape[1:3])
    if scale >= 1:
        return images
    size = (max(1, round(images.shape[2] * scale)), max(1, round(images.shape[1] * scale)))
    return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in images])


def _inspect_checkpoint(arguments: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    checkpoint, tasks = Path(arguments["path"]), Path(arguments["tasks"])
    return {"report": asdict(inspect_checkpoint_file(checkpoint, arguments["backbone"], tasks))}


def _plan_import(arguments: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    workspace = Workspace(Path(arguments["workspace"]))
    plan = plan_import(workspace, Path(arguments["path"]), **arguments["options"])
    names = workspace.project().images.class_names
    rows = [
        {
            "Item": ", ".join(filter(None, (new.item.task_id, new.item.role, new.item.image_id))),
            "Current": f"{decision_text(was, names)} by {was.reviewer}",
            "In the file": f"{decision_text(new, names)} by {new.reviewer}",
        }
        for new, was in plan.changing[:_MAX_CHANGING]
    ]
    return {
        "sentences": plan.sentences,
        "changing": rows,
        "number_changing": len(plan.changing),
        "is_empty": plan.is_empty,
    }


def _import_decisions(arguments: dict[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    workspace = Workspace(Path(arguments["workspace"]))
    done = import_decisions(workspace, Path(arguments["path"]), **arguments["options"])
    return {"written": format_count(len(done.decisions), "decision"), "source": done.source}


CALLS: dict[str, Call] = {
    "images": _inspect_images,
    "checkpoint": _inspect_checkpoint,
    "plan": _plan_import,
    "import": _import_decisions,
}

isolated_calls = IsolatedCalls(__name__)
"""The calls of this process."""


def image_arguments(path: Path, options: ImportOptions) -> dict[str, Any]:
    """Return the arguments of the call ``images`` (:func:`core.actions.inspect.inspect_images`)."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {"path": str(path), "options": values | {"splits": str(options.splits) if options.splits else None}}
