"""The commands of what-if sets: ``python -m core sets ...``."""

from __future__ import annotations

import typer

sets = typer.Typer(help="Named what-if sets, side by side.", no_args_is_help=True, rich_markup_mode=None)
