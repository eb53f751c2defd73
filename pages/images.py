"""Images: the most helpful and the most harmful training images in a grid; a selected one with all its tasks."""

from functools import partial

import streamlit as st

from core.actions.decide import cause_of_order
from core.decisions.log import Item
from core.recommendation.summary import SUSPICIOUS
from core.tasks.changes import Changes
from core.ui.grid.pictures import image_tiles, pixels
from core.ui.ranking.panel import require_ranking
from core.ui.recommendation.panel import (
    FRAMED,
    FRAMED_BY_PREDICTION,
    has_recommendation,
    recommendation_panel,
    with_suspicion,
)
from core.ui.review.decide import decision_buttons, removal_bar
from core.ui.review.duplicates_panel import duplicates_panel
from core.ui.shell.context import page, table
from core.ui.shell.early_values import early_option, early_page
from core.ui.shell.guard import dialog
from core.ui.shell.text import plain
from core.ui.trust.panel import EFFECT_HELP, bar_words, order_words, score_ends, score_words

GRID = "images_grid"
SUSPICION = "Most suspicious"
COLUMNS = {SUSPICION: "suspicion", "Highest loss": "loss"}
ORDERS = {"Most harmful": True, "Most helpful": False}
ROLES = {"all": "score", "support only": "score_support", "query only": "score_query"}
SIZES = (60, 120, 200, 500)
SHOW = ("All", "More likely wrong", "Predicted as another class", "Not removed", "Removed", "Harmful only")

VIEWS = ("By score", "Duplicates and leaks")

with page("Images") as context:
    if (
        st.segmented_control("View", VIEWS, default=VIEWS[0], key="images_view", label_visibility="collapsed")
        == VIEWS[1]
    ):
        duplicates_panel(context)
        st.stop()

    run = require_ranking(context, "images")
    known = has_recommendation(context)
    orders = [*([SUSPICION] if known else []), *ORDERS, "Highest loss"]
    order_key = "images_order_recommended" if known else "images_order"  # its own default
    sorted_by = COLUMNS.get(early_option(order_key, orders, orders[0]), "score")
    removal = removal_bar(context, cause_of_order(run, sorted_by)) or Changes()
    recommended = recommendation_panel(context, "images")
    images = with_suspicion(table(run, "images.parquet"), recommended, "images", ["image_id"])

    one, two, three, four, five = st.columns([2, 2, 2.4, 2.2, 1.2], vertical_alignment="bottom")
    order = one.selectbox("Order", orders, key=order_key, format_func=partial(order_words, run))
    role = two.selectbox(
        "Occurrences", list(ROLES), key="images_role", help="The occurrences of an image that contribute to its score."
    )
    classes = three.multiselect("Given class", sorted(images["class"].unique()), key="images_classes")
    is_possible = {"More likely wrong": recommended is not None, "Harmful only": score_ends(run)[0] == "harmful"}
    show = four.selectbox("Show", [name for name in SHOW if is_possible.get(name, True)], key="images_show")
    size = five.selectbox("Per page", SIZES, index=1, key="images_size")
    score = ROLES[role]
    shown = images[images["class"].isin(classes)] if classes else images
    match show:
        case "More likely wrong":
            shown = shown[shown["probability"] >= SUSPICIOUS]
        case "Predicted as another class":
            shown = shown[shown["class"] != shown["predicted_class"]]
        case "Not removed":
            shown = shown[~shown["image_id"].isin(removal.images)]
        case "Removed":
            shown = shown[shown["image_id"].isin(removal.images)]
        case "Harmful only":
            shown = shown[shown[score] < 0]
    by, ascending = (COLUMNS[order], False) if order in COLUMNS else (score, ORDERS[order])
    shown = shown.sort_values(by, ascending=ascending, kind="stable").reset_index(drop=True)
    if shown.empty:
        st.info("No images match these filters. Clear some of them.")
        st.stop()

    last = (len(shown) - 1) // size
    number = early_page("images_page", last + 1)
    bar = st.container()
    part = shown.iloc[(number - 1) * size : number * size]
    event = image_tiles(context, part, removal, score, GRID)
    if event.opened:
        st.session_state["images_open"] = event.opened
    with bar:
        remove, keep, _, page_number = st.columns([2, 2, 5, 1.6], vertical_alignment="bottom")
        items = [Item("image", image_id=i) for i in event.selected]
        reasons = (f"{order_words(run, order).lower()}, occurrences: {role}", "")
        decision_buttons(
            context, (remove, keep), items, f"{len(items)} selected", run.id, reasons, key="images", grid=GRID
        )
        st.caption(
            f"{len(shown):,} images. Click, shift-click or Ctrl+A to select, double-click or Enter to open. "
            f"{FRAMED if recommended else FRAMED_BY_PREDICTION} {bar_words(run)} {score_words(run, 'image')}"
        )
        page_number.number_input(f"Page of {last + 1}", 1, last + 1, number, key="images_page")

    def details(image_id: str) -> None:
        """Show the image enlarged, with every task that contains it."""
        facts = images[images["image_id"] == image_id].iloc[0]
        picture, words = st.columns([1, 2])
        picture.image(pixels(context, [image_id])[0], width=260, caption=plain(image_id))
        words.markdown(
            f"- Given class **{plain(facts['class'])}**, mostly predicted as "
            f"**{plain(facts.predicted_class)}**; as another class in {facts.disagree:.0%} of its occurrences\n"
            + (f"- Mislabelled with probability {facts.probability:.0%}\n" if facts.probability >= 0 else "")
            + f"- Influence {plain(f'{facts.score:+.2e}')}: {plain(f'{facts.score_support:+.2e}')} as support, "
            f"{plain(f'{facts.score_query:+.2e}')} as query\n- Adapted loss {facts.loss:.3f}\n"
            f"- {'**Removed**' if image_id in removal.images else 'Not removed'}"
        )
        item, reasons = Item("image", image_id=image_id), ("opened on the Images page", "")
        decision_buttons(context, words.columns([1, 1, 2])[:2], [item], "", run.id, reasons, key="images_open")
        instances = table(run, "instances.parquet")
        rows = instances[instances["image_id"] == image_id].sort_values("score", kind="stable")
        st.dataframe(
            rows[["task_id", "role", "class", "predicted_class", "confidence", "loss", "score", "effect"]],
            hide_index=True,
            column_config={
                "task_id": "Task",
                "predicted_class": "Predicted class",
                "confidence": st.column_config.NumberColumn("Probability of given class", format="percent"),
                "loss": st.column_config.NumberColumn("Loss", format="%.3f"),
                "score": st.column_config.NumberColumn("Score", format="%.2e"),
                "effect": st.column_config.NumberColumn("Effect in its task", format="%.2e", help=EFFECT_HELP),
            },
        )

    if opened := st.session_state.pop("images_open", ""):
        dialog("Image", width="large")(details)(opened)
