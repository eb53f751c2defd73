"""The lock file, the lower bounds and the audit of dependencies."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests import audit

ROOT = Path(__file__).parents[1]
LOCK = audit.LOCK.read_text(encoding="utf-8")


def requirements(name: str) -> list[Requirement]:
    """Every requirement of a file, and of those that it names."""
    found: list[Requirement] = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            found += requirements(text.removeprefix("-r "))
        elif text:
            found.append(Requirement(text))
    return found


@cache
def locked() -> dict[str, list[tuple[Requirement, int]]]:
    """Requirements of the lock file by name, each with the number of its hashes."""
    found: dict[str, list[tuple[Requirement, int]]] = {}
    for entry in LOCK.replace("\\\n", " ").splitlines():
        if entry and not entry.startswith("#"):
            requirement = Requirement(entry.partition("--hash")[0].strip())
            hashes = re.findall(r" --hash=sha256:[0-9a-f]{64}\b", entry)
            assert len(hashes) == entry.count("--hash")
            found.setdefault(requirement.name.lower(), []).append((requirement, len(hashes)))
    return found


def test_the_lock_holds_everything_that_is_required() -> None:
    for wanted in requirements("requirements-login.txt"):
        entries = locked()[wanted.name.lower()]
        for entry, _ in entries:
            (pin,) = entry.specifier
            assert pin.operator == "=="
            assert pin.version in wanted.specifier, f"{entry} is not in {wanted}: run make lock"


def test_the_lock_has_hashes_and_names_no_place() -> None:
    assert all(hashes for entries in locked().values() for _, hashes in entries)
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host| @ |^-e", LOCK, re.M)


def test_the_lock_is_closed() -> None:
    """Nothing that a locked package requires on this platform is missing, else pip would refuse the file."""
    missing = [
        (name, text)
        for name in locked()
        for text in _installed_requirements(name)
        if Requirement(text).name.lower().replace("_", "-") not in locked()
    ]
    assert missing == []


def _installed_requirements(name: str) -> list[str]:
    """What a package requires here without extras; nothing if another version than the locked one is installed."""
    try:
        installed = version(name)
    except ModuleNotFoundError:
        return []
    if all(f"=={installed}" != str(entry.specifier) for entry, _ in locked()[name]):
        return []
    texts = requires(name) or []
    return [text for text in texts if (marker := Requirement(text).marker) is None or marker.evaluate({"extra": ""})]


def test_every_bound_of_the_product_has_both_ends() -> None:
    for wanted in requirements("requirements-login.txt"):
        assert {"<", ">="} <= {part.operator for part in wanted.specifier}, wanted


def test_the_lowest_streamlit_has_what_the_dashboard_calls() -> None:
    """``App(on_script_error=...)`` and sessions that end with their login came with 1.67."""
    (wanted,) = (one for one in requirements("requirements.txt") if one.name == "streamlit")
    assert not wanted.specifier.contains("1.66.1")
    assert Version(version("streamlit")) in wanted.specifier


Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


class Advisories:
    """A service on this machine that answers as OSV does."""

    def __init__(self) -> None:
        self.answer: Answer = lambda query: (200, b"{}")
        self.asked: list[dict[str, Any]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append(query)
                code, content = service.answer(query)
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/query"


@pytest.fixture
def advisories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Advisories]:
    made = Advisories()
    threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv(audit.SERVICE_VARIABLE, made.url)
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"tqdm==4.66.0 --hash=sha256:{'0' * 64}\njinja2==3.1.6 --hash=sha256:{'0' * 64}\n")
    monkeypatch.setattr(audit, "LOCK", lock)
    yield made
    made.server.shutdown()
    made.server.server_close()


def holes(**known: str) -> Answer:
    """Answer with a hole in these versions, and in the one that every service knows."""
    table = {**known, audit.KNOWN[0]: audit.KNOWN[1]}

    def answer(query: dict[str, Any]) -> tuple[int, bytes]:
        if table.get(query["package"]["name"]) != query["version"]:
            return 200, b"{}"
        package = {"package": query["package"], "ranges": [], "versions": [query["version"]]}
        return 200, json.dumps({"vulns": [{"id": "PYSEC-0000-1", "affected": [package]}]}).encode()

    return answer


def test_a_published_hole_fails_the_audit(advisories: Advisories) -> None:
    advisories.answer = holes(tqdm="4.66.0")
    assert audit.main() == 1
    assert ["tqdm", "4.66.0"] in [[query["package"]["name"], query["version"]] for query in advisories.asked]


@pytest.mark.slow
def test_no_published_hole_passes_the_audit(advisories: Advisories, capfd: pytest.CaptureFixture[str]) -> None:
    advisories.answer = holes()
    assert audit.main() == 0
    assert advisories.url not in capfd.readouterr().out  # it was asked, and does not count as unreachable


@pytest.mark.slow
def test_a_service_that_fails_on_the_way_fails_the_audit(advisories: Advisories) -> None:
    known = holes()
    advisories.answer = lambda query: known(query) if query["package"]["name"] == audit.KNOWN[0] else (503, b"")
    assert audit.main() != 0


@pytest.mark.parametrize(
    ("code", "content"),
    [(503, b""), (404, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (200, b'{"vulns": []}')],
)
def test_a_service_without_advisories_is_named(
    advisories: Advisories, code: int, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    advisories.answer = lambda query: (code, content)
    assert audit.main() == 0
    assert advisories.url in capfd.readouterr().out


def test_without_a_network_the_service_is_named(
    advisories: Advisories, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    closed = "http://127.0.0.1:9/"
    monkeypatch.setenv(audit.SERVICE_VARIABLE, closed)
    assert audit.main() == 0
    assert len(capfd.readouterr().out.splitlines()) == 1
    assert advisories.asked == []
