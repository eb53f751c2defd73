"""The report of a review: one self-contained file that escapes names."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.actions import report as module
from core.actions.edit_results import FURTHER_TRAINING_GAINS
from core.actions.queue import KIND
from core.actions.report import report_html, write_report
from core.decisions.log import Decision
from core.editing.net_effect import NO_CONTROL
from core.influence.basis import ENGINE_VERSION
from core.review import report_figures
from core.review.forecast import Forecast
from core.review.report_figures import Line, chart, thumbnail
from core.runtime.errors import UserError
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace
from tests.actions.reviewed import queue_key, small_workspace, some_items
from tests.actions.test_decisions_io import Logged
from tests.ui.queue_fixture import queue_rows

EVIL = "<script>alert('x')</script>"
VOID = {"meta", "br", "img", "line"}
SOLVE = {"curvature": "exact", "solver": "cg", "subsample": "all", "device": "cpu", "dtype": "float32"}
SOLVE |= {"damping_raised": False, **dict.fromkeys(("rank", "curvature_tasks", "tasks", "iterations"), 1)}
SOLVE |= dict.fromkeys(("damping", "damping_share", "weight_decay", "residual", "smallest", "largest"), 0.1)
ESTIMATED = {"solver": SOLVE, "relative_step": 0.1, "predicted_loss_change": -0.1}
"""What ``edit.json`` of a linear edit adds."""


class Page(HTMLParser):
    """Parse HTML whose tags must be closed in order; record tags, text and loaded resources."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return small_workspace(tmp_path_factory.mktemp("problem"))


@pytest.fixture
def workspace(problem: Workspace, tmp_path: Path) -> Workspace:
    made = Logged(problem, tmp_path / "decisions.sqlite")
    items = some_items(problem)
    a, b, c = items["image"][:3]
    made.decisions.append(
        [
            Decision(a, "relabel", 7, EVIL, EVIL, "queue"),
            Decision(b, "remove", None, "", EVIL),
            Decision(items["task"][4], "remove", None, "mixed up", EVIL),
            Decision(c, "keep", None, "", EVIL),
        ]
    )
    made.decisions.append(
        [Decision(c, "remove", reviewer="bob"), Decision(items["instance"][5], "unsure", None, "", "bob")]
    )
    made.decisions.comment(a, "bob", f"see ![](http://evil.example/x.png) {EVIL}")
    return made


