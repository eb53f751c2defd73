"""Compare requirements.lock with the published security advisories: ``make lint``, or ``python -m tests.audit``.

Exit code 0: no advisory, or the advisories cannot be reached, which is said in one line. 1: an advisory, or the audit
itself failed. pip-audit returns 1 in both of the latter cases and when there is no network, and it counts a package
that the service does not know as one without advisories. So the service is asked first about a release whose hole is
known.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
SERVICE = "https://api.osv.dev/v1/query"
SERVICE_VARIABLE = "TASKLENS_ADVISORIES"
"""Environment variable with the address of another service that answers as OSV does."""
KNOWN = ("jinja2", "2.10")
"""A release with a published hole (CVE-2019-10906)."""
_TIMEOUT = 15.0


def unreachable(service: str) -> str:
    """Return why the service cannot answer; empty if it can."""
    name, version = KNOWN
    query = {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(service, json.dumps(query).encode(), headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            found = json.load(answer)
    except (OSError, ValueError) as error:  # no network, an HTTP error, no JSON, or no address
        return str(error)
    return "" if isinstance(found, dict) and found.get("vulns") else f"it knows no hole of {name} {version}"


def main() -> int:
    """Print what was found and return the exit code."""
    service = os.environ.get(SERVICE_VARIABLE, SERVICE)
    if reason := unreachable(service):
        print(f"Advisories were not checked: {service} cannot be asked ({reason}).")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--osv-url", service]
    command += ["--requirement", str(LOCK), "--disable-pip", "--require-hashes", "--strict"]
    command += ["--progress-spinner", "off", "--desc", "off"]
    done = subprocess.run(command, check=False)
    if done.returncode:
        print("The audit found advisories or failed (above). Raise the bounds, then run make lock.", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
