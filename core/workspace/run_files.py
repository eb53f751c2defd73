"""The shapes of the JSON files of runs: what :class:`core.workspace.runs.Run` checks whenever it reads one.

A file is declared by the kind of its run and its name; kinds that begin alike (``edit-finetune``, ``edit-retrain-all``)
share one declaration. Only what a reader uses is declared. Fields that earlier versions did not write are optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import AfterValidator
from typing_extensions import TypedDict

from core.editing.preparation_report import REPORT, PreparationReport
from core.influence.settings import SELF_INFLUENCE
from core.runtime.stored import OPEN, Count, Finite, Flag, Number, Text, Time, missing_field


class Provenance(TypedDict):
    """``provenance.json`` of every run; times are UTC, stages and processor time in seconds.

    ``sequence`` counts the finished runs of the workspace, so that their order does not depend on a clock.
    """

    __pydantic_config__ = OPEN  # type: ignore[misc]
    command: NotRequired[list[Text]]
    started: NotRequired[Text]
    finished: Time
    seconds: dict[Text, Number]
    processor_seconds: NotRequired[Number]
    precomputed: NotRequired[Flag]
    sequence: NotRequired[Count]


class _Stationarity(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    objective: Number
    gradient_norm: Number
    ratio: Number


class _Interval(TypedDict):
    """A :class:`core.maml.evaluation.Interval`."""

    mean: Number
    low: Number
    high: Number


class _Inner(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    residual: Number
    smallest: Number
    largest: Number
    proximity: Number
    tasks: Count
    nearly_singular: Flag


class _Evaluation(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    accuracy: _Interval
    loss: _Interval
    tasks: Count
    stationarity: _Stationarity
    inner: NotRequired[_Inner | None]


class _Solve(TypedDict, total=False):
    """A report of :meth:`core.influence.solve.Solver.report`."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    curvature: Text
    solver: Text
    rank: Count
    curvature_tasks: Count
    subsample: Literal["all", "random", "difficulty", "uncertainty"]
    tasks: Count
    damping: Number
    damping_share: Number
    damping_raised: Flag
    weight_decay: Number
    iterations: Count
    residual: Number
    replacements: Count
    smallest: Number
    largest: Number
    device: Text
    dtype: Text


def _require(content: Mapping[str, Any], names: str) -> None:
    """Raise an error of pydantic unless all of these fields, separated by blanks, are there."""
    for name in names.split():
        if name not in content:
            raise missing_field(name)


def _complete_solve(report: Any) -> Any:
    _require(report, f"curvature device dtype {_DIAGNOSTICS}")
    return report


_DIAGNOSTICS = (
    "solver rank curvature_tasks subsample tasks damping damping_share damping_raised weight_decay iterations residual "
    "smallest largest"
)


class _Ranking(_Solve, total=False):
    """``solver.json``; without a solve (``curvature`` is ``none``) there are no diagnostics of one."""

    method: Text
    words: Text
    gradient: Text
    evaluation: Text
    inner: _Inner | None
    inner_inverse: Text
    target: Text
    target_loss: Number
    checkpoints: Count
    sketch_error: Number
    basis_error: Number
    probes: Count
    stationarity: _Stationarity


def _complete_ranking(report: Any) -> Any:
    _require(report, "method words curvature device dtype stationarity")
    if report["curvature"] != "none":
        _require(report, _DIAGNOSTICS)
    _require(report, "checkpoints" if report["method"] == "tracin" else "gradient evaluation")
    if report["method"] != SELF_INFLUENCE:
        _require(report, "target_loss")
    if "sketch_error" in report:
        _require(report, "probes basis_error")
    return report


