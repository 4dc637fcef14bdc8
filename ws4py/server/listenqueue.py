"""How many connections may wait until a server accepts them.

cheroot's default is 5: of many clients that come at once, after a restart perhaps, all others are turned away by the
system and try again seconds later.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

__all__ = ["longest_allowed", "raise_cheroots", "raise_cherrypys"]

DEFAULT: Final = 5
"""Of cheroot, and of CherryPy."""

_SOMAXCONN: Final = Path("/proc/sys/net/core/somaxconn")


def raise_cheroots(server: Any) -> int | None:
    """Raise a server's listen queue to what the system allows, if it is the default that holds.

    :param server: cheroot's, listening already or not.
    :returns: how many may wait now; None if nothing was changed.
    """
    if getattr(server, "request_queue_size", None) != DEFAULT:
        return None
    server.request_queue_size = allowed = longest_allowed()
    listener = getattr(server, "socket", None)
    if listener is not None and getattr(server, "ready", False):
        listener.listen(allowed)
    return allowed


def raise_cherrypys(adapter: Any) -> int | None:
    """Raise the listen queue of an HTTP server on CherryPy's bus; see :func:`raise_cheroots`.

    :param adapter: a ``cherrypy.process.servers.ServerAdapter``, whose server may not have been made yet.
    """
    if adapter.httpserver is not None:
        return raise_cheroots(adapter.httpserver)
    if getattr(adapter, "socket_queue_size", None) != DEFAULT:
        return None
    adapter.socket_queue_size = allowed = longest_allowed()
    return allowed


def longest_allowed() -> int:
    """Return what the system allows."""
    try:
        return int(_SOMAXCONN.read_text())
    except (OSError, ValueError):  # another system than Linux
        return socket.SOMAXCONN
