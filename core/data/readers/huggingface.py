"""Read a Hugging Face data set in either of its forms: written by ``save_to_disk``, or as parquet files of the Hub."""

from __future__ import annotations

from pathlib import Path

from core.data.archive import Tree, open_tree
from core.data.listing import Listing
from core.data.readers.common import ReadOptions
from core.data.readers.hub_parquet import is_hub_parquet, is_parquet, read_hub_parquet
from core.data.readers.huggingface_saved import is_saved, read_saved


def read_huggingface(path: Path, options: ReadOptions) -> Listing:
    """Read a folder by :func:`read_saved`, and parquet files or a folder of them by :func:`read_hub_parquet`."""
    names = [path.name] if is_parquet(path.name) else open_tree(path).files
    is_hub = not is_saved(names) and any(map(is_parquet, names))
    return read_hub_parquet(path, options) if is_hub else read_saved(path, options)


def is_huggingface(source: Tree | Path) -> bool:
    """Return whether a folder, an archive or a single file is for :func:`read_huggingface`."""
    return (not isinstance(source, Path) and is_saved(source.files)) or is_hub_parquet(source)
