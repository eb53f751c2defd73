"""The same on the command line: what a page does, as commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import streamlit as st

from core.ui.context import Context


def command_line(context: Context, args: Sequence[str]) -> str:
    """``python -m core <args>`` on the workspace at hand, quoted for a shell."""
    return shlex.join(["python", "-m", "core", args[0], "--workspace", context.workspace.name, *args[1:]])


def command_block(context: Context, *commands: Sequence[str]) -> None:
    """Show commands, one a line, ready to copy."""
    st.caption("The same on the command line")
    st.code("\n".join(command_line(context, args) for args in commands), language="bash", wrap_lines=True)
