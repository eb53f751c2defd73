"""Rankings of a tiny workspace by every method, against the methods written out by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from core.actions.compute import Compute, load
from core.actions.rank import ranking
from core.actions.train import train_model
from core.checkpoints.model import TRAJECTORY, ModelSpec
from core.influence import solve
from core.influence.curvature import CURVATURES, Curvature
from core.influence.methods import METHODS, SolveSettings, estimator
from core.influence.self_influence import directions
from core.influence.settings import SOLVERS, check_fits
from core.influence.solve import ITERATIONS_ADVICE, ROUNDING_ADVICE, Solver
from core.influence.solvers import DIVERGED, NOT_CONVERGED, SolveError, lanczos
from core.influence.targets import Target
from core.maml.backbone import Params
from core.maml.episodes import Episodes
from core.maml.loaded import Loaded
from core.maml.objective import Task
from core.maml.training import TrainSettings
from core.maml.vectors import flatten, unflatten
from core.runtime.errors import UserError
from core.runtime.progress import Progress
from core.tasks.generate import TaskSettings, generate, write_folder
from core.workspace.runs import Run, RunWriter
from core.workspace.workspace import Workspace, create
from tests.baselines.second_opinions import dattri_tracin

SLOW = pytest.mark.slow
COSTLY = ("self-influence", "tracin")
EXACT = Compute("cpu", "float64", chunk=6)
TASKS, HELDOUT = 6, 4
TIGHT: dict[str, Any] = {"tolerance": 1e-9, "iterations": 1000}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A trained model with its snapshots; its rankings are shared by the module."""
    folder = tmp_path_factory.mktemp("problem")
    tasks = generate(
        TaskSettings(ways=3, shots=1, queries=2, count=TASKS, heldout=HELDOUT, noise="tasks:0.5:0.5", validation=0)
    )
    write_folder(tasks, folder / "tasks")
    return trained(folder, "maml")


def trained(folder: Path, algorithm: str) -> Workspace:
    settings = TrainSettings(iterations=6, meta_batch=2, learning_rate=0.01)
    spec = ModelSpec(ways=3, filters=2, blocks=2, algorithm=algorithm)
    tasks, model = folder / "tasks", folder / f"model-{algorithm}"
    train_model(tasks, model, spec, settings, Compute("cpu"), Progress(), "by a test")
    return create(folder / f"tiny-{algorithm}", tasks, model)


@pytest.fixture
def copy(workspace: Workspace, tmp_path: Path) -> Workspace:
    """The same without any ranking."""
    shutil.copytree(workspace.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    return Workspace(tmp_path / "copy")


def ranked(workspace: Workspace, method: str, *, target: str = "all", **parts: Any) -> Run:
    return ranking(workspace, Target.parse(target), estimator(method, **parts), EXACT, Progress())


def scores(run: Run, name: str = "tasks") -> np.ndarray:
    return run.table(f"{name}.parquet")["score"].to_numpy()


@pytest.fixture(scope="module")
def loaded(workspace: Workspace) -> Loaded:
    return load(workspace.project(), EXACT)


def tasks_of(episodes: Episodes) -> list[Task]:
    """One after the other, in the order of the list."""
    (chunk,) = episodes.chunks()
    assert chunk.positions.tolist() == list(range(len(episodes)))
    return [Task(*(value[row] for value in chunk.task)) for row in range(len(episodes))]


def adapted(loaded: Loaded, leaves: Params, task: Task) -> Params:
    """One step of plain MAML by torch.autograd."""
    loss = F.cross_entropy(loaded.model.network(leaves, task.xs), task.ys)
    slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    rate = loaded.model.adaptation.rate
    return {name: value - rate * slope for (name, value), slope in zip(leaves.items(), slopes, strict=True)}


def query_loss(loaded: Loaded, theta: Params, task: Task) -> Tensor:
    return F.cross_entropy(loaded.model.network(theta, task.xq), task.yq)


def total_gradients(loaded: Loaded, params: Params, episodes: Episodes) -> Tensor:
    """``(tasks, P)``, through the adaptation, by torch.autograd."""
    rows = []
    for task in tasks_of(episodes):
        leaves = {name: value.double().clone().requires_grad_() for name, value in params.items()}
        loss = query_loss(loaded, adapted(loaded, leaves, task), task)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))]))
    return torch.stack(rows)


