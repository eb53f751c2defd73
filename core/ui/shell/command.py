"""Show the command-line equivalents of a page's actions, ready to copy."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.runtime.program import command_line
from core.ui.shell.context import Context

GROUPS = ("review", "sets")
"""Command groups: words of the command line that are followed by a command."""


def with_workspace(args: Sequence[str], workspace: str) -> list[str]:
    """Return the arguments of a command with its workspace inserted."""
    words = 2 if args[0] in GROUPS else 1
    return [*args[:words], "--workspace", workspace, *args[words:]]


def command_block(context: Context, *commands: Sequence[str]) -> None:
    """Show commands on the present workspace, one per line, quoted for a shell."""
    show_commands(*(with_workspace(args, context.workspace.name) for args in commands))


def show_commands(*commands: Sequence[str]) -> None:
    """Show commands to copy, one per line."""
    st.caption("Command-line equivalent")
    st.code("\n".join(map(command_line, commands)), language="bash", wrap_lines=True)
