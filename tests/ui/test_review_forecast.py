"""What the page says about the wrong labels that are still in there."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from core.review.forecast import ERROR_LLR
from core.review.review_queue import Queue
from core.ui.review.forecast import forecast_now, forecast_text, latest_forecast
from tests.review.test_filters import N, decided, queue


def calibrated() -> Queue:
    plain = queue()
    return replace(plain, table=plain.table.assign(**{ERROR_LLR: np.linspace(3, -5, N)}))


def test_nothing_is_said_where_nothing_was_calibrated() -> None:
    assert forecast_text(forecast_now(queue(), decided())) == ""
    assert forecast_text(latest_forecast(queue(), decided(), None)) == ""


def test_what_was_found_is_not_counted_again() -> None:
    def numbers(**positions: int) -> list[int]:
        words = forecast_text(forecast_now(calibrated(), decided(**positions)))
        return [int(number) for number in re.findall(r"\d+", words)][:3]

    before, low, high = numbers()
    assert low <= before <= high <= N
    assert numbers(keep=0)[0] <= before
    assert numbers(remove=0, relabel=1)[0] <= before