def close(have: np.ndarray | Tensor, want: np.ndarray | Tensor, tolerance: float) -> None:
    """Relative error in the norm."""
    have, want = np.asarray(have), np.asarray(want)
    assert have.shape == want.shape
    assert np.linalg.norm(have - want) <= tolerance * np.linalg.norm(want)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ranks_tasks_instances_and_images(workspace: Workspace, method: str) -> None:
    run = ranked(workspace, method)
    images = set(run.table("instances.parquet")["image_id"])
    for name, size in (("tasks", TASKS), ("instances", TASKS * 3 * 3), ("images", len(images))):
        have = scores(run, name)
        assert have.shape == (size,)
        assert np.isfinite(have).all()
        assert len(np.unique(have)) > size / 2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reports_its_settings_and_diagnostics(workspace: Workspace, method: str) -> None:
    chosen, report = estimator(method), ranked(workspace, method).json("solver.json")
    assert report["method"] == method
    assert report["words"] == METHODS[method].description
    assert (report["gradient"], report["evaluation"]) == (chosen.gradient, chosen.evaluation)
    assert report["tasks"] == TASKS
    assert (report["device"], report["dtype"]) == ("cpu", "float64")
    assert set(report["stationarity"]) == {"objective", "gradient_norm", "ratio"}
    if method != "self-influence":
        assert report["target_loss"] > 0
    if chosen.solve is None:
        assert (report["curvature"], report["solver"]) == ("none", "none")
        assert report.get("checkpoints") == (6 if method == "tracin" else None)
        return
    assert (report["curvature"], report["solver"]) == (chosen.solve.curvature, chosen.solve.solver)
    assert (report["rank"], report["curvature_tasks"], report["subsample"]) == (chosen.solve.rank, TASKS, "all")
    assert report["weight_decay"] == 0.1
    assert report["damping_raised"] == (report["damping_share"] > chosen.solve.damping + 1e-12)
    assert report["damping_share"] >= chosen.solve.damping - 1e-12
    assert (report["damping"] > 0) == (report["damping_share"] > 0)
    assert report["iterations"] >= 1
    assert report["smallest"] <= report["largest"]
    assert 0 <= report["residual"] < (1 if chosen.solve.solver == "low-rank" else 1.1 * chosen.solve.tolerance)
    if method == "self-influence":
        assert report["probes"] == 16
        assert 0 <= report["sketch_error"] < 1.5
        assert 0 <= report["basis_error"] < 0.5


@pytest.mark.parametrize("method", [pytest.param(name, marks=SLOW if name in COSTLY else ()) for name in METHODS])
def test_single_precision_gives_nearly_the_same_scores(workspace: Workspace, method: str) -> None:
    single = ranking(workspace, Target(), estimator(method), Compute("cpu", chunk=TASKS), Progress())
    double = ranked(workspace, method)
    assert single.id != double.id
    for name in ("tasks", "instances", "images"):
        close(scores(single, name), scores(double, name), 1e-4)


def fits(curvature: str, solver: str) -> bool:
    try:
        check_fits(curvature, solver)
    except UserError:
        return False
    return True


PAIRS = [
    pytest.param(curvature, solver, marks=() if {"gauss-newton", "exact", "dual"} & {curvature, solver} else SLOW)
    for curvature in CURVATURES
    for solver in SOLVERS
    if fits(curvature, solver)
]


