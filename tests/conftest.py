"""One thread for everything the tests start, and property tests without wall-clock limits or random failures."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("tasklens", deadline=None, derandomize=True)
settings.load_profile("tasklens")
