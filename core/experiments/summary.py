"""Conclusions that the measurements of all seeds support: differences, shares, curves and verdicts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from core.experiments.formatting import PERCENT, percent, signed
from core.experiments.profiles import DATA_TITLES, Profile
from core.experiments.results import Grid, Plot, Series, Table

ACCURACY = "accuracy on new tasks"
SPREAD_NOTE = "Mean ± standard deviation over the seeds."
EQUIVALENCE_POINTS = 0.5
"""Percentage points from retraining that an edit should stay within where nothing harmful was removed."""
MET, MISSED, UNDECIDED = "met", "missed", "undecided"
"""Verdicts of a 95 % interval on a goal."""
NO_GAIN = "This is not a significant gain, so that no share of it can be given."
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measurements:
    """A table of what all seeds measured on one data set, with columns ``seed`` and those of the experiment.

    Attributes:
        data: The paper's name of the data set; ``images`` is the image set used for it.
    """

    table: pd.DataFrame
    profile: Profile
    data: str
    images: str

    @property
    def title(self) -> str:
        """The data set as tables and plots name it."""
        return DATA_TITLES[self.data]

    def heading(self, condition: str = "") -> str:
        """Return the bold beginning of a finding."""
        return f"**{', '.join(filter(None, (self.title, condition)))}.**"

    def select(self, **where: object) -> pd.DataFrame:
        """Return the rows with these values, by seed."""
        rows = self.table
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows.sort_values("seed", kind="stable")

    def by_seed(self, column: str, **where: object) -> pd.Series:
        """Return one column of :meth:`select`, indexed by seed."""
        return self.select(**where).set_index("seed")[column]

    def accuracy(self, **where: object) -> Accuracies:
        """Return the accuracies of every method that ran with every seed."""
        methods = self.select(**where).set_index("seed").groupby("method", sort=False)["accuracy"]
        return Accuracies({str(name): values for name, values in methods if values.notna().all()})

    def cost_shares(self, method: str, **where: object) -> pd.Series:
        """Return the cost of a method as a share of retraining's, by seed."""
        return self.by_seed("cost", method=method, **where) / self.by_seed("cost", method="retrain", **where)

    def curve(self, name: str, x: str, y: str, *, reference: bool = False, **where: object) -> Series:
        """Return the means of column ``y`` over the seeds at each value of column ``x``."""
        groups = {float(str(value)): group.to_numpy() for value, group in self.select(**where).groupby(x)[y]}
        return mean_curve(name, list(groups), groups.values(), reference=reference)

    def text_table(self, name: str, rows: list[dict[str, str]], note: str) -> Table:
        """Return the table of rows that name their columns, all the same ones."""
        return Table(f"{name}-{self.data}", self.title, list(rows[0]), [list(row.values()) for row in rows], note)


class ExperimentSummary(NamedTuple):
    """What an experiment shows on one data set."""

    findings: list[str]
    tables: list[Table]
    plots: Sequence[Plot] = ()
    grids: Sequence[Grid] = ()


@dataclass(frozen=True)
class PairedDifference:
    """A difference of two measurements paired by seed, in percentage points.

    Attributes:
        mean: Signed, so that errors in both directions cancel.
        mean_abs_diff: Mean of the absolute differences, which do not cancel.
        seeds: How many seeds both measurements have.
        low, high: 95 % interval of the mean (Student's t); infinite for fewer than two seeds.
    """

    mean: float
    mean_abs_diff: float
    seeds: int
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of(cls, one: pd.Series | np.ndarray, other: pd.Series | np.ndarray) -> PairedDifference:
        """Return ``one - other``; seeds that one of them lacks are left out."""
        gaps = PERCENT * (pd.Series(one) - pd.Series(other)).to_numpy(float)
        gaps = gaps[np.isfinite(gaps)]
        n = len(gaps)
        if not n:
            return cls(math.nan, math.nan, 0)
        mean, mean_abs = float(gaps.mean()), float(np.abs(gaps).mean())
        if n < 2:
            return cls(mean, mean_abs, n)
        half_width = float(_student(n) * gaps.std(ddof=1) / n**0.5)
        return cls(mean, mean_abs, n, mean - half_width, mean + half_width)

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def text(self) -> str:
        """``+1.2 points [-0.3, +2.7]``."""
        if not self.seeds:
            return "not known"
        if not np.isfinite(self.low):
            return f"{signed(self.mean)} points (one seed)"
        return f"{signed(self.mean)} points [{signed(self.low)}, {signed(self.high)}]"

    @property
    def mean_abs_text(self) -> str:
        """``2.1 points``."""
        return f"{self.mean_abs_diff:.1f} points" if self.seeds else "not known"

    def within(self, points: float) -> str:
        """Return the verdict on the goal that the difference is at most ``points`` in either direction."""
        if -points <= self.low and self.high <= points:
            return MET
        return MISSED if self.low > points or self.high < -points else UNDECIDED


