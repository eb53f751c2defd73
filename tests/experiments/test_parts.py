"""Parts of experiments: images divided in three, rows that a task can spare, differences and curves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from core.actions.compute import Compute
from core.data import ImageSet, load_images
from core.experiments import figure2, instances, problems
from core.experiments.formatting import mean_sd, signed
from core.experiments.paper import PUBLISHED, published_cells
from core.experiments.problems import Problem, Repetition, build_problem, draw_tasks, problem_settings, split_three_ways
from core.experiments.profiles import DATA, MNIST, OMNIGLOT, PROFILES, profile_of
from core.experiments.summary import Measurements, PairedDifference, mean_curve
from core.maml.recipes import GREY
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from core.tasks.changes import Changes, cleaned
from core.tasks.tasklist import KEY

TINY = PROFILES["tiny"]
ZERO, ONE = (Repetition(TINY, MNIST, "mnist5k", seed) for seed in (0, 1))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv(HOME_VARIABLE, str(folder))
        yield folder


@pytest.fixture(scope="module")
def noisy(home: Path) -> Problem:
    return build_problem(problem_settings(ZERO, "easy"), Compute(device="cpu"), Progress())


def with_parts(images: ImageSet, parts: dict[int, str]) -> ImageSet:
    """Return the images with the split of each class."""
    return replace(images, splits=np.array([parts[label] for label in images.labels], dtype=object))


def assert_disjoint(images: ImageSet, data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = split_three_ways(images, data, np.random.default_rng(0))
    assert all(len(part) for part in parts)
    assert len(np.unique(np.concatenate(parts))) == sum(len(part) for part in parts)
    return parts


def test_images_are_divided_within_every_class() -> None:
    images = load_images("mnist5k")
    train, targets, tests = assert_disjoint(images, MNIST)
    assert len(train) + len(targets) + len(tests) == len(images)
    for part in (train, targets, tests):
        assert set(images.labels[part]) == set(range(10))
    assert len(targets) == len(tests) == 750


def test_characters_are_divided_by_class() -> None:
    images = load_images("mnist5k")
    train, targets, tests = assert_disjoint(images, OMNIGLOT)
    classes = [set(images.labels[part]) for part in (train, targets, tests)]
    assert not classes[0] & classes[1]
    assert not classes[0] & classes[2]
    assert not classes[1] & classes[2]


def test_official_splits_are_used() -> None:
    images = load_images("mnist5k")
    split = with_parts(images, {label: ("train", "val", "test")[min(label // 4, 2)] for label in range(10)})
    for part, name in zip(assert_disjoint(split, "fc100"), ("train", "val", "test"), strict=True):
        assert set(split.splits[part]) == {name}
    two = with_parts(images, {label: "train" if label < 6 else "test" for label in range(10)})
    train, targets, tests = assert_disjoint(two, "fc100")
    assert not set(two.labels[train]) & set(two.labels[np.r_[targets, tests]])


def test_tests_share_no_image_with_tasks_and_targets_and_have_no_noise(noisy: Problem) -> None:
    project = noisy.project
    train, targets = project.tasks.train.rows, project.tasks.heldout.rows
    tests = noisy.tests.rows
    assert not set(tests["image_id"]) & (set(train["image_id"]) | set(targets["image_id"]))
    truth = np.array(project.images.class_names, dtype=object)[project.images.labels]
    for rows in (tests, targets):
        assert (rows["class"].astype(str) == truth[rows["image_id"].map(project.images.index)]).all()
    wrong = train["class"].astype(str).to_numpy() != truth[train["image_id"].map(project.images.index)]
    assert set(train.loc[wrong, "task_id"]) == set(np.array(project.tasks.train.task_ids)[noisy.noisy_tasks])
    assert noisy.noisy_tasks.sum() == round(0.4 * len(project.tasks.train))


def test_a_problem_is_built_once_and_found_again(noisy: Problem, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(problems, "train_model", refuse)
    again = build_problem(problem_settings(ZERO, "easy"), Compute(device="cpu"), Progress())
    assert again.workspace.folder == noisy.workspace.folder
    assert again.tests.hash == noisy.tests.hash
    with pytest.raises(AssertionError, match="trained again"):
        build_problem(problem_settings(ONE, "easy"), Compute(device="cpu"), Progress())


def test_a_seed_draws_everything_and_a_model_seed_the_model_alone() -> None:
    images = load_images("mnist5k")
    zero, one = (problem_settings(unit, "none") for unit in (ZERO, ONE))
    assert draw_tasks(images, zero)[0].train.hash != draw_tasks(images, one)[0].train.hash
    assert draw_tasks(images, zero)[1].hash != draw_tasks(images, one)[1].hash
    other = problem_settings(ONE, "none", seed=0)
    assert draw_tasks(images, other)[0].train.hash == draw_tasks(images, zero)[0].train.hash
    assert (zero.training.seed, other.training.seed) == (0, 1)


@pytest.mark.parametrize("role", ["support", "query"])
def test_two_fifths_of_the_rows_of_some_tasks_are_removed_and_every_class_stays(noisy: Problem, role: str) -> None:
    train = noisy.project.tasks.train
    chosen = instances.sample_rows(train, role, np.random.default_rng(0))
    by_task = pd.Series([task for task, _, _ in chosen]).value_counts()
    assert len(by_task) == min(instances.TASKS, len(train))
    of_class = TINY.shots if role == "support" else TINY.queries
    assert (by_task == round(instances.REMOVED_SHARE * train.ways * of_class)).all()
    assert {where for _, where, _ in chosen} == {role}
    left = cleaned(train, Changes(instances=frozenset(chosen)), drop_rows=True)
    support = left.rows[left.rows["role"] == "support"]
    assert (support.groupby("task_id")["label"].nunique() == train.ways).all()


@given(st.data())
def test_no_class_of_a_task_loses_its_last_support_row(data: st.DataObject) -> None:
    rows = pd.DataFrame(
        [
            (f"t{task}", role, f"i{task}{role}{label}{n}", label, f"c{label}", 1.0)
            for task in range(2)
            for role in ("support", "query")
            for label in range(2)
            for n in range(2)
        ],
        columns=["task_id", "role", "image_id", "label", "class", "weight"],
    )
    order = rows.iloc[data.draw(st.permutations(range(len(rows))))]
    count = data.draw(st.integers(0, len(rows)))
    taken = figure2.removable_rows(order, count)
    assert len(taken) == min(count, len(rows) - 4), "exactly as many, as long as four rows can stay"
    is_removed = pd.MultiIndex.from_frame(rows[KEY]).isin(taken)
    support = rows["role"] == "support"
    assert (rows[support & ~is_removed].groupby("task_id")["label"].nunique() == 2).all()
    place = {key: at for at, key in enumerate(order[KEY].itertuples(index=False, name=None))}
    assert [place[key] for key in taken] == sorted(place[key] for key in taken)
    passed = [key for key, at in place.items() if taken and at < place[taken[-1]] and key not in taken]
    assert all(role == "support" for _, role, _ in passed)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8), st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_differences_have_students_interval(one: list[float], other: list[float]) -> None:
    other = other[: len(one)]
    found = PairedDifference.of(np.array(one), np.array(other))
    gaps = 100 * (np.array(one) - np.array(other))
    assert found.mean == pytest.approx(gaps.mean())
    if gaps.std() > 1e-9:
        expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)
    assert found.is_significant == (found.low > 0 or found.high < 0)


def test_one_seed_is_never_significant() -> None:
    found = PairedDifference.of(np.array([0.9]), np.array([0.1]))
    assert not found.is_significant
    assert not np.isfinite(found.low)
    assert found.text.startswith(signed(80))


def test_means_are_printed_as_the_paper_does() -> None:
    assert mean_sd([0.7, 0.8]) == "0.7500 ± 0.0707"
    assert mean_sd([0.5]) == "0.5000"
    assert mean_sd([np.nan]) == mean_sd([]) == "–"
    assert mean_sd([0.01, 0.03], "+.1f", 100) == "+2.0 ± 1.4"


def test_lines_and_dots_show_one_standard_deviation() -> None:
    frame = pd.DataFrame({"share": [0, 0, 1, 1], "value": [1.0, 3.0, 5.0, 5.0], "seed": [0, 1, 0, 1]})
    drawn = Measurements(frame, TINY, MNIST, "mnist5k").curve("a", "share", "value")
    assert (drawn.x, drawn.y) == ([0.0, 1.0], [2.0, 5.0])
    assert drawn.low == pytest.approx([2 - 2**0.5, 5])
    assert drawn.high == pytest.approx([2 + 2**0.5, 5])
    alone = mean_curve("b", ["one"], [pd.Series([0.5])])
    assert alone.low == alone.high == alone.y == [0.5]


def test_measurements_are_selected_by_value() -> None:
    table = pd.DataFrame({"order": ["a", "b", "b"], "seed": [0, 1, 0], "accuracy": [0.1, 0.2, 0.3]})
    measurements = Measurements(table, TINY, MNIST, "mnist5k")
    assert measurements.select(order="b")["accuracy"].tolist() == [0.3, 0.2]
    assert measurements.by_seed("accuracy", order="b").to_dict() == {0: 0.3, 1: 0.2}


def test_the_papers_figures_are_those_it_prints() -> None:
    assert published_cells("retrain", "omniglot") == ["0.7908 ± 0.0061", "316.74 ± 8.45"]
    assert published_cells("newton", "omniglot") == ["", ""]
    assert PUBLISHED["instance-if-query", "fc100"][0] == 0.3698
    assert ("newton", "mnist") not in PUBLISHED
    assert all((method, data) in PUBLISHED for method in ("task-if", "ekfac", "trak", "tracin") for data in DATA)
    assert {len(numbers) for numbers in PUBLISHED.values()} == {4}


def test_the_model_is_that_of_the_recipe_for_the_images() -> None:
    spec, fields = ZERO.spec, GREY.model_fields({})
    assert {name: getattr(spec, name) for name in fields} == fields
    assert (spec.filters, spec.shape) == (TINY.filters, load_images("mnist5k").shape)
    assert problem_settings(ZERO, "none").spec == spec


def test_profiles_grow() -> None:
    tiny, small, full = (profile_of(name) for name in ("tiny", "small", "full"))
    for data in DATA:
        steps = [profile.training[data].iterations for profile in (tiny, small, full)]
        assert steps == sorted(set(steps))
        assert steps[-1] == 5000
    assert full.counts[OMNIGLOT] == 10_000
    assert full.counts[MNIST] is None
    assert full.seeds == small.seeds == 5
    with pytest.raises(UserError, match="'huge'"):
        profile_of("huge")


def test_noisy_tasks_are_those_with_a_mislabelled_image(home: Path) -> None:
    train = SimpleNamespace(task_ids=["t0", "t1"], rows=pd.DataFrame({"task_id": ["t0", "t1"], "image_id": ["a", "b"]}))
    tasks = SimpleNamespace(planted=pd.DataFrame({"image_id": ["b"]}), train=train)
    made = Problem(None, None, Compute())  # type: ignore[arg-type]
    made.__dict__["project"] = SimpleNamespace(tasks=tasks)
    assert made.noisy_tasks.tolist() == [False, True]
    tasks.planted = None
    assert made.noisy_tasks.tolist() == [False, False]