class _Newton(TypedDict, total=False):
    """A report of :mod:`core.editing.newton`; figures of a step are None where none was taken."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    taken: Flag
    ratio: Number | None
    relative_step: Number | None
    gradient_tasks: Count
    objective: Number
    actual: Number | None
    predicted: Number | None
    tried: list[dict[Text, Any]]
    share: Number | None
    largest: Number
    curvature_tasks: Count
    products: Count


def _complete_newton(report: Any) -> Any:
    _require(report, "taken")
    if report["taken"]:
        names = _Newton.__annotations__
        _require({name: value for name, value in report.items() if value is not None}, " ".join(names))
    return report


class _Cost(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    meta_gradients: Number
    share_of_retraining: Number | None


class _Start(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    number: Count
    losses: list[Number | None]
    tasks: Count
    kind: NotRequired[Text]


class _Edit(TypedDict):
    """``edit.json``; ``start`` is there if the steps began at a snapshot."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    accuracy: _Interval
    accuracy_change: _Interval
    loss: _Interval
    loss_change: _Interval
    cost: NotRequired[_Cost | None]
    start: NotRequired[_Start]


class _LinearEdit(_Edit):
    solver: Annotated[_Solve, AfterValidator(_complete_solve)]
    relative_step: Number
    predicted_loss_change: Number


class _NewtonEdit(_Edit):
    newton: Annotated[_Newton, AfterValidator(_complete_newton)]


class _Retraining(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    accuracy: _Interval
    loss: _Interval
    stationarity: _Stationarity
    seconds: Number


class _Queue(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    level: Literal["image", "instance"]
    items: Count
    ranking: Text
    calibrated: Flag
    classes: NotRequired[Count]
    seconds: NotRequired[dict[Text, Finite]]
    weights: NotRequired[dict[Text, Finite]]
    classifier: NotRequired[Text]
    planted: NotRequired[dict[Text, Count]]
    wrong: NotRequired[Number]


_Leaks = TypedDict("_Leaks", {"support-query": Count, "support-query, held out": Count, "train-heldout": Count})


class _Histogram(TypedDict):
    edges: list[Finite]
    counts: list[Count]


class _Duplicates(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    images: Count
    pairs: Count
    exact: Count
    near: Count
    contradictions: Count
    groups: Count
    leaks: _Leaks
    leaks_with_different_classes: Count
    threshold: Finite
    power: Finite | None
    histogram: _Histogram


class _Level(TypedDict):
    """The fields of :class:`core.recommendation.summary.LevelRecommendation`."""

    level: Literal["tasks", "images", "instances"]
    candidate: Text
    words: Text
    sentence: Text
    items: Count
    proposed: Count
    expected_share: Number | None
    expected_wrong: Number | None
    weights: dict[Text, Number]
    notes: list[Text]


class _Levels(TypedDict):
    tasks: _Level
    images: _Level
    instances: _Level


class _Recommendation(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    levels: _Levels
    seconds: NotRequired[dict[Text, Number]]


class _Evidence(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    methods: list[Text]
    truth: Literal["half", "one"]
    retrain: Literal["fresh", "warm"]
    subsets: Count
    seeds: Count
    targets: list[Text]
    iterations: Count
    ratio: Number
    accuracy: NotRequired[Number]
    loss_spread: Number
    device: Text
    dtype: Text


class _Scores(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    seconds: Number
    memory_gb: Number
    residual: Number | None
    note: Text


JSON_FILES: Mapping[tuple[str, str], Any] = {
    ("evaluate", "summary.json"): _Evaluation,
    ("rank", "solver.json"): Annotated[_Ranking, AfterValidator(_complete_ranking)],
    ("edit", "edit.json"): _Edit,
    ("edit-linear", "edit.json"): _LinearEdit,
    ("edit-newton", "edit.json"): _NewtonEdit,
    ("retraining", "retraining.json"): _Retraining,
    ("queue", "summary.json"): _Queue,
    ("duplicates", "summary.json"): _Duplicates,
    ("recommend", "recommendation.json"): _Recommendation,
    ("evidence", "evidence.json"): _Evidence,
    ("scores", "scores.json"): _Scores,
    ("whatif", REPORT): PreparationReport,
}
"""The shape of a file by the kind of its run, or the beginning of the kind before a hyphen, and its name."""

Shape = TypeVar("Shape")


def shape_of(shapes: Mapping[tuple[str, str], Shape], kind: str, name: str) -> Shape | None:
    """Return the shape of a file of a run, by its kind or else by the beginning of its kind; None: not declared."""
    return shapes.get((kind, name), shapes.get((kind.partition("-")[0], name)))
