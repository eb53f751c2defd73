"""A ``secrets.toml`` for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st
from streamlit import config

SITE, SECRET = "https://lab.example", "c" * 32
WHOLE = f"""
[auth]
redirect_uri = "{SITE}/oauth2callback"
cookie_secret = "{SECRET}"
client_id = "tasklens"
client_secret = "s"
server_metadata_url = "https://provider.example/.well-known/openid-configuration"
"""
Configure = Callable[[str | bytes], None]


@contextmanager
def secrets_file(folder: Path) -> Iterator[Configure]:
    """Yield ``configure(content)``, which writes the only file of secrets that Streamlit sees."""
    path, before = folder / "secrets.toml", config.get_option("secrets.files")

    def write(content: str | bytes) -> None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        st.secrets._reset()

    config.set_option("secrets.files", [str(path)])
    st.secrets._reset()
    try:
        yield write
    finally:
        config.set_option("secrets.files", before)
        st.secrets._reset()