def test_the_report_loads_and_runs_nothing(workspace: Workspace, tmp_path: Path) -> None:
    text = write_report(workspace, tmp_path / "review.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.seen
    assert all(source.startswith("data:image/") for source in page.loaded)
    assert not re.search(r"url\(|@import", text)
    assert EVIL in page.text
    assert EVIL not in text
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text


def test_the_report_gives_counts_and_items(workspace: Workspace) -> None:
    page = Page(report_html(workspace))
    for words in (
        "2 items decided",
        "2 label errors",
        "1 tasks removed",
        "0 labels kept",
        "1 unsure",
        "1 in conflict",
        "Relabelled (1)",
        "→ 7",
        "Removed: label error (1)",
        "Tasks removed (1)",
        "mixed up",
        "Conflicts (1)",
        "keep / remove",
        "Comments (1)",
        workspace.project().hashes["data"],
    ):
        assert words in page.text, words
    assert page.seen.count("img") == 3


def test_images_beyond_the_limit_are_counted(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_items(workspace)["image"][3:9]
    workspace.decisions.append([Decision(image, "remove", reviewer="ann") for image in images])
    monkeypatch.setattr(report_figures, "MAX_TILES", 4)
    page = Page(report_html(workspace))
    assert "Removed: label error (7)" in page.text
    assert "3 more" in page.text


def test_net_effects_come_first_and_estimates_last(workspace: Workspace) -> None:
    hashes, changes = workspace.project().hashes, workspace.changes().hash
    ids = [f"h{number}" for number in range(10)]
    level, change = {"mean": 0.9, "low": 0.88, "high": 0.92}, {"mean": 0.012, "low": -0.001, "high": 0.025}
    gain = {"mean": 0.01, "low": 0.005, "high": 0.015}

    def made(way: str, accuracy: float, accuracy_change: dict[str, float], **key: object) -> Run:
        def work(run: RunWriter) -> None:
            figures = {"accuracy": level, "accuracy_change": accuracy_change, "loss": level, "loss_change": change}
            figures |= {"linear": ESTIMATED, "newton": {"newton": {"taken": False}}}.get(way, {})
            run.write_json("edit.json", figures)
            run.write_table("heldout.parquet", pd.DataFrame({"task_id": ids, "accuracy": accuracy, "loss": 1.0}))

        return workspace.runs.get_or_compute(f"edit-{way}", {**hashes, **key}, work)

    runs = [
        made("linear", 0.9, change, removal=changes, engine=ENGINE_VERSION),
        made("finetune", 0.9, change, removal=changes),
        made("finetune-all", 0.87, gain),
        made("newton", 0.9, change, removal=changes),
    ]
    try:
        text = Page(report_html(workspace)).text
    finally:
        for run in runs:
            shutil.rmtree(run.folder)
    estimated, net, unknown = (module.METHOD_NOTES[method] for method in ("linear", "finetune", "newton"))
    assert f"measured {net} +3.0 [+3.0, +3.0] 90.0 [88.0, 92.0] +1.2 [-0.1, +2.5]" in text
    assert f"measured {unknown} {NO_CONTROL} 90.0" in text
    assert f"estimate {estimated} +1.2 [-0.1, +2.5]" in text
    assert text.index(net) < text.index(unknown) < text.index(estimated)
    assert FURTHER_TRAINING_GAINS in text


def test_a_calibrated_queue_adds_a_forecast_and_curves(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    images = some_items(workspace)["image"]
    n = len(images)

    def forecast(items: pd.DataFrame, decided: dict[int, bool]) -> Forecast:
        assert (len(items), decided) == (n, {0: True, 1: True}), "a conflict is not decided"
        found = np.linspace(0, 7, n + 1)
        left = 7 - found
        return Forecast(found, found * 0.8, found * 1.2, left, left * 0.8, left * 1.2, np.full(n, 0.5))

    monkeypatch.setattr(module, "forecast", forecast)
    items = queue_rows(pd.DataFrame({"image_id": [image.image_id for image in images]})).assign(
        suspicion=np.linspace(1, 0, n), **{"above uniform": np.linspace(0.05, 1, n)}
    )
    curves = pd.DataFrame({"candidate": EVIL, "planted": "uniform", "checked": [0.1, 1.0], "found": [0.6, 1.0]})
    candidates = {"candidate": "loss", "planted": "uniform", "average_precision": 0.9, "low": 0.8, "high": 0.95}
    candidates |= {"recall": 0.5, "seconds": 1.0}

    def work(run: Any) -> None:
        run.write_table("items.parquet", items)
        run.write_table("curves.parquet", curves)
        run.write_table("candidates.parquet", pd.DataFrame([{**candidates, "chosen": True}]))
        run.write_json("summary.json", {"level": "image", "items": n, "ranking": "loss", "calibrated": True})

    run = workspace.runs.get_or_compute(KIND, queue_key(workspace), work)
    try:
        page = Page(report_html(workspace))
    finally:
        shutil.rmtree(run.folder)
    assert re.search(rf"\b{n} items .*\b2 were", page.text)
    assert re.search(r"\b5 label errors .*\b4 to 6\b", page.text)
    assert page.seen.count("svg") == 2
    assert "“loss”" in page.text
    assert "0.800 to 0.950" in page.text
    assert f"{EVIL} chance" in page.text.replace("  ", " ")


def test_errors_without_decisions_or_a_writable_path(problem: Workspace, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="decisions"):
        report_html(Logged(problem, tmp_path / "empty.sqlite"))
    with pytest.raises(UserError, match=str(tmp_path)):
        write_report(workspace, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=str(tmp_path / "file")):
        write_report(workspace, tmp_path / "file" / "review.html")


def test_thumbnails_and_charts() -> None:
    assert thumbnail(np.zeros((28, 28, 1), np.uint8)).startswith("data:image/png;base64,")
    assert thumbnail(np.zeros((200, 100, 3), np.uint8)).startswith("data:image/jpeg;base64,")
    x = np.arange(1000.0)
    drawn = chart([Line("<a>", x, x, x, x)], title='"t"', x_label="<x>", y_label="y")
    assert "<a>" not in drawn
    assert "<x>" not in drawn
    assert 'aria-label="&quot;t&quot;"' in drawn
    assert len(drawn) < 20_000
    chart([Line("none", np.zeros(1), np.zeros(1))], title="", x_label="", y_label="")
