"""Figures of all repetitions, and what is said of them: no more than they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from core.experiments.profiles import DATA, Profile
from core.experiments.results import Grid, Plot, Series, Table

TITLES = {"omniglot": "Omniglot", "mnist": "MNIST", "mini-imagenet": "mini-ImageNet", "fc100": "FC100"}
SPREAD = "Mean ± standard deviation over the seeds."
NEAR = 0.5
"""Points from retraining that are the goal where nothing harmful was removed."""
POINTS = 100
"""Shares are differences of accuracies in percentage points when multiplied by this."""


@dataclass(frozen=True)
class Figures:
    """What was measured: columns ``data``, ``seed`` and those of the experiment.

    Attributes:
        images: The image set that stands for each of the paper's data sets.
    """

    table: pd.DataFrame
    profile: Profile
    images: Mapping[str, str]

    @property
    def data(self) -> list[str]:
        """The data sets that there are figures of, in the paper's order."""
        return [name for name in DATA if (self.table["data"] == name).any()]

    def of(self, **where: object) -> pd.DataFrame:
        """The rows with these values, by seed."""
        rows = self.table
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows.sort_values("seed", kind="stable")


@dataclass(frozen=True)
class Outcome:
    """What an experiment shows."""

    says: list[str]
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)


def mean_sd(values: Sequence[float] | pd.Series | np.ndarray, form: str = ".4f", times: float = 1.0) -> str:
    """``0.8820 ± 0.0123``, as the paper prints it; without the spread where there is one value, a dash for none."""
    array = np.asarray(values, dtype=float) * times
    array = array[np.isfinite(array)]
    if not len(array):
        return "–"
    spread = f" ± {array.std(ddof=1):{form.lstrip('+')}}" if len(array) > 1 else ""
    return f"{array.mean():{form}}{spread}"


def percent(share: float, digits: int = 0) -> str:
    """``0.4 -> '40 %'``."""
    return f"{round(share * 100, digits) + 0.0:.{digits}f} %"  # + 0.0 makes no difference but to -0


@dataclass(frozen=True)
class Difference:
    """Of two measurements paired by seed, in percentage points; seeds that one of them lacks are left out.

    Attributes:
        mean: Signed; errors in both directions cancel in it.
        low, high: 95 % interval of the mean (Student's t); infinite where there are fewer than two seeds.
        apart: Mean of the distances, which do not cancel.
        seeds: How many it rests on.
    """

    mean: float
    low: float
    high: float
    apart: float
    seeds: int

    @classmethod
    def of(cls, one: pd.Series | np.ndarray, other: pd.Series | np.ndarray) -> Difference:
        both = pd.concat([pd.Series(one), pd.Series(other)], axis=1, join="inner").astype(float)
        gaps = POINTS * (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy()
        gaps = gaps[np.isfinite(gaps)]
        n = len(gaps)
        if not n:
            return cls(float("nan"), float("-inf"), float("inf"), float("nan"), 0)
        mean, apart = float(gaps.mean()), float(np.abs(gaps).mean())
        if n < 2:
            return cls(mean, float("-inf"), float("inf"), apart, n)
        half = float(stats.t.ppf(0.975, n - 1) * gaps.std(ddof=1) / n**0.5)
        return cls(mean, mean - half, mean + half, apart, n)

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def words(self) -> str:
        """``+1.2 points [-0.3, +2.7]``."""
        if not self.seeds:
            return "not known"
        if not np.isfinite(self.low):
            return f"{_signed(self.mean)} points (one seed)"
        return f"{_signed(self.mean)} points [{_signed(self.low)}, {_signed(self.high)}]"

    @property
    def apart_words(self) -> str:
        """``2.1 points``."""
        return f"{self.apart:.1f} points" if self.seeds else "not known"


@dataclass(frozen=True)
class Share:
    """What part one gain is of another, both paired by seed.

    Attributes:
        mean: Ratio of the mean gains.
        low, high: Its 95 % interval by Fieller's theorem (Fieller 1954, "Some problems in interval estimation");
            infinite where the gain that it is a part of is not clearly different from 0.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, part: pd.Series, whole: pd.Series) -> Share:
        both = pd.concat([part, whole], axis=1, join="inner").astype(float).dropna().to_numpy()
        n = len(both)
        if not n:
            return cls(float("nan"), float("-inf"), float("inf"))
        x, y = both.mean(0)
        ratio = float(x / y) if y else float("nan")
        if n < 2:
            return cls(ratio, float("-inf"), float("inf"))
        (xx, xy), (_, yy) = np.cov(both.T, ddof=1) / n
        t = float(stats.t.ppf(0.975, n - 1))
        # Every ratio r whose x - r y is not clearly different from 0: a r^2 - 2 b r + c <= 0.
        a, b, c = y**2 - t**2 * yy, x * y - t**2 * xy, x**2 - t**2 * xx
        if a <= 0:
            return cls(ratio, float("-inf"), float("inf"))
        half = max(0.0, b**2 - a * c) ** 0.5
        return cls(ratio, float((b - half) / a), float((b + half) / a))

    @property
    def words(self) -> str:
        """``34 % [28, 41]``."""
        if not np.isfinite(self.low):
            return f"{percent(self.mean)} (interval without end)"
        low, high = (round(POINTS * end) + 0 for end in (self.low, self.high))
        return f"{percent(self.mean)} [{low}, {high}]"

    def reaches(self, goal: float) -> str:
        """``met``, ``missed`` or ``not settled``, by the interval."""
        return "met" if self.low >= goal else "missed" if self.high < goal else "not settled"


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # + 0.0 makes no difference but to -0


def near_words(gaps: Mapping[str, Difference], points: float) -> str:
    """Which of the named differences from retraining are within so many points by their 95 % interval."""
    verdicts: dict[str, list[str]] = {}
    for name, gap in gaps.items():
        inside, outside = -points <= gap.low and gap.high <= points, gap.low > points or gap.high < -points
        verdicts.setdefault("yes" if inside else "no" if outside else "not settled", []).append(name)
    said = "; ".join(
        f"{word}, {'all of these' if len(verdicts) == 1 else ', '.join(names)}" for word, names in verdicts.items()
    )
    return f"Within {points} points of it on average, by the 95 % intervals: {said}."


def line(name: str, frame: pd.DataFrame, x: str, y: str, *, estimate: bool = False, reference: bool = False) -> Series:
    """Means over seeds of ``y`` at every ``x``, with a band of one standard deviation."""
    grouped = frame.groupby(x, sort=True)[y]
    mean, sd = grouped.mean(), grouped.std(ddof=1).fillna(0.0)
    return Series(
        name,
        [float(at) for at in mean.index],
        mean.tolist(),
        (mean - sd).tolist(),
        (mean + sd).tolist(),
        estimate=estimate,
        reference=reference,
    )


def dots(
    name: str, labels: Sequence[str], values: Sequence[pd.Series | np.ndarray], *, reference: bool = False
) -> Series:
    """One dot a label, with whiskers of one standard deviation."""
    means = [float(np.mean(each)) for each in values]
    sds = [float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in values]
    return Series(
        name,
        list(labels),
        means,
        [mean - sd for mean, sd in zip(means, sds, strict=True)],
        [mean + sd for mean, sd in zip(means, sds, strict=True)],
        reference=reference,
    )
