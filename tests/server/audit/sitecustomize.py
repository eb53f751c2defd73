"""Loaded by the Python of a test's server: records every address that is looked up or connected to.

The file that ``TASKLENS_AUDIT`` names gets one line each.
"""

import os
import sys

_FILE = os.environ["TASKLENS_AUDIT"]


def _record(event: str, args: tuple[object, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = args[0]
    elif event in ("socket.bind", "socket.connect", "socket.sendto"):
        address = args[1]
    else:
        return
    host = address[0] if isinstance(address, tuple) else address
    with open(_FILE, "a", encoding="utf-8") as out:  # noqa: PTH123
        out.write(f"{event} {host}\n")


sys.addaudithook(_record)
