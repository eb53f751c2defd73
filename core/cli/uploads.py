"""The command that lists and removes files that were uploaded to the dashboard."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from core.cli.common import message
from core.cli.streams import print_row


def uploads(
    remove: Annotated[list[str] | None, Option(help="Id of an upload to delete. Repeatable.")] = None,
) -> None:
    """List files uploaded to the dashboard, or delete some.

    Prints id, size, time, name and the imports that used it. What was imported stays. An upload that a running import
    uses is not deleted.
    """
    from core.workspace.uploads import limit_bytes, remove_upload, size_text, stored_uploads

    for upload_id in remove or []:
        message(f"{upload_id}: deleted, {size_text(remove_upload(upload_id))} freed")
    if remove:
        return
    stored = stored_uploads()
    for one in stored:
        print_row(one.id, size_text(one.bytes), one.at, one.path.name, "; ".join(one.used_by) or "-")
    message(f"{size_text(sum(one.bytes for one in stored))} of at most {size_text(limit_bytes())}")
