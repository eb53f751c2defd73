"""A reverse proxy with TLS as ``docs/security.md`` configures it, on this machine: finding nginx, and running it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.e2e.server import ROOT

NAME = "tasklens.example.org"
"""The name in the documentation."""
NO_NGINX = "The test of the reverse proxy needs nginx (Debian: apt-get install nginx-light)."
_START_S = 20.0


def nginx_path() -> str | None:
    """Path of nginx, or None; Debian's is not on everybody's PATH."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextmanager
def reverse_proxy(backend_port: int, folder: Path) -> Iterator[str]:
    """Run nginx in front of a dashboard and yield the address of the proxy, whose name only a browser is told."""
    path = nginx_path()
    if path is None:
        raise FileNotFoundError(NO_NGINX)
    certificate, key = _certificate(folder)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (documented,) = re.findall(r"```\n(map \$http_upgrade.*?)```", text, re.S)
    replaced = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/tasklens.pem": str(certificate),
        "/etc/ssl/tasklens.key": str(key),
        "http://127.0.0.1:8501": f"http://127.0.0.1:{backend_port}",
    }
    for old, new in replaced.items():
        assert documented.count(old) == 1, old
        documented = documented.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers could not write into the folder
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off;\n{temporary}\n{documented}\n}}\n"
    )
    process = subprocess.Popen([path, "-p", str(folder), "-c", str(configuration)], stdin=subprocess.DEVNULL)
    try:
        _wait(process, port, folder / "error.log")
        yield f"https://{NAME}:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"nginx did not start.\n{log.read_text() if log.exists() else ''}") from None
            time.sleep(0.05)


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tasklens.pem", folder / "tasklens.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths


def ensure() -> str:
    """Find nginx or install Debian's package where that is allowed.

    Raises:
        SystemExit: neither was possible.
    """
    if not nginx_path() and shutil.which("apt-get") and hasattr(os, "geteuid"):
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "nginx-light"]):
            subprocess.run([*sudo, "apt-get", *command], check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if found := nginx_path():
        return found
    raise SystemExit(NO_NGINX)


if __name__ == "__main__":
    print("nginx:", ensure(), file=sys.stderr)
