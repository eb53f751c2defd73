"""Show the command line equivalents of a page's actions, ready to copy."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.runtime.program import command_line as program_command
from core.ui.shell.context import Context

GROUPS = ("review", "sets")
"""Command groups: words of the command line that are followed by a command."""


def with_workspace(args: Sequence[str], workspace: str) -> list[str]:
    """Return the arguments of a command with its workspace inserted."""
    words = 2 if args[0] in GROUPS else 1
    return [*args[:words], "--workspace", workspace, *args[words:]]


def command_line(context: Context, args: Sequence[str]) -> str:
    """Return ``tasklens <args>`` on the present workspace, quoted for a shell."""
    return program_command(with_workspace(args, context.workspace.name))


def command_block(context: Context, *commands: Sequence[str]) -> None:
    """Show commands, one per line, ready to copy."""
    st.caption("The same on the command line")
    st.code("\n".join(command_line(context, args) for args in commands), language="bash", wrap_lines=True)
