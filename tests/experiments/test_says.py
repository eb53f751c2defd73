"""What results say of figures that hold little: one seed, a method that is missing, a gain that is none."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.experiments import figure1, instances, ladder, table1, truth
from core.experiments.outcome import Difference, Figures, Share, near_words
from core.experiments.profiles import PROFILES

NAN = float("nan")


def figures(rows: list[dict]) -> Figures:
    return Figures(pd.DataFrame([{"data": "mnist", **row} for row in rows]), PROFILES["small"], {"mnist": "mnist5k"})


def rungs(accuracy: dict[str, list[float]], costs: dict[str, float]) -> Figures:
    """Of the ladder, with the same accuracies in both conditions."""
    return figures(
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
            for condition, method, seed in product(("random", "harmful"), ladder.RUNGS, range(3))
        ]
    )


def test_differences_are_of_the_seeds_that_both_have() -> None:
    one = pd.Series([0.5, 0.7, NAN, 0.9], index=[0, 1, 2, 4])
    other = pd.Series([0.6, 0.1, 0.2, 0.6], index=[4, 3, 0, 1])
    found = Difference.of(one, other)  # seeds 0, 1 and 4
    assert (found.mean, found.apart, found.seeds) == (pytest.approx(100 * 0.7 / 3), pytest.approx(100 * 0.7 / 3), 3)
    assert Difference.of(one[:1], other).words == "+30.0 points (one seed)"
    assert not Difference.of(one[:1], other).sure
    assert Difference.of(one, other[other.index == 3]).words == "not known"
    assert Difference.of(np.array([0.5, 0.5]), np.array([0.5003, 0.5003])).words == "+0.0 points [+0.0, +0.0]"


def test_opposite_errors_do_not_cancel() -> None:
    found = Difference.of(np.array([0.55, 0.45]), np.array([0.5, 0.5]))
    assert (found.mean, found.apart) == (pytest.approx(0, abs=1e-9), pytest.approx(5))
    assert near_words({"edit": found}, 0.5).endswith("not settled, all of these.")


def test_near_needs_the_whole_interval() -> None:
    steady, far = np.array([0.500, 0.501, 0.499]), np.array([0.6, 0.61, 0.59])
    base = np.array([0.5, 0.5, 0.5])
    said = near_words({"one": Difference.of(steady, base), "two": Difference.of(far, base)}, 0.5)
    assert said == "Within 0.5 points of it on average, by the 95 % intervals: yes, one; no, two."


def test_a_gain_that_is_none_has_no_shares() -> None:
    flat = {"unedited": [0.5, 0.6, 0.5], "retrain": [0.6, 0.5, 0.5], "steps-0.02": [0.55, 0.6, 0.5]}
    outcome = ladder.conclude(rungs(flat, {"retrain": 6400.0}))
    said = " ".join(outcome.says)
    assert "not clearly above 0" in said
    assert "goal" not in said
    assert not any(word in said for word in ("inf", "nan"))
    share = outcome.tables[0].columns.index("of the gain of retraining")
    assert {row[share] for row in outcome.tables[0].rows} == {"–"}


def test_every_rung_may_reach_the_goal() -> None:
    gained = {"unedited": [0.5, 0.52, 0.51], "retrain": [0.7, 0.72, 0.71], "linear": [0.69, 0.71, 0.7]}
    said = " ".join(ladder.conclude(rungs(gained, {"retrain": 6400.0, "linear": 100.0})).says)
    assert "“Linear edit, Gauss-Newton” gets 95 % [95, 95] (goal met)" in said
    assert "90 % are reached by: Linear edit, Gauss-Newton. The most has Linear edit" in said
    costly = " ".join(ladder.conclude(rungs(gained, {"retrain": 6400.0, "linear": 1000.0})).says)
    assert "goal met" not in costly
    gained["linear"] = gained["unedited"]
    missed = " ".join(ladder.conclude(rungs(gained, {"retrain": 6400.0})).says)
    assert "90 % are reached by: no rung." in missed


def test_a_goal_that_seeds_do_not_settle_is_not_met() -> None:
    gained = {"unedited": [0.5, 0.52, 0.51], "retrain": [0.7, 0.72, 0.71], "linear": [0.66, 0.74, 0.7]}
    said = " ".join(ladder.conclude(rungs(gained, {"retrain": 6400.0, "linear": 100.0})).says)
    assert "(goal not settled)" in said
    assert "no rung (not settled: Linear edit, Gauss-Newton)" in said


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-0.5, 1.5)), min_size=3, max_size=8),
)
def test_the_interval_of_a_share_ends_where_a_t_test_does(gains: list[tuple[float, float]]) -> None:
    """At both ends ``part - share * whole`` is as far from 0 as a 95 % interval reaches (Fieller)."""
    part, whole = pd.DataFrame(gains, dtype=float).T.to_numpy()
    share, gain = Share.of(pd.Series(part), pd.Series(whole)), Difference.of(whole, np.zeros(len(whole)))
    assume(abs(gain.mean) > 1 and part.std() + whole.std() > 1e-3)
    if not gain.sure:
        assert share.low == -np.inf
        assert "without end" in share.words
        return
    assert share.low <= share.mean <= share.high
    for end in (share.low, share.high):
        left = Difference.of(part, end * whole)
        assert min(abs(left.low), abs(left.high)) == pytest.approx(0, abs=1e-6 * (1 + abs(end)) * 100)


def test_a_second_seed_is_as_far_as_it_is() -> None:
    swapped = {"unedited": [0.5] * 3, "retrain": [0.7, 0.6, 0.65], "retrain-again": [0.6, 0.7, 0.65]}
    said = " ".join(ladder.conclude(rungs(swapped, {"retrain": 6400.0})).says)
    assert "Two retrainings from other seeds are 6.7 points apart." in said


def held(values: dict[str, list[float]], agreement: list[float]) -> Figures:
    """Of the truth: the same for both truths and quantities, by seed."""
    methods = {name: values.get(name, [0.0] * len(agreement)) for name in truth.METHODS} | {truth.CEILING: agreement}
    rows = [
        {
            "seed": seed,
            "truth": kind,
            "method": method,
            "lds": found[seed],
            "lds_mean": found[seed],
            "auc": 0.5,
            "seconds": 1.0,
            "residual": 0.1,
            "note": "" if np.isfinite(found[seed]) else "The solve stopped.",
        }
        for kind in truth.TRUTHS
        for method, found in methods.items()
        for seed in range(len(agreement))
    ]
    return figures(rows)


def test_methods_are_compared_on_the_seeds_that_both_have() -> None:
    said = truth.conclude(held({"task-if": [0.1, NAN, NAN], "loss": [0.3, 0.4, 0.5]}, [0.7, 0.8, 0.75])).says[0]
    assert "best loss 0.40 ± 0.10; task-IF 0.10, behind by 0.20, which these seeds do not settle." in said


def test_a_method_that_never_ran_is_named_so() -> None:
    outcome = truth.conclude(held({"task-if": [NAN] * 3, "loss": [0.3, 0.4, 0.5]}, [0.7, 0.8, 0.75]))
    assert "task-IF could not be measured, the table says why." in outcome.says[0]
    assert outcome.tables[0].rows[0][-1] == "The solve stopped."
    none = {name: [NAN] * 3 for name in truth.METHODS}
    assert "No method could run" in truth.conclude(held(none, [0.7, 0.8, 0.75])).says[0]


def test_of_a_noisy_truth_no_method_is_called_the_best() -> None:
    said = truth.conclude(held({"loss": [0.3, 0.4, 0.5]}, [0.1, -0.1, 0.05])).says[0]
    assert said.count("too noisy to tell methods apart") == 2


def edited(accuracy: dict[str, list[float]], cost: dict[str, float]) -> Figures:
    """Of Table 1 on tasks, with the same accuracies in both conditions."""
    return figures(
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
            for condition, method, seed in product(("random", "harmful"), table1.EDITS | table1.PICKED, range(3))
        ]
    )


def test_a_fine_tune_may_meet_the_goal_and_beat_influence() -> None:
    accuracy = {"unedited": [0.5, 0.52, 0.51], "retrain": [0.7, 0.72, 0.71], "finetune": [0.7, 0.73, 0.7]}
    said = " ".join(table1.conclude(edited(accuracy, {"retrain": 5000.0})).says)
    assert "is met by: Short fine-tune on what is left." in said
    assert "The fine-tune on what is left is +20.0 points [+17.5, +22.5] from the best edit by influence" in said
    none = " ".join(table1.conclude(edited(accuracy | {"retrain": accuracy["unedited"]}, {"retrain": 5000.0})).says)
    assert "not clearly a gain" in none
    assert "Short fine-tune on what is left +20.0 points" in none


def test_instances_say_how_far_apart_and_not_how_far_on_average() -> None:
    rows = [
        {"seed": seed, "role": role, "method": method, "accuracy": 0.5 + away, "seconds": 1.0, "cost": 1.0}
        for role, method in product(instances.ROLES, instances.METHODS)
        for seed, away in enumerate((0.05, -0.05) if "if" in method else (0.0, 0.0))
    ]
    said = instances.conclude(figures(rows)).says[0]
    assert "Instance-IF edit, Gauss-Newton 5.0 points" in said
    assert "not settled, Instance-IF edit" in said
    assert "yes, Newton step, trust region" in said


def test_removal_is_held_against_removing_nothing() -> None:
    rows = [
        {
            "seed": seed,
            "protocol": protocol,
            "order": order,
            "quantity": quantity,
            "share": share,
            "value": 0.8 if share == 0 else 0.7,
        }
        for protocol, order, quantity in product(figure1.PROTOCOLS, figure1.ORDERS, ("found", "auc", "ap", "accuracy"))
        for share in (0.0, 0.4)
        for seed in range(2)
    ]
    said = figure1.conclude(figures([row for row in rows if row["share"] == 0 or row["quantity"] == "accuracy"])).says[
        0
    ]
    assert "with nothing removed 0.800 ± 0.000, from which the best of these is -10.0 points" in said
