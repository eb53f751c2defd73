"""The page Experiments without a browser: what it starts, what it shows of a result, and what of a damaged one."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import core.ui.experiments.panel
from core.experiments.catalog import EXPERIMENTS
from core.experiments.profiles import PROFILES
from core.experiments.results import Series, Table
from core.experiments.run import result_folder
from core.experiments.style import GREY, HARMS, HELPS
from core.runtime.errors import UserError
from core.ui.charts.common import HARMFUL, HELPFUL, NEUTRAL
from core.ui.charts.experiments import plot_figure
from core.ui.experiments.panel import MISSING_IMAGES
from core.ui.experiments.results import MISSING_IMAGE, NO_RESULT, PAPER_NOTE, finding_markdown, mark_paper_columns
from core.ui.export.results import zip_files
from core.ui.shell.navigation import TITLES
from core.workspace.jobs import Job
from core.workspace.workspace import library_jobs
from tests.ui.conftest import Open, click, run_again, words
from tests.ui.experiment_fixture import DOTS, LINES, TABLE, WORDS, write_experiment


def put_job(folder: Path, args: list[str], code: int) -> Job:
    """A job that has ended."""
    place = folder / "20260131-120000-000000-aaaa"
    place.mkdir(parents=True)
    told = {"title": "Table 1: tasks, tiny", "args": args, "started": "2026-01-31T12:00:00+00:00"}
    (place / "job.json").write_text(json.dumps(told))
    (place / "exit.json").write_text(json.dumps({"code": code}))
    return library_jobs().get(place.name)


def commands(page: AppTest) -> list[str]:
    return [block.value for block in page.code]


class TestStarting:
    def test_every_experiment_says_what_it_measures_and_starts(
        self, show: Open, home: Path, started: list[list[str]]
    ) -> None:
        page = show("experiments")
        assert page.selectbox(key="experiment").options == [one.title for one in EXPERIMENTS.values()]
        for name, experiment in EXPERIMENTS.items():
            page.selectbox(key="experiment").set_value(name)
            assert experiment.description in words(run_again(page))
            click(page, "experiment_start")
            assert started[-1] == ["experiments", name, "--profile", "small"]
            assert commands(page)[-1] == f"tasklens experiments {name} --profile small"

    def test_size_and_seeds_are_passed_on(self, show: Open, home: Path, started: list[list[str]]) -> None:
        page = show("experiments")
        page.segmented_control(key="experiment_profile").set_value("full")
        run_again(page)
        assert PROFILES["full"].words in words(page)
        page.number_input(key="experiment_seeds_full").set_value(7)
        run_again(page)
        click(page, "experiment_start")
        assert started == [["experiments", "table1-tasks", "--profile", "full", "--seeds", "7"]]

    def test_missing_image_sets_are_named_with_what_adds_them(self, show: Open, home: Path) -> None:
        page = show("experiments")
        assert "mnist (“mnist5k”)" in words(page)
        assert f"{MISSING_IMAGES}: omniglot, mini-imagenet, fc100." in words(page)
        adding = commands(page)[0].splitlines()
        assert adding == [
            "tasklens data --format omniglot --path FOLDER --name omniglot --download",
            "tasklens data --format mini-imagenet --path FOLDER --name mini-imagenet",
            "tasklens data --format fc100 --path FOLDER --name fc100 --download",
        ]

    def test_nothing_is_missing_where_all_are_here(
        self, show: Open, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = EXPERIMENTS["table1-tasks"].data
        monkeypatch.setattr(core.ui.experiments.panel, "image_sets", lambda: {name: f"my {name}" for name in data})
        page = show("experiments")
        assert "omniglot (“my omniglot”)" in words(page)
        assert MISSING_IMAGES not in words(page)

    @pytest.mark.parametrize(("code", "said"), [(130, "was cancelled"), (2, "did not finish")])
    def test_a_stopped_experiment_can_be_resumed(
        self, show: Open, home: Path, started: list[list[str]], code: int, said: str
    ) -> None:
        args = ["experiments", "table1-tasks", "--profile", "tiny", "--seeds", "3"]
        job = put_job(home / "library" / "jobs", args, code)
        assert job.status() in ("cancelled", "failed")
        page = show("experiments")
        assert said in words(page)
        click(page, "experiment_resume")
        assert started == [args]

    def test_only_a_stopped_run_of_the_same_experiment_can_be_resumed(self, show: Open, home: Path) -> None:
        put_job(home / "library" / "jobs", ["experiments", "truth", "--profile", "tiny"], 2)
        page = show("experiments")
        assert "experiment_resume" not in [button.key for button in page.button]

    def test_one_that_runs_is_shown_and_cannot_be_started_twice(
        self, show: Open, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_job(home / "library" / "jobs", ["experiments", "table1-tasks", "--profile", "tiny"], 0)
        monkeypatch.setattr(Job, "status", lambda self: "running")
        page = show("experiments")
        assert page.button(key="experiment_start").disabled
        assert [button.label for button in page.button if button.label == "Cancel"] == ["Cancel"]
        page.selectbox(key="experiment").set_value("edit-methods")
        run_again(page)
        assert not page.button(key="experiment_start").disabled
        assert "Running now: Table 1: tasks, tiny." in words(page)


class TestResult:
    def test_without_one_it_says_what_to_do(self, show: Open, home: Path) -> None:
        page = show("experiments")
        assert page.title[0].value == TITLES["experiments"]
        assert NO_RESULT in words(page)
        assert not page.table

    def test_sentences_tables_plots_and_pictures_are_shown(self, show: Open, home: Path) -> None:
        write_experiment()
        page = show("experiments")
        assert "- **MNIST, harmful tasks.** Retraining gains +1.0 points." in words(page)
        (table,) = page.table
        assert [head.replace("\\", "") for head in table.value.columns] == [
            "method",
            "accuracy",
            ":gray[paper: accuracy]",
        ]
        assert PAPER_NOTE in words(page)
        assert len(page.get("plotly_chart")) == 3
        for said in (TABLE.note, LINES.note, LINES.title, DOTS.title):
            assert said in words(page)
        (sheet,) = [one.proto.body for one in page.get("html")]
        assert sheet.startswith('<img src="data:image/png;base64,')
        assert 'alt="Most helpful. Task 1: +0.5 ± 0.1, helpful, ' in sheet
        assert '. Scores." style' in sheet
        assert len(page.get("download_button")) == 2
        assert json.loads(page.json[0].value)["seeds"] == 5

    def test_markup_in_texts_is_shown_as_text(self, show: Open, home: Path) -> None:
        write_experiment()
        page = show("experiments")
        raw = [str(one.value) for kind in (page.markdown, page.caption) for one in kind]
        raw += [str(cell) for cell in page.table[0].value.to_numpy().ravel()]
        assert any("evil" in text for text in raw)
        assert not any("](http" in text or "<b>" in text for text in raw)
        assert "<b>" not in page.get("html")[0].proto.body

    def test_the_newest_is_shown_first_and_others_can_be_chosen(self, show: Open, home: Path) -> None:
        for age, profile in enumerate(("full", "tiny", "small")):
            config = write_experiment(profile=profile) / "config.json"
            os.utime(config, ns=(0, 10**18 - age * 10**12))
        page = show("experiments")
        (chosen,) = [one for one in page.segmented_control if str(one.key).startswith("experiment_result")]
        assert [option.split(" · ")[0] for option in chosen.options] == ["full", "tiny", "small"]
        assert json.loads(page.json[0].value)["profile"] == "full"
        chosen.set_value("small")
        assert json.loads(run_again(page).json[0].value)["profile"] == "small"

    def test_a_new_result_in_the_place_of_the_old_one_is_seen(self, show: Open, home: Path) -> None:
        folder = write_experiment()
        page = show("experiments")
        (folder / "findings.json").write_text('["Something else."]')
        os.utime(folder / "config.json", ns=(0, 10**18))
        assert "- Something else." in words(run_again(page))

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("config.json", "[]"),
            ("config.json", "{"),
            ("findings.json", '{"a": 1}'),
            ("tables/tasks.json", '{"name": "tasks"}'),
            (
                "tables/tasks.json",
                '{"name": "tasks", "title": "T", "columns": ["a", "b"], "rows": [["1"]], "note": ""}',
            ),
            ("plots/curve.json", "no JSON"),
            ("grids/tasks.json", "[]"),
        ],
    )
    def test_a_damaged_one_is_named_and_the_rest_works(
        self, show: Open, home: Path, started: list[list[str]], name: str, content: str
    ) -> None:
        (write_experiment() / name).write_text(content)
        page = show("experiments")
        (error,) = page.error
        assert name.rpartition("/")[2] in error.value.replace("\\", "")
        click(page, "experiment_start")
        assert started

    def test_a_plot_that_cannot_be_drawn_leaves_the_others(self, show: Open, home: Path) -> None:
        path = write_experiment() / "plots" / "curve.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "pie"}))
        page = show("experiments")
        assert LINES.title in page.error[0].value
        assert len(page.get("plotly_chart")) == 2

    def test_a_missing_picture_is_said(self, show: Open, home: Path) -> None:
        (write_experiment() / "grids" / "tasks.png").unlink()
        assert f"“Most helpful” {MISSING_IMAGE}" in words(show("experiments"))

    def test_the_archive_holds_the_folder(self, home: Path) -> None:
        folder = write_experiment()
        with zipfile.ZipFile(io.BytesIO(zip_files(folder))) as archive:
            names = set(archive.namelist())
        assert {"config.json", "seeds.parquet", "tables/tasks.csv", "grids/tasks.png", "README.md"} <= names


def test_results_lie_where_the_command_puts_them(home: Path) -> None:
    assert result_folder("truth", "tiny") == home / "library" / "experiments" / "truth-tiny"


def test_sentences_may_be_bold_and_nothing_else() -> None:
    assert finding_markdown("**MNIST.** Gains *more* [x](y)") == r"**MNIST\.** Gains \*more\* \[x\]\(y\)"
    assert finding_markdown("one ** alone") == r"one \*\* alone"


def test_only_columns_of_the_paper_are_grey() -> None:
    cells, papers = mark_paper_columns(
        Table("t", "T", ["method", "paper: AUC"], [["as the paper has it", "0.5"], ["a", ""]])
    )
    assert papers
    assert cells.to_numpy().tolist() == [["as the paper has it", r":gray[0\.5]"], ["a", ""]]
    _, papers = mark_paper_columns(replace(TABLE, columns=["a", "b", "c"]))
    assert not papers


def test_colours_are_those_of_the_other_pages() -> None:
    assert (HELPS, HARMS, GREY) == (HELPFUL, HARMFUL, NEUTRAL)


class TestFigures:
    def test_lines_have_bands_and_tell_every_value(self) -> None:
        band, line, once, reference = plot_figure(LINES).data
        assert (band.fill, band.hoverinfo) == ("toself", "skip")
        assert list(band.y) == pytest.approx([92, 94, 90, 88])
        assert list(line.customdata[1][1:]) == ["tasks removed: 20 %", "92 % [90 %, 94 %], measured"]
        assert (line.line.dash, reference.line.dash) == ("solid", "dot")
        assert once.marker.symbol.endswith("-open")
        assert list(once.error_y.array) == pytest.approx([1.0])
        assert once.name == "once (estimate)"
        assert once.customdata[0][2].endswith("estimate")

    def test_logarithmic_axes_are_labelled_in_whole_figures(self) -> None:
        one = Series("s", [0.02, 0.5, 1.0], [0.1, 0.2, 0.3])
        ticks = plot_figure(replace(LINES, series=[one], log_x=True)).layout.xaxis.ticktext
        assert {"2 %", "5 %", "10 %", "50 %", "100 %"} <= set(ticks)
        many = replace(one, x=[1.0, float("nan"), 20_000.0])
        ticks = plot_figure(replace(LINES, series=[many], log_x=True, percent_x=False)).layout.xaxis.ticktext
        assert ticks == ("1", "10", "100", "1,000", "10,000", "100,000")

    def test_long_words_stand_below_each_other(self) -> None:
        figure = plot_figure(DOTS)
        (dots,) = figure.data
        assert list(dots.x) == [0.5] * 6
        assert list(dots.y) == list(range(6))
        assert list(dots.error_x.arrayminus) == pytest.approx([0.1] * 6)
        assert figure.layout.yaxis.ticktext[0] == "a method with a long name, number<br>0"
        assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
        assert figure.layout.xaxis.title.text == "accuracy"

    def test_estimated_dots_are_hollow_and_names_are_text(self) -> None:
        figure = plot_figure(WORDS)
        (dots,) = figure.data
        assert dots.marker.symbol.endswith("-open")
        for text in (dots.name, dots.customdata[0][0], figure.layout.xaxis.ticktext[1]):
            assert "&lt;b&gt;" in text
            assert "<b>" not in text

    def test_what_cannot_be_drawn_is_named(self) -> None:
        with pytest.raises(UserError, match=LINES.title):
            plot_figure(replace(LINES, series=[Series("s", [0.0], [])]))

    @pytest.mark.parametrize("kind", ["lines", "dots"])
    def test_nothing_to_draw_is_drawn(self, kind: str) -> None:
        assert plot_figure(replace(LINES, kind=kind, series=[])).data == ()
