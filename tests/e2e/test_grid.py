"""The image grid in a real browser: tests/e2e/apps/grid_app.py shows 60 tiles, t0 to t59."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from core.ui.grid.atlas import jpeg_atlas, packet
from tests.e2e.review_pages import eventually
from tests.e2e.server import ROOT

APP = "tests/e2e/apps/grid_app.py"
LEAVE_AT_ONCE = """async ([code, css, bytes]) => {
    const mount = (await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })))).default;
    document.head.append(Object.assign(document.createElement("style"), { textContent: css }));
    for (let i = 0; i < 5; i++) {
        const parentElement = document.body.appendChild(document.createElement("div"));
        const leave = mount({ data: Uint8Array.from(bytes), parentElement, setStateValue: () => {} });
        leave();
        await new Promise((resolve) => setTimeout(resolve, 20)); // the page is drawn while the tiles are still there
        parentElement.remove();
    }
}"""


@pytest.fixture(scope="module")
def url(serve):
    return serve(APP)


@pytest.fixture
def grid(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.get_by_role("option")).to_have_count(60)
    return page


def tile(page: Page, i: int):
    return page.locator(f"[role=option][data-id=t{i}]")


def expect_selected(page: Page, *numbers: int) -> None:
    """Python and the browser both have exactly these tiles selected."""
    names = " ".join(f"t{i}" for i in numbers)
    expect(page.get_by_text(f"selected [{names}]", exact=True)).to_be_visible()
    expect(page.locator("[role=option][aria-selected=true]")).to_have_count(len(numbers))
    expect(page.locator(".status")).to_have_text(f"{len(numbers)} of 60 selected")


def expect_run(page: Page, text: str) -> None:
    expect(page.get_by_text(text, exact=True)).to_be_visible()


def runs(page: Page) -> int:
    found = re.search(r"\d+", page.get_by_text(re.compile(r"^runs \[")).inner_text())
    assert found
    return int(found.group())


def rerun(page: Page, button: str = "Rerun") -> None:
    before = runs(page)
    page.get_by_role("button", name=button).click()
    expect(page.get_by_text(f"runs [{before}]", exact=True)).to_have_count(0)


def switch(page: Page, label: str) -> None:
    page.locator("label", has_text=label).click()


def columns(page: Page) -> int:
    tops = page.get_by_role("option").evaluate_all("all => all.map(e => e.offsetTop)")
    return tops.count(tops[0])


def picture(page: Page, i: int) -> np.ndarray:
    def look() -> np.ndarray:
        shot = tile(page, i).locator(".pic").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("L").resize((28, 28)), float)

    eventually(lambda: look().std() > 20)  # a tile is there before its picture is decoded
    return look()


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_every_tile_has_its_own_picture_in_another_order_too(grid: Page) -> None:
    before = picture(grid, 6)
    assert likeness(picture(grid, 40), before) < 0.3  # pixels are random
    switch(grid, "Reverse")
    expect(grid.get_by_role("option").first).to_have_attribute("data-id", "t59")
    eventually(lambda: likeness(picture(grid, 6), before) > 0.7)


def test_click_selects_and_deselects_and_a_rerun_keeps_it(grid: Page) -> None:
    tile(grid, 7).click()
    tile(grid, 3).click()
    expect_selected(grid, 3, 7)
    rerun(grid)
    expect_selected(grid, 3, 7)
    tile(grid, 7).click()
    expect_selected(grid, 3)


def test_shift_click_selects_a_range(grid: Page) -> None:
    tile(grid, 10).click()
    tile(grid, 14).click(modifiers=["Shift"])
    expect_selected(grid, 10, 11, 12, 13, 14)
    tile(grid, 8).click(modifiers=["Shift"])  # the range turns around its anchor
    expect_selected(grid, 8, 9, 10)


def test_keyboard(grid: Page) -> None:
    across = columns(grid)
    assert across > 3
    keys = grid.keyboard
    tile(grid, 0).focus()
    keys.press("ArrowRight")
    keys.press("Space")
    expect_selected(grid, 1)
    keys.press("ArrowDown")
    expect(tile(grid, 1 + across)).to_be_focused()
    keys.press("ArrowUp")
    keys.press("Shift+ArrowRight")
    keys.press("Shift+ArrowRight")
    expect_selected(grid, 1, 2, 3)
    keys.press("Shift+ArrowLeft")
    expect_selected(grid, 1, 2)
    keys.press("End")
    expect(tile(grid, 59)).to_be_focused()
    keys.press("ArrowLeft")
    keys.press("ArrowDown")  # there is no row below
    expect(tile(grid, 58)).to_be_focused()
    keys.press("Home")
    expect(tile(grid, 0)).to_be_focused()
    expect(grid.locator("[role=option][tabindex='0']")).to_have_count(1)
    keys.press("Control+a")
    expect_selected(grid, *range(60))
    keys.press("Escape")
    expect_selected(grid)
    expect(tile(grid, 0)).to_be_focused()  # through all those reruns


def test_fifty_quick_keys_lose_none(grid: Page) -> None:
    tile(grid, 0).focus()
    for _ in range(25):
        grid.keyboard.press("Space")
        grid.keyboard.press("ArrowRight")
    expect_selected(grid, *range(25))


def test_a_button_right_after_a_click_sees_the_selection(grid: Page) -> None:
    tile(grid, 0).locator("xpath=..").evaluate(
        """list => {
            for (const i of [0, 1, 2]) list.children[i].click();
            const button = [...document.querySelectorAll('button')].find(b => b.textContent === 'Rerun');
            button.focus();
            button.click();
        }"""
    )
    expect_run(grid, "button saw [t0 t1 t2]")
    expect_selected(grid, 0, 1, 2)


def test_a_click_during_a_bulk_action_is_kept(grid: Page) -> None:
    tile(grid, 2).click()
    tile(grid, 3).click()
    expect_selected(grid, 2, 3)
    grid.get_by_role("button", name="Bulk action").click()
    expect_run(grid, "In action")
    tile(grid, 9).click()
    expect_selected(grid, 9)


def test_open_is_told_once_per_request(grid: Page) -> None:
    tile(grid, 4).focus()
    grid.keyboard.press("Enter")
    expect_run(grid, "opens [t4]")
    expect_run(grid, "opened now [t4]")
    rerun(grid)
    expect_run(grid, "opened now [None]")
    tile(grid, 6).click()
    expect_selected(grid, 6)
    expect_run(grid, "opens [t4]")
    tile(grid, 4).focus()
    grid.keyboard.down("Enter")
    grid.keyboard.down("Enter")  # held down
    grid.keyboard.up("Enter")
    expect_run(grid, "opens [t4 t4]")
    tile(grid, 9).dblclick()
    expect_run(grid, "opens [t4 t4 t9]")
    rerun(grid)
    expect_run(grid, "opens [t4 t4 t9]")
    expect_selected(grid, 6)


def test_texts_are_shown_as_text(grid: Page) -> None:
    expect(tile(grid, 0).locator(".caption")).to_have_text("<img src=x onerror=alert(1)>")
    expect(tile(grid, 1).locator(".caption")).to_have_text("![](http://example.com/x.png)")
    expect(grid.locator("[role=listbox] img, [role=listbox] script")).to_have_count(0)
    assert (tile(grid, 1).get_attribute("title") or "").startswith("<b>item 1</b>; influence ")


def test_names_for_screen_readers(grid: Page) -> None:
    expect(grid.get_by_role("listbox", name="Training images")).to_have_attribute("aria-multiselectable", "true")
    label = tile(grid, 10).get_attribute("aria-label") or ""
    assert re.fullmatch(r"given 0 · seen as 1, influence [+-]0\.\d+ (helpful|harmful), looks wrong", label)
    assert (tile(grid, 4).get_attribute("aria-label") or "").endswith(", removed")


def test_clear_from_python(grid: Page) -> None:
    tile(grid, 2).click()
    tile(grid, 3).click()
    expect_selected(grid, 2, 3)
    rerun(grid, "Bulk action")
    expect_selected(grid)
    tile(grid, 5).click()
    expect_selected(grid, 5)
    rerun(grid)
    expect_selected(grid, 5)


def test_other_order_keeps_and_other_tiles_empty_the_selection(grid: Page) -> None:
    tile(grid, 2).click()
    tile(grid, 3).click()
    expect_selected(grid, 2, 3)
    switch(grid, "Reverse")
    expect_selected(grid, 3, 2)
    switch(grid, "Other tiles")
    expect(grid.locator("[data-id=other2]")).to_be_visible()
    expect_selected(grid)
    switch(grid, "Other tiles")
    expect(tile(grid, 2)).to_be_visible()
    expect_selected(grid)


def test_the_selection_survives_leaving_and_coming_back(grid: Page) -> None:
    tile(grid, 2).click()
    tile(grid, 30).click()
    expect_selected(grid, 2, 30)
    switch(grid, "Show")
    expect(grid.get_by_role("option")).to_have_count(0)
    switch(grid, "Show")
    expect(grid.get_by_role("option")).to_have_count(60)
    expect_selected(grid, 2, 30)
    tile(grid, 30).click()
    expect_selected(grid, 2)
    tile(grid, 2).focus()
    grid.keyboard.press("Enter")
    expect_run(grid, "opens [t2]")


def test_handled_keys_stop_at_the_grid_and_others_pass(grid: Page) -> None:
    grid.evaluate("window.heard = []; document.addEventListener('keydown', e => window.heard.push(e.key))")
    tile(grid, 0).focus()
    for key in ("Space", "ArrowRight", "Shift+ArrowRight", "End", "Escape", "k", "Escape"):
        grid.keyboard.press(key)
    # With nothing selected, Escape is not ours (it may close a dialog that holds the grid).
    assert grid.evaluate("window.heard.filter(key => key !== 'Shift')") == ["k", "Escape"]
    expect_selected(grid)


def test_leaving_before_the_pictures_are_loaded_is_no_error(page: Page) -> None:
    """The fixture fails if the browser reports one."""
    atlas = jpeg_atlas(np.zeros((1, 28, 28), np.uint8), tile_px=84)
    header = {"key": "k", "label": "", "selectable": True, "session": "s", "epoch": 0, "base": [], "ack": None}
    header |= {"atlas": "a", "columns": 1, "rows": 1, "tile": 84, "pitch": 84, "tiles": [["t", "", 0, "", 0, "", ""]]}
    code, css = ((ROOT / "assets" / name).read_text(encoding="utf-8") for name in ("grid.js", "grid.css"))
    page.evaluate(LEAVE_AT_ONCE, [code, css, list(packet(header, atlas.jpeg))])
