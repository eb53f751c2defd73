"""The commands of reviewing: ``python -m core review ...``."""

from __future__ import annotations

import typer

review = typer.Typer(
    help="Find wrong labels, decide on them, and hand the decisions over.", no_args_is_help=True, rich_markup_mode=None
)
