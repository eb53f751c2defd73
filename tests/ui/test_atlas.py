from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.ui.grid import component as grid
from core.ui.grid.atlas import Atlas, jpeg_atlas
from core.ui.grid.component import Tile
from tests.properties import examples


def decode(atlas: Atlas) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(atlas.jpeg)))


def cell(atlas: Atlas, i: int) -> np.ndarray:
    top, left = i // atlas.columns * atlas.pitch_px, i % atlas.columns * atlas.pitch_px
    return decode(atlas)[top : top + atlas.tile_px, left : left + atlas.tile_px]


@examples(40)
@given(
    n=st.integers(1, 40),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    rgb=st.booleans(),
    tile_px=st.integers(1, 70),
)
def test_every_picture_is_in_its_cell(n: int, height: int, width: int, rgb: bool, tile_px: int) -> None:
    greys = np.linspace(0, 255, n).astype(np.uint8)
    pictures = np.broadcast_to(
        greys.reshape(n, *([1] * (3 if rgb else 2))), (n, height, width, 3) if rgb else (n, height, width)
    )
    atlas = jpeg_atlas(pictures, tile_px=tile_px)
    assert atlas.columns * atlas.rows >= n > atlas.columns * (atlas.rows - 1)
    assert decode(atlas).shape[:2] == (atlas.rows * atlas.pitch_px, atlas.columns * atlas.pitch_px)
    assert (decode(atlas).ndim == 3) == rgb
    if height == width:
        for i in range(n):
            assert np.abs(cell(atlas, i).astype(int) - int(greys[i])).max() <= 14


def test_whole_enlargement_keeps_sharp_pixels() -> None:
    picture = np.random.default_rng(0).choice([0, 255], (1, 28, 28)).astype(np.uint8)
    shown = cell(jpeg_atlas(picture, tile_px=84), 0)
    assert ((shown > 127) == (picture[0] > 127).repeat(3, axis=0).repeat(3, axis=1)).mean() > 0.995


def test_neighbours_do_not_bleed() -> None:
    pictures = np.zeros((4, 10, 10), dtype=np.uint8)
    pictures[1:] = 255
    assert cell(jpeg_atlas(pictures, tile_px=84), 0).max() <= 60  # only from the margin's grey
    assert cell(jpeg_atlas(pictures, tile_px=80), 0).max() <= 2


def test_other_shapes_are_centred() -> None:
    shown = cell(jpeg_atlas(np.full((1, 10, 20), 255, np.uint8), tile_px=40), 0)
    assert shown[20, 20] > 240
    assert abs(int(shown[2, 20]) - 127) < 10


def test_no_pictures() -> None:
    assert jpeg_atlas(np.zeros((0, 28, 28), np.uint8), tile_px=84) == Atlas(b"", 0, 0, 84)


@pytest.mark.parametrize(
    ("pictures", "tile_px"),
    [
        (np.zeros((2, 8, 8), np.float32), 84),
        (np.zeros((8, 8), np.uint8), 84),
        (np.zeros((2, 8, 8, 4), np.uint8), 84),
        (np.zeros((2, 0, 8), np.uint8), 84),
        (np.zeros((2, 8, 8), np.uint8), 0),
        (np.zeros((40_000, 1, 1), np.uint8), 84),
    ],
)
def test_what_cannot_be_drawn_is_refused(pictures: np.ndarray, tile_px: int) -> None:
    with pytest.raises(ValueError, match=r"[Pp]ictures|tile_px"):
        jpeg_atlas(pictures, tile_px=tile_px)


def test_the_cache_tells_large_pictures_apart() -> None:
    a = np.zeros((1000, 28, 28), np.uint8)
    b = a.copy()
    b[500, 14, 14] = 255
    first = grid.cached_atlas(a, 28)
    assert grid.cached_atlas(a.copy(), 28) is first
    assert grid.cached_atlas(b, 28).jpeg != first.jpeg


