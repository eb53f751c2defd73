"""The same on the command line: what a page does, as commands to copy."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.runtime.program import command_line as program_command
from core.ui.shell.context import Context

GROUPS = ("review", "sets")
"""Words of the command line that a command follows."""


def with_workspace(args: Sequence[str], workspace: str) -> list[str]:
    """The arguments of a command with its workspace among them."""
    words = 2 if args[0] in GROUPS else 1
    return [*args[:words], "--workspace", workspace, *args[words:]]


def command_line(context: Context, args: Sequence[str]) -> str:
    """``tasklens <args>`` on the workspace at hand, quoted for a shell."""
    return program_command(with_workspace(args, context.workspace.name))


def command_block(context: Context, *commands: Sequence[str]) -> None:
    """Show commands, one a line, ready to copy."""
    st.caption("The same on the command line")
    st.code("\n".join(command_line(context, args) for args in commands), language="bash", wrap_lines=True)
