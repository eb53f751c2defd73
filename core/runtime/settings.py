"""Settings that are declared once, on the dataclass (or pydantic model) that holds them.

A field is written ``ways: Annotated[int, Ge(2), Setting("Classes per task (N-way).")] = 5``. From that declaration come
the option of the command line (:mod:`core.cli.options`), the widget of a page (:mod:`core.ui.shell.settings_widgets`),
the arguments of a job (:func:`arguments_of`), the reference in docs/commands.md, and the check of the value
(:func:`check_settings`). Bounds are the standard markers of ``annotated_types``.
"""

from __future__ import annotations

import operator
from collections.abc import Container, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from core.runtime.errors import UserError

_BOUNDS = {
    Ge: ("ge", operator.ge, "at least"),
    Gt: ("gt", operator.gt, "greater than"),
    Le: ("le", operator.le, "at most"),
    Lt: ("lt", operator.lt, "less than"),
}
_TYPES: dict[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "text"),
}
_Settings = TypeVar("_Settings")


@dataclass(frozen=True)
class Setting:
    """A declaration of one setting: its help, label, option and choices.

    Attributes:
        help: A sentence for ``--help``, the tooltip of the widget and the docs.
        label: Name of the widget; default: the name of the field in words.
        option: Name of the option without dashes; default: the name of the field with hyphens.
        choices: All allowed values, or elements of a tuple. None: those of a ``Literal`` type; empty: any value.
        words: Values by their names on the command line, such as ``none`` for an empty tuple.
        repeat: Whether a tuple is given by repeating the option, instead of one value with commas.
    """

    help: str
    label: str = ""
    option: str = ""
    choices: tuple[Any, ...] | None = None
    words: Mapping[str, Any] = field(default_factory=dict, hash=False)
    repeat: bool = False


