"""The HTML that the server sends for the addresses of the pages."""

from __future__ import annotations

from html import escape
from pathlib import Path

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from streamlit.file_util import get_static_dir

from core.ui.server.login_settings import CALLBACK
from core.ui.server.middleware import refusal
from core.ui.shell.navigation import DEFAULT_PAGE, TITLES

# All addresses of pages lie at the same depth. Told so, Streamlit's script does not look for its server below each.
_SCRIPT = '<script>window.__streamlit = {BACKEND_BASE_URL: new URL("./", window.location.href).href}</script>'


class _PageName(Convertor[str]):
    """Names that could be pages: Streamlit's own files have a dot, and only the answer to a login has none."""

    regex = f"(?!{CALLBACK.lstrip('/')}$)[^/.]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("page_name", _PageName())


def page_html() -> str:
    """Return Streamlit's page with the address of the server and the title."""
    html = (Path(get_static_dir()) / "index.html").read_text(encoding="utf-8")
    return html.replace("<head>", f"<head>{_SCRIPT}", 1).replace("<title>Streamlit</title>", "<title>TaskLens</title>")


def page_routes(base_path: str) -> list[Route]:
    """Return the routes of all pages, and of all other names, whose answer lists the pages.

    The default page has the address of the dashboard, and its name leads there.
    """
    html = page_html()

    async def show(_: Request) -> Response:
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

    async def show_default(request: Request) -> Response:
        return Response(status_code=307, headers={"Location": f"./?{request.url.query}".rstrip("?")})

    async def show_unknown(request: Request) -> Response:
        path = request.scope["path"].removeprefix(f"{base_path}/")
        up = "../" * path.count("/") or "./"
        links = ", ".join(
            f'<a href="{up}{"" if name == DEFAULT_PAGE else name}">{escape(title)}</a>'
            for name, title in TITLES.items()
        )
        return refusal("No such page", f"There is no page “{path}”.", f"Pages: {links}.", 404)

    names = [name for name in TITLES if name != DEFAULT_PAGE]
    return [
        Route(f"{base_path}/{DEFAULT_PAGE}", show_default),
        *(Route(f"{base_path}/{name}", show) for name in ["", *names]),
        Route(f"{base_path}/{{name:page_name}}", show_unknown),
        *(Route(f"{base_path}/{name}/{{below}}{{rest:path}}", show_unknown) for name in TITLES),
    ]
