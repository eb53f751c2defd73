"""The command line, which does everything that the pages do and runs their background jobs (docs/commands.md)."""

from core.cli.app import main

__all__ = ["main"]
