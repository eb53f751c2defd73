"""Findings on measurements that show little: one seed, a missing method, no gain."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from core.evidence.agreement import NO_AGREEMENT
from core.experiments import edit_methods, figure1, instances, ranking_validation, table1
from core.experiments.formatting import MISSING, mean_sd, signed
from core.experiments.profiles import PROFILES
from core.experiments.summary import (
    EQUIVALENCE_POINTS,
    MET,
    MISSED,
    NO_GAIN,
    UNDECIDED,
    Accuracies,
    GainShare,
    Measurements,
    PairedDifference,
    listed,
)

NAN = float("nan")
GAIN_SHARE = "share of retraining's gain"


def measured(rows: list[dict]) -> Measurements:
    return Measurements(pd.DataFrame(rows), PROFILES["small"], "mnist", "mnist5k")


def compared_methods(accuracy: dict[str, list[float]], costs: dict[str, float]) -> Measurements:
    """Return measurements of the edit methods, with the same accuracies in both conditions."""
    return measured(
        [
            {
                "seed": seed,
                "condition": condition,
                "method": method,
                "accuracy": accuracy.get(method, accuracy["unedited"])[seed],
                "loss": 1.0,
                "seconds": 1.0,
                "cost": costs.get(method, 640.0),
            }
            for condition, method, seed in product(("random", "harmful"), edit_methods.METHODS, range(3))
        ]
    )


def test_differences_are_of_the_seeds_that_both_have() -> None:
    one = pd.Series([0.5, 0.7, NAN, 0.9], index=[0, 1, 2, 4])
    other = pd.Series([0.6, 0.1, 0.2, 0.6], index=[4, 3, 0, 1])
    found = PairedDifference.of(one, other)  # seeds 0, 1 and 4
    mean = pytest.approx(100 * 0.7 / 3)
    assert (found.mean, found.mean_abs_diff, found.seeds) == (mean, mean, 3)
    single = PairedDifference.of(one[:1], other)
    assert (single.mean, single.seeds, single.is_significant) == (pytest.approx(30), 1, False)
    assert PairedDifference.of(one, other[other.index == 3]).seeds == 0


def test_a_difference_that_rounds_to_zero_has_no_minus() -> None:
    assert "-" not in PairedDifference.of(np.array([0.5, 0.5]), np.array([0.5003, 0.5003])).text
    assert signed(-0.03) == "+0.0"


def test_opposite_differences_do_not_cancel() -> None:
    found = PairedDifference.of(np.array([0.55, 0.45]), np.array([0.5, 0.5]))
    assert (found.mean, found.mean_abs_diff) == (pytest.approx(0, abs=1e-9), pytest.approx(5))
    assert found.within(EQUIVALENCE_POINTS) == UNDECIDED
    accuracy = Accuracies({"edit": pd.Series([0.55, 0.45]), "retrain": pd.Series([0.5, 0.5])})
    assert UNDECIDED in accuracy.equivalence_finding({"edit": "edit"})


def test_equivalence_needs_the_whole_interval() -> None:
    values = {"near": [0.500, 0.501, 0.499], "far": [0.6, 0.61, 0.59], "retrain": [0.5, 0.5, 0.5]}
    accuracy = Accuracies({name: pd.Series(by_seed) for name, by_seed in values.items()})
    near, far = (accuracy.difference(name, "retrain") for name in ("near", "far"))
    assert (near.within(EQUIVALENCE_POINTS), far.within(EQUIVALENCE_POINTS)) == (MET, MISSED)
    finding = accuracy.equivalence_finding({"near": "one", "far": "two"})
    assert finding.index("yes") < finding.index("“one”") < finding.index("no for") < finding.index("“two”")


def test_without_a_gain_there_are_no_shares() -> None:
    flat = {"unedited": [0.5, 0.6, 0.5], "retrain": [0.6, 0.5, 0.5], "steps-0.02": [0.55, 0.6, 0.5]}
    summary = edit_methods.summarize(compared_methods(flat, {"retrain": 6400.0}))
    text = " ".join(summary.findings)
    assert NO_GAIN in text
    assert "goal" not in text
    assert not any(word in text for word in ("inf", "nan"))
    column = summary.tables[0].columns.index(GAIN_SHARE)
    assert {row[column] for row in summary.tables[0].rows} == {MISSING}


def shares_of(measurements: Measurements) -> tuple[str, dict[str, str]]:
    """Return the findings as one text, and the column of shares by method."""
    summary = edit_methods.summarize(measurements)
    column = summary.tables[0].columns.index(GAIN_SHARE)
    return " ".join(summary.findings), {row[0]: row[column] for row in summary.tables[0].rows}


def test_every_method_may_reach_the_goal() -> None:
    linear = edit_methods.METHODS["linear"]
    gained = {"unedited": [0.5, 0.52, 0.51], "retrain": [0.7, 0.72, 0.71], "linear": [0.69, 0.71, 0.7]}
    text, shares = shares_of(compared_methods(gained, {"retrain": 6400.0, "linear": 100.0}))
    assert listed({linear: f"{shares[linear]} (goal {MET})"}) in text
    assert edit_methods.NO_METHOD not in text
    text, _ = shares_of(compared_methods(gained, {"retrain": 6400.0, "linear": 1000.0}))
    assert f"goal {MET}" not in text
    gained["linear"] = gained["unedited"]
    text, _ = shares_of(compared_methods(gained, {"retrain": 6400.0}))
    assert edit_methods.NO_METHOD in text


def test_an_undecided_goal_is_not_met() -> None:
    gained = {"unedited": [0.5, 0.52, 0.51], "retrain": [0.7, 0.72, 0.71], "linear": [0.66, 0.74, 0.7]}
    text, _ = shares_of(compared_methods(gained, {"retrain": 6400.0, "linear": 100.0}))
    assert f"(goal {UNDECIDED})" in text
    assert f"{edit_methods.NO_METHOD} ({UNDECIDED}: “{edit_methods.METHODS['linear']}”)" in text


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-0.5, 1.5)), min_size=3, max_size=8))
@example([(0.9, 0.5)] * 4 + [(0.0, 0.0)] * 4)
def test_the_interval_of_a_share_ends_where_a_t_test_does(gains: list[tuple[float, float]]) -> None:
    """At both ends ``part - share * whole`` is as far from 0 as a 95 % interval reaches (Fieller)."""
    part, whole = pd.DataFrame(gains, dtype=float).T.to_numpy()
    share, gain = GainShare.of(pd.Series(part), pd.Series(whole)), PairedDifference.of(whole, np.zeros(len(whole)))
    assume(abs(gain.mean) > 1 and part.std() + whole.std() > 1e-3)
    if not gain.is_significant:
        assert not np.isfinite(share.low)
        assert share.reaches(0.9) == UNDECIDED
        return
    assert share.low <= share.mean <= share.high
    for end in (share.low, share.high):
        left = PairedDifference.of(part, end * whole)
        assert min(abs(left.low), abs(left.high)) == pytest.approx(0, abs=1e-6 * (1 + abs(end)) * 100)


def test_a_second_seed_is_reported_by_its_absolute_difference() -> None:
    swapped = {"unedited": [0.5] * 3, "retrain": [0.7, 0.6, 0.65], "retrain-again": [0.6, 0.7, 0.65]}
    difference = PairedDifference.of(*(np.array(swapped[name]) for name in ("retrain-again", "retrain")))
    assert (difference.mean, difference.mean_abs_text) == (pytest.approx(0, abs=1e-9), "6.7 points")
    first = edit_methods.summarize(compared_methods(swapped, {"retrain": 6400.0})).findings[0]
    assert difference.mean_abs_text in first


def validated(values: dict[str, list[float]], agreement: list[float]) -> Measurements:
    """Return measurements of rankings, the same for both protocols and quantities, by seed."""
    methods = {name: values.get(name, [0.0] * len(agreement)) for name in ranking_validation.METHODS}
    rows = [
        {
            "seed": seed,
            "truth": protocol,
            "method": method,
            "lds": found[seed],
            "lds_mean": found[seed],
            "auc": 0.5,
            "seconds": 1.0,
            "residual": 0.1,
            "note": "" if np.isfinite(found[seed]) else "The solve stopped.",
        }
        for protocol in ranking_validation.PROTOCOLS
        for method, found in (methods | {ranking_validation.CEILING: agreement}).items()
        for seed in range(len(agreement))
    ]
    return measured(rows)


def test_methods_are_compared_on_the_seeds_that_both_have() -> None:
    scores = {"task-if": [0.1, NAN, NAN], "loss": [0.3, 0.4, 0.5]}
    (finding,) = ranking_validation.summarize(validated(scores, [0.7, 0.8, 0.75])).findings
    best, task_if = mean_sd(scores["loss"], ".2f"), mean_sd(scores["task-if"], ".2f")
    assert finding.index(best) < finding.index(task_if) < finding.index("0.20") < finding.index("not significant")


def test_a_method_that_never_ran_is_reported() -> None:
    summary = ranking_validation.summarize(validated({"task-if": [NAN] * 3, "loss": [0.3, 0.4, 0.5]}, [0.7, 0.8, 0.75]))
    assert ranking_validation.TASK_IF_NOT_RUN in summary.findings[0]
    assert summary.tables[0].rows[0][-1] == "The solve stopped."
    none = validated({name: [NAN] * 3 for name in ranking_validation.METHODS}, [0.7, 0.8, 0.75])
    assert ranking_validation.NOT_RUN in ranking_validation.summarize(none).findings[0]


def test_retrainings_that_do_not_agree_rank_no_method() -> None:
    shown = validated({"loss": [0.3, 0.4, 0.5]}, [0.7, 0.8, 0.75])
    noisy = validated({"loss": [0.3, 0.4, 0.5]}, [0.1, -0.1, 0.05])
    for measurements, agrees in ((shown, True), (noisy, False)):
        summary = ranking_validation.summarize(measurements)
        (finding,), (table,) = summary.findings, summary.tables
        assert finding.count(NO_AGREEMENT) == (0 if agrees else 2)
        assert finding.count("best is") == (3 if agrees else 1), "leave-one-out still has one"
        assert any(column.startswith("LDS") for column in table.columns) == agrees
        assert (table.rows[-1][0] == ranking_validation.CEILING_LABEL) == agrees
        for plot in summary.plots:
            assert [one.name for one in plot.series] == (
                ["LDS", "leave-one-out", ranking_validation.CEILING_LABEL] if agrees else ["leave-one-out"]
            )
    assert finding.index(NO_AGREEMENT) < finding.index("best is")
    one_seed = ranking_validation.summarize(validated({"loss": [0.3]}, [0.7])).findings[0]
    assert one_seed.count(NO_AGREEMENT) == 2, "one seed has no interval"
    assert "inf" not in one_seed


@pytest.mark.parametrize(
    ("scores", "is_above_0"),
    [
        ({"loss": [0.3, 0.4, 0.5]}, True),
        ({"loss": [-0.3, 0.4, 0.5]}, False),
        ({"loss": [-0.3, 0.4, 0.8], "dot": [0.19, 0.2, 0.21]}, True),  # another one than the highest
    ],
)
def test_a_finding_says_whether_any_method_is_above_0(scores: dict[str, list[float]], is_above_0: bool) -> None:
    finding = ranking_validation.summarize(validated(scores, [0.7, 0.8, 0.75])).findings[0]
    assert finding.count(ranking_validation.NONE_ABOVE_0) == (0 if is_above_0 else 3)
    assert mean_sd(scores["loss"], ".2f") in finding


def edited(accuracy: dict[str, list[float]], cost: dict[str, float]) -> Measurements:
    """Return measurements of Table 1 on tasks, with the same accuracies in both conditions."""
    methods = table1.EDIT_LABELS | table1.SELECTION_LABELS
    return measured(
        [
            {
                "seed": seed,
                "condition": condition,
                "method": method,
                "accuracy": accuracy.get(method, accuracy["unedited"])[seed],
                "seconds": 1.0,
                "cost": cost.get(method, 100.0),
                "found": 0.5,
                "note": "",
            }
            for condition, method, seed in product(("random", "harmful"), methods, range(3))
        ]
    )


def test_the_recommendation_is_a_row_of_table_1() -> None:
    summary = table1.summarize(edited({"unedited": [0.5, 0.52, 0.51], "pick-recommended": [0.7, 0.73, 0.7]}, {}))
    (row,) = (row for row in summary.tables[0].rows if row[0] == table1.SELECTION_LABELS["pick-recommended"])
    assert mean_sd([0.7, 0.73, 0.7]) in row
    assert "the recommendation" in " ".join(summary.findings)


def test_a_fine_tune_may_meet_the_goal_and_beat_influence() -> None:
    label = f"“{table1.EDIT_LABELS['finetune']}”"
    accuracy = {"unedited": [0.5, 0.52, 0.51], "retrain": [0.7, 0.72, 0.71], "finetune": [0.7, 0.73, 0.7]}
    goal, short = table1.summarize(edited(accuracy, {"retrain": 5000.0})).findings[2:4]
    assert goal.endswith(f": {label}.")
    gap = PairedDifference.of(*(np.array(accuracy[name]) for name in ("finetune", "unedited")))
    assert short.endswith(f"{gap.text}.")
    none = table1.summarize(edited(accuracy | {"retrain": accuracy["unedited"]}, {"retrain": 5000.0})).findings[1]
    assert NO_GAIN in none
    assert f"{label} {gap.text}" in none


def test_instances_report_absolute_differences() -> None:
    rows = [
        {"seed": seed, "role": role, "method": method, "accuracy": 0.5 + shift, "seconds": 1.0, "cost": 1.0}
        for role, method in product(instances.ROLES, instances.METHODS)
        for seed, shift in enumerate((0.05, -0.05) if "if" in method else (0.0, 0.0))
    ]
    finding = instances.summarize(measured(rows)).findings[0]
    labels = instances.METHODS
    assert listed({labels["instance-if"]: "5.0 points"}) in finding
    verdicts = finding[finding.index("Within") :]
    assert verdicts.index(UNDECIDED) < verdicts.index(labels["instance-if"]) < verdicts.index("yes")
    assert verdicts.index("yes") < verdicts.index(labels["newton"])


def test_removal_is_compared_with_removing_nothing() -> None:
    kinds = product(figure1.NOISE_LABELS, figure1.ORDERS, ("found", "auc", "ap", "accuracy"))
    rows = [
        {
            "seed": seed,
            "protocol": protocol,
            "order": order,
            "quantity": quantity,
            "share": share,
            "value": 0.8 if share == 0 else 0.7,
        }
        for protocol, order, quantity in kinds
        for share in (0.0, 0.4)
        for seed in range(2)
        if share == 0 or quantity == "accuracy"
    ]
    finding = figure1.summarize(measured(rows)).findings[0]
    assert mean_sd([0.8, 0.8], ".3f") in finding
    assert f"{signed(-10)} points" in finding
