"""A result of an experiment, written by hand: a table with the paper's column, a plot of each kind, and a grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from core.data import load_images
from core.experiments.drawing import draw_result
from core.experiments.results import ExperimentResult, Grid, Picture, Plot, Series, Table, write_result
from core.experiments.run import result_folder

EVIL = "![x](http://evil.example/a.png) <b>$x$</b>"
"""A text that would be markup."""
TABLE = Table(
    "tasks",
    "MNIST",
    ["method", "accuracy", "paper: accuracy"],
    [["Retraining", "0.8 ± 0.1", "0.79"], [EVIL, "0.7", ""]],
    "Mean ± standard deviation.",
)
LINES = Plot(
    "curve",
    "Accuracy while tasks are removed",
    "lines",
    "tasks removed",
    "accuracy",
    [
        Series("harmful first", [0.0, 0.2], [0.9, 0.92], [0.88, 0.9], [0.92, 0.94]),
        Series("once", [0.1], [0.91], [0.9], [0.92], estimate=True),
        Series("unedited", [0.0, 0.2], [0.9, 0.9], reference=True),
    ],
    percent_x=True,
    percent_y=True,
    note="Bands: one standard deviation.",
)
DOTS = Plot(
    "methods",
    "Methods",
    "dots",
    "",
    "accuracy",
    [Series("one", [f"a method with a long name, number {n}" for n in range(6)], [0.5] * 6, [0.4] * 6, [0.7] * 6)],
)
WORDS = Plot(
    "found", "Found", "dots", "image set", "share", [Series(EVIL, ["mnist", EVIL], [0.5, 0.25], estimate=True)]
)


def result(name: str = "table1-tasks", profile: str = "small") -> ExperimentResult:
    images = load_images("mnist5k")
    ids = [str(one) for one in images.ids[:6]]
    grid = Grid("tasks", "Most helpful", images.name, images.hash, [Picture("Task 1", ids, EVIL, 0.5, 0.1)], "Scores.")
    config = {
        "title": "Table 1: tasks",
        "experiment": name,
        "profile": profile,
        "seeds": 5,
        "command": f"tasklens experiments {name}",
        "order": ["tasks", "curve", "methods", "found"],
    }
    findings = ["**MNIST, harmful tasks.** Retraining gains +1.0 points.", f"Beware of {EVIL}."]
    return ExperimentResult(config, findings, [TABLE], [LINES, DOTS, WORDS], [grid])


def write_experiment(name: str = "table1-tasks", profile: str = "small") -> Path:
    """Write it where the page looks for it, with the sheet of the grid but without files of the plots."""
    folder, made = result_folder(name, profile), result(name, profile)
    write_result(folder, made, pd.DataFrame({"seed": [0], "accuracy": [0.8]}))
    draw_result(folder, replace(made, plots=[]))
    return folder
