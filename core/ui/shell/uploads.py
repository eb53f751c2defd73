"""Store uploads as files named by content, so that a separate process can read them."""

from __future__ import annotations

import re
from pathlib import Path

from streamlit.runtime.uploaded_file_manager import UploadedFile

from core.runtime.files import content_hash, library
from core.runtime.replacing import replacing


def save_upload(upload: UploadedFile) -> Path:
    """Return the file of an upload; the same content is stored once. Raises UserError if the disk is full."""
    content = upload.getvalue()
    name = re.sub(r"[^\w.-]+", "-", Path(upload.name).name).strip("-.")[-80:] or "upload"
    path = library() / "uploads" / content_hash(content)[:16] / name
    if not path.exists():
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    return path
