"""The two demo workspaces, made from the data in ``assets/``."""

from __future__ import annotations

from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import home
from core.workspace.workspace import Workspace, create

DEMOS = {
    "demo-noisy-tasks": "40 % of the training tasks have 80 % of their labels flipped",
    "demo-noisy-images": "10 % of the training images were mislabelled before tasks were drawn",
}
_ASSETS = Path(__file__).resolve().parents[2] / "assets" / "demo"


def open_demo(name: str, folder: Path | None = None) -> Workspace:
    """Return the workspace of a demo, made from the shipped files unless it exists; raise UserError if unknown."""
    if name not in DEMOS:
        raise UserError(f"Unknown demo {name!r}.", f"Use one of {', '.join(DEMOS)}.")
    place, source = (folder or home()) / name, _ASSETS / name
    if (place / "workspace.json").exists():
        return Workspace(place)  # of this or an earlier version; it may already hold decisions
    return create(place, source / "tasks", source / "model", about={"about": DEMOS[name]})
