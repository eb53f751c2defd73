"""Show the command-line equivalents of a page's actions, ready to copy."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.runtime.program import command_line, with_workspace
from core.ui.shell.context import Context


def command_block(context: Context, *commands: Sequence[str]) -> None:
    """Show commands on the present workspace, one per line, quoted for a shell."""
    show_commands(*(with_workspace(args, context.workspace.name) for args in commands))


def show_commands(*commands: Sequence[str]) -> None:
    """Show commands to copy, one per line."""
    st.caption("Command-line equivalent")
    st.code("\n".join(map(command_line, commands)), language="bash", wrap_lines=True)
