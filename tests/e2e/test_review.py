"""The Review page in a real browser: keys and mouse, filters, views, and what a screen reader gets."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from core.decisions.causes import CAUSE_WORDS
from core.decisions.log import DecisionLog
from core.review.filters import Filters
from core.review.saved_views import save_view
from core.ui.review.detail import REASONS
from core.workspace.workspace import Workspace
from tests.e2e.review_pages import (
    ITEMS,
    LIKELY,
    UNLIKELY,
    decisions,
    eventually,
    grid,
    open_review,
    press,
    said,
    tile,
    tiles,
    verdict,
)


@pytest.fixture
def url(app: str) -> str:
    return app


def status(page: Page, text: str | re.Pattern[str]) -> None:
    expect(grid(page).locator(".status")).to_have_text(text)


def test_one_key_each(review: Page, workspace: Workspace) -> None:
    press(review, "k x u a")
    for position, text in enumerate(["✓ keep", "✕ remove", "? unsure"]):
        expect(verdict(review, position)).to_have_text(text)
    expect(verdict(review, 3)).to_have_text(re.compile("^→ "))
    expect(tile(review, 4)).to_be_focused()
    given = grid(review).locator(".chips button").all_inner_texts()
    label = next(text for text in given if text != tile(review, 4).locator(".given").inner_text())
    press(review, label)
    expect(verdict(review, 4)).to_have_text(f"→ {label}")
    eventually(lambda: len(decisions(workspace)) == 5)
    assert list(said(workspace).values()) == ["keep", "remove", "unsure", "relabel", "relabel"]
    entry = decisions(workspace)[4]
    assert workspace.project().images.class_names[entry.label or 0] == label
    assert (entry.reviewer, entry.source) == ("me", workspace.runs.all("queue")[0].id)

    press(review, "z z")  # undo and redo, shown at once
    expect(verdict(review, 4)).to_have_text("")
    expect(verdict(review, 3)).to_have_text("")
    eventually(lambda: len(decisions(workspace)) == 3)
    press(review, "shift+z")
    expect(verdict(review, 3)).to_have_text(re.compile("^→ "))
    eventually(lambda: len(decisions(workspace)) == 4)
    press(review, "Home Backspace")
    expect(verdict(review, 0)).to_have_text("")
    eventually(lambda: 0 not in decisions(workspace))
    press(review, "r c")  # Streamlit's own keys: the page would run again, or ask whether to clear caches
    expect(review.get_by_test_id("stDialog")).to_have_count(0)
    expect(grid(review).locator(".summary")).to_have_text(f"2 of {ITEMS} decided")  # one is unsure


def test_moving_selecting_and_deciding_on_many(review: Page, workspace: Workspace) -> None:
    press(review, "right right left End")
    expect(tile(review, 119)).to_be_focused()
    press(review, "right")  # past the end
    expect(tile(review, 120)).to_be_focused()
    press(review, "left")
    expect(tile(review, 119)).to_be_focused()
    press(review, "Home s right s")
    expect(grid(review).locator(".tile[aria-selected=true]")).to_have_count(2)
    tile(review, 4).click(modifiers=["ControlOrMeta"])
    tile(review, 7).click(modifiers=["Shift"])
    expect(grid(review).locator(".tile[aria-selected=true]")).to_have_count(6)
    press(review, "x")
    eventually(lambda: list(said(workspace)) == [0, 1, 4, 5, 6, 7])
    expect(tile(review, 8)).to_be_focused()
    press(review, "ctrl+a Escape")
    expect(grid(review).locator(".tile[aria-selected=true]")).to_have_count(0)
    review.get_by_role("button", name=f"Select all {ITEMS}").click()
    press(review, "k")
    eventually(lambda: set(said(workspace).values()) == {"keep"} and len(decisions(workspace)) == ITEMS)
    press(review, "z")
    eventually(lambda: len(decisions(workspace)) == 6)
    status(review, f"Undone: {ITEMS} decisions.")
    press(review, "g")
    review.keyboard.type("150")
    review.keyboard.press("Enter")
    expect(tile(review, 149)).to_be_focused()
    press(review, "g")
    review.keyboard.type(workspace.runs.all("queue")[0].table("items.parquet")["image_id"][3])
    review.keyboard.press("Enter")
    expect(tile(review, 3)).to_be_focused()
    press(review, "g")
    review.keyboard.type("nothing")
    review.keyboard.press("Enter")
    status(review, "No image has the id nothing.")
    press(review, "right")  # details arrive, and with them what was last undone
    shown = workspace.runs.all("queue")[0].table("items.parquet")["image_id"][4]
    expect(grid(review).locator(f'.details .picture[aria-label="Image {shown}"]')).to_be_visible()
    expect(grid(review).locator(".details .hint", has_text="…")).to_have_count(0)
    status(review, "No image has the id nothing.")


def test_accepting_for_many_takes_the_likelier_class(review: Page, workspace: Workspace) -> None:
    tile(review, UNLIKELY).click()
    press(review, "s right s a")
    expect(verdict(review, UNLIKELY)).to_have_text("✓ keep")
    expect(verdict(review, LIKELY)).to_have_text(re.compile("^→ "))
    tile(review, UNLIKELY).click()
    press(review, "a")  # the suggestion that its tile shows
    expect(verdict(review, UNLIKELY)).to_have_text(re.compile("^→ "))
    expect(tile(review, LIKELY)).to_be_focused()  # after a second thought the next item, decided or not
    press(review, tile(review, LIKELY).locator(".given").inner_text())
    expect(verdict(review, LIKELY)).to_have_text("✓ keep")  # the class it has already
    eventually(lambda: said(workspace) == {UNLIKELY: "relabel", LIKELY: "keep"})


def test_fifty_keys_in_a_moment_lose_none(review: Page, workspace: Workspace) -> None:
    review.evaluate(
        """async () => {
            const host = [...document.querySelectorAll('*')].find(
                (one) => one.shadowRoot?.querySelector('.rv [role=listbox]'));
            const root = host.shadowRoot;
            for (let i = 0; i < 50; i++) {
                const key = i % 2 ? 'x' : 'k';
                root.activeElement.dispatchEvent(
                    new KeyboardEvent('keydown', {key, bubbles: true, composed: true, cancelable: true}));
                if (i % 5 === 4) await new Promise((done) => setTimeout(done, 4));
            }
        }"""
    )
    eventually(lambda: len(decisions(workspace)) == 50)
    assert said(workspace) == {at: "remove" if at % 2 else "keep" for at in range(50)}
    assert len(workspace.decisions.history()) == 50
    kept = "Object.keys(localStorage).filter((name) => name.startsWith('tasklens.review.ops')).length"
    eventually(lambda: review.evaluate(kept) == 0)  # what is saved is sent no more


@pytest.mark.parametrize("steps", [8, pytest.param(40, marks=pytest.mark.slow)])
def test_going_back_at_once(review: Page, steps: int) -> None:
    """What was just seen comes back while the browser throws it away, after pauses as a person makes them."""
    place = 1
    for step in range(steps):
        press(review, "right" if step % 4 < 2 else "left")
        place += 1 if step % 4 < 2 else -1
        review.wait_for_timeout(170 + 40 * (step % 7))
    press(review, "space")
    large = review.get_by_role("dialog", name="Large view")
    expect(large.locator(".place")).to_have_text(f"{place} of {ITEMS}")
    expect(large.get_by_text(REASONS)).to_be_visible()
    expect(review.get_by_text("Connection error")).to_have_count(0)


def test_large_view_palette_and_comment(review: Page, workspace: Workspace) -> None:
    press(review, "space")
    large = review.get_by_role("dialog", name="Large view")
    expect(large.get_by_text(REASONS)).to_be_visible()
    press(review, "k")
    expect(large.locator(".place")).to_have_text(f"2 of {ITEMS}")
    press(review, "right left left")
    expect(large.locator(".facts")).to_contain_text("keep")
    large.get_by_role("button", name="Next").click()
    press(review, "x space")
    expect(large).to_have_count(0)
    expect(tile(review, 2)).to_be_focused()
    eventually(lambda: said(workspace) == {0: "keep", 1: "remove"})

    press(review, "l")
    palette = review.get_by_role("dialog", name="Relabel to")
    expect(palette.get_by_role("option").first).to_have_attribute("aria-selected", "true")
    given = tile(review, 2).locator(".given").inner_text()
    wanted = next(name for name in "0123456789" if name != given)
    review.keyboard.type(wanted)
    expect(palette.get_by_role("option")).to_have_count(1)
    review.keyboard.press("Enter")
    expect(verdict(review, 2)).to_have_text(f"→ {wanted}")

    press(review, "m")
    review.keyboard.type("Half a seven, rk")  # typing decides nothing
    review.keyboard.press("Enter")
    eventually(lambda: len(DecisionLog(workspace.folder / "decisions.sqlite").comments()) == 1)
    expect(tile(review, 3).locator(".marks")).to_have_text("✎")
    expect(review.locator("aside")).to_contain_text("Half a seven, rk")
    assert len(decisions(workspace)) == 3

    press(review, "c")
    causes = review.get_by_role("dialog", name="Remove as")
    expect(causes.get_by_role("option")).to_have_text([*CAUSE_WORDS.values()])
    review.keyboard.type("dupl")
    review.keyboard.press("Enter")
    expect(verdict(review, 3)).to_have_text("✕ duplicate")
    expect(tile(review, 4)).to_be_focused()
    eventually(lambda: 3 in decisions(workspace))
    assert [decisions(workspace)[at].cause for at in (1, 3)] == ["label-error", "duplicate"]
    press(review, "z")
    expect(verdict(review, 3)).to_have_text("")


def test_other_keys(review: Page, workspace: Workspace) -> None:
    press(review, "?")
    sheet = review.get_by_role("dialog", name="Keys")
    sheet.get_by_role("button", name=re.compile("^Keep")).click()
    press(review, "x")
    expect(sheet.get_by_role("status")).to_contain_text("already means: Remove")
    sheet.get_by_role("button", name=re.compile("^Keep")).click()
    press(review, "4")
    expect(sheet.get_by_role("status")).to_contain_text("fixed meaning")
    sheet.get_by_role("button", name=re.compile("^Keep")).click()
    press(review, "j")
    expect(sheet.get_by_role("button", name=re.compile("^Keep"))).to_have_text("j")
    press(review, "Escape")
    expect(tile(review, 0)).to_be_focused()
    press(review, "k j")
    eventually(lambda: said(workspace) == {0: "keep"})
    review.reload()
    expect(tile(review, 1)).to_be_focused()  # the first that is undecided
    press(review, "j")
    eventually(lambda: len(decisions(workspace)) == 2)
    press(review, "?")
    sheet.get_by_role("button", name="Reset to defaults").click()
    expect(sheet.get_by_role("button", name=re.compile("^Keep"))).to_have_text("k")


def test_filters_views_and_their_link(page: Page, url: str, workspace: Workspace) -> None:
    table = workspace.runs.all("queue")[0].table("items.parquet")
    some = str(table["class"].iloc[0])
    for name in ("name", "save"):  # what the keys of other widgets end with
        save_view(workspace.folder, name, Filters())
    open_review(page, url, workspace, f"&given={some}&state=undecided&order=margin")
    of_class = table[table["class"] == some].sort_values("margin", ascending=False, kind="stable")
    expect(tiles(page)).to_have_count(len(of_class))
    assert int(tiles(page).first.get_attribute("data-p") or -1) == of_class["rank"].iloc[0]
    press(page, "k")
    expect(tiles(page)).to_have_count(len(of_class))  # what was decided stays in its place
    eventually(lambda: len(decisions(workspace)) == 1)
    page.get_by_role("button", name="Reapply filters").click()
    expect(tiles(page)).to_have_count(len(of_class) - 1)
    page.get_by_role("button", name="Saved views").click()
    name = page.get_by_role("textbox", name="Name of the view")
    name.fill("![](http://evil.example/x.png)")
    name.press("Enter")
    page.get_by_role("button", name="Save view").click()
    expect(page.get_by_role("button", name="![](http://evil.example/x.png)")).to_be_visible()
    page.keyboard.press("Escape")
    tiles(page).first.click(modifiers=["ControlOrMeta"])
    expect(grid(page).locator(".tile[aria-selected=true]")).to_have_count(1)
    page.get_by_role("button", name="Clear filters").click()
    expect(tiles(page)).to_have_count(120)
    expect(page.get_by_role("button", name=re.compile("^Clear selection"))).to_be_hidden()  # other items are shown
    assert "given" not in page.url
    page.get_by_role("button", name="Saved views").click()
    page.get_by_role("button", name="![](http://evil.example/x.png)").click()
    expect(tiles(page)).to_have_count(len(of_class) - 1)
    expect(page).to_have_url(re.compile("given="))
    assert "state=undecided" in page.url


def test_a_lasso_on_the_map_filters(review: Page) -> None:
    review.locator("label", has_text="Map").click()
    chart = review.locator(".st-key-review_map_chart_PCA .nsewdrag")
    expect(chart).to_be_visible()

    def is_drawn() -> bool:
        box = chart.bounding_box()
        assert box
        x, y, w, h = box["x"], box["y"], box["width"], box["height"]
        review.mouse.move(x + w * 0.3, y + h * 0.1)
        review.mouse.down()
        for right, down in ((0.5, 0.1), (0.5, 0.9), (0.3, 0.9), (0.3, 0.2)):
            review.mouse.move(x + w * right, y + h * down, steps=4)
        review.mouse.up()
        try:  # a chart that is drawn again meanwhile, as it is soon after it appears, loses a lasso
            expect(review.get_by_role("button", name="Clear map selection")).to_be_visible(timeout=10_000)
        except AssertionError:
            return False
        return True

    eventually(is_drawn, 60)
    expect(grid(review).locator(".place").first).not_to_contain_text(f"of {ITEMS}")
    assert "lasso=" in review.url


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, url: str, workspace: Workspace, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    open_review(page, url, workspace)
    press(page, "k x u a s right s")
    expect(page.locator("aside").get_by_text(REASONS)).to_be_visible()
    faults = []
    for keys in ("", "space", "Escape ?", "Escape l") if scheme == "light" else ("", "space"):
        press(page, keys)
        # Only what is ours: Streamlit's own widgets have faults that we cannot mend.
        found = Axe().run(page, context=".st-key-review_grid", options={"resultTypes": ["violations"]})
        assert len(found.response["passes"]) > 5
        faults += [
            (keys, one["id"], one["impact"], node["html"][:200], node["failureSummary"][:300])
            for one in found.response["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
    assert not faults
