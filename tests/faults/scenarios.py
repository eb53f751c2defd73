"""The commands whose every write is made to fail, on a tiny problem."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.shell import SOLVE, TASKS, TRAIN

W = ["-w", "mine"]


@dataclass(frozen=True)
class Scenario:
    """A command, run in the folder that :data:`SETUP` has filled."""

    name: str
    args: tuple[str, ...]


def prepare(folder: Path) -> None:
    """Write the files that the commands read: images, and a table of decisions on the tasks of the workspace."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")


def write_decisions(folder: Path, image_ids: list[str]) -> None:
    """Write ``decisions.json``: a removal of each image, and a comment on the first."""
    rows = [{"kind": "image", "image_id": name, "verdict": "remove", "reviewer": "Bob"} for name in image_ids]
    comments = [{"kind": "image", "image_id": image_ids[0], "reviewer": "Bob", "comment": "blurred"}]
    (folder / "decisions.json").write_text(json.dumps({"decisions": rows, "comments": comments}))


WORKSPACE = [
    [*TASKS, "--noise", "tasks:0.5:0.5", "--out", "tasks"],
    [*TRAIN, "--tasks", "tasks", "--out", "model"],
    ["open", "--tasks", "tasks", "--model", "model", *W],
]
"""Commands that make the workspace ``mine``."""
SETUP = [
    *WORKSPACE,
    ["review", "queue", *W, "--rounds", "1", "--no-calibrate", "--device", "cpu"],
    ["rank", *W, "--method", "dot", "--device", "cpu"],
    ["review", "decide", *W, "--as", "remove", "--first", "1", "--reviewer", "Ann"],
]
"""Commands that fill it, before :func:`prepare`."""

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("decide", ("review", "decide", *W, "--as", "keep", "--first", "3", "--reviewer", "Ann")),
        Scenario("import", ("review", "import", "decisions.json", *W)),
        Scenario("images", ("data", "--path", "pictures", "--name", "pets")),
        Scenario("tasks", (*TASKS, "--noise", "tasks:0.5:0.5", "--seed", "1", "--out", "tasks2")),
        Scenario("redraw", (*TASKS, "--noise", "tasks:0.5:0.5", "--seed", "1", "--out", "tasks")),
        Scenario("train", (*TRAIN, "--seed", "1", "--tasks", "tasks", "--out", "model2")),
        Scenario("open", ("open", "--tasks", "tasks", "--model", "model", "-w", "other")),
        Scenario("queue", ("review", "queue", *W, "--rounds", "1", "--no-calibrate", "--seed", "1", "--device", "cpu")),
        Scenario("rank", ("rank", *W, *SOLVE)),
        Scenario("remove", ("remove", *W, "--worst", "2", "--ranking", "newest", "--reviewer", "Ann")),
        Scenario("edit", ("edit", *W, "--how", "finetune", "--finetune-steps", "1", "--device", "cpu")),
        Scenario("export", ("export", *W, "--out", "exported")),
        Scenario("export again", ("export", *W, "--out", "old")),
        Scenario("review export", ("review", "export", *W, "--out", "exported")),
        Scenario("report", ("review", "report", *W, "--out", "report.html")),
        Scenario("sets save", ("sets", "save", "mine", *W)),
        Scenario("whatif", ("whatif", *W, "--prepare", "--device", "cpu")),
        Scenario("demo", ("sets", "list", "-w", "demo-noisy-tasks")),
    )
}
