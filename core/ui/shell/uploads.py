"""What a browser sends, kept as files by content, so that a job of its own process can read it."""

from __future__ import annotations

import re
from pathlib import Path

from streamlit.runtime.uploaded_file_manager import UploadedFile

from core.runtime.files import content_hash, library, replacing


def save_upload(upload: UploadedFile) -> Path:
    """The file of an upload; the same content is kept once.

    Raises:
        UserError: there is no room on the disk.
    """
    content = upload.getvalue()
    name = re.sub(r"[^\w.-]+", "-", Path(upload.name).name).strip("-.")[-80:] or "upload"
    path = library() / "uploads" / content_hash(content)[:16] / name
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path
