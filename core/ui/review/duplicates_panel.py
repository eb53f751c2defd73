"""Show duplicates and leaks: pairs side by side, actions on them, and the splits that they cross."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from core.actions.decide import without_found_errors
from core.actions.duplicates import newest_duplicates
from core.decisions.log import Item
from core.tasks.changes import Changes
from core.ui.charts.common import CONFIG, HARMFUL, NEUTRAL
from core.ui.grid.component import Tile, clear_selection, image_grid
from core.ui.grid.pictures import pixels
from core.ui.review.decide import decide, decision_buttons, removal_bar
from core.ui.shell.command import command_block
from core.ui.shell.context import Context, table
from core.ui.shell.early_values import early_page
from core.ui.shell.jobs import job_panel, start_button
from core.ui.shell.text import count, shorten
from core.workspace.runs import Run

COMMAND = ["review", "duplicates"]
GRID = "duplicates_grid"
PAIRS_PER_PAGE = 60
NO_DUPLICATES = "There are no duplicates among the"
NO_LEAKS = "There are no leaks:"


def duplicates_panel(context: Context) -> None:
    """Draw the search for duplicates: a button that starts it, then its results."""
    run = newest_duplicates(context.workspace, context.project)
    job_panel(context.workspace.jobs, " ".join(COMMAND))
    if run is None:
        st.info(
            "Duplicates have not been searched for yet. Duplicates in support and query of one task, or in training "
            "and held-out tasks, make a model look better than it is; with different classes they cannot both be right."
        )
        start_button(context, "Find duplicates", "Find duplicates", COMMAND, key="duplicates_start", primary=True)
        command_block(context, COMMAND)
        return
    changes = removal_bar(context, "duplicate")
    decided: Collection[Item] = ()
    if changes is not None:
        decided = context.workspace.decisions.current()
    _figures(run)
    pairs, leaks = table(run, "pairs.parquet"), table(run, "leaks.parquet")
    st.subheader("Pairs")
    _pairs(context, run, pairs, changes, decided)
    st.subheader("Leaks")
    _leaks(context, run, leaks, decided)
    with st.expander("How near-duplicates are defined"):
        _threshold(run)
    command_block(context, COMMAND)


def _figures(run: Run) -> None:
    found = run.json("summary.json")
    leaks = found["leaks"]
    figures = (
        ("Identical pairs", found["exact"]),
        ("Nearly identical", found["near"]),
        ("Different given classes", found["contradictions"]),
        ("Support and query", leaks["support-query"] + leaks["support-query, held out"]),
        ("Training and held out", leaks["train-heldout"]),
    )
    for column, (label, value) in zip(st.columns(len(figures)), figures, strict=True):
        column.metric(label, f"{value:,}", border=True, height="stretch")


def _pairs(context: Context, run: Run, pairs: pd.DataFrame, changes: Changes | None, decided: Collection[Item]) -> None:
    if pairs.empty:
        st.success(f"{NO_DUPLICATES} {run.json('summary.json')['images']:,} images of the tasks.")
        return
    done = [item.image_id for item in decided if item.kind == "image"]
    masks = {
        "All": pairs["exact"] | True,
        "Different given classes": pairs["contradiction"],
        "Identical": pairs["exact"],
        "Nearly identical": ~pairs["exact"],
        "Undecided": ~(pairs["image_id"].isin(done) | pairs["other"].isin(done)),
    }
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    chosen = left.segmented_control("Show", list(masks), default="All", key="duplicates_show") or "All"
    shown = pairs[masks[chosen]].reset_index(drop=True)
    last = max(0, (len(shown) - 1) // PAIRS_PER_PAGE)
    number = early_page("duplicates_page", last + 1)
    number = int(right.number_input(f"Page of {last + 1}", 1, last + 1, number, key="duplicates_page"))
    if shown.empty:
        st.info("No pairs of this kind.")
        return
    part = shown.iloc[(number - 1) * PAIRS_PER_PAGE : number * PAIRS_PER_PAGE]
    bar = st.container(horizontal=True, vertical_alignment="center")
    items = _selected_items(context, part, changes or Changes())
    with bar:
        reasons = ("a duplicate, selected on the Images page", "a duplicate, reviewed on the Images page")
        what = f"{len(items)} selected"
        decision_buttons(context, (st, st), items, what, run.id, reasons, key="duplicates", grid=GRID, width="content")
        duplicates = [] if changes is None else _duplicates_to_remove(shown, context, changes)
        if st.button(
            f"Remove one of each pair shown ({len(duplicates)})", disabled=not duplicates, key="duplicates_remove_each"
        ):
            decide(context, duplicates, "remove", run.id, "a duplicate of another image", "duplicate")
            clear_selection(GRID)
            st.rerun()
        st.caption(
            f"{count(len(shown), 'pair')}; the two images of a pair are side by side. Of pairs with different given "
            "classes, neither is removed automatically: check which label is wrong."
        )


def _selected_items(context: Context, part: pd.DataFrame, changes: Changes) -> list[Item]:
    """Draw the pairs, two tiles each; return the selected images that are in the training tasks."""
    removed = changes.images
    tiles, images, training = [], [], {}
    for row, pair in zip(part.index, part.to_dict("records"), strict=True):
        near = "identical" if pair["exact"] else f"distance {pair['distance']:.3f}"
        for image, given, inside in (
            (pair["image_id"], pair["class"], pair["training"]),
            (pair["other"], pair["other_class"], pair["other_training"]),
        ):
            images.append(image)
            mark = "removed" if image in removed else "alert" if pair["contradiction"] else ""
            where = "" if inside else "; only in held-out tasks, so it cannot be removed here"
            tile = Tile(
                id=f"{row}:{image}",
                caption=f"{row + 1} · given {shorten(given, 12)}",
                mark=mark,
                tooltip=f"Pair {row + 1}, {near}: {image}, given {given}{where}",
            )
            tiles.append(tile)
            if inside:
                training[tile.id] = Item("image", image_id=image)
    selected = image_grid(pixels(context, images), tiles, key=GRID, label="Pairs of duplicates").selected
    return list(dict.fromkeys(training[one] for one in selected if one in training))


def _duplicates_to_remove(shown: pd.DataFrame, context: Context, changes: Changes) -> list[Item]:
    """Return the item to remove from each pair of the same class: the second image in the training tasks.

    Pairs of which one image is already removed are skipped, and so are label errors that were found.
    """
    removed, going = changes.images, dict[str, None]()
    for pair in shown[~shown["contradiction"]].to_dict("records"):
        ends = [(pair["other"], pair["other_training"]), (pair["image_id"], pair["training"])]
        if any(image in removed or image in going for image, _ in ends):
            continue
        going.update(dict.fromkeys([image for image, inside in ends if inside][:1]))
    items = [Item("image", image_id=image) for image in going]
    return without_found_errors(context.workspace, items, "duplicate")


def _leaks(context: Context, run: Run, leaks: pd.DataFrame, decided: Collection[Item]) -> None:
    if leaks.empty:
        st.success(
            f"{NO_LEAKS} no image or duplicate is in support and query of one task, or in training and held-out tasks."
        )
        return
    names = {
        ("support-query", "training"): "support and query of a training task",
        ("support-query", "held-out"): "support and query of a held-out task",
        ("train-heldout", ""): "training and held-out tasks",
    }
    shown = leaks.assign(between=[names[key] for key in zip(leaks["kind"], leaks["part"], strict=True)])
    st.dataframe(
        shown[["between", "image_id", "class", "other", "other_class", "distance", "tasks", "other_tasks"]],
        hide_index=True,
        column_config={
            "between": "Between",
            "image_id": "Image (support, training)",
            "class": "Given class",
            "other": "Duplicate (query, held-out)",
            "other_class": "Given class of the duplicate",
            "distance": st.column_config.NumberColumn("Distance", format="%.3f", help="0: identical pixels."),
            "tasks": "Tasks",
            "other_tasks": "Tasks of the duplicate",
        },
    )
    inside = leaks[(leaks["kind"] == "support-query") & (leaks["part"] == "training")]
    rows = [
        Item("instance", task[0], "query", other) for task, other in zip(inside["tasks"], inside["other"], strict=True)
    ]
    across = [Item("image", image_id=image) for image in leaks.loc[leaks["kind"] == "train-heldout", "image_id"]]
    left, right = st.columns(2)
    for column, items, label, reason, key in (
        (left, rows, "query rows", "its duplicate is in the support of the task", "duplicates_query"),
        (right, across, "training images", "its duplicate is in a held-out task", "duplicates_across"),
    ):
        new = [item for item in dict.fromkeys(items) if item not in decided]
        if column.button(f"Remove the {label} ({len(new)})", disabled=not new, key=key):
            decide(context, new, "remove", run.id, reason, "duplicate")
            st.rerun()


def _threshold(run: Run) -> None:
    found = run.json("summary.json")
    if not found["threshold"]:
        st.caption("There are too few images to estimate a threshold, so only identical images were searched for.")
        return
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    middle = [(low + high) / 2 for low, high in pairwise(edges)]
    colours = [HARMFUL if x < found["threshold"] else NEUTRAL for x in middle]
    figure = go.Figure(go.Bar(x=middle, y=counts, marker_color=colours, width=edges[1] - edges[0]))
    figure.add_vline(x=found["threshold"], line_width=2, line_dash="dot", line_color=HARMFUL)
    figure.update_layout(
        height=220,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        bargap=0,
        xaxis={"title": "distance to the nearest image / distance to the eighth nearest", "fixedrange": True},
        yaxis={"title": "images", "type": "log", "fixedrange": True},
    )
    st.plotly_chart(figure, config=CONFIG, key="duplicates_threshold")
    st.caption(
        f"Pairs below a ratio of {found['threshold']:.2f} are near-duplicates. Among images without duplicates, small "
        f"ratios follow a power law (exponent {found['power']:.1f}, estimated from the middle of these ratios), so one "
        "image of the whole set is expected below the threshold by chance."
    )
