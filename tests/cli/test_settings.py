"""Settings are declared once: command line, pages, jobs and docs agree with the declarations."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from annotated_types import Ge, Gt, Le
from typer.testing import CliRunner

from core.actions.image_settings import FORMATS, ImportOptions
from core.cli.app import app
from core.cli.options import Fields, SelectedFields, with_settings
from core.cli.reference import FILE, commands, reference
from core.data.readers import READERS
from core.editing.settings import CurveSettings, EditSettings, FinetuneSettings, NewtonSettings
from core.evidence.settings import EvidenceSettings
from core.influence.curvature import GAMMA, PRODUCTS
from core.influence.methods import METHODS
from core.influence.settings import CURVATURES, METHOD_NAMES, Estimator, SolveSettings
from core.maml.settings import Compute, ModelFields, TrainSettings
from core.recommendation.settings import RecommendSettings
from core.review.settings import QueueSettings
from core.runtime.settings import Declared, Setting, SettingError, arguments_of, check_settings, declared
from core.tasks.settings import TaskSettings
from core.ui.shell import settings_widgets as widgets

ROOT = Path(__file__).parents[2]
WHERE: list[tuple[Any, str]] = [
    (ImportOptions, "data"),
    (TaskSettings, "tasks"),
    (TrainSettings, "train"),
    (ModelFields, "train"),
    (Compute, "train"),
    (Estimator, "rank"),
    (SolveSettings, "rank"),
    (SolveSettings, "edit"),
    (EditSettings, "edit"),
    (FinetuneSettings, "edit"),
    (NewtonSettings, "edit"),
    (CurveSettings, "curve"),
    (FinetuneSettings, "curve"),
    (EvidenceSettings, "evidence"),
    (QueueSettings, "review queue"),
    (RecommendSettings, "recommend"),
]
FROM_TASKS = {(ModelFields, "ways"), (ModelFields, "shape")}
"""Settings of a model that training takes from the tasks; the model command has them."""
FIELDS = [
    (cls, command, field) for cls, command in WHERE for field in declared(cls) if (cls, field) not in FROM_TASKS
] + [(cls, "model", field) for cls, field in sorted(FROM_TASKS, key=lambda pair: pair[1])]
COMMANDS = commands()


def option(command: str, one: Declared) -> Any:
    """The one option of a command for a setting."""
    (found,) = (parameter for parameter in COMMANDS[command].params if f"--{one.option}" in parameter.opts)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    assert COMMANDS[name].help
    helps = [parameter.help or "" for parameter in COMMANDS[name].params]
    assert [text for text in helps if not re.fullmatch(r"[A-Z].*\.", text, re.DOTALL)] == [], "sentences"


@pytest.mark.parametrize(("cls", "command", "field"), FIELDS)
def test_every_setting_is_one_option_with_its_help_and_choices(cls: Any, command: str, field: str) -> None:
    one = declared(cls)[field]
    parameter = option(command, one)
    assert parameter.help == one.setting.help
    if one.choices:
        assert all(str(choice) in parameter.metavar for choice in one.choices)


@pytest.mark.parametrize(("cls", "command", "field"), FIELDS)
def test_an_option_refuses_values_out_of_bounds(cls: Any, command: str, field: str) -> None:
    one = declared(cls)[field]
    if one.minimum is not None and not one.is_tuple and not one.setting.words:
        result = CliRunner().invoke(app, [*command.split(), f"--{one.option}", str(one.minimum - 1)])
        assert result.exit_code == 2
        assert f"--{one.option}" in result.output


OF_RECIPE = ("iterations", "meta_batch", "learning_rate")
"""Settings of the training whose default is that of the recipe for the images."""


@pytest.mark.parametrize(
    ("cls", "command", "field"),
    [
        case
        for case in FIELDS
        if case[0] not in (ModelFields, SolveSettings, Estimator) and case[2] not in ("methods", *OF_RECIPE)
    ],
)
def test_the_default_of_an_option_is_that_of_its_setting(cls: Any, command: str, field: str) -> None:
    one = declared(cls)[field]
    default = option(command, one).default
    assert default == (one.text(one.default) if one.is_tuple and default is not None else one.default or default)


class Place:
    """A column that records the widget that is drawn on it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str) -> Any:
        def draw(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            if name == "number_input":
                return args[3]
            if name == "selectbox":
                return args[1][args[2]]
            return kwargs.get("default", args[-1])

        return draw


@pytest.mark.parametrize(("cls", "command", "field"), FIELDS)
def test_widgets_have_default_range_choices_and_help_of_the_option(cls: Any, command: str, field: str) -> None:
    one, place = declared(cls)[field], Place()
    begin = one.default
    if one.is_tuple or one.kind in (str, Path):
        if not one.choices:
            return
        if one.is_tuple:
            assert widgets.several(place, cls, field, key="k") == list(one.default)
        else:
            assert widgets.select(place, cls, field, key="k") == begin
        ((_, args, kwargs),) = place.calls
        assert args[1] == list(one.choices)
    elif one.kind is bool:
        assert widgets.checkbox(place, cls, field, key="k") is begin
        ((_, _, kwargs),) = place.calls
    elif one.choices:
        assert widgets.select(place, cls, field, key="k") == begin
        ((_, _, kwargs),) = place.calls
    else:
        widgets.number(place, cls, field, key="k", **({"value": 7} if begin is MISSING else {}))
        ((_, (_, low, high, value), kwargs),) = place.calls
        assert value == (7 if begin is MISSING else begin)
        for bound in (low, high):
            if bound is not None:
                one.check(one.kind(bound))
        assert (low is None) == (not any(isinstance(bound, Ge | Gt) for bound in one.bounds))
    assert kwargs["help"] == option(command, one).help


CHANGED = [
    ImportOptions("mnist", Path("lists"), "1-2", "labels.csv", "28,32", "pad", 3, True, True, "latin-1", True),
    TaskSettings("own", 3, 1, 2, 7, 4, "official", "val", 0.25, "images:0.1", 9, True, 6, 0.2),
    TrainSettings(5, 2, 1e-4, 3, 1e-6, 8, 4, 2),
    Compute("cpu", "float64", 4),
    EditSettings(("linear", "retrain"), 0.5, False),
    FinetuneSettings(7),
    NewtonSettings(1, 2, 3, 4),
    CurveSettings("images", (0.0, 0.125), ("loss",), 2),
    EvidenceSettings(("dot", "task-if:damping=0.5"), "one", 4, 1, "warm", 6, 0, 3),
    QueueSettings(("harm", "cross_validated"), 2, False, 5),
    SolveSettings("exact", "low-rank", 3, "difficulty", 0.5, 1e-3, 9, 12, 2),
]


@pytest.mark.parametrize("settings", CHANGED, ids=lambda one: type(one).__name__)
def test_arguments_reproduce_the_settings(settings: Any) -> None:
    cls = type(settings)
    read: list[Any] = []

    def command(*, settings: Any) -> None:
        read.append(settings)

    command.__annotations__["settings"] = cls
    program = typer.Typer()
    program.command()(with_settings(command))
    for one in (settings, cls()):
        typer.main.get_command(program)(arguments_of(one), standalone_mode=False)
    assert read == [settings, cls()]
    assert arguments_of(cls()) == []
    names = {name.removeprefix("--").removeprefix("no-") for name in arguments_of(settings) if name.startswith("--")}
    assert names == {one.option for one in declared(cls).values()}


def test_only_options_that_the_user_gave_are_collected() -> None:
    read: list[Fields] = []

    def command(*, solve: Annotated[Fields, SelectedFields(SolveSettings, "damping", "rank", "curvature")]) -> None:
        read.append(solve)

    program = typer.Typer()
    program.command()(with_settings(command))
    for args in ([], ["--rank", "0"], ["--curvature", "exact", "--damping", "0.5"]):
        typer.main.get_command(program)(args, standalone_mode=False)
    assert read == [{}, {"rank": 0}, {"curvature": "exact", "damping": 0.5}]


@dataclass(frozen=True)
class Example:
    share: Annotated[float, Gt(0), Le(1), Setting("A share.")] = 0.5
    names: Annotated[tuple[str, ...], Setting("Names.", choices=("a", "b"), option="name")] = ("a",)
    numbers: Annotated[tuple[int, int], Ge(1), Setting("A pair.")] = (1, 2)

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("share", 0.0, "share"), ("share", 1.5, "share"), ("share", float("nan"), "share"), ("names", ("a", "c"), "name")],
)
def test_an_invalid_value_names_its_option(field: str, value: Any, name: str) -> None:
    with pytest.raises(SettingError) as error:
        replace(Example(), **{field: value})
    assert error.value.name == name


@pytest.mark.parametrize("text", ["1", "1,2,3", "1,x"])
def test_unparsable_text_names_its_option(text: str) -> None:
    with pytest.raises(SettingError) as error:
        declared(Example)["numbers"].parse(text)
    assert error.value.name == "numbers"
    assert declared(Example)["numbers"].parse("3, 4") == (3, 4)


def test_constants_in_light_modules_match_the_heavy_modules() -> None:
    assert ("auto", *READERS) == FORMATS
    assert (*PRODUCTS, GAMMA) == CURVATURES
    assert tuple(METHODS) == METHOD_NAMES


def test_the_reference_in_the_docs_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == reference()
