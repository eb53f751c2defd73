"""Command lines as provenance and pages give them."""

from __future__ import annotations

import pytest

from core.runtime.program import with_workspace


@pytest.mark.parametrize("named", [[], ["--workspace", "a"], ["-w", "a"], ["--workspace=a"], ["-wa"]])
def test_a_workspace_takes_the_place_of_the_one_named(named: list[str]) -> None:
    assert with_workspace(["rank", *named, "--target", "h0"], "b") == ["rank", "--workspace", "b", "--target", "h0"]
    assert with_workspace(["review", "queue", *named], "b") == ["review", "queue", "--workspace", "b"]
