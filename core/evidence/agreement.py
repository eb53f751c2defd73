"""Whether retrainings of the same subsets agree: only then can methods be told apart by how well they predict them.

This is the one rule of the Trust page, the ``evidence`` command and the experiments. It holds per measure: the rank
correlation over each target, and that over the mean of all targets, each have a ceiling of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from core.evidence.lds import Score
from core.evidence.tables import CEILING

MEASURES = {"lds": "each held-out task", "lds_mean": "mean loss of all held-out tasks"}
"""The quantity that is rank-correlated, by the name of its column in ``methods.parquet``."""
NO_AGREEMENT = "Two retrainings of the same subset do not agree"
UNKNOWN_AGREEMENT = "Whether two retrainings of the same subset agree is unknown: this needs at least 2 seeds"
WARM_START = "or start from the present model"


@dataclass(frozen=True)
class RetrainingAgreement:
    """The agreement of retrainings of the same subsets from different seeds, which is the ceiling of any method.

    Attributes:
        ceiling: Its mean with the 95 % interval; infinite bounds where no interval can be given. None where it is
            unknown, with one seed.
    """

    ceiling: Score | None

    @property
    def allows_ranking(self) -> bool:
        """Return whether methods may be ranked: unless the interval of the ceiling reaches down to 0."""
        return self.ceiling is None or self.ceiling.low > 0

    @property
    def finding(self) -> str:
        """Return the sentence that comes before any result; empty where the retrainings agree."""
        if self.ceiling is None:
            return f"{UNKNOWN_AGREEMENT}, so it is unknown how well any method could do."
        if self.allows_ranking:
            return ""
        text = self.ceiling.text if math.isfinite(self.ceiling.low) else f"{self.ceiling.mean:.2f}, without an interval"
        return f"{NO_AGREEMENT} (rank correlation {text}), so the methods cannot be compared here."

    def advice(self, start: str) -> str:
        """Return what to do about retrainings that do not agree, which began at ``start`` (fresh or warm)."""
        if self.allows_ranking:
            return ""
        warm = f", {WARM_START}" if start == "fresh" else ""
        return f"Use more seeds or more subsets, train longer{warm}."


def agreement_of(methods: pd.DataFrame, measure: str) -> RetrainingAgreement:
    """Return the agreement for one of :data:`MEASURES` from the table of methods (:mod:`core.actions.evidence`)."""
    found = methods[(methods["kind"] == CEILING) & methods[measure].notna()]
    if found.empty:
        return RetrainingAgreement(None)
    row = found.iloc[0]
    return RetrainingAgreement(Score(*(float(row[name]) for name in columns_of(measure))))


def columns_of(measure: str) -> list[str]:
    """Return the columns of a measure: its value and the ends of its interval."""
    return [measure, f"{measure}_low", f"{measure}_high"]


def comparable_figures(methods: pd.DataFrame) -> pd.DataFrame:
    """Return the table of methods without the columns of measures on which the retrainings do not agree."""
    noisy = [measure for measure in MEASURES if not agreement_of(methods, measure).allows_ranking]
    return methods.drop(columns=[column for measure in noisy for column in columns_of(measure)])
