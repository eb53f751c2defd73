"""How many examples a property test tries: a quarter of the number it names, and all of them in ``make test-all``."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

DEFAULT = 100
_THOROUGH = os.environ.get("TASKLENS_TEST_THOROUGHLY") == "1"


def examples(most: int = DEFAULT, **more: Any) -> settings:
    """Return the settings of a property test that tries ``most`` examples in ``make test-all``."""
    return settings(max_examples=most if _THOROUGH else max(5, most // 4), **more)
