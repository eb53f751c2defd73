"""csv that spreadsheets open as the text that it is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.data.listing import Listing, TargetFormat, make_table
from core.data.store import store_images
from core.runtime.csv_files import csv_text, escape_formulas, unescape_formulas
from core.runtime.errors import UserError
from core.runtime.files import HOME_VARIABLE

CELLS = st.lists(st.text(st.sampled_from("'=+-@\t\r\n.,\"01ax"), max_size=5), min_size=1, max_size=8)


@given(CELLS)
def test_no_cell_is_a_formula_and_reading_returns_the_text(values: list[str]) -> None:
    table = pd.DataFrame({"text": values}, dtype=object)
    rows = list(csv.reader(io.StringIO(csv_text(table), newline="")))[1:]
    cells = [row[0] for row in rows]
    assert cells == escape_formulas(table)["text"].tolist()
    for cell in cells:
        assert cell[:1] not in ("=", "@", "\t", "\r", "\n")
        assert cell[:1] not in ("+", "-") or float(cell) is not None
    assert unescape_formulas(pd.DataFrame({"text": cells}, dtype=object))["text"].tolist() == values


@pytest.mark.parametrize("name", ["-1", "+1", "-0.5", "+.5", "-1."])
def test_numbers_are_names_of_classes(name: str) -> None:
    assert escape_formulas(pd.DataFrame({"class": [name]}))["class"].tolist() == [name]


def test_the_list_of_unreadable_images_has_no_formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    image = io.BytesIO()
    Image.new("L", (8, 8)).save(image, "PNG")
    contents = [b"no picture", image.getvalue()]
    listing = Listing("bad", make_table(["=HYPERLINK(1)/a.png", "b.png"], ["x", "y"]), contents.__getitem__, "v1")
    with pytest.raises(UserError):
        store_images(listing, form=TargetFormat(size=(8, 8)))
    (file,) = tmp_path.rglob("unreadable.csv")
    assert [row[0] for row in csv.reader(file.open())] == ["id", "'=HYPERLINK(1)/a.png"]
