"""Plots and image sheets on disk: the files open, contain their texts, and are the same when drawn again."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from core.data import load_images
from core.experiments.drawing import draw_result, plot_figure
from core.experiments.formatting import format_value
from core.experiments.picture_sheet import picture_sheet, score_text
from core.experiments.results import ExperimentResult, Grid, Picture, Plot, Series
from core.experiments.style import GREY, HARMS, HELPS, is_horizontal, is_log, series_styles
from core.runtime.errors import UserError

LINES = Plot(
    "curve",
    "Accuracy while tasks are removed",
    "lines",
    "tasks removed",
    "accuracy",
    [
        Series("harmful first", [0.0, 0.2, 0.4], [0.9, 0.91, 0.92], [0.89, 0.9, 0.91], [0.91, 0.92, 0.93]),
        Series("edited model", [0.0, 0.2, 0.4], [0.9, 0.905, 0.91], estimate=True),
        Series("unedited", [0.0, 0.4], [0.9, 0.9], reference=True),
    ],
    percent_x=True,
    percent_y=True,
    note="Bands: $one$ standard deviation <of> seeds.",
)
DOTS = Plot(
    "cost",
    "Cost and closeness",
    "dots",
    "meta-gradients",
    "correlation",
    [Series("linear", [10.0, 1000.0], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7])],
    log_x=True,
)
WORDS = Plot(
    "words",
    "Methods",
    "dots",
    "",
    "accuracy",
    [Series(f"set {one}", ["no change", "retrained, without what is harmful by the loss"], [0.1, 0.2]) for one in "ab"],
)
FOUND = Plot(
    "found",
    "Found",
    "dots",
    "image set",
    "share",
    [
        Series("measured", ["omniglot", "mnist"], [0.5, 0.25], [0.4, 0.2], [0.6, 0.3]),
        Series("paper", ["mnist", "fc100"], [0.3, 0.4], reference=True),
    ],
)
PLOTS = [LINES, DOTS, WORDS, FOUND]


def drawn(folder: Path, *plots: Plot, grids: tuple[Grid, ...] = ()) -> Path:
    draw_result(folder, ExperimentResult({}, [], plots=list(plots), grids=list(grids)))
    return folder


def text_of(path: Path) -> str:
    """Return the text of an SVG, as a screen reader reads it."""
    return " | ".join(text for node in ElementTree.parse(path).iter() if (text := (node.text or "").strip()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("drawn"), *PLOTS)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
class TestPlots:
    def test_png_is_white_and_wide_enough_for_print(self, folder: Path, plot: Plot) -> None:
        with Image.open(folder / "plots" / f"{plot.name}.png") as picture:
            picture.load()
            assert picture.width == 1400
            assert 500 < picture.height < 1500
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
            assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20

    def test_svg_has_all_texts(self, folder: Path, plot: Plot) -> None:
        text = text_of(folder / "plots" / f"{plot.name}.svg")
        for word in (plot.title, plot.x_label, plot.y_label, plot.note):
            assert word in text
        if len(plot.series) > 1:
            for series in plot.series:
                assert f"{series.name} (estimate)" if series.estimate else series.name in text

    def test_svg_is_the_same_when_drawn_again(self, folder: Path, tmp_path: Path, plot: Plot) -> None:
        one, other = (place / "plots" / f"{plot.name}.svg" for place in (folder, drawn(tmp_path, plot)))
        assert one.read_bytes() == other.read_bytes()
        assert not re.search(rb"<dc:date>", one.read_bytes())


def test_estimates_are_dashed_and_hollow_and_references_grey() -> None:
    measured, estimate, reference = plot_figure(LINES).axes[0].lines
    assert (measured.get_linestyle(), estimate.get_linestyle()) == ("-", "--")
    assert estimate.get_markerfacecolor() == "white"
    assert measured.get_markerfacecolor() != "white"
    assert reference.get_color() == GREY
    assert len({line.get_marker() for line in (measured, estimate, reference)}) == 3


def test_bands_and_error_bars_reach_from_low_to_high() -> None:
    (band,) = plot_figure(LINES).axes[0].collections
    assert band.get_datalim(plot_figure(LINES).axes[0].transData).height > 0
    (bars,) = plot_figure(DOTS).axes[0].containers
    ends = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx([0.4, 0.6]), pytest.approx([0.5, 0.7])]


def test_a_value_outside_its_interval_is_drawn() -> None:
    odd = replace(DOTS, series=[Series("odd", [1.0], [0.5], [0.6], [float("nan")])])
    assert plot_figure(odd).axes[0].containers


def test_a_line_of_one_point_has_error_bars() -> None:
    single = replace(LINES, series=[Series("once", [0.1], [0.5], [0.4], [0.6])])
    assert plot_figure(single).axes[0].containers


def test_labels_that_do_not_fit_side_by_side_are_horizontal() -> None:
    assert not is_horizontal(WORDS)
    many = replace(WORDS, series=[Series("s", [f"a rather long name, number {n}" for n in range(9)], [0.5] * 9)])
    assert is_horizontal(many)
    axes = plot_figure(many).axes[0]
    assert axes.get_yticklabels()[0].get_text() == "a rather long name, number 0"
    assert axes.yaxis_inverted()
    longer = replace(many, series=[Series("s", [f"a rather long name, number {n}" for n in range(20)], [0.5] * 20)])
    assert plot_figure(longer).get_figheight() > plot_figure(many).get_figheight()


def test_dots_of_one_label_are_side_by_side() -> None:
    measured, paper = (container.lines[0].get_xdata() for container in plot_figure(FOUND).axes[0].containers)
    places = sorted([*measured, *paper])
    assert [round(place) for place in places] == [0, 1, 1, 2]
    assert len(set(places)) == 4


def test_an_axis_with_zero_is_not_logarithmic() -> None:
    assert is_log(DOTS)
    assert not is_log(replace(DOTS, series=[Series("s", [0.0, 1.0], [0.0, 1.0])]))
    assert is_log(replace(DOTS, series=[Series("s", [float("nan"), 1.0], [0.0, 1.0])]))


def test_logarithmic_axes_are_labelled_in_numbers(folder: Path) -> None:
    assert "| 100 |" in text_of(folder / "plots" / "cost.svg")


def test_seven_series_differ_without_colours() -> None:
    found = series_styles([Series(str(n), [], []) for n in range(7)])
    assert len({look.marker for look in found}) == len({look.symbol for look in found}) == 7
    chance, unedited = series_styles([Series(one, [], [], reference=True) for one in ("chance", "unedited")])
    assert (chance.colour, unedited.colour) == (GREY, GREY)
    assert (chance.stroke, chance.dash) != (unedited.stroke, unedited.dash)
    assert (
        len({(look.colour, look.marker) for look in series_styles([Series(str(n), [], []) for n in range(40)])}) == 40
    )


@pytest.mark.parametrize(
    ("value", "as_percent", "text"),
    [
        (0.125, True, "12.5 %"),
        (0.0, False, "0"),
        (-0.12345, False, "-0.1235"),
        (12_345.6, False, "12,346"),
        (1e-7, False, "1e-07"),
        (2e12, False, "2e+12"),
        (float("nan"), True, "not known"),
    ],
)
def test_values_are_formatted_to_be_read(value: float, as_percent: bool, text: str) -> None:
    assert format_value(value, as_percent) == text


def test_empty_plots_are_drawn(tmp_path: Path) -> None:
    empty = [replace(LINES, kind=kind, name=kind, series=[]) for kind in ("lines", "dots")]
    drawn(tmp_path, *empty, replace(LINES, name="blank", series=[Series("s", [], [])]))
    assert len(list((tmp_path / "plots").glob("*.png"))) == 3


@pytest.mark.parametrize(
    "bad",
    [
        replace(LINES, kind="pie"),
        replace(LINES, series=[Series("s", [0.0], [0.0, 1.0])]),
        replace(LINES, series=[Series("s", [0.0], [0.0], [0.0], [0.0, 1.0])]),
    ],
)
def test_a_damaged_plot_is_named(tmp_path: Path, bad: Plot) -> None:
    with pytest.raises(UserError, match=LINES.title):
        drawn(tmp_path, bad)


class TestSheets:
    @pytest.fixture
    def grid(self) -> Grid:
        images = load_images("mnist5k")
        ids = [str(one) for one in images.ids]
        pictures = [
            Picture("Task 1", ids[:25], "digits 0 to 4", 0.25, 0.05),
            Picture("Task 2", ids[100:140], "digits 5 to 9, with $markup$ <b> and a sentence that needs lines", -0.5),
        ]
        return Grid("tasks", "Tasks", images.name, images.hash, pictures, "A note.")

    def test_a_sheet_is_a_picture_with_both_colours(self, grid: Grid, tmp_path: Path) -> None:
        with Image.open(drawn(tmp_path, grids=(grid,)) / "grids" / "tasks.png") as picture:
            assert picture.size[0] == 1400
            assert 200 < picture.size[1] < 1000
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}
        assert {tuple(bytes.fromhex(one[1:])) for one in (HELPS, HARMS)} <= colours

    def test_pixels_are_enlarged_to_squares(self, grid: Grid) -> None:
        images = load_images("mnist5k")
        one = replace(grid, title="", note="", pictures=[replace(grid.pictures[0], images=[str(images.ids[0])])])
        sheet = np.asarray(picture_sheet(one).convert("L"))
        enlarged = np.kron(images.images[0, :, :, 0], np.ones((4, 4), np.uint8))
        top, left = np.argwhere(sheet == 0).min(0)  # nothing else on a sheet is as dark as the background of a digit
        assert (sheet[top : top + 112, left : left + 112] == enlarged).all()

    def test_many_images_continue_on_the_next_line(self, grid: Grid) -> None:
        few, many = (replace(grid, pictures=[replace(grid.pictures[0], images=["mnist5k-0000"] * n)]) for n in (9, 90))
        assert picture_sheet(many).height > picture_sheet(few).height + 3 * 56
        assert picture_sheet(many).width == 1400

    def test_a_grid_without_pictures_is_its_title(self, grid: Grid) -> None:
        assert picture_sheet(replace(grid, pictures=[])).height < 200

    def test_scores_name_their_effect(self) -> None:
        assert score_text(Picture("", [], "", 0.01234, 0.001)) == "+0.0123 ± 0.001, helpful"
        assert score_text(Picture("", [], "", -2e-7)) == "−2e-07, harmful"

    def test_missing_images_are_named(self, grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TASKLENS_HOME", str(tmp_path))
        with pytest.raises(UserError, match="omniglot"):
            drawn(tmp_path, grids=(replace(grid, data="omniglot", data_hash="1" * 64),))
        with pytest.raises(UserError, match="mnist5k"):
            drawn(tmp_path, grids=(replace(grid, data_hash="1" * 64),))
        with pytest.raises(UserError, match="no-such-image"):
            drawn(tmp_path, grids=(replace(grid, pictures=[replace(grid.pictures[0], images=["no-such-image"])]),))


def test_the_legend_matches_what_is_drawn() -> None:
    single = Series("one point", [0.1], [0.5], [0.4], [0.6])
    line, other = (Series(name, [0.0, 0.2], [0.3, 0.4], [0.2, 0.3], [0.4, 0.5]) for name in ("line", "other"))
    figure = plot_figure(Plot("p", "Title", "lines", "x", "y", [single, line, other]))
    legend = figure.axes[0].get_legend()
    assert legend is not None
    colours = {text.get_text(): handle for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)}
    expected = dict(zip(("one point", "line", "other"), series_styles([single, line, other]), strict=True))
    for name, look in expected.items():
        handle = colours[name]
        drawn = handle if hasattr(handle, "get_color") else handle.get_children()[0]
        colour = drawn.get_color()
        assert to_hex(colour) == to_hex(look.colour), name
