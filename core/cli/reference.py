"""The reference of all commands and their options, as docs/commands.md holds it.

``python -m core.cli.reference`` rewrites it; a test checks that it is up to date.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.cli.app import program
from core.runtime.program import PROGRAM

FILE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
_INTRODUCTION = f"""# Commands

Everything the pages do can be done by commands: `{PROGRAM} COMMAND`, or `python -m core COMMAND`. Progress goes to
stderr, paths of results to stdout. Exit codes: 0 done; 2 invalid input, explained on the last line of stderr; 130 or
143 cancelled, with completed work saved; 1 anything else. `{PROGRAM} COMMAND --help` prints the tables below.

<!-- Written by `python -m core.cli.reference`; edit the declarations of the settings instead. -->
"""


def commands() -> dict[str, Any]:
    """Return every command by its words, ``review queue`` for example, in the order of the help."""

    found: dict[str, Any] = {}
    for name, command in program().commands.items():
        within = getattr(command, "commands", None)
        found |= {name: command} if within is None else {f"{name} {word}": one for word, one in within.items()}
    return found


def reference() -> str:
    """Return the reference as Markdown: per command its help and a table of its options."""
    return "\n".join([_INTRODUCTION, *(_section(name, command) for name, command in commands().items())])


def _section(name: str, command: Any) -> str:
    arguments = [one.name.upper() for one in command.params if one.param_type_name == "argument"]
    rows = [_row(parameter) for parameter in command.params]
    table = ["| option | values | default | |", "|---|---|---|---|", *rows] if rows else []
    paragraphs = [" ".join(part.split()) for part in command.help.strip().split("\n\n")]
    return "\n".join([f"## {' '.join([name, *arguments])}\n", *(f"{part}\n" for part in paragraphs), *table, ""])


def _row(parameter: Any) -> str:
    """Return a row of the table, limited to what all versions of typer agree on."""
    is_argument = parameter.param_type_name == "argument"
    names = parameter.name.upper() if is_argument else ", ".join([*parameter.opts, *parameter.secondary_opts])
    default = parameter.default
    if parameter.required:
        shown = "required"
    elif default is True:
        shown = "on"
    else:
        shown = "" if default is None or default is False or default == "" else f"`{default}`"
    values = (parameter.metavar or "").strip("[]").removesuffix("],...").replace("|", ", ")
    text = (parameter.help or "").replace("|", "\\|").replace("\n", " ")
    return " | ".join([f"| `{names}`", values, shown, f"{text} |"])


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