@dataclass(frozen=True)
class GainShare:
    """A ratio of two gains that are paired by seed.

    Attributes:
        mean: Ratio of the mean gains.
        low, high: 95 % interval by Fieller's theorem (Fieller 1954, "Some problems in interval estimation"); infinite
            where the gain in the denominator is not significantly different from 0.
    """

    mean: float
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of(cls, part: pd.Series, whole: pd.Series) -> GainShare:
        """Return ``part / whole``; seeds that one of them lacks are left out."""
        pairs = pd.concat([part, whole], axis=1, join="inner").astype(float).dropna().to_numpy()
        n = len(pairs)
        if not n:
            return cls(math.nan)
        x, y = pairs.mean(0)
        ratio = float(x / y) if y else math.nan
        if n < 2:
            return cls(ratio)
        (xx, xy), (_, yy) = np.cov(pairs.T, ddof=1) / n
        t = _student(n)
        # Every ratio r whose x - r y is not significantly different from 0: a r^2 - 2 b r + c <= 0.
        a, b, c = y**2 - t**2 * yy, x * y - t**2 * xy, x**2 - t**2 * xx
        if a <= 0:
            return cls(ratio)
        half_width = max(0.0, b**2 - a * c) ** 0.5
        low, high = float((b - half_width) / a), float((b + half_width) / a)
        return cls(ratio, min(low, ratio), max(high, ratio))  # of gains in proportion, all are one but for rounding

    @property
    def text(self) -> str:
        """``34 % [28, 41]``."""
        if not np.isfinite(self.low):
            return f"{percent(self.mean)} (unbounded interval)"
        low, high = (round(PERCENT * bound) + 0 for bound in (self.low, self.high))
        return f"{percent(self.mean)} [{low}, {high}]"

    def reaches(self, goal: float) -> str:
        """Return the verdict of the interval on the goal that the share is at least ``goal``."""
        return MET if self.low >= goal else MISSED if self.high < goal else UNDECIDED


def _student(n: int) -> float:
    """Return the quantile of Student's t that bounds a two-sided interval over ``n`` seeds."""
    return float(stats.t.ppf((1 + _CONFIDENCE) / 2, n - 1))


class Accuracies(dict[str, pd.Series]):
    """The accuracy of methods by seed."""

    def difference(self, method: str, reference: str) -> PairedDifference:
        """Return how much the accuracy of ``method`` exceeds that of ``reference``."""
        return PairedDifference.of(self[method], self[reference])

    def differences(self, labels: Mapping[str, str], reference: str) -> dict[str, PairedDifference]:
        """Return by label the differences of the measured methods from the method ``reference``."""
        return {label: self.difference(name, reference) for name, label in labels.items() if name in self}

    def equivalence_finding(self, labels: Mapping[str, str]) -> str:
        """Return a sentence on which of the measured methods are close enough to retraining."""
        answers = {MET: "yes", MISSED: "no", UNDECIDED: UNDECIDED}
        names: dict[str, list[str]] = {}
        for label, gap in self.differences(labels, "retrain").items():
            names.setdefault(answers[gap.within(EQUIVALENCE_POINTS)], []).append(f"“{label}”")
        verdicts = (f"{answer} for {'all' if len(names) == 1 else ', '.join(of)}" for answer, of in names.items())
        return f"Within {EQUIVALENCE_POINTS} points of retraining on average (95 % interval): {'; '.join(verdicts)}."

    def gain_share(self, method: str) -> GainShare:
        """Return the share of retraining's gain that ``method`` has."""
        return GainShare.of(self[method] - self["unedited"], self["retrain"] - self["unedited"])

    def no_gain_finding(self, labels: Mapping[str, str]) -> str:
        """Return a sentence on the differences from the unedited model where retraining does not gain."""
        return f"{NO_GAIN} Difference from the unedited model: {listed(self.differences(labels, 'unedited'))}."

    def series(self, name: str, labels: Mapping[str, str]) -> Series:
        """Return the means of the measured methods by label."""
        values = {label: self[method] for method, label in labels.items() if method in self}
        return mean_curve(name, list(values), values.values())


def listed(items: Mapping[str, str | PairedDifference]) -> str:
    """Return ``“A” 1; “B” 2`` of a mapping from names to texts or differences."""
    return "; ".join(f"“{name}” {item if isinstance(item, str) else item.text}" for name, item in items.items())


def mean_curve(
    name: str, x: Sequence[float] | Sequence[str], values: Collection[pd.Series | np.ndarray], **kinds: bool
) -> Series:
    """Return the means of ``values`` over the seeds at each ``x``, with an interval of one standard deviation.

    Args:
        kinds: ``estimate`` and ``reference`` of :class:`Series`.
    """
    means = [float(np.mean(group)) for group in values]
    sds = [float(np.std(group, ddof=1)) if len(group) > 1 else 0.0 for group in values]
    low, high = ([mean + sign * sd for mean, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
    return Series(name, list(x), means, low, high, **kinds)  # type: ignore[arg-type]


def share_plot(
    name: str, title: str, series: list[Series], x_label: str = "", y_label: str = ACCURACY, log_x: bool = False
) -> Plot:
    """Return a plot of shares: lines over shares named by ``x_label``, or dots by method where it is empty."""
    kind, over_shares = "lines" if x_label else "dots", bool(x_label)
    return Plot(name, title, kind, x_label, y_label, series, over_shares, percent_y=True, log_x=log_x, note=SPREAD_NOTE)
