"""What-if estimates of a tiny workspace against the linear edit, with and without stored gradients."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from core.actions import preparation
from core.actions.compute import Compute, load
from core.actions.edit import edit
from core.actions.preparation import find_preparation, open_estimator, prepare, prepare_bytes, prepare_cost
from core.actions.rank import ranking
from core.actions.train import train_model
from core.checkpoints.model import ModelSpec
from core.editing import prepared, whatif
from core.editing.linear import change_gradient, row_change
from core.editing.prepared import HELDOUT, ROWS, SKETCH, TASKS, row_gradients
from core.editing.settings import FINETUNE
from core.editing.whatif import WhatIf
from core.influence import gradient_files as gradients
from core.influence.basis import FILE, read_basis
from core.influence.basis import KIND as BASIS
from core.influence.methods import SolveSettings, estimator
from core.influence.solve import Solver
from core.influence.targets import Target
from core.maml.adaptation import Implicit, Unrolled
from core.maml.backbone import MLP
from core.maml.episodes import Episodes
from core.maml.loaded import Loaded
from core.maml.objective import Adaptation, Bilevel
from core.maml.training import TrainSettings
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.changes import Changes
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace, create
from tests.problems import Problem, tiny_problem, with_weights

EXACT = Compute("cpu", "float64", chunk=4)
N, TARGETS = 6, 4
SETTINGS = replace(preparation.SETTINGS, rank=5)
"""So that the basis leaves something out of this small curvature too."""


@pytest.fixture(scope="module", autouse=True)
def _small_basis() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "SETTINGS", SETTINGS)
        yield


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model with nothing computed."""
    folder = tmp_path_factory.mktemp("problem")
    tasks = generate(
        TaskSettings(ways=3, shots=1, queries=2, count=N, heldout=TARGETS, noise="tasks:0.5:0.5", validation=0)
    )
    write_folder(tasks, folder / "tasks")
    settings = TrainSettings(iterations=4, meta_batch=2, learning_rate=0.01)
    spec = ModelSpec(ways=3, filters=2, blocks=2)
    train_model(folder / "tasks", folder / "model", spec, settings, Compute("cpu"), Progress(), "by a test")
    return create(folder / "tiny", folder / "tasks", folder / "model").folder


