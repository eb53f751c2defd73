"""The data of the charts of a queue."""

from __future__ import annotations

import numpy as np
import pandas as pd

from core.review.forecast import ERROR_LLR, Forecast, forecast
from core.ui.charts.review import IN_USE, curves_figure, depth_shown, forecast_figure, found_so_far, precision
from core.ui.review.queue_panel import candidate_table, depth_words
from tests.ui.queue_fixture import candidates, curves

N = 400


def expected(known: dict[int, bool] | None = None) -> Forecast:
    found = forecast(pd.DataFrame({ERROR_LLR: np.linspace(4, -8, N)}), known)
    assert found is not None
    return found


def test_the_chosen_candidate_is_bold_and_on_top_and_chance_dotted() -> None:
    one = curves()[curves()["planted"] == "uniform"]
    names = {name: name for name in ("margin", "loss", "combination")}
    drawn = curves_figure(one, ["loss", "margin"], "loss", names).data
    assert [line.name for line in drawn] == ["margin", f"loss{IN_USE}", "chance"]
    assert drawn[1].line.width > drawn[0].line.width
    assert drawn[2].line.dash == "dot"
    assert list(drawn[1].x) == [0, 25, 100]
    alone = curves_figure(one, ["margin"], "loss", names).data[0]
    assert alone.line.color == drawn[0].line.color  # whichever others are drawn


def test_what_was_found_is_counted_down_to_the_deepest_decided_item() -> None:
    assert found_so_far({0: True, 3: True, 2: False, 5: False}).tolist() == [0, 1, 1, 1, 2, 2, 2]
    assert found_so_far({}).tolist() == [0]


def test_estimates_are_dotted_and_what_was_found_is_solid() -> None:
    known = {0: True, 1: True, 2: False}
    ahead = expected(known)
    lines = {line.name: line for line in forecast_figure(ahead, known, 50).data if line.name}
    assert lines["found, estimate"].line.dash == lines["remaining, estimate"].line.dash == "dot"
    assert lines["found so far, measured"].line.dash is None
    assert list(lines["found so far, measured"].y) == [0, 1, 2, 2]
    assert lines["found, estimate"].x[2] == 2
    assert lines["found, estimate"].y[2] == 2
    assert "found so far, measured" not in {line.name for line in forecast_figure(expected(), {}, 50).data}


def test_the_chart_reaches_as_deep_as_is_asked() -> None:
    ahead = expected()
    assert depth_shown(ahead) < N
    assert depth_shown(ahead, N) == N
    assert forecast_figure(ahead, {N - 1: False}, 5).layout.xaxis.range[1] == N


def test_precision_is_the_share_of_the_found() -> None:
    ahead = expected({0: True, 1: False})
    np.testing.assert_allclose(precision(ahead)[:2], [1, 0.5])


def test_the_sentence_adds_up() -> None:
    said = depth_words(expected(), N, 3)
    assert "**0** [0, 0] remaining" in said
    assert said.endswith(": 3.")


def test_the_table_of_candidates() -> None:
    shown = candidate_table(candidates())
    assert shown["candidate"].tolist() == ["Loss after adaptation", "Combination", "Margin of another class"]
    assert shown["in use"].tolist() == ["✓", "", ""]
    assert shown["precision, uniform"][0] == "0.800 [0.700, 0.900]"
    assert shown["recall, hardest"][0] == "60%"
