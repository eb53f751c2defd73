"""Downloads use torchvision's URLs and checksums; here they go to a server on this machine."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from torchvision.datasets import MNIST, Omniglot

from core.data.download import download
from core.runtime.errors import UserError
from tests.data.pictures import write_files


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Do not log."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    running = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", folder
    running.shutdown()
    running.server_close()


def test_files_are_fetched_checked_and_not_fetched_again(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    write_files(folder, {"images_background.zip": b"one", "images_evaluation.zip": b"two"})
    sums = {
        f"images_{part}": hashlib.md5(raw).hexdigest() for part, raw in (("background", b"one"), ("evaluation", b"two"))
    }
    monkeypatch.setattr(Omniglot, "download_url_prefix", address)
    monkeypatch.setattr(Omniglot, "zips_md5", sums)
    assert download("omniglot", tmp_path / "mine") == tmp_path / "mine"
    (folder / "images_background.zip").unlink()
    download("omniglot", tmp_path / "mine")
    assert sorted(file.name for file in (tmp_path / "mine").iterdir()) == sorted(f"{name}.zip" for name in sums)


def test_failed_download_names_the_file_and_the_folder(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    write_files(folder, {"x.gz": b"damaged"})
    monkeypatch.setattr(MNIST, "resources", [("x.gz", "0" * 32)])
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", f"{address}/"])
    with pytest.raises(UserError, match=rf"x\.gz .*{'0' * 32}.*{tmp_path / 'mine'}"):
        download("mnist", tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(UserError, match="'folder'"):
        download("folder", tmp_path)


def test_response_that_is_not_http_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            for _ in range(2):
                with listening.accept()[0] as one:
                    one.recv(1000)
                    one.sendall(b"SMTP ready\r\n\r\n")

        threading.Thread(target=babble, daemon=True).start()
        monkeypatch.setattr(MNIST, "resources", [("x.gz", "0" * 32)])
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{listening.getsockname()[1]}/"])
        with pytest.raises(UserError, match=r"x\.gz .*SMTP ready"):
            download("mnist", tmp_path / "mine")