@pytest.mark.parametrize(("curvature", "solver"), PAIRS)
def test_every_solver_ranks_with_every_curvature_that_it_fits(
    workspace: Workspace, curvature: str, solver: str
) -> None:
    """The series alone cannot tell how much damping an indefinite curvature needs."""
    if solver == "neumann" and curvature in ("exact", "direct"):
        with pytest.raises(SolveError) as caught:
            ranked(workspace, "task-if", curvature=curvature, solver=solver, curvature_tasks=3)
        assert caught.value.reason == DIVERGED
        return
    rank = 20 if solver == "low-rank" else 0
    run = ranked(workspace, "task-if", curvature=curvature, solver=solver, curvature_tasks=3, rank=rank)
    assert np.isfinite(scores(run)).all()
    report = run.json("solver.json")
    assert (report["curvature"], report["solver"], report["curvature_tasks"]) == (curvature, solver, 3)
    assert report["residual"] <= (0.1 if solver == "low-rank" else 0.011)
    assert report["damping_raised"] == (curvature in ("exact", "direct"))


@pytest.mark.parametrize("algorithm", ["anil", "meta-sgd", pytest.param("fomaml", marks=SLOW)])
def test_a_model_of_any_algorithm_is_ranked(workspace: Workspace, algorithm: str) -> None:
    other = trained(workspace.folder.parent, algorithm)
    first, last = scores(ranked(other, "dot")), scores(ranked(other, "tracin"))
    assert np.isfinite(first).all()
    assert np.isfinite(last).all()
    assert np.abs(first - scores(ranked(workspace, "dot"))).max() > 1e-6 * np.abs(first).max()
    assert len(np.unique(scores(ranked(other, "task-if")))) == TASKS


def test_tracin_is_the_sum_over_snapshots_by_hand(workspace: Workspace, loaded: Loaded) -> None:
    snapshots = workspace.trajectory()
    assert len(snapshots) == 6
    assert [s.rate for s in snapshots] == sorted((s.rate for s in snapshots), reverse=True)
    want = np.zeros(TASKS)
    for snapshot in snapshots:
        train = total_gradients(loaded, snapshot.params, loaded.train)
        target = total_gradients(loaded, snapshot.params, loaded.heldout).mean(0)
        want += snapshot.rate * (train @ target).numpy()
    close(scores(ranked(workspace, "tracin")), want, 1e-5)


@pytest.mark.slow
def test_tracin_equals_that_of_dattri(workspace: Workspace, loaded: Loaded) -> None:
    snapshots = workspace.trajectory()
    checkpoints, rates = [loaded.place(s.params) for s in snapshots], [s.rate for s in snapshots]
    theirs = dattri_tracin(loaded.model, checkpoints, rates, loaded.train, loaded.heldout)
    close(scores(ranked(workspace, "tracin")), theirs.mean(1), 1e-4)
    one = loaded.heldout_tasks.task_ids[1]
    close(scores(ranked(workspace, "tracin", target=one)), theirs[:, 1], 1e-4)


def test_a_model_without_snapshots_has_no_tracin(copy: Workspace) -> None:
    (copy.folder / "model" / TRAJECTORY).unlink()
    with pytest.raises(UserError) as caught:
        ranked(copy, "tracin")
    assert "train" in caught.value.fix
    assert len(copy.runs.all("rank")) == 0
    assert len(scores(ranked(copy, "dot"))) == TASKS


def test_cg_neumann_and_a_basis_of_full_rank_agree(workspace: Workspace) -> None:
    runs = [
        ranked(workspace, "task-if", **TIGHT, damping=0.4),
        ranked(workspace, "task-if", **TIGHT, damping=0.4, rank=8),
        ranked(workspace, "task-if", **TIGHT, damping=0.4, solver="neumann"),
        ranked(workspace, "task-if", **TIGHT, damping=0.4, solver="low-rank", rank=10_000),
    ]
    assert len({run.id for run in runs}) == 4
    for name in ("tasks", "instances", "images"):
        for run in runs[1:]:
            close(scores(run, name), scores(runs[0], name), 1e-6)
    reports = [run.json("solver.json") for run in runs]
    assert all(report["products"] > report["iterations"] + report["replacements"] for report in reports[:2])
    assert not any(report["stagnated"] for report in reports)
    assert len({report["damping"] for report in reports}) == 1
    assert reports[1]["iterations"] < reports[0]["iterations"] < reports[2]["iterations"]
    assert all(report["residual"] <= 1e-8 for report in reports)