@pytest.mark.parametrize(
    ("tile", "expected"),
    [
        (Tile("a", ""), (0, "")),
        (Tile("a", "", score=float("nan")), (0, "")),
        (Tile("a", "", score=0.25), (1, "+0.25")),
        (Tile("a", "", score=-0.25), (-1, "−0.25")),
        (Tile("a", "", score=-0.25, score_text="-0.3"), (-1, "-0.3")),
        (Tile("a", "", score=2.0, score_text="2 σ"), (1, "+2 σ")),
        (Tile("a", "", score=0.0), (0, "0")),
    ],
)
def test_score_pill(tile: Tile, expected: tuple[int, str]) -> None:
    assert grid._score(tile) == expected


@given(text=st.text(alphabet=st.characters(exclude_categories=())), jpeg=st.binary(max_size=50))
def test_packet_carries_any_text(text: str, jpeg: bytes) -> None:  # file names may hold lone surrogates
    data = grid.packet({"caption": text}, jpeg)
    end = 4 + int.from_bytes(data[:4], "big")
    assert json.loads(data[4:end]) == {"caption": text}
    assert data[end:] == jpeg


def app() -> None:
    import numpy as np
    import streamlit as st

    from core.ui.grid.component import Tile, clear_selection, image_grid

    st.button("Clear", on_click=clear_selection, args=("g",))
    names = st.session_state.get("names", "abc")
    event = image_grid(np.zeros((len(names), 8, 8), np.uint8), [Tile(n, n) for n in names], key="g", label="Pictures")
    st.text(f"{' '.join(event.selected)}|{event.opened}")


def test_page_tests_can_drive_the_grid_through_session_state() -> None:
    at = AppTest.from_function(app, default_timeout=60).run()
    assert at.text[0].value == "|None"
    at.session_state["g"] = {"grid": {"selected": ["c", "a", "gone"], "opened": {"id": "b", "token": "1"}}}
    assert at.run().text[0].value == "a c|b"
    assert at.run().text[0].value == "a c|None"
    assert at.button[0].click().run().text[0].value == "|None"
    at.session_state["g"] = {"grid": {"selected": ["b"], "opened": {"id": "b", "token": "2"}}}
    assert at.run().text[0].value == "b|b"
    at.session_state["names"] = "bxy"
    assert at.run().text[0].value == "|None"
    at.session_state["names"] = ""
    assert at.run().text[0].value == "|None"
    assert not at.exception


@pytest.mark.parametrize(
    "report", [None, 3, "x", {}, {"grid": 3}, {"grid": {"selected": 3, "opened": 4, "seq": "x", "epoch": []}}]
)
def test_a_broken_report_is_no_event(report: object) -> None:
    at = AppTest.from_function(app, default_timeout=60)
    at.session_state["g"] = report
    assert at.run().text[0].value == "|None"
    assert not at.exception


def bad_app() -> None:
    import numpy as np
    import streamlit as st

    from core.ui.grid.component import Tile, image_grid

    tiles = [Tile(**tile) for tile in st.session_state["tiles"]]
    try:
        image_grid(np.zeros((2, 8, 8), np.uint8), tiles, key="g", label="Pictures")
    except ValueError as error:
        st.text(str(error))  # the page's own error is hidden from users, and so from this test


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ([{"id": "a", "caption": ""}], "2 pictures but 1 tiles."),
        ([{"id": "a", "caption": ""}] * 2, "Two tiles have the same id."),
        ([{"id": "a", "caption": ""}, {"id": "b", "caption": "", "mark": "?"}], "Unknown mark '?'."),
    ],
)
def test_tiles_that_do_not_fit_are_refused(tiles: list[dict[str, str]], message: str) -> None:
    at = AppTest.from_function(bad_app, default_timeout=60)
    at.session_state["tiles"] = tiles
    assert at.run().text[0].value == message
