"""Load user-defined networks that are named as ``package.module:factory``.

A model folder names its factory, and importing a module runs its code. A factory is therefore imported only if a user
of this machine has allowed it on the command line. The allowed names are stored in ``factories.json`` in the TaskLens
folder.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from torch import nn

from core.runtime.errors import UserError
from core.runtime.files import content_hash, home, read_json, write_json
from core.runtime.program import command_line

_FACTORY_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_factory(name: str) -> bool:
    """Return whether ``name`` refers to a factory and not to a built-in backbone."""
    return ":" in name


def _allow_list_path() -> Path:
    return home() / "factories.json"


def allowed_factories() -> tuple[str, ...]:
    """Return the names of the factories that may be imported on this machine.

    Raises:
        UserError: the list is damaged.
    """
    if not _allow_list_path().exists():
        return ()
    names = read_json(_allow_list_path())
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{_allow_list_path()} is not a list of names.", "Delete it and allow your factories again.")
    return tuple(names)


def allow_factory(name: str) -> None:
    """Allow ``name`` to be imported on this machine.

    Raises:
        UserError: the name is not of the form ``package.module:factory``.
    """
    _check_name(name)
    names = allowed_factories()
    if name not in names:
        write_json(_allow_list_path(), sorted({*names, name}))


def make_module(name: str, ways: int, shape: tuple[int, int, int]) -> nn.Module:
    """Import the factory, call it and return the network.

    ``ways`` and ``shape`` (height, width, channels) are passed if the factory has parameters of these names.

    Raises:
        UserError: the factory is not allowed on this machine, cannot be imported or called, or does not return a
            module.
    """
    factory = _import_factory(name)
    given = {"ways": ways, "shape": shape}
    try:
        known = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} cannot be called ({error}).", "Name a function that returns a torch.nn.Module."
        ) from error
    needed = [
        key
        for key, value in known.items()
        if value.default is value.empty and value.kind not in (value.VAR_POSITIONAL, value.VAR_KEYWORD)
    ]
    strange = [key for key in needed if key not in given]
    if strange:
        raise UserError(
            f"{name} needs the argument {strange[0]!r}.",
            "Name a function that takes nothing, or ways and shape (height, width, channels).",
        )
    try:
        # Copy the module, because the factory may return the same object every time and the caller modifies it.
        made = deepcopy(factory(**{key: value for key, value in given.items() if key in known}))
    except Exception as error:  # user code may raise any exception
        raise UserError(f"{name} failed: {type(error).__name__}: {error}.", "Correct it.") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{name} made a {type(made).__name__}, not a torch.nn.Module.", "Let it return the network.")
    return made


def code_hash(name: str, ways: int, shape: tuple[int, int, int]) -> str:
    """Return a hash of the code of a factory.

    It covers the files that define the factory and the classes of its submodules, except those of PyTorch. Models and
    cached results are tied to this hash, so a change of the code invalidates them.

    Raises:
        UserError: as in :func:`make_module`.
    """
    made = make_module(name, ways, shape)
    makers = {name.split(":")[0], *(type(part).__module__ for part in made.modules())}
    parts: list[str | bytes] = []
    for maker in sorted(maker for maker in makers if maker.split(".")[0] not in ("torch", "torchvision")):
        file = getattr(sys.modules.get(maker), "__file__", None)
        parts += [maker, Path(file).read_bytes()] if file else [maker]
    return content_hash(*parts)


def _check_name(name: str) -> None:
    if not _FACTORY_NAME.fullmatch(name):
        raise UserError(f"{name!r} does not name a factory.", "Write package.module:factory.")


def _import_factory(name: str) -> Callable[..., object]:
    _check_name(name)
    if name not in allowed_factories():
        raise UserError(
            f"The network is made by {name}, and importing that runs its code, which was not allowed on this machine.",
            f"If you trust it: {command_line(['model', '--allow', name])}",
        )
    module, attribute = name.split(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # importing runs user code, which may raise any exception
        raise UserError(
            f"{module} cannot be imported: {type(error).__name__}: {error}.",
            "Install it, or put the folder that holds it into PYTHONPATH.",
        ) from error
    if not callable(found):
        raise UserError(f"{module} has no function {attribute!r}.", "Check the name of the factory.")
    return found
