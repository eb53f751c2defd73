"""Measure how fast the dashboard responds: ``python -m benchmarks.ui`` prints a table, measured in a real browser.

A separate server opens a temporary folder whose ``demo-noisy-tasks`` holds a finished evaluation, a ranking, a
fine-tune, a curve and evidence (from cheap settings: what the pages draw is as large as after long runs). Times are
taken inside the browser, from the click, or from the navigation that opens a tab, until the page's title and main
content (grid, chart, table) are on the screen and not greyed out as stale. Browser and server share the machine, so
with eight tabs the times are mostly those of the browser: the processor times of both are printed below the table.

Cold: the first tab after the server has started, and every page's first visit. Warm: everything else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from core.actions.compute import Compute
from core.actions.curve import curve
from core.actions.decide import mark, worst_items
from core.actions.edit import edit
from core.actions.rank import ranking
from core.editing.methods import SOLVE
from core.editing.settings import FINETUNE, CurveSettings
from core.influence.methods import estimator
from core.influence.targets import Target
from core.runtime.files import HOME_VARIABLE
from core.runtime.progress import Progress
from core.workspace.demos import open_demo
from tests.e2e.browser import CHROMIUM_ARGS, NO_CHROMIUM, chromium_path
from tests.e2e.server import ROOT, Server, start_server
from tests.ui.evidence import write_evidence

DEMO = "demo-noisy-tasks"
TABS = 8
PAINT, SWITCH, ALL_TABS = 1.5, 0.5, 1.0
"""Targets in seconds."""
CONTENT = {
    "overview": ["[data-testid=stMetric]", "[data-testid=stPageLink]", "[data-testid=stExpander]"],
    "load": [".st-key-load_images", ".st-key-load_make_tasks button"],
    "tasks": [
        "[data-testid=stDataFrame] canvas",
        ".st-key-tasks_histogram .main-svg",
        ".st-key-tasks_grid_support [role=option]",
        ".st-key-tasks_grid_query [role=option]",
    ],
    "images": [".st-key-images_grid [role=option]"],
    "trust": [".st-key-trust_chart .main-svg", "[data-testid=stDataFrame] canvas", ".st-key-trust_agreement .main-svg"],
    "edit": [".st-key-edit_worst_tasks", ".st-key-edit_chart .main-svg", "[data-testid=stDataFrame] canvas"],
    "curves": [".st-key-curve_start button", "[class*=st-key-curve_chart] .main-svg"],
    "export": [".st-key-export_write button", "[data-testid=stDataFrame] canvas"],
}
"""CSS selectors of what must be on the screen, by page; the grids are in shadow roots."""

SCRIPT = """
window.bench = (() => {
  const frame = () => new Promise(requestAnimationFrame);
  const all = (root, css) => [
    ...root.querySelectorAll(css),
    ...[...root.querySelectorAll("*")].flatMap((one) => (one.shadowRoot ? all(one.shadowRoot, css) : [])),
  ];
  const shown = (one) =>
    one.checkVisibility() && one.getBoundingClientRect().height > 0 && !one.closest("[data-stale=true]");
  const there = (css) => {
    const [place, inner] = css.includes("[role=option]") ? css.split(" ") : [css, ""];
    const found = [...document.querySelectorAll(place)].filter(shown);
    return inner ? found.some((one) => all(one, inner).some(shown)) : found.length > 0;
  };
  const titled = (title) => [...document.querySelectorAll("h1")].some((one) => one.textContent === title && shown(one));
  const until = async (ready, from = 0) => {
    const start = performance.now();
    while (!ready()) {
      if (performance.now() > start + 60000) throw new Error(`not within 60 s: ${ready}`);
      await frame();
    }
    await frame(); // what is in the document now is drawn with this frame
    return (performance.now() - from) / 1000;
  };
  const page = (title, content) => until(() => titled(title) && content.every(there));
  const go = async (title, content) => {
    const links = [...document.querySelectorAll("[data-testid=stSidebarNav] a")];
    const link = links.find((one) => one.textContent.trim() === title);
    const from = performance.now();
    link.click();
    return (await page(title, content)) - from / 1000;
  };
  const app = () => document.querySelector("[data-testid=stApp]");
  const settled = () => until(() => app().dataset.testScriptState === "notRunning");
  const rest = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));
  // Every page of `path` in turn, `pause` seconds between one that is there and the next click.
  const walk = async (path, pause) => {
    const times = [];
    for (const [title, content] of path) {
      times.push(await go(title, content));
      await settled();
      await rest(pause * (0.5 + Math.random()));
    }
    return times;
  };
  // From the next press of Enter to the end of the script.
  const rerun = () => {
    let from;
    addEventListener("keydown", () => { from = performance.now(); }, { once: true, capture: true });
    return new Promise((done) => {
      new MutationObserver(async (_, self) => {
        if (app().dataset.testScriptState !== "running") return;
        self.disconnect();
        done((await settled()) - from / 1000);
      }).observe(app(), { attributes: true });
    });
  };
  const button = (key) => document.querySelector(`.st-key-${key} button`);
  const tile = (at) => all(document.querySelector(".st-key-images_grid"), "[role=option]")[at];
  const says = (css, text) => [...document.querySelectorAll(css)].some((one) => one.textContent.trim() === text);
  const select = async (at, count) => {
    const from = performance.now();
    tile(at).click();
    const seconds = await until(() => button("images_remove").textContent.includes(`Remove ${count} selected`), from);
    await settled();
    return seconds;
  };
  const press = async (key, text) => {
    const from = performance.now();
    button(key).click();
    const seconds = await until(() => says("[data-testid=stMarkdown]", text), from);
    await settled();
    return seconds;
  };
  return { page, go, walk, rerun, select, press, settled };
})();
"""


def prepare(home: Path) -> None:
    """Create the demo with content on every page, with the cheapest settings."""
    workspace, compute, progress = open_demo(DEMO, home), Compute(), Progress()
    ranked = ranking(workspace, Target(), estimator("dot"), compute, progress)
    short = replace(FINETUNE, iterations=1)
    mark(workspace, worst_items(ranked, "tasks", 20), reviewer="benchmark", source=ranked.id)
    edit(workspace, "finetune", workspace.changes(), solver=SOLVE, finetune=short, compute=compute, progress=progress)
    curve(workspace, ranked, CurveSettings(shares=(0.0, 0.4), orders=("harmful",), seeds=1), short, compute, progress)
    write_evidence(workspace)


class Table:
    """A table of durations in seconds, printed row by row."""

    def __init__(self) -> None:
        print(f"{'':<52}{'n':>5}{'median':>9}{'p95':>9}{'target':>9}", flush=True)

    def row(self, name: str, seconds: list[float], target: float | None = None) -> None:
        """Print and record one row; ``target`` applies to the 95th percentile."""
        middle, high = np.median(seconds), np.percentile(seconds, 95)
        met = "" if target is None else f"{target:>9.1f}   {'met' if high <= target else 'MISSED'}"
        print(f"{name:<52}{len(seconds):>5}{middle:>9.2f}{high:>9.2f}{met}", flush=True)


@contextmanager
def profile(browser: Browser) -> Iterator[BrowserContext]:
    """Yield a browser profile with an empty cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    context.add_init_script(SCRIPT)
    yield context
    context.close()