@pytest.fixture(scope="module")
def ready(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same, prepared."""
    folder = tmp_path_factory.mktemp("ready") / "tiny"
    shutil.copytree(bare, folder)
    prepare(Workspace(folder), EXACT, Progress())
    return Workspace(folder)


@pytest.fixture
def empty(bare: Path, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(bare, tmp_path / "tiny")))


@pytest.fixture
def copy(ready: Workspace, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(ready.folder, tmp_path / "tiny")))


@pytest.fixture(scope="module")
def sets(ready: Workspace) -> list[Changes]:
    """Tasks, images, instances, all of them together, images that leave a task without any query row, and relabels:
    of support and query rows, of images, and with removals in the same tasks and in others."""
    rows = ready.project().tasks.train.rows
    often = rows["image_id"].value_counts().index
    first = rows[rows["task_id"] == "t2"]
    queries = first.loc[first["role"] == "query", "image_id"]
    instance = tuple(rows.loc[3, ["task_id", "role", "image_id"]])
    return [
        Changes(frozenset({"t0", "t4"})),
        Changes(images=frozenset(often[:2])),
        Changes(instances=frozenset({instance})),
        Changes(frozenset({"t1"}), frozenset(often[:3]), frozenset({instance})),
        Changes(images=frozenset({*queries, often[0]})),
        Changes(frozenset({"t0"}), frozenset(rows.loc[rows["task_id"] == "t0", "image_id"].head(2))),
        Changes(relabelled_instances=relabels(rows, "t3", "query") | relabels(rows, "t5", "support")),
        Changes(
            frozenset({"t1"}),
            frozenset(first.loc[first["role"] == "query", "image_id"].tail(1)),
            relabelled_images=frozenset({(often[0], rows["class"].iloc[-1])}),
            relabelled_instances=relabels(rows, "t2", "query"),
        ),
    ]


def relabels(rows: pd.DataFrame, task: str, role: str) -> frozenset[tuple[str, str, str, str]]:
    """The first two rows of a role change their classes, or the first one gets that of the last."""
    here = rows[(rows["task_id"] == task) & (rows["role"] == role)]
    one, other = here.iloc[0], here.iloc[-1]
    pairs = ((one, other), (other, one))
    return frozenset((task, role, row["image_id"], new["class"]) for row, new in pairs)


def without_seconds(found: WhatIf) -> WhatIf:
    return replace(found, seconds=0.0)


def close(have: torch.Tensor, want: torch.Tensor, tolerance: float = 1e-10) -> None:
    assert float((have - want).norm()) <= tolerance * float(want.norm())


def drop(workspace: Workspace, *names: str) -> None:
    """Delete files of gradients, as if they had been too large to be stored."""
    run = find_preparation(workspace, EXACT)
    assert run is not None
    for name in names:
        (run.folder / name).unlink()


def one_algorithm(algorithm: str) -> Problem:
    return tiny_problem(count=2, steps=2, algorithm=algorithm)


def by_torch_func(adaptation: Adaptation) -> Problem:
    """A problem without explicit derivatives."""
    problem, network = tiny_problem(count=2), MLP(3, hidden=(4,), shape=(7, 7, 1), shrink=7, activation="tanh")
    return replace(problem, model=Bilevel(network, adaptation, 0.2), params=network.init(0, torch.float64))


@pytest.mark.parametrize(
    "problem",
    [
        *(pytest.param(partial(one_algorithm, name), id=name) for name in ("maml", "fomaml", "anil", "meta-sgd")),
        pytest.param(partial(by_torch_func, Unrolled(2, 0.3)), id="mlp"),
        pytest.param(partial(by_torch_func, Implicit(2.0, 1e-13)), id="imaml"),
    ],
)
def test_row_gradients_add_up_to_change_gradients_for_any_weights(problem: Callable[[], Problem]) -> None:
    built, rng = problem(), np.random.default_rng(0)
    rows = len(built.tasks.rows)
    model, params, uneven = built.model, built.params, with_weights(built.episodes, rng.uniform(0.2, 2, rows))
    left = uneven.tasks.rows["weight"].to_numpy() * rng.choice([0.0, 0.4, 1.0], rows)
    each = Episodes(uneven.tasks, built.images, dtype=torch.float64, chunk=1)
    by_task = [row_gradients(model, params, chunk.task) for chunk in each.chunks()]
    summed = torch.from_numpy(row_change(uneven, left).decrease) @ torch.cat(by_task)
    close(summed, change_gradient(model, params, uneven, left))


@pytest.mark.parametrize("dropped", [(), (ROWS,), (ROWS, TASKS)], ids=["all stored", "no rows", "nothing stored"])
def test_change_gradients_equal_those_computed_without_stored_gradients(
    copy: Workspace, sets: list[Changes], dropped: tuple[str, ...]
) -> None:
    drop(copy, *dropped)
    opened, loaded = open_estimator(copy, EXACT), load(copy.project(), EXACT)
    for removal in sets:
        after = removal.apply(loaded.train.tasks)
        long = change_gradient(loaded.model, loaded.params, loaded.train, after.weights, after.labels)
        close(opened.change_gradient(removal), long)


@pytest.mark.parametrize("dropped", [(), pytest.param((ROWS,), marks=pytest.mark.slow)], ids=["all stored", "no rows"])
def test_an_estimate_equals_the_linear_edit_with_the_same_basis(
    copy: Workspace, sets: list[Changes], dropped: tuple[str, ...]
) -> None:
    drop(copy, *dropped)
    opened = open_estimator(copy, EXACT)
    for removal in (*sets[:4], *sets[6:]):
        found = opened.changes(removal)
        long = edit(
            copy, "linear", removal, solver=SETTINGS, finetune=FINETUNE, compute=EXACT, progress=Progress()
        ).json("edit.json")
        for name in ("accuracy", "accuracy_change", "loss_change"):
            for bound in ("mean", "low", "high"):
                assert getattr(getattr(found, name), bound) == pytest.approx(long[name][bound], rel=1e-8, abs=1e-11)
        assert found.predicted_loss_change == pytest.approx(long["predicted_loss_change"], rel=1e-8)
        assert found.relative_step == pytest.approx(long["relative_step"], rel=1e-8)
        assert found.removed == long["removed"]
        assert found.relabelled == long["relabelled"]
        assert long["solver"]["residual"] > 1e-3
        assert found.residual == pytest.approx(long["solver"]["residual"], rel=0.5)
    assert len(copy.runs.all(BASIS)) == 1, "the edits reuse the basis of the estimates"


@pytest.mark.parametrize(
    "dropped",
    [(), pytest.param((ROWS,), marks=pytest.mark.slow), (ROWS, TASKS)],
    ids=["all stored", "no rows", "nothing stored"],
)
def test_earlier_estimates_do_not_change_an_estimate(
    copy: Workspace, sets: list[Changes], dropped: tuple[str, ...]
) -> None:
    drop(copy, *dropped)
    rows = copy.project().tasks.train.rows
    series = [Changes(images=frozenset(rows["image_id"].unique()[:count])) for count in (1, 2, 5, 2)]
    series += [sets[3], sets[0], sets[5], sets[6], sets[7], series[2], sets[6]]
    one = open_estimator(copy, EXACT)
    for removal in series:
        fresh = open_estimator(copy, EXACT)
        assert torch.equal(one.change_gradient(removal), fresh.change_gradient(removal))
        assert without_seconds(one.changes(removal)) == without_seconds(fresh.changes(removal))


def test_one_more_removal_computes_only_the_tasks_it_touches(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(copy, ROWS)
    opened, computed = open_estimator(copy, EXACT), []
    collect_chunks = opened._episodes.collect_chunks

    def counted(function: object, positions: np.ndarray) -> object:
        computed.append(positions.tolist())
        return collect_chunks(function, positions)  # type: ignore[arg-type]

    monkeypatch.setattr(opened._episodes, "collect_chunks", counted)
    rows = copy.project().tasks.train.rows
    position = {name: at for at, name in enumerate(dict.fromkeys(rows["task_id"]))}
    touched = {image: sorted(position[t] for t in set(some["task_id"])) for image, some in rows.groupby("image_id")}
    one, other = list(touched)[:2]
    opened.changes(Changes(images=frozenset({one})))
    opened.changes(Changes(images=frozenset({one, other})))
    opened.changes(Changes(images=frozenset({one})))
    assert computed == [touched[one], touched[other]]


def test_cached_results_in_memory_are_bounded(copy: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    drop(copy, ROWS)
    monkeypatch.setattr(whatif, "CACHED_GRADIENT_BYTES", 1.0)
    monkeypatch.setattr(whatif, "CACHED_ESTIMATES", 2)
    opened = open_estimator(copy, EXACT)
    images = copy.project().tasks.train.rows["image_id"].unique()
    for image in images[:4]:
        opened.changes(Changes(images=frozenset({image})))
    assert len(opened._estimates) == 2
    touched = copy.project().tasks.train.rows.query("image_id == @images[3]")["task_id"].nunique()
    assert len(opened._pieces) == 1
    assert len(opened._last_pieces) == touched


@pytest.mark.parametrize("text", ["all", "h0", "h1,h3"])
def test_target_scores_equal_a_ranking_with_the_same_basis(copy: Workspace, text: str) -> None:
    found = open_estimator(copy, EXACT).target(Target.parse(text))
    parts = {"solver": "low-rank", "rank": SETTINGS.rank, "damping": SETTINGS.damping}
    chosen = estimator("task-if", curvature_tasks=SETTINGS.curvature_tasks, **parts)
    long = ranking(copy, Target.parse(text), chosen, EXACT, Progress()).table("tasks.parquet").set_index("task_id")
    assert found.table["score"].is_monotonic_increasing
    np.testing.assert_allclose(found.table["score"], long.loc[found.table["task_id"], "score"], rtol=1e-7)
    assert len(copy.runs.all(BASIS)) == 1


def test_a_query_image_can_be_a_target(copy: Workspace) -> None:
    heldout = copy.project().tasks.heldout.rows
    image = heldout[(heldout["task_id"] == "h2") & (heldout["role"] == "query")]["image_id"].iloc[0]
    stored = open_estimator(copy, EXACT).target(Target.parse(f"h2/{image}"))
    drop(copy, TASKS)
    computed = open_estimator(copy, EXACT).target(Target.parse(f"h2/{image}"))
    np.testing.assert_allclose(stored.table["score"], computed.table["score"], rtol=1e-9)
    with pytest.raises(UserError, match="'nowhere'"):
        open_estimator(copy, EXACT).target(Target.parse("nowhere"))


def test_the_stored_basis_equals_the_computed_basis(ready: Workspace, tmp_path: Path) -> None:
    loaded = load(ready.project(), EXACT)
    (run,) = ready.runs.all(BASIS)
    stored = read_basis(run.folder, open_estimator(ready, EXACT)._params)
    made = Solver(loaded, loaded.model, SETTINGS, RunWriter(tmp_path), Progress()).basis()
    assert torch.equal(stored.vectors, made.vectors)
    assert np.array_equal(stored.values, made.values)
    report = run.json("report.json")
    assert report["values"] == stored.values.tolist()
    assert 0 <= report["residuals"]["0.1"] < 1


def test_solves_with_the_same_curvature_share_its_basis(empty: Workspace, tmp_path: Path) -> None:
    usual = SolveSettings(rank=3, damping=0.3)

    def count_bases(settings: SolveSettings, compute: Compute = EXACT, *, first_order: bool = False) -> int:
        """Return the number of stored bases after a solve."""
        loaded = load(empty.project(), compute)
        model = replace(loaded.model, first_order=first_order)
        Solver(loaded, model, settings, RunWriter(tmp_path / "work"), Progress(), empty.runs).basis()
        shutil.rmtree(tmp_path / "work")
        return len(empty.runs.all(BASIS))

    assert count_bases(usual) == 1
    for same in (replace(usual, damping=0.1), replace(usual, solver="low-rank"), replace(usual, tolerance=0.5)):
        assert count_bases(same) == 1
    assert count_bases(usual, replace(EXACT, dtype="float32")) == 2
    assert count_bases(usual, first_order=True) == 3
    for number, other in enumerate(({"rank": 4}, {"curvature": "exact"}, {"curvature_tasks": 3}), 4):
        assert count_bases(replace(usual, **other)) == number


def test_another_model_or_other_tasks_do_not_reuse_a_basis(copy: Workspace, bare: Path, tmp_path: Path) -> None:
    loaded = load(copy.project(), EXACT)

    def cache_key(at: Loaded) -> dict[str, object]:
        return Solver(at, at.model, SETTINGS, RunWriter(tmp_path), Progress(), copy.runs).basis_key()

    moved = loaded.with_params({name: value + 0.01 for name, value in loaded.params.items()})
    assert cache_key(moved) != cache_key(loaded), "parameters of a training snapshot are not those of the model"
    for name in ("model", "tasks"):
        assert cache_key(loaded)[name] == copy.project().hashes[name]
    settings = TrainSettings(iterations=5, meta_batch=2, learning_rate=0.01)
    spec = ModelSpec(ways=3, filters=2, blocks=2)
    train_model(bare / "tasks", tmp_path / "model", spec, settings, Compute("cpu"), Progress(), "by a test")
    shutil.rmtree(copy.folder / "model")
    shutil.copytree(tmp_path / "model", copy.folder / "model")
    assert find_preparation(copy, EXACT) is None
    with pytest.raises(UserError, match="whatif --prepare"):
        open_estimator(copy, EXACT)
    prepare(copy, EXACT, Progress())
    assert len(copy.runs.all(BASIS)) == 2


@pytest.mark.parametrize("name", [FILE, TASKS, ROWS, SKETCH])
@pytest.mark.parametrize("damage", ["cut", "noise", "other size"])
def test_a_damaged_file_is_named_in_the_error(copy: Workspace, name: str, damage: str) -> None:
    (run,) = copy.runs.all(BASIS if name == FILE else preparation.KIND)
    path = run.folder / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "noise":
        path.write_bytes(b"\x00\xff" * 300)
    elif name == FILE:
        from safetensors.torch import save_file

        save_file({"vectors": torch.zeros(3, 2), "values": torch.zeros(3, dtype=torch.float64)}, path)
    else:
        np.save(path, np.zeros((3, 2)))
    with pytest.raises(UserError, match=re.escape(name)):
        open_estimator(copy, EXACT)


def test_an_interrupted_preparation_resumes(
    empty: Workspace, ready: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = prepared.row_gradients, []

    def stops(*args: object) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(prepared, "row_gradients", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(empty, EXACT, Progress())
    assert find_preparation(empty, EXACT) is None
    prepare(empty, EXACT, Progress())
    assert len(calls) == N + 1, "three were stored, one was interrupted"
    for name in (TASKS, ROWS, SKETCH):
        here, there = (find_preparation(one, EXACT) for one in (empty, ready))
        assert here is not None
        assert there is not None
        np.testing.assert_array_equal(np.load(here.folder / name), np.load(there.folder / name))


def test_gradients_above_the_size_limit_are_not_stored(
    empty: Workspace, ready: Workspace, sets: list[Changes], monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(value.numel() for value in empty.project().model.params.values())
    monkeypatch.setattr(gradients, "MAX_BYTES", N * size * 8)
    run = prepare(empty, EXACT, Progress())
    assert (run.folder / TASKS).exists()
    assert not (run.folder / ROWS).exists()
    here, there = open_estimator(empty, EXACT).changes(sets[1]), open_estimator(ready, EXACT).changes(sets[1])
    assert here.predicted_loss_change == pytest.approx(there.predicted_loss_change, rel=1e-8)
    smaller = prepare_cost(empty.project(), EXACT).meta_gradients
    monkeypatch.undo()
    assert prepare_cost(empty.project(), EXACT).meta_gradients > smaller


def test_invalid_changes_are_refused(ready: Workspace) -> None:
    opened = open_estimator(ready, EXACT)
    with pytest.raises(UserError, match="changes"):
        opened.changes(Changes())
    with pytest.raises(UserError, match="'nowhere'"):
        opened.changes(Changes(frozenset({"nowhere"})))
    with pytest.raises(UserError, match="every task"):
        opened.changes(Changes(frozenset(ready.project().tasks.train.task_ids)))


def test_the_report_holds_residuals_and_sizes(ready: Workspace) -> None:
    run = find_preparation(ready, EXACT)
    assert isinstance(run, Run)
    report = run.json("report.json")
    assert set(report["residuals"]) == {"random", "mean target"}
    assert report["bytes"] == sum(path.stat().st_size for path in run.folder.glob("*.npy"))
    gradients_ = [np.load(run.folder / name).nbytes for name in (HELDOUT, TASKS, ROWS)]
    assert prepare_bytes(ready.project(), EXACT) == sum(gradients_)
    assert report["shift"] == pytest.approx(report["damping"] + ready.project().model.spec.delta)


def test_an_estimate_lists_changes_per_class_and_task(ready: Workspace, sets: list[Changes]) -> None:
    found, loaded = open_estimator(ready, EXACT).changes(sets[0]), load(ready.project(), EXACT)
    query = loaded.heldout.tasks.rows.query("role == 'query'")
    assert {one.name: one.rows for one in found.classes} == query["class"].value_counts().to_dict()
    assert {task.task_id for task in found.tasks} == set(loaded.heldout.tasks.task_ids)
    assert [task.loss_change for task in found.tasks] == sorted(task.loss_change for task in found.tasks)
    assert np.mean([task.after - task.before for task in found.tasks]) == pytest.approx(found.accuracy_change.mean)
    rows = sum(one.rows for one in found.classes)
    after = sum(one.rows * one.after for one in found.classes) / rows
    assert after == pytest.approx(found.accuracy.mean), "as all tasks have equally many query rows"


@pytest.mark.parametrize("text", ["all", "h1", "h0,h2"])
def test_the_predicted_loss_of_a_target_equals_its_score(ready: Workspace, text: str) -> None:
    opened, target = open_estimator(ready, EXACT), Target.parse(text)
    scores = opened.target(target).table.set_index("task_id")["score"]
    changes = Changes(frozenset({"t3"}))
    one = opened.changes(changes, target).target
    assert one is not None
    assert one.loss_predicted - one.loss == pytest.approx(scores["t3"], rel=1e-7)
    after = opened._evaluate(opened._params + opened.solve(opened.change_gradient(changes))[0])
    chosen = [name in target.tasks or not target.tasks for name in opened.loaded.heldout.tasks.task_ids]
    assert one.loss_after == pytest.approx(after.loss[chosen].mean())
    assert one.probability is one.probability_after is None


def test_a_query_image_has_a_probability(ready: Workspace) -> None:
    opened, heldout = open_estimator(ready, EXACT), ready.project().tasks.heldout.rows
    image = heldout[(heldout["task_id"] == "h2") & (heldout["role"] == "query")]["image_id"].iloc[0]
    target = Target.parse(f"h2/{image}")
    image_scores = opened.images(target).table.set_index("image_id")
    worst = image_scores.index[0]
    one = opened.changes(Changes(images=frozenset({worst})), target).target
    assert one is not None
    rows = opened.unedited.rows
    before = rows[(rows["task_id"] == "h2") & (rows["image_id"] == image)]["confidence"].iloc[0]
    assert one.probability == pytest.approx(before)
    assert one.loss_predicted - one.loss == pytest.approx(image_scores["score"][worst], rel=1e-7)
    assert one.probability_predicted == pytest.approx(np.exp(-one.loss_predicted))
    assert one.probability_after == pytest.approx(np.exp(-one.loss_after))


@pytest.mark.parametrize("text", ["all", "h1"])
def test_image_scores_equal_a_ranking_with_and_without_stored_gradients(copy: Workspace, text: str) -> None:
    stored = open_estimator(copy, EXACT).images(Target.parse(text)).table
    drop(copy, ROWS)
    computed = open_estimator(copy, EXACT).images(Target.parse(text)).table
    pd.testing.assert_frame_equal(stored, computed, rtol=1e-9)
    parts = {"solver": "low-rank", "rank": SETTINGS.rank, "damping": SETTINGS.damping}
    chosen = estimator("task-if", curvature_tasks=SETTINGS.curvature_tasks, **parts)
    long = ranking(copy, Target.parse(text), chosen, EXACT, Progress()).table("images.parquet").set_index("image_id")
    for name in ("score", "score_support", "score_query", "occurrences"):
        np.testing.assert_allclose(stored[name], long.loc[stored["image_id"], name], rtol=1e-6, atol=1e-12)
    assert stored["score"].is_monotonic_increasing