def test_a_solve_that_stagnates_is_refused_with_advice(copy: Workspace) -> None:
    single = Compute("cpu", "float32")
    tight = {"tolerance": 1e-12, "iterations": 2000}  # far below the rounding of float32
    with pytest.raises(UserError) as caught:
        ranking(copy, Target.parse("all"), estimator("task-if", **tight), single, Progress())
    assert caught.value.fix == ROUNDING_ADVICE
    with pytest.raises(UserError) as caught:
        ranked(copy, "task-if", tolerance=1e-12, iterations=2)
    assert caught.value.fix == ITERATIONS_ADVICE


def test_task_if_is_a_dense_solve(workspace: Workspace, loaded: Loaded) -> None:
    run = ranked(workspace, "task-if", **TIGHT)
    report = run.json("solver.json")
    product = Curvature("gauss-newton", loaded.model, loaded.params, loaded.train)
    dense = torch.stack([product(e) for e in torch.eye(len(flatten(loaded.params)), dtype=torch.float64)])
    shift = report["damping"] + report["weight_decay"]
    v = total_gradients(loaded, loaded.params, loaded.heldout).mean(0)
    u = torch.linalg.solve(dense + shift * torch.eye(len(dense), dtype=torch.float64), v)
    close(scores(run), total_gradients(loaded, loaded.params, loaded.train) @ u, 1e-6)
    largest = float(torch.linalg.eigvalsh(dense)[-1])
    assert 0.9 * largest < report["damping"] / SolveSettings().damping <= largest * (1 + 1e-9)


def test_the_fisher_matrix_by_its_dual_and_by_cg_agree(workspace: Workspace) -> None:
    dual = ranked(workspace, "task-if-fisher", **TIGHT)
    cg = ranked(workspace, "task-if-fisher", **TIGHT, solver="cg")
    few = [ranked(workspace, "task-if-fisher", **TIGHT, solver=s, curvature_tasks=4, seed=2) for s in ("dual", "cg")]
    for name in ("tasks", "instances", "images"):
        close(scores(cg, name), scores(dual, name), 1e-6)
        close(scores(few[1], name), scores(few[0], name), 1e-6)
    assert np.abs(scores(few[0]) - scores(dual)).max() > 1e-3 * np.abs(scores(dual)).max()


@pytest.mark.parametrize("target", ["all", "h1"])
def test_the_papers_form_ranks_like_a_dot_product(workspace: Workspace, target: str) -> None:
    paper = ranked(workspace, "task-if-paper", target=target)
    dot = ranked(workspace, "dot", evaluation="direct", target=target)
    for name in ("tasks", "instances", "images"):
        assert spearmanr(scores(paper, name), scores(dot, name)).statistic == pytest.approx(1)
    report = paper.json("solver.json")
    factor = report["largest"] + report["weight_decay"]
    close(scores(paper) * factor, scores(dot), 1e-9)


def test_direct_if_by_hand(workspace: Workspace, loaded: Loaded) -> None:
    """Gradients and Hessians of the query losses at the adapted parameters, the adaptation held fixed."""
    run = ranked(workspace, "direct-if", **TIGHT)
    report = run.json("solver.json")

    def parts(episodes: Episodes, curved: bool) -> tuple[Tensor, Tensor]:
        gradients, hessian = [], torch.zeros(size, size, dtype=torch.float64)
        for task in tasks_of(episodes):
            leaves = {name: value.clone().requires_grad_() for name, value in loaded.params.items()}
            theta = flatten(adapted(loaded, leaves, task)).detach()

            def loss(flat: Tensor, task: Task = task) -> Tensor:
                return query_loss(loaded, unflatten(flat, loaded.params), task)

            gradients.append(torch.autograd.functional.jacobian(loss, theta))
            if curved:
                hessian += torch.autograd.functional.hessian(loss, theta)
        return torch.stack(gradients), hessian

    size = len(flatten(loaded.params))
    d, hessian = parts(loaded.train, True)
    v, _ = parts(loaded.heldout, False)
    shift = report["damping"] + report["weight_decay"]
    u = torch.linalg.solve(hessian + shift * torch.eye(size, dtype=torch.float64), v.mean(0))
    close(scores(run), d @ u, 1e-6)
    assert report["smallest"] < 0  # the direct Hessian of this model is indefinite, and lifted
    assert float(torch.linalg.eigvalsh(hessian)[0]) + shift > 0


