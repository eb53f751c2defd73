"""Options of the commands: built from the declared settings, and those that several commands share.

A command takes settings as objects (``settings: TaskSettings``), or as a mapping of only what the user gave
(``fields: Annotated[Fields, SelectedFields(ModelSpec, "backbone", ...)]``) where the defaults depend on something else;
:func:`with_settings` turns such a parameter into one option per field.

cyclopts and tyro also build options from dataclasses. Both frame errors in boxes, while jobs show the last line of
stderr as the message; tyro reorders options and exits 2 without a command; neither can make all fields of a class
optional without a second declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_args, get_type_hints

import typer

from core.runtime.settings import Declared, declared

DEFAULT_WORKSPACE = "demo-noisy-tasks"
Fields = dict[str, Any]
"""Values of some fields of a settings class, by field."""


class SelectedFields:
    """An annotation of a mapping: the fields of a settings class that become options.

    Args:
        cls: The settings class.
        fields: The names of the fields. Default: all.
        with_defaults: Fields that the user does not give have the default of the class; else they are left out.
    """

    def __init__(self, cls: Any, *fields: str, with_defaults: bool = False) -> None:
        self.cls, self.fields, self.with_defaults = cls, fields or tuple(declared(cls)), with_defaults


class ExcludedFields:
    """An annotation of a settings object: the fields that do not become options."""

    def __init__(self, *fields: str) -> None:
        self.fields = fields


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with its settings parameters replaced by one option per field.

    The options take the position of the parameter. Settings are checked before the command runs.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    makers: dict[str, tuple[Callable[..., Any], list[Declared]]] = {}
    for name, parameter in signature(command).parameters.items():
        cls = hints[name]
        metadata: tuple[Any, ...] = getattr(cls, "__metadata__", ())
        if metadata:
            cls = get_args(cls)[0]
        selected = next((one for one in metadata if isinstance(one, SelectedFields)), None)
        if selected is not None:
            fields = [declared(selected.cls)[key] for key in selected.fields]
            parameters += [
                _option(f"{name}_{one.name}", one, one.default if selected.with_defaults else None) for one in fields
            ]
            makers[name] = dict, fields
        elif hasattr(cls, "__dataclass_fields__"):
            excluded = {key for one in metadata if isinstance(one, ExcludedFields) for key in one.fields}
            fields = [one for key, one in declared(cls).items() if one.option is not None and key not in excluded]
            parameters += [_option(f"{name}_{one.name}", one, one.default) for one in fields]
            makers[name] = cls, fields
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> None:
        settings = {name: make(**_collect(name, fields, values)) for name, (make, fields) in makers.items()}
        command(**settings, **values)

    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    del run.__dict__["__wrapped__"]  # typer would read the annotations of the command itself
    return run


def _collect(prefix: str, fields: list[Declared], values: Fields) -> Fields:
    """Remove the options from ``values`` and return the fields that the user gave."""
    given = [(one, values.pop(f"{prefix}_{one.name}")) for one in fields]
    return {one.name: _field_value(one, value) for one, value in given if value is not None}


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
    bounds: dict[str, Any] = {}
    if kind in (int, float):
        bounds = {"min": one.minimum, "max": one.maximum}
    option = typer.Option(
        flag,
        help=one.setting.help,
        metavar=metavar(*one.choices, is_tuple=one.is_tuple and not one.setting.repeat) if one.choices else None,
        show_default=default not in (None, ""),
        **bounds,
    )
    value: Any = kind if default is not None else kind | None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[value, option])


def metavar(*choices: Any, is_tuple: bool = False) -> str:
    """Return how ``--help`` shows a closed set of values: ``[a|b]``, or ``[a|b],...`` for a list with commas."""
    return f"[{'|'.join(map(str, choices))}]" + (",..." if is_tuple else "")


WorkspaceOption = Annotated[str, typer.Option("--workspace", "-w", help="Name of a workspace, or path of its folder.")]
RankingOption = Annotated[str, typer.Option(help="Id of a rank run, or newest.")]
ReviewerOption = Annotated[str, typer.Option(help="Name of the reviewer, recorded with the decision.")]
ReasonOption = Annotated[str, typer.Option(help="Reason, recorded with the decision.")]