def open_tab(context: BrowserContext, server: Server, name: str = "overview") -> tuple[Page, float]:
    """Return a new tab on a page, and the seconds since its navigation began."""
    page = context.new_page()
    page.goto(f"{server.url}/{'' if name == 'overview' else name}?workspace={DEMO}", wait_until="commit")
    seconds = page.evaluate("([title, content]) => bench.page(title, content)", [name.capitalize(), CONTENT[name]])
    page.evaluate("bench.settled()")
    return page, float(seconds)


def walk(page: Page, names: list[str], pause: float = 0.2) -> list[float]:
    """Switch through the pages and return the seconds of each switch."""
    return list(page.evaluate("([path, pause]) => bench.walk(path, pause)", [steps(names), pause]))


def rerun(page: Page, number: int) -> float:
    """Return the seconds of a rerun that changes nothing on the page: another reviewer name in the sidebar."""
    page.get_by_role("textbox", name="Reviewer").fill(f"reviewer {number}")
    page.evaluate("() => { window.ran = bench.rerun() }")
    page.keyboard.press("Enter")
    return float(page.evaluate("window.ran"))


def steps(names: list[str]) -> list[tuple[str, list[str]]]:
    """Return the page switches as (title, CSS selectors of the content)."""
    return [(name.capitalize(), CONTENT[name]) for name in names]


