"""Streamlit's widgets used the way a person uses them: once the page is at rest, and again where a menu closed."""

from __future__ import annotations

import re

from playwright.sync_api import Page, TimeoutError, expect


def settled(page: Page) -> None:
    """Wait until no script is running: what is typed while a page is still being drawn may get lost."""
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")


def fill(page: Page, label: str | re.Pattern[str], value: str) -> None:
    """Type into a field of that label that can be seen, and leave it."""
    settled(page)
    field = page.get_by_label(label, exact=True).and_(page.locator("input:visible")).first
    field.fill(value)
    field.press("Tab")
    settled(page)
    expect(field).to_have_value(value)


def choose(page: Page, label: str, value: str) -> None:
    """Pick from a drop-down, which closes when the page happens to be drawn again."""
    option = page.get_by_role("option", name=value, exact=True)
    for last in (False, False, True):
        settled(page)
        page.get_by_role("combobox", name=re.compile(re.escape(label))).first.click()
        try:
            option.click(timeout=None if last else 4_000)
            return
        except TimeoutError:
            if last:
                raise


def unfold(page: Page, title: str) -> None:
    """Open an expander if it is closed."""
    settled(page)
    box = page.locator("details").filter(has=page.get_by_text(title, exact=True)).first
    expect(box).to_be_visible()
    if box.get_attribute("open") is None:
        box.locator("summary").click()


def press(page: Page, name: str) -> None:
    """Press a button that can be seen; what was typed last may still be on its way to enable it."""
    settled(page)
    page.get_by_role("button", name=name, exact=True).filter(visible=True).first.click()