class SettingError(UserError):
    """An error about a value that a setting does not allow; ``name`` is the name of the option."""

    def __init__(self, name: str, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.name = name


@dataclass(frozen=True)
class Declared:
    """A field of a settings class, read from its annotation.

    Attributes:
        kind: Type of the value without ``None``: ``int``, ``float``, ``str``, ``bool``, ``Path``, or of the elements.
        is_tuple: Whether the value is a tuple.
        length: The length of the tuple, if it is fixed.
        optional: Whether ``None`` is allowed.
        default: ``MISSING`` if there is none.
        bounds: Markers of ``annotated_types``.
    """

    name: str
    kind: type
    is_tuple: bool
    length: int | None
    optional: bool
    default: Any
    setting: Setting
    choices: tuple[Any, ...]
    bounds: tuple[Ge | Gt | Le | Lt, ...]

    @property
    def option(self) -> str:
        """Return the name of the option without dashes."""
        return self.setting.option or self.name.replace("_", "-")

    @property
    def label(self) -> str:
        """Return the label of the page widget."""
        return self.setting.label or self.name.replace("_", " ").capitalize()

    @property
    def minimum(self) -> Any:
        """Return the smallest value; None if there is none, for example because the bound is exclusive."""
        return next((one.ge for one in self.bounds if isinstance(one, Ge)), None)

    @property
    def maximum(self) -> Any:
        """Return the largest value; None if there is none."""
        return next((one.le for one in self.bounds if isinstance(one, Le)), None)

    def parse(self, text: str) -> Any:
        """Parse the text of a value or tuple, or a word that names a value; raise SettingError if it is none."""
        if text in self.setting.words:
            return self.setting.words[text]
        parts = [part.strip() for part in text.split(",") if part.strip()] if self.is_tuple else [text]
        try:
            values = tuple(self.kind(part) for part in parts)
        except ValueError as error:
            numbers = "whole numbers" if self.kind is int else "numbers"
            raise self._error(text, f"Use {numbers} separated by commas.") from error
        if self.length is not None and len(values) != self.length:
            raise self._error(text, f"Use {self.length} values separated by commas.")
        return values if self.is_tuple else values[0]

    def text(self, value: Any) -> str:
        """Write a value as :meth:`parse` reads it."""
        if value is None or value == ():
            return next((word for word, meant in self.setting.words.items() if meant == value), "")
        return ",".join(map(_number_or_text, value if self.is_tuple else (value,)))

    def check(self, value: Any) -> None:
        """Raise SettingError unless the value, or every element of a tuple, fits type, choices and bounds."""
        if value is None and self.optional:
            return
        if self.is_tuple and (isinstance(value, str) or not isinstance(value, Iterable)):
            raise self._error(value, "It must be a list.")
        for one in value if self.is_tuple else (value,):
            wanted, words = _TYPES.get(self.kind, (object, ""))
            if not self.choices and not isinstance(one, wanted):
                raise self._error(one, f"It must be {words}.")
            if self.choices and one not in self.choices:
                raise self._error(one, f"Use {'' if self.is_tuple else 'one of '}{', '.join(map(str, self.choices))}.")
            for bound in self.bounds:
                name, holds, words = _BOUNDS[type(bound)]
                limit = getattr(bound, name)
                if not holds(one, limit):  # NaN holds nowhere
                    raise self._error(one, f"It must be {words} {limit}.")

    def _error(self, value: Any, fix: str) -> SettingError:
        return SettingError(self.option, f"Invalid {self.option}: {value!r}.", fix)


def _number_or_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


@cache
def declared(cls: Any) -> dict[str, Declared]:
    """Return the settings of a class by field, in their order; fields without a :class:`Setting` are left out."""
    hints, settings = get_type_hints(cls, include_extras=True), {}
    if is_dataclass(cls):
        defaults = {one.name: one.default for one in fields(cls)}
    else:  # pydantic
        defaults = {name: MISSING if one.is_required() else one.default for name, one in cls.model_fields.items()}
    for name, default in defaults.items():
        hint = hints[name]
        metadata = hint.__metadata__ if get_origin(hint) is Annotated else ()
        setting = next((one for one in metadata if isinstance(one, Setting)), None)
        if setting is None:
            continue
        kind, is_tuple, length, optional, literal = _shape(get_args(hint)[0])
        if get_origin(kind) is Annotated:  # pydantic takes the bounds of elements there, and not at the tuple
            kind, *of_elements = get_args(kind)
            metadata = (*metadata, *of_elements)
        bounds = tuple(one for one in metadata if isinstance(one, Ge | Gt | Le | Lt))
        choices = literal if setting.choices is None else setting.choices
        settings[name] = Declared(name, kind, is_tuple, length, optional, default, setting, choices, bounds)
    return settings


def _shape(hint: Any) -> tuple[type, bool, int | None, bool, tuple[Any, ...]]:
    """Return the type of a value or element, is_tuple, the length of the tuple, optional, and the literal values."""
    if optional := get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is Literal:
        return str, False, None, optional, get_args(hint)
    if get_origin(hint) is tuple:
        element, *rest = get_args(hint)
        return element, True, None if rest == [Ellipsis] else 1 + len(rest), optional, ()
    return hint, False, None, optional, ()


def check_settings(settings: Any) -> None:
    """Raise SettingError if a field of a settings object is invalid; for its ``__post_init__``."""
    for name, one in declared(settings.__class__).items():
        one.check(getattr(settings, name))


def settings_of(cls: type[_Settings], given: Mapping[str, Any], *, without: Container[str] = ()) -> _Settings:
    """Return settings of fields, except those in ``without``, that the user of the Python API gave by name.

    Raises:
        UserError: there is no such field, or a value is invalid.
    """
    check_names(given, [one.name for one in fields(cls) if one.name not in without])  # type: ignore[arg-type]
    return cls(**given)


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UserError if the user gave an option of the Python API that does not exist."""
    known = list(known)
    if unknown := [name for name in given if name not in known]:
        raise UserError(f"There is no option {unknown[0]!r}.", f"Use {', '.join(known)}.")


def arguments_of(settings: Any, *, always: Container[str] = (), without: Container[str] = ()) -> list[str]:
    """Return the options of the command line that give these settings: those that differ from the defaults.

    Fields in ``always`` are given even if they have their default; those in ``without`` are left out.
    """
    cls: Any = type(settings)
    values = {name: getattr(settings, name) for name in declared(cls) if name not in without}
    return arguments(cls, values, always=always)


def arguments(cls: Any, values: Mapping[str, Any], *, always: Container[str] = ()) -> list[str]:
    """Return the options for some fields of a class, without those that have its default.

    A flag that is on by default is switched off by ``--no-NAME``.
    """
    args: list[str] = []
    for name, value in values.items():
        one = declared(cls)[name]
        if (value == one.default and name not in always) or value is None:
            continue
        if one.kind is bool and not one.is_tuple:
            args.append(f"--{one.option}" if value else f"--no-{one.option}")
        elif one.setting.repeat:
            args += [part for element in value for part in (f"--{one.option}", str(element))]
        else:
            args += [f"--{one.option}", one.text(value)]
    return args
