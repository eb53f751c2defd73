"""The estimators by name: their parts, which parts fit together, and their cache keys."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core.influence.curvature import CURVATURES
from core.influence.methods import DEFAULT, METHODS, Estimator, SolveSettings, estimator
from core.influence.settings import GRADIENTS, SOLVERS, SUBSAMPLES, FitError
from core.runtime.errors import UserError
from core.runtime.settings import SettingError

SOLVED = [name for name, method in METHODS.items() if method.estimator.solve is not None]
UNSOLVED = [name for name in METHODS if name not in SOLVED]
OTHERS: dict[str, Any] = {
    "curvature": "exact",
    "solver": "neumann",
    "curvature_tasks": 7,
    "subsample": "difficulty",
    "damping": 0.7,
    "tolerance": 1e-3,
    "iterations": 33,
    "rank": 9,
    "seed": 4,
}


def solved(chosen: Estimator) -> SolveSettings:
    assert chosen.solve is not None
    return chosen.solve


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_built_as_listed(name: str) -> None:
    built = estimator(name)
    assert built == METHODS[name].estimator
    assert built.name == name
    assert built.description == METHODS[name].description != ""


def test_descriptions_are_distinct_and_the_default_is_a_method() -> None:
    assert len({method.description for method in METHODS.values()}) == len(METHODS)
    assert DEFAULT in METHODS
    assert set(UNSOLVED) == {"dot", "tracin"}


def test_the_parts_are_those_of_the_method_page() -> None:
    paper, direct, fisher = (METHODS[name].estimator for name in ("task-if-paper", "direct-if", "task-if-fisher"))
    assert (solved(paper).curvature, paper.gradient, paper.evaluation) == ("gamma", "total", "direct")
    assert (solved(direct).curvature, direct.gradient, direct.evaluation) == ("direct", "direct", "direct")
    assert (solved(fisher).curvature, solved(fisher).solver) == ("task-fisher", "dual")
    assert solved(METHODS["task-if-exact"].estimator).curvature == "exact"
    assert solved(METHODS[DEFAULT].estimator) == SolveSettings()


@pytest.mark.parametrize("field", OTHERS)
def test_one_part_is_overridden_and_the_others_stay(field: str) -> None:
    changed = estimator("task-if", **{field: OTHERS[field]})
    assert changed == replace(estimator("task-if"), solve=replace(SolveSettings(), **{field: OTHERS[field]}))


def test_every_field_of_a_solve_can_be_overridden() -> None:
    assert {field.name for field in fields(SolveSettings)} == set(OTHERS)


@pytest.mark.parametrize("name", METHODS)
def test_empty_parts_leave_the_method_unchanged(name: str) -> None:
    assert estimator(name, gradient="", evaluation="", probes=0, **dict.fromkeys(OTHERS)) == estimator(name)


def test_gradients_and_probes_are_overridden() -> None:
    chosen = estimator("task-if", gradient="direct", evaluation="direct")
    assert (chosen.gradient, chosen.evaluation) == ("direct", "direct")
    assert solved(chosen) == SolveSettings()
    assert estimator("self-influence", probes=5).probes == 5
    assert estimator("dot", evaluation="direct").evaluation == "direct"


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"curvature": "fisher"}, "curvature"),
        ({"solver": "lu"}, "solver"),
        ({"subsample": "beauty"}, "subsample"),
        ({"gradient": "half"}, "gradient"),
        ({"evaluation": "half"}, "evaluation"),
        ({"inner": "lu"}, "inner"),
        ({"damping": -0.1}, "damping"),
        ({"curvature_tasks": -1}, "curvature-tasks"),
        ({"seed": -1}, "solve-seed"),
        ({"rank": -1}, "rank"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"iterations": 0}, "solve-iterations"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_invalid_settings_are_refused(values: dict[str, Any], setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        estimator("task-if", **values)
    assert caught.value.name == setting
    (value,) = values.values()
    assert repr(value) in caught.value.what


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "task-IF"}, "'task-IF'"),
        ({"solver": "low-rank", "rank": 0}, "rank"),
        ({"solver": "neumann", "rank": 5}, "neumann"),
        ({"name": "task-if-fisher", "rank": 5}, "dual"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_unknown_methods_and_unusable_ranks_are_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as caught:
        estimator(**{"name": "task-if", **values})
    assert named in caught.value.what


@pytest.mark.parametrize(
    "values",
    [
        {"name": "task-if", "solver": "ekfac"},
        {"name": "task-if-fisher", "curvature": "exact", "solver": "dual"},
        {"name": "self-influence", "curvature": "gamma"},
    ],
    ids=lambda values: "-".join(values.values()),
)
def test_a_solver_that_does_not_fit_the_curvature_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(FitError):
        estimator(**values)


@pytest.mark.parametrize("field", OTHERS)
@pytest.mark.parametrize("name", UNSOLVED)
def test_solve_settings_are_refused_by_methods_without_a_solve(name: str, field: str) -> None:
    with pytest.raises(UserError) as caught:
        estimator(name, **{field: OTHERS[field]})
    assert name in caught.value.what
    assert repr(field) in caught.value.what


@pytest.mark.parametrize("name", [name for name in METHODS if name != "self-influence"])
def test_probes_are_refused_by_methods_without_a_sketch(name: str) -> None:
    with pytest.raises(UserError) as caught:
        estimator(name, probes=8)
    assert name in caught.value.what
    assert "probes" in caught.value.what


@pytest.mark.parametrize(
    ("name", "part"), [("tracin", "gradient"), ("tracin", "evaluation"), ("self-influence", "evaluation")]
)
def test_a_gradient_that_a_method_does_not_use_is_refused(name: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        estimator(name, **{part: "direct"})
    assert name in caught.value.what
    assert part in caught.value.what
    assert estimator(name, **{part: "total"}) == estimator(name)


def test_changing_the_solver_sets_its_default_rank() -> None:
    assert solved(estimator("task-if", solver="low-rank")).rank == 60
    assert solved(estimator("task-if", solver="low-rank", rank=7)).rank == 7
    assert solved(estimator("task-if", rank=20)).rank == 20
    assert solved(estimator("self-influence")).rank == 16
    assert solved(estimator("self-influence", solver="low-rank")).rank == 16
    assert solved(estimator("self-influence", solver="cg")).rank == 0


@pytest.mark.parametrize("curvature", [name for name in CURVATURES if name != "task-fisher"])
def test_another_curvature_replaces_the_dual_solver_by_cg(curvature: str) -> None:
    changed = solved(estimator("task-if-fisher", curvature=curvature))
    assert (changed.curvature, changed.solver, changed.curvature_tasks) == (curvature, "cg", 0)


def test_a_solver_that_fits_is_unchanged() -> None:
    assert solved(estimator("task-if-fisher", curvature="task-fisher")).solver == "dual"
    assert solved(estimator("task-if-fisher", solver="cg")).solver == "cg"
    assert solved(estimator("task-if", curvature="task-fisher")).solver == "cg"
    assert solved(estimator("task-if", curvature="task-fisher", solver="dual")).solver == "dual"


@st.composite
def estimators(draw: st.DrawFn) -> Estimator:
    """Draw an estimator from few values per part, so that two are often equal."""
    given: dict[str, Any] = {"name": draw(st.sampled_from(list(METHODS)))}
    choices: dict[str, Any] = {
        "gradient": GRADIENTS,
        "evaluation": GRADIENTS,
        "probes": (0, 4),
        "inner": ("cg", "ekfac"),
        "curvature": CURVATURES,
        "solver": SOLVERS,
        "curvature_tasks": (0, 8),
        "subsample": SUBSAMPLES,
        "damping": (0.0, 0.1, 0.2),
        "tolerance": (1e-2, 1e-3),
        "iterations": (50, 200),
        "rank": (0, 5),
        "seed": (0, 1),
    }
    for part in draw(st.sets(st.sampled_from(list(choices)), max_size=2)):
        given[part] = draw(st.sampled_from(choices[part]))
    try:
        return estimator(**given)
    except UserError:
        assume(False)
        raise


@given(estimators(), estimators())
def test_cache_keys_are_equal_only_if_every_part_is(one: Estimator, other: Estimator) -> None:
    assert (one.cache_key() == other.cache_key()) == (one == other)


@given(estimators())
def test_a_cache_key_is_plain_data(chosen: Estimator) -> None:
    key = chosen.cache_key()
    assert json.loads(json.dumps(key)) == key
    assert key["method"] == chosen.name


@pytest.mark.parametrize("name", SOLVED)
@pytest.mark.parametrize("field", [field for field in OTHERS if field not in ("solver", "rank", "curvature")])
def test_changing_one_part_changes_the_cache_key(name: str, field: str) -> None:
    assert estimator(name, **{field: OTHERS[field]}).cache_key() != estimator(name).cache_key()