def switch_together(pages: list[Page]) -> list[float]:
    """Return the seconds of page switches with all tabs active at once, each starting on another page."""
    names = list(CONTENT)
    for start, page in enumerate(pages):
        path = [names[(start + step) % len(names)] for step in range(1, len(names) + 1)]
        page.evaluate("(path) => { window.walking = bench.walk(path, 0) }", steps(path))
    return [seconds for page in pages for seconds in page.evaluate("window.walking")]


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=2, help="server starts")
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of everything else")
    arguments = parser.parse_args()
    path = chromium_path()
    if path is None:
        raise SystemExit(NO_CHROMIUM)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        home, logs, start = Path(temporary) / "home", Path(temporary), time.perf_counter()
        prepare(home)
        print(f"demo prepared in {time.perf_counter() - start:.0f} s; seconds, over n repetitions:\n", flush=True)
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_ARGS))
        table, first_tabs = Table(), []
        for number in range(arguments.starts):
            server = start_server(ROOT / "app.py", logs, {HOME_VARIABLE: str(home)})
            try:
                with profile(browser) as context:
                    page, seconds = open_tab(context, server)
                    first_tabs.append(seconds)
                    if number + 1 == arguments.starts:
                        table.row("cold: first tab after the server's start", first_tabs)
                        measure(table, browser, server, page, arguments.repeats)
            finally:
                server.stop()
    print(f"\n{time.perf_counter() - start:.0f} s in total")


def measure(table: Table, browser: Browser, server: Server, page: Page, repeats: int) -> None:
    """Measure everything on a running server, of which ``page`` is the first tab."""
    names = list(CONTENT)
    table.row("cold: first visit of a page, by a click", walk(page, names[1:]))
    new_profile, second_tab = [], []
    for _ in range(repeats):
        with profile(browser) as context:
            new_profile.append(open_tab(context, server)[1])
            second_tab.append(open_tab(context, server)[1])
    table.row("first paint, empty browser cache", new_profile, PAINT)
    table.row("first paint, another tab", second_tab, PAINT)
    links = []
    for name in 2 * names:
        link, seconds = open_tab(page.context, server, name)
        links.append(seconds)
        link.close()
    table.row("first paint, a deep link to each page", links, PAINT)
    switches = np.array([walk(page, names) for _ in range(repeats + 1)][1:])
    for name, seconds in zip(names, switches.T, strict=True):
        table.row(f"page switch to {name.capitalize()}", list(seconds), SWITCH)
    table.row("page switch, all", list(switches.flat), SWITCH)
    reruns = []
    for name in names:
        walk(page, [name])
        reruns += [rerun(page, number) for number in range(repeats)]
    table.row("a rerun that changes nothing, all pages", reruns)
    walk(page, ["images"])
    selects, decisions = [], []
    for _ in range(2 * repeats):
        selects.append(page.evaluate("bench.select(3, 1)"))
        decisions.append(page.evaluate("bench.press('images_remove', 'Decided: 20 tasks, 1 image removed')"))
        page.evaluate("bench.press('review_Undo', 'Decided: 20 tasks removed')")
    table.row("grid: from a click to the response", selects)
    table.row("a decision: Remove 1 selected", decisions)
    with profile(browser) as context:
        pages = [open_tab(context, server, names[at % len(names)])[0] for at in range(TABS)]
        before = processor_seconds(server)
        clicks = switch_together(pages)
        server_seconds, browser_seconds = (
            (now - then) / len(clicks) for now, then in zip(processor_seconds(server), before, strict=True)
        )
    table.row(f"{TABS} tabs at once, each clicking without a pause", clicks, ALL_TABS)
    print(
        f"\nprocessor seconds per switch with {TABS} tabs: {server_seconds:.2f} server, {browser_seconds:.2f} browser"
    )


def processor_seconds(server: Server) -> tuple[float, float]:
    """Return the processor seconds used by the server, and by the browser with its driver."""

    def processor_time(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    children = psutil.Process().children(recursive=True)
    browser = sum(processor_time(child) for child in children if child.pid != server.process.pid)
    return processor_time(psutil.Process(server.process.pid)), browser


if __name__ == "__main__":
    main()
