"""Many reviewers at once: ten tabs on a queue of 10,000 items, each turning a page about every ten seconds and
deciding three times in between.

Every tab is a reviewer of its own in a real browser, which shares the machine with the server. Each works at its own
times: pauses are drawn evenly between half and one and a half of the usual one, and the first delays the start. A page
flip ends with the frame in which the other page's tiles are drawn. Afterwards every key that was pressed must be a row
of the decision log, and the memory of the server must be that of the first minute.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import sync_playwright

from benchmarks.review_page import NAME, SCRIPT, prepare
from core.runtime.files import HOME_VARIABLE
from tests.e2e.browser import CHROMIUM_ARGS, NO_CHROMIUM, chromium_path
from tests.e2e.server import ROOT, start_server

TABS = 10
PAUSE_MS = 9000
"""Mean pause between two flips of a tab; the keys are pressed in between."""
_PAUSES = 100  # drawn for each tab, and then repeated
CLICK = f"""
window.work = async (seconds, pauses) => {{
  const flips = [], until = performance.now() + 1000 * seconds;
  let keys = 0, pause = 0;
  const rest = (share) => new Promise((done) => setTimeout(done, {PAUSE_MS} * share * pauses[pause++ % pauses.length]));
  await rest(1);
  while (performance.now() < until) {{
    flips.push(await bench.flip());
    for (let i = 0; i < 3; i++) {{ bench.press("k"); keys += 1; await rest(1 / 3); }}
  }}
  await bench.saved();
  window.worked = [flips, keys];
}};
"""


@dataclass(frozen=True)
class TabsFigures:
    """What the tabs did: seconds of flips, keys pressed and saved, megabytes of the server every 15 seconds."""

    flips: list[float]
    keys: int
    saved: int
    megabytes: list[float]

    @property
    def median(self) -> float:
        """Return the median of a flip in seconds."""
        return float(np.median(self.flips))

    @property
    def p95(self) -> float:
        """Return the 95th percentile of a flip in seconds."""
        return float(np.percentile(self.flips, 95))


def attack_tabs(seconds: float, tabs: int = TABS) -> TabsFigures:
    """Let the tabs work for some seconds."""
    path = chromium_path()
    if path is None:
        raise SystemExit(NO_CHROMIUM)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        os.environ[HOME_VARIABLE] = temporary
        workspace = prepare(home)
        server = start_server(ROOT / "app.py", home, {HOME_VARIABLE: temporary})
        process = psutil.Process(server.process.pid)
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGS))
                pages = []
                for number in range(tabs):
                    page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
                    page.set_default_timeout(120_000)
                    page.add_init_script(SCRIPT + CLICK)
                    page.goto(f"{server.url}/review?workspace={NAME}")
                    page.locator(".tile").first.wait_for()
                    name = page.get_by_role("textbox", name="Reviewer")
                    name.fill(f"reviewer {number}")
                    name.press("Enter")
                    page.wait_for_timeout(1500)
                    page.evaluate("bench.ready()")
                    pages.append(page)
                pauses = np.random.default_rng(0).uniform(0.5, 1.5, (tabs, _PAUSES)).round(3).tolist()
                for page, own in zip(pages, pauses, strict=True):
                    page.evaluate(f"void work({seconds}, {own})")
                megabytes, end = [], time.monotonic() + seconds
                while time.monotonic() < end:
                    megabytes.append(process.memory_info().rss / 1e6)
                    pages[0].wait_for_timeout(1000 * min(15, max(0.1, end - time.monotonic())))
                flips, keys = [], 0
                for page in pages:
                    page.wait_for_function("window.worked")
                    own_flips, own_keys = page.evaluate("window.worked")
                    flips, keys = flips + own_flips, keys + own_keys
                megabytes.append(process.memory_info().rss / 1e6)
                browser.close()
        finally:
            server.stop()
        saved = len(workspace.decisions.history())
    return TabsFigures(flips, keys, saved, megabytes)
