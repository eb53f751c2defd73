"""Store uploads as files, so that separate processes can read them; list and remove them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from core.runtime.errors import UserError
from core.ui.shell.guard import guarded
from core.ui.shell.text import count, minute_of, plain
from core.workspace.uploads import Upload, limit_bytes, remove_upload, size_text, store_upload, stored_uploads

_STORED = "_uploads_stored"
_MAX_ROWS = 50


def save_upload(upload: UploadedFile) -> Path:
    """Return the file of an upload, which is hashed and written once per session.

    Raises:
        UserError: all uploads together would exceed their limit, or it was removed since, or the disk is full.
    """
    stored: dict[str, Path] = st.session_state.setdefault(_STORED, {})
    if upload.file_id not in stored:
        stored[upload.file_id] = store_upload(upload.name, upload.getvalue())
    path = stored[upload.file_id]
    if not path.exists():  # written again, a removal would have no effect while a field has the file
        raise UserError(f"{upload.name} was removed from the uploads.", "Choose the file again to use it.")
    return path


def uploads_panel() -> None:
    """List the uploads of everybody, each with a button that removes it."""
    uploads = stored_uploads()
    if not uploads:
        return
    total = size_text(sum(one.bytes for one in uploads))
    with st.expander(f"Uploads ({len(uploads):,}, {total})", key="uploads_open"):
        st.caption(
            f"Uploaded files stay on the server's disk until you remove them, at most {size_text(limit_bytes())} in "
            "total. What was imported from them stays."
        )
        for upload in uploads[:_MAX_ROWS]:
            _row(upload)
        if len(uploads) > _MAX_ROWS:
            st.caption(f"{count(len(uploads) - _MAX_ROWS, 'older upload')} not shown; see tasklens uploads.")


def _row(upload: Upload) -> None:
    name, size, at, use, remove = st.columns([3, 1, 2, 3, 1], vertical_alignment="center")
    name.markdown(plain(upload.path.name))
    size.markdown(size_text(upload.bytes))
    at.markdown(f"{minute_of(upload.at)} UTC")
    use.caption(plain("; ".join(upload.used_by)) or "Not used by an import here")
    remove.button(
        "Remove",
        key=f"uploads_remove_{upload.id}_{upload.path.name}",
        disabled=upload.is_in_use,
        on_click=guarded(remove_upload, "Remove an upload"),
        args=(upload.id,),
        help="In use by a running import." if upload.is_in_use else None,
    )
