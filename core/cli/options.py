"""Options of the commands: built from the declared settings, and those that several commands share.

A command takes settings as objects (``settings: TaskSettings``), or some fields as a mapping
(``fields: Annotated[Fields, SelectedFields(ModelSpec, "backbone", ...)]``); :func:`with_settings` turns such a
parameter into one option per field.

cyclopts and tyro also build options from dataclasses. Both frame errors in boxes, while jobs show the last line of
stderr as the message; tyro reorders options and exits 2 without a command; neither can make all fields of a class
optional without a second declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_type_hints

from typer import Option

from core.decisions.causes import CAUSES
from core.runtime.settings import Declared, declared

DEFAULT_WORKSPACE = "demo-noisy-tasks"
Fields = dict[str, Any]
"""Values of some fields of a settings class, by field."""


class SelectedFields:
    """An annotation of a mapping: the fields of a settings class that become options.

    Args:
        cls: The settings class.
        names: The names of the fields. Default: all.
        with_defaults: Fields that the user does not give have the default of the class; else they are left out.
    """

    def __init__(self, cls: Any, *names: str, with_defaults: bool = False) -> None:
        self.fields = [declared(cls)[name] for name in names or declared(cls)]
        self.with_defaults = with_defaults


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with its settings parameters replaced by one option per field.

    The options take the position of the parameter. Settings are checked before the command runs.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    makers: dict[str, tuple[Callable[..., Any], list[Declared]]] = {}
    for name, parameter in signature(command).parameters.items():
        hint = hints[name]
        is_settings = hasattr(hint, "__dataclass_fields__")
        selected = SelectedFields(hint, with_defaults=True) if is_settings else getattr(hint, "__metadata__", [None])[0]
        if not isinstance(selected, SelectedFields):
            parameters.append(parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY))
            continue
        for one in selected.fields:
            parameters.append(_option(f"{name}_{one.name}", one, one.default if selected.with_defaults else None))
        makers[name] = hint if is_settings else dict, selected.fields

    @wraps(command)
    def run(**values: Any) -> None:
        settings = {}
        for name, (make, fields) in makers.items():
            given = [(one, values.pop(f"{name}_{one.name}")) for one in fields]
            settings[name] = make(**{one.name: _field_value(one, value) for one, value in given if value is not None})
        command(**settings, **values)

    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    del run.__dict__["__wrapped__"]  # typer would read the annotations of the command itself
    return run


def _field_value(one: Declared, value: Any) -> Any:
    """Return the value of a field; parsed text is checked, as not every user of a field checks it again."""
    if one.setting.repeat:
        return tuple(value) or one.default
    if _is_text(one):
        value = one.parse(value)
        one.check(value)
    return value


def _is_text(one: Declared) -> bool:
    """Return whether the option is text from which the value is parsed."""
    return (one.is_tuple and not one.setting.repeat) or bool(one.setting.words)


def _option(name: str, one: Declared, default: Any) -> Parameter:
    """Return the option of a field; a ``default`` of None leaves the field out unless the user gives it."""
    kind: Any = str if _is_text(one) else one.kind
    if one.setting.repeat:
        kind, default = list[one.kind], None  # type: ignore[name-defined]
    elif _is_text(one) and default is not None:
        default = one.text(default) or None
    flag = f"--{one.option}" + (f"/--no-{one.option}" if kind is bool and default else "")
    smallest, largest = (one.minimum, one.maximum) if kind in (int, float) else (None, None)
    option = Option(
        flag,
        help=one.setting.help,
        metavar=metavar(*one.choices, is_tuple=one.is_tuple and not one.setting.repeat) if one.choices else None,
        show_default=default not in (None, ""),
        min=smallest,
        max=largest,
    )
    value: Any = kind if default is not None else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[value, option])


def metavar(*choices: Any, is_tuple: bool = False) -> str:
    """Return how ``--help`` shows a closed set of values: ``[a|b]``, or ``[a|b],...`` for a list with commas."""
    return f"[{'|'.join(map(str, choices))}]" + (",..." if is_tuple else "")


WorkspaceOption = Annotated[str, Option("--workspace", "-w", help="Name of a workspace, or path of its folder.")]
RankingOption = Annotated[str, Option(help="Id of a rank run, or newest.")]
REVIEWER = "command line"
"""The name of a reviewer who gives none."""
ReviewerOption = Annotated[str, Option(help="Name of the reviewer, recorded with the decision.")]
ReasonOption = Annotated[str, Option(help="Free text, recorded with the decision.")]


def cause_option(default: str) -> Any:
    """Return the option for the cause of decisions; ``default`` says in words what it is without the option."""
    words = "What the decision is about. Only label-error counts as a label error found."
    return Option(help=f"{words} Default: {default}.", metavar=metavar(*CAUSES))
