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
from core.runtime.files import home, write_json
from core.runtime.hashing import content_hash
from core.runtime.program import command_line
from core.runtime.stored import Text, read_stored

_FACTORY_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_factory(name: str) -> bool:
    """Return whether ``name`` refers to a factory and not to a built-in backbone."""
    return ":" in name


def _allow_list_path() -> Path:
    return home() / "factories.json"


def allowed_factories() -> tuple[str, ...]:
    """Return the names of the factories that may be imported; raise UserError if the list of them is damaged."""
    path = _allow_list_path()
    if not path.exists():
        return ()
    return tuple(read_stored(path, list[Text], fix="Delete it and allow your factories again."))


def allow_factory(name: str) -> None:
    """Allow ``name`` to be imported on this machine; raise UserError if it is not ``package.module:factory``."""
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
    try:
        signature = inspect.signature(factory)
        arguments = {key: value for key, value in (("ways", ways), ("shape", shape)) if key in signature.parameters}
        signature.bind(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} cannot be called with ways and shape: {error}.",
            "Its only required arguments can be ways and shape (height, width, channels).",
        ) from error
    try:
        # Copy the module, because the factory may return the same object every time and the caller modifies it.
        module = deepcopy(factory(**arguments))
    except Exception as error:  # user code may raise any exception
        raise UserError(f"{name} failed: {type(error).__name__}: {error}.", "Correct it.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} returned a {type(module).__name__}, not a torch.nn.Module.", "Return the network.")
    return module


def code_hash(name: str, ways: int, shape: tuple[int, int, int]) -> str:
    """Return a hash of the code of a factory, to which models and cached results are tied.

    It covers the files that define the factory and the classes of its submodules, except those of PyTorch.

    Raises:
        UserError: as in :func:`make_module`.
    """
    network = make_module(name, ways, shape)
    modules = {name.split(":")[0], *(type(part).__module__ for part in network.modules())}
    parts: list[str | bytes] = []
    for module in sorted(module for module in modules if module.split(".")[0] not in ("torch", "torchvision")):
        file = getattr(sys.modules.get(module), "__file__", None)
        parts += [module, Path(file).read_bytes()] if file else [module]
    return content_hash(*parts)


def _check_name(name: str) -> None:
    if not _FACTORY_NAME.fullmatch(name):
        raise UserError(f"{name!r} is not the name of a factory.", "Use the form package.module:factory.")


def _import_factory(name: str) -> Callable[..., object]:
    _check_name(name)
    if name not in allowed_factories():
        raise UserError(
            f"The network is built by {name}, whose code is not allowed to run on this machine.",
            f"If you trust it: {command_line(['model', '--allow', name])}",
        )
    module, attribute = name.split(":")
    try:
        factory = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # importing runs user code, which may raise any exception
        raise UserError(
            f"{module} cannot be imported: {type(error).__name__}: {error}.",
            "Install it, or add its folder to PYTHONPATH.",
        ) from error
    if not callable(factory):
        raise UserError(f"{module} has no function {attribute!r}.", "Check the name of the factory.")
    return factory