def solver(workspace: Workspace, folder: Path, **settings: Any) -> Solver:
    loaded = load(workspace.project(), EXACT)
    folder.mkdir()
    return Solver(loaded, loaded.model, SolveSettings(**settings), RunWriter(folder), Progress())


def test_a_subsample_has_the_tasks_of_highest_loss_or_entropy(workspace: Workspace, tmp_path: Path) -> None:
    run = ranked(workspace, "task-if")
    rows = run.table("instances.parquet")
    entropy = rows[rows["role"] == "query"].groupby("task_id", sort=False)["entropy"].mean().to_numpy()
    loss = run.table("tasks.parquet")["loss"].to_numpy()
    found = {}
    for name, measure in (("difficulty", loss), ("uncertainty", entropy)):
        made = solver(workspace, tmp_path / name, curvature_tasks=2, subsample=name)
        assert made.positions is not None
        assert made.tasks == 2
        assert found.setdefault(name, made.positions.tolist()) == sorted(np.argsort(-measure)[:2].tolist())
        again = ranked(workspace, "task-if", curvature_tasks=2, subsample=name).json("solver.json")
        assert (again["curvature_tasks"], again["subsample"]) == (2, name)
    assert solver(workspace, tmp_path / "all", curvature_tasks=TASKS, subsample="difficulty").positions is None


def test_a_random_subsample_depends_on_its_seed(workspace: Workspace, tmp_path: Path) -> None:
    drawn = [
        solver(workspace, tmp_path / f"{number}", curvature_tasks=3, seed=seed).positions
        for number, seed in enumerate((0, 0, 1, 2))
    ]
    assert all(one is not None and len(set(one.tolist())) == 3 for one in drawn)
    names = [tuple(one.tolist()) for one in drawn if one is not None]
    assert names[0] == names[1]
    assert len(set(names)) > 1


def test_self_influence_by_hand(workspace: Workspace, loaded: Loaded) -> None:
    """Minus ``g^T (C + shift I)^-1 g``, C by its basis; rows by the squares of products with the directions."""
    run = ranked(workspace, "self-influence")
    report = run.json("solver.json")
    shift = report["damping"] + report["weight_decay"]
    product = Curvature("gauss-newton", loaded.model, loaded.params, loaded.train)
    basis = lanczos(product, flatten(loaded.params), 16)
    size = len(flatten(loaded.params))
    curvature = (basis.vectors.T * torch.from_numpy(basis.values)) @ basis.vectors
    inverse = torch.linalg.inv(curvature + shift * torch.eye(size, dtype=torch.float64))
    g = total_gradients(loaded, loaded.params, loaded.train)
    close(scores(run), -((g @ inverse) * g).sum(1), 1e-8)
    dots = []
    for way in directions(basis, shift, 5, 11):
        leaves = unflatten(way, loaded.params)
        dots.append(row_products(loaded, leaves))
    along = np.stack(dots)
    close(scores(run, "instances"), -(along**2).sum(0), 1e-8)
    images = run.table("instances.parquet")["image_id"]
    sums = pd.DataFrame(along.T).groupby(images.to_numpy()).sum()
    want = -(sums**2).sum(axis=1).loc[run.table("images.parquet")["image_id"]]
    close(scores(run, "images"), want.to_numpy(), 1e-8)


def row_products(loaded: Loaded, way: Params) -> np.ndarray:
    """``d phi / d s`` and ``d phi / d q`` of every row by torch.autograd, in the order of the task table."""
    found = []
    for task in tasks_of(loaded.train):
        s, q = (torch.ones(len(y), dtype=torch.float64, requires_grad=True) for y in (task.ys, task.yq))
        leaves = {name: value.clone().requires_grad_() for name, value in loaded.params.items()}
        inner = (s * F.cross_entropy(loaded.model.network(leaves, task.xs), task.ys, reduction="none")).mean()
        slopes = torch.autograd.grad(inner, list(leaves.values()), create_graph=True)
        rate = loaded.model.adaptation.rate
        theta = {name: value - rate * slope for (name, value), slope in zip(leaves.items(), slopes, strict=True)}
        outer = (q * F.cross_entropy(loaded.model.network(theta, task.xq), task.yq, reduction="none")).mean()
        total = torch.autograd.grad(outer, list(leaves.values()), create_graph=True)
        phi = torch.stack([(one * step).sum() for one, step in zip(total, way.values(), strict=True)]).sum()
        found += [value.numpy() for value in torch.autograd.grad(phi, (s, q))]
    return np.concatenate(found)


