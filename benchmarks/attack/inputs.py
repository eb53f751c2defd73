"""Send made-up values of widgets and components to the server, as a forged browser would.

A client speaks the websocket protocol of Streamlit: it opens every page, collects the widgets that the page draws, and
sends values for them that no browser would send: of other types, too long, with control characters, broken JSON,
operations of the review grid with wrong fields. Buttons are left out, as they start computations. Nothing may show or
log an unexpected error, and the server must still answer in the end.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.sync.client import ClientConnection, connect

from core.runtime.files import HOME_VARIABLE
from core.ui.shell.navigation import TITLES
from tests.e2e.server import ROOT, Server, start_server

WORKSPACE = "demo-noisy-images"
ANSWER_SECONDS = 60.0
WIDGETS_AT_ONCE = 6
_MAX_BYTES = 1 << 28
_VIEW = ("name", "page", "at", "find", "focus")
_LEFT_OUT = ("button", "download_button", "link_button", "file_uploader", "menu_button", "page_link")
TEXTS = (
    "", " ", "\u0000", "\ufeff", "\u2028", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "a" * 100_000, "../../../etc/passwd", "/dev/zero", "/proc/self/mem", "\x1b[2J", "<script>alert(1)</script>",
    "[a](http://example.com)", "=1+1", "nan", "1e999", "-0", "9" * 400, "null", "{}", "[[[[", "%00", "$HOME", "'; --",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2**31, 2**53, -(2**62), 1 << 62)
DOUBLES = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e308, 5e-324)


@dataclass
class InputFigures:
    """What came of the values.

    Attributes:
        sent: Number of values.
        refused: Values that Streamlit could not read, such as text for a number; the guard names them on the page.
        bugs: Unexpected exceptions in the product.
        redacted: Errors that a page shows without a sentence, by page.
        silent: Sessions that did not answer.
        answers_at_end: Whether a page opens after all that.
    """

    sent: int = 0
    refused: int = 0
    bugs: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    answers_at_end: bool = False


def attack_inputs(values: int, seed: int = 0) -> InputFigures:
    """Send about so many values, evenly to all pages."""
    figures, chance = InputFigures(), random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        server = start_server(ROOT / "app.py", home, {HOME_VARIABLE: temporary})
        try:
            for name in TITLES:
                _attack_page(server, name, values // len(TITLES), chance, figures)
            with _session(server) as socket:
                figures.answers_at_end = bool(_run(socket, "overview", [])[0])
        finally:
            server.stop()
        _count_bugs(server.log.read_text(errors="replace"), figures)
    return figures


def _attack_page(server: Server, name: str, values: int, chance: random.Random, figures: InputFigures) -> None:
    sent = 0
    while sent < values:
        with _session(server) as socket:
            widgets, _ = _run(socket, name, [])
            for _ in range(40):
                if sent >= values or not widgets:
                    break
                chosen = chance.sample(sorted(widgets), min(WIDGETS_AT_ONCE, len(widgets)))
                states = [_made_up(one, widgets[one], chance) for one in chosen]
                sent += len(states)
                try:
                    found, errors = _run(socket, name, states)
                except TimeoutError:
                    figures.silent.append(f"{name}: {[str(state)[:200] for state in states]}")
                    break
                widgets |= found
                figures.redacted += [f"{name}: {error}" for error in errors]
        if not widgets:
            break
    figures.sent += sent


def _count_bugs(log: str, figures: InputFigures) -> None:
    """Count what the guard logged, by whose code raised it: Streamlit's, which reads the values, or the product's."""
    for report in re.split(r"^Bug ", log, flags=re.M)[1:]:
        raised = [
            at for at in re.findall(r'^  File "(.+)", line', report, re.M) if "streamlit" in at or _is_product(at)
        ]
        if raised and not _is_product(raised[-1]):
            figures.refused += 1
        else:
            figures.bugs.append(report.split("\n\n")[0])


def _is_product(file: str) -> bool:
    return any(Path(file).is_relative_to(ROOT / part) for part in ("core", "pages"))


def _session(server: Server) -> ClientConnection:
    address = server.url.replace("http", "ws") + "/_stcore/stream"
    return connect(address, subprotocols=["streamlit"], origin=server.url, max_size=_MAX_BYTES, close_timeout=1)


def _run(socket: ClientConnection, page: str, states: list[WidgetState]) -> tuple[dict[str, str], list[str]]:
    """Run a page with these values; return the kinds of its widgets by id, and the unexpected errors that it shows."""
    message = BackMsg()
    message.rerun_script.query_string = f"workspace={WORKSPACE}"
    message.rerun_script.page_name = page
    message.rerun_script.widget_states.widgets.extend(states)
    socket.send(message.SerializeToString())
    widgets: dict[str, str] = {}
    errors: list[str] = []
    while True:
        answer = ForwardMsg()
        answer.ParseFromString(socket.recv(timeout=ANSWER_SECONDS))
        if answer.WhichOneof("type") == "script_finished":
            if answer.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                continue
            return widgets, errors
        if answer.WhichOneof("type") != "delta" or answer.delta.WhichOneof("type") != "new_element":
            continue
        element = answer.delta.new_element
        kind = element.WhichOneof("type")
        if kind == "exception":
            errors.append(f"{element.exception.type}: {element.exception.message[:200]}")
        elif kind and kind not in _LEFT_OUT and (widget := getattr(getattr(element, kind), "id", "")):
            widgets[widget] = kind


def _made_up(widget: str, kind: str, chance: random.Random) -> WidgetState:
    state = WidgetState(id=widget)
    fields: dict[str, list[str]] = {
        "bidi_component": ["json_value", "json_trigger_value"],
        "text_input": ["string_value"],
        "text_area": ["string_value"],
        "checkbox": ["bool_value"],
        "selectbox": ["string_value", "int_value"],
        "radio": ["int_value", "string_value"],
        "number_input": ["double_value", "int_value", "string_value"],
        "slider": ["double_array_value"],
        "multiselect": ["string_array_value", "int_array_value"],
        "dataframe": ["string_value"],
        "plotly_chart": ["string_value"],
        "button_group": ["string_array_value", "int_array_value"],
    }
    every = sorted({one for group in fields.values() for one in group})
    wanted = chance.choice(fields.get(kind, every) if chance.random() < 0.9 else every)
    if wanted in ("json_value", "json_trigger_value") or kind in ("dataframe", "plotly_chart"):
        text = json.dumps(next(_reports(chance))) if chance.random() < 0.8 else chance.choice(TEXTS)
        setattr(state, wanted if wanted.startswith(("json", "string_v")) else "string_value", text)
    elif wanted == "string_value":
        state.string_value = chance.choice(TEXTS)
    elif wanted == "bool_value":
        state.bool_value = chance.random() < 0.5
    elif wanted == "int_value":
        state.int_value = chance.choice(NUMBERS)
    elif wanted == "double_value":
        state.double_value = chance.choice(DOUBLES)
    elif wanted == "double_array_value":
        state.double_array_value.data.extend(chance.choices(DOUBLES, k=chance.randrange(4)))
    elif wanted == "int_array_value":
        state.int_array_value.data.extend(chance.choices(NUMBERS, k=chance.randrange(4)))
    else:
        state.string_array_value.data.extend(chance.choices(TEXTS, k=chance.randrange(4)))
    return state


def _reports(chance: random.Random) -> Iterator[Any]:
    """Yield reports of the grids and selections of charts and tables with wrong fields."""
    values: tuple[Any, ...] = (
        None, True, -1, 2**70, 1.5, "", "x" * 1000, [], {}, [None], {"a": 1}, "keep", "remove", "relabel", 0, 1,
    )  # fmt: skip
    while True:
        operation = {
            name: chance.choice(values)
            for name in (
                "token",
                "seq",
                "at",
                "act",
                "verdict",
                "label",
                "items",
                "set",
                "text",
                "run",
                "cause",
                "seen",
            )
            if chance.random() < 0.8
        }
        yield chance.choice(
            (
                {"report": {"name": f"n{chance.random()}", "scope": f"{WORKSPACE}/me", "log": [operation, operation]}},
                {
                    "report": {
                        **{"name": f"n{chance.random()}", "scope": '["demo-noisy-images","me"]', "log": [operation]},
                        "view": chance.choice(values),
                    }
                },
                {"report": chance.choice(values)},
                {"report": {"view": {name: chance.choice(values) for name in _VIEW}}},
                {"selection": {name: chance.choice(values) for name in ("rows", "columns", "points", "box", "lasso")}},
                {"selection": chance.choice(values)},
                {name: chance.choice(values) for name in ("select", "open", "chosen", "focus", "page")},
                chance.choice(values),
            )
        )
