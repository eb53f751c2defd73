"""The experiment ``truth``: rankings validated against retraining on random halves (LDS) and without one task.

The harness is that of the ``evidence`` command; the tasks have label noise (b), so that some of them are harmful.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pandas as pd

from core.actions.evidence import EvidenceSettings, evidence
from core.evidence.agreement import RetrainingAgreement
from core.evidence.lds import Score
from core.evidence.tables import CEILING
from core.experiments.context import TRAINING_WEIGHT, ExperimentContext
from core.experiments.formatting import PERCENT, mean_sd
from core.experiments.profiles import Profile
from core.experiments.results import Plot, Series, Table
from core.experiments.summary import SPREAD_NOTE, ExperimentSummary, Measurements, PairedDifference, mean_curve

METHODS = {
    "task-if": "task-IF, Gauss-Newton",
    "task-if-exact": "task-IF, exact Hessian",
    "task-if-paper": "task-IF, as published",
    "direct-if": "direct-IF",
    "dot": "dot product of gradients",
    "tracin": "TracIn",
    "trak-1": "TRAK, one model",
    "ekfac": "EK-FAC IF",
    "self-influence": "self-influence",
    "loss": "loss",
}
_SOLVED = ("task-if", "task-if-exact", "direct-if")
CEILING_LABEL = "agreement of two retrainings"
NOT_RUN = "No method could run; the table gives the reasons."
TASK_IF_NOT_RUN = "task-IF could not run, the table gives the reason."
ONE_RETRAINING = "each retrained once, so that their agreement is not known"
NONE_ABOVE_0 = "no method is significantly above 0"
_VALIDATION_WEIGHT = 10_000
PROTOCOLS = {"half": "LDS", "one": "leave-one-out"}
QUANTITIES = {"lds": "per target", "lds_mean": "mean of all targets"}


def measure(context: ExperimentContext) -> pd.DataFrame:
    """Return rows of truth (the protocol), method, lds, lds_mean, auc, seconds, residual, note."""
    context.expect(TRAINING_WEIGHT + 2 * _VALIDATION_WEIGHT)
    problem, profile = context.problem("hard"), context.unit.profile
    solve = profile.solve
    # As precise as the edits: one low-rank solve for all targets left residuals above 1 on these short trainings.
    variant = f"curvature_tasks={solve.curvature_tasks}:damping={solve.damping:g}:tolerance={solve.tolerance:g}"
    names = {name: f"{name}:{variant}" if name in _SOLVED else name for name in METHODS}
    labels = {full: name for name, full in names.items()} | {CEILING: CEILING}
    retrainings = {
        "half": (profile.subsets, 2, "fresh", profile.subset_iterations),
        "one": (profile.left_out, 1, "warm", profile.left_iterations),
    }
    tables = []
    for protocol, sizes in retrainings.items():
        settings = EvidenceSettings(tuple(names.values()), protocol, *sizes, profile.rated, context.unit.seed)
        with context.part(_VALIDATION_WEIGHT) as progress:
            table = evidence(problem.workspace, settings, context.compute, progress).table("methods.parquet")
        tables.append(table.assign(method=table["method"].map(labels), truth=protocol))
    columns = ["truth", "method", "lds", "lds_mean", "auc", "seconds", "residual", "note"]
    return pd.concat(tables, ignore_index=True)[columns]


def summarize(measurements: Measurements) -> ExperimentSummary:
    """Return a table, two plots and a finding."""
    plots = [_plot(measurements, quantity) for quantity in QUANTITIES]
    return ExperimentSummary([_finding(measurements)], [_table(measurements)], [plot for plot in plots if plot.series])


def _agreement(measurements: Measurements, quantity: str) -> RetrainingAgreement:
    """Return how well two retrainings of the same half agree, with an interval over the seeds of the experiment."""
    values = _values(measurements, "half", CEILING, quantity)
    if not len(values):
        return RetrainingAgreement(None)
    found = PairedDifference.of(values, 0 * values)
    return RetrainingAgreement(Score(*(value / PERCENT for value in (found.mean, found.low, found.high))))


def _protocols(measurements: Measurements, quantity: str) -> dict[str, str]:
    """Return the protocols whose retrainings allow a comparison of the methods, with their names."""
    allows_half = _agreement(measurements, quantity).allows_ranking
    return {key: name for key, name in PROTOCOLS.items() if key != "half" or allows_half}


def _values(measurements: Measurements, protocol: str, method: str, quantity: str) -> pd.Series:
    return measurements.by_seed(quantity, truth=protocol, method=method).dropna()


def _by_method(measurements: Measurements, protocol: str, quantity: str) -> dict[str, pd.Series]:
    by_method = {name: _values(measurements, protocol, name, quantity) for name in METHODS}
    return {name: values for name, values in by_method.items() if len(values)}


def _plot(measurements: Measurements, quantity: str) -> Plot:
    series, protocols = [], _protocols(measurements, quantity)
    for protocol, name in protocols.items():
        if values := _by_method(measurements, protocol, quantity):
            series.append(mean_curve(name, [METHODS[method] for method in values], values.values()))
    agreement = _agreement(measurements, quantity)
    if agreement.ceiling is not None and agreement.allows_ranking and series:
        level = [agreement.ceiling.mean] * len(series[0].x)
        series.append(Series(CEILING_LABEL, series[0].x, level, reference=True))
    name = f"{quantity}-{measurements.data}".replace("_", "-")
    shown = " and ".join(protocols.values())
    title = f"{measurements.title}: {shown}, {QUANTITIES[quantity]}"
    return Plot(name, title, "dots", "", "rank correlation of predicted and measured loss", series, note=SPREAD_NOTE)


def _table(measurements: Measurements) -> Table:
    shown = {quantity: _protocols(measurements, quantity) for quantity in QUANTITIES}
    has_ceiling = any("half" in protocols for protocols in shown.values())
    rows = []
    for method, label in (METHODS | ({CEILING: CEILING_LABEL} if has_ceiling else {})).items():
        by_protocol = {protocol: measurements.select(truth=protocol, method=method) for protocol in PROTOCOLS}
        half = by_protocol["half"]
        correlations = {
            f"{PROTOCOLS[protocol]}, {name}": mean_sd(part[quantity], ".2f")
            for (protocol, part), (quantity, name) in product(by_protocol.items(), QUANTITIES.items())
            if protocol in shown[quantity]
        }
        has_run = half["lds"].notna().any() or method == CEILING
        rows.append(
            {
                "method": label,
                **correlations,
                "AUC of noisy tasks": mean_sd(half["auc"], ".3f"),
                "seconds": mean_sd(half["seconds"], ".1f"),
                "residual": mean_sd(half["residual"], ".2f"),
                "reason if missing": "" if has_run else str(half["note"].iloc[0]),
            }
        )
    return measurements.text_table("truth", rows, _note(measurements.profile, shown))


def _note(size: Profile, shown: Mapping[str, Mapping[str, str]]) -> str:
    """Return how the figures were measured; ``shown`` has the protocols whose figures the table has, per quantity."""
    sentences = [
        SPREAD_NOTE,
        f"Rank correlation of predicted and measured loss on {size.rated} targets.",
        f"LDS: {size.subsets} random halves of the tasks, each trained from scratch for {size.subset_iterations} "
        "steps from two seeds.",
        f"Leave-one-out: for each of {size.left_out} tasks, {size.left_iterations} further steps of the model on the "
        "others, from one seed.",
        f"Damping {size.solve.damping:g} and {size.solve.curvature_tasks} curvature tasks, as in the edits, for "
        f"{', '.join(f'“{METHODS[name]}”' for name in _SOLVED)}.",
        "Wall-clock seconds; relative residual of the worst solve.",
    ]
    if any("half" in protocols for protocols in shown.values()):
        sentences.append(
            "Methods are compared with the mean of two retrainings, which is less noisy than one, so that a method can "
            "exceed their agreement."
        )
    if not all("half" in protocols for protocols in shown.values()):
        sentences.append("LDS on which two retrainings do not agree is left out; its figures are in seeds.parquet.")
    return " ".join(sentences)


def _finding(measurements: Measurements) -> str:
    """Return the finding; quantities on which retrainings do not agree come first, and name no method."""
    noisy, sentences = [], []
    for quantity, name in QUANTITIES.items():
        values, agreement = _by_method(measurements, "half", quantity), _agreement(measurements, quantity)
        if not values:
            return f"{measurements.heading()} {NOT_RUN}"
        if agreement.finding:
            noisy.append(f"LDS, {name}: {agreement.finding}")
        if agreement.allows_ranking:
            top = f"the agreement of two retrainings is {agreement.ceiling.text}; " if agreement.ceiling else ""
            sentences.append(f"LDS, {name}: {top}{_best(values)}")
    values = _by_method(measurements, "one", "lds")
    best = _best(values) if values else "no method could run."
    sentences.append(f"Leave-one-out, per target, {ONE_RETRAINING}: {best}")
    return f"{measurements.heading()} {' '.join(noisy + sentences)}"


def _best(values: dict[str, pd.Series]) -> str:
    best = max(values, key=lambda name: values[name].mean())
    text = f"{METHODS[best]} with {mean_sd(values[best], '.2f')}"
    if not any(PairedDifference.of(found, 0 * found).low > 0 for found in values.values()):
        return f"{NONE_ABOVE_0}; the highest is {text}."
    text = f"best is {text}"
    if best == "task-if":
        return f"{text}."
    if "task-if" not in values:
        return f"{text}; {TASK_IF_NOT_RUN}"
    gap = PairedDifference.of(values[best], values["task-if"])
    verdict = "significant" if gap.is_significant else "not significant"
    return f"{text}; task-IF has {mean_sd(values['task-if'], '.2f')}, {gap.mean / PERCENT:.2f} less ({verdict})."