def test_self_influence_has_no_target_and_suspicious_items_come_first(workspace: Workspace) -> None:
    run = ranked(workspace, "self-influence")
    assert ranked(workspace, "self-influence", target="h1").id == run.id
    for name in ("tasks", "instances", "images"):
        assert (scores(run, name) <= 0).all()
    parts = run.table("images.parquet")[["score_query", "score_support"]].to_numpy()
    assert (parts <= 0).all()


def test_self_influence_by_a_basis_of_full_rank_is_that_of_exact_solves(workspace: Workspace) -> None:
    report = ranked(workspace, "self-influence", rank=10_000, probes=12).json("solver.json")
    assert report["basis_error"] < 1e-3
    assert report["sketch_error"] < 0.7
    with pytest.raises(UserError, match="low-rank"):
        ranked(workspace, "self-influence", solver="cg")


class Killed(Exception):
    pass


class Stops(Progress):
    """Raises after so many steps of one stage, as a kill would."""

    def __init__(self, stage: str, after: int) -> None:
        super().__init__()
        self.where, self.left = stage, after

    def advance(self, units: int = 1, note: str = "") -> None:
        super().advance(units, note)
        if self.state().stage == self.where:
            self.left -= 1
            if self.left < 0:
                raise Killed


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with every product with a curvature that is computed, not remembered."""
    made: list[str] = []

    class Counted(Curvature):
        def __call__(self, v: Tensor) -> Tensor:
            made.append(self.name)
            return super().__call__(v)

    monkeypatch.setattr(solve, "Curvature", Counted)
    return made


def counted(products: list[str], work: Callable[[], object]) -> int:
    products.clear()
    work()
    return len(products)


@pytest.mark.parametrize(
    ("stage", "method", "parts"),
    [
        ("solve", "task-if", {}),
        ("scores", "task-if", {}),
        pytest.param("scores", "self-influence", {"rank": 6, "probes": 3}, marks=SLOW),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_interrupted_ranking_resumes(
    copy: Workspace, products: list[str], stage: str, method: str, parts: dict[str, Any]
) -> None:
    chosen, compute = estimator(method, **parts), Compute("cpu", "float64", chunk=3)

    def interrupted() -> None:
        with pytest.raises(Killed):
            ranking(copy, Target(), chosen, compute, Stops(stage, 1))

    def whole() -> None:
        ranking(copy, Target(), chosen, compute, Progress())

    first = counted(products, interrupted)
    assert copy.runs.all("rank") == []
    second = counted(products, whole)
    (run,) = copy.runs.all("rank")
    have = scores(run, "instances")
    shutil.rmtree(copy.folder / "runs")
    everything = counted(products, whole)
    assert second < everything
    assert 0 < first == everything - second
    np.testing.assert_array_equal(have, scores(copy.runs.all("rank")[0], "instances"))


def test_a_repeated_ranking_computes_nothing(workspace: Workspace, products: list[str]) -> None:
    first = ranked(workspace, "task-if")
    assert counted(products, lambda: ranked(workspace, "task-if")) == 0
    assert ranked(workspace, "task-if").id == first.id != ranked(workspace, "task-if-exact").id


def test_a_solve_that_stops_early_gives_no_ranking(copy: Workspace) -> None:
    for solver in ("cg", "neumann"):
        with pytest.raises(SolveError, match=r"\b2\b") as caught:
            ranked(copy, "task-if", solver=solver, iterations=2, tolerance=1e-6)
        assert caught.value.reason == NOT_CONVERGED
    assert copy.runs.all("rank") == []
