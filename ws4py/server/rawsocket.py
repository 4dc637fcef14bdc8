"""The managers for websockets on servers that bring none: one for a process, and one for each hub of gevent.

They end with their process, without being told: the websockets are closed with 1001.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ws4py.manager import WebSocketManager
from ws4py.manager.process import shut_down
from ws4py.server.standin import raise_limit

__all__ = ["is_gevents", "is_greenlets", "shared_manager", "stop", "take_buffered"]

_lock = threading.Lock()
_managers: dict[tuple[int, int], WebSocketManager] = {}  # by the process, and by the hub of gevent or 0


def is_gevents(sock: Any) -> bool:
    """Tell whether a socket is one of gevent's."""
    return type(sock).__module__.startswith("gevent.")


def is_greenlets(sock: Any) -> bool:
    """Tell whether a socket is one of gevent's or eventlet's."""
    return type(sock).__module__.partition(".")[0] in ("gevent", "eventlet")


def shared_manager(sock: Any) -> WebSocketManager:
    """Return the manager of this process for sockets like ``sock``, running."""
    hub: Any = None
    if is_gevents(sock):
        from gevent import get_hub

        from ws4py.server.geventmanager import GreenletManager

        hub = get_hub()
    key = (os.getpid(), 0 if hub is None else id(hub))
    with _lock:
        manager = _managers.get(key)
        if manager is None:
            raise_limit()
            manager = _managers[key] = WebSocketManager() if hub is None else GreenletManager()
        if not manager.is_alive():
            manager.daemon = True
            manager.start()
    return manager


def stop() -> None:
    """Close this process's websockets of such servers with 1001, and wait for that.

    The end of the process does it, too. It is for who wants it earlier.
    """
    shut_down(*(manager for (process, _), manager in list(_managers.items()) if process == os.getpid()))


def take_buffered(sock: Any, rfile: Any) -> bytes:
    """Return what a buffered reader has read ahead of the application, without waiting for more.

    :param sock: that it reads from; it is left non-blocking.
    """
    peek = getattr(rfile, "peek", None)
    if peek is None:
        return b""
    sock.settimeout(0.0)
    try:
        return bytes(peek(1))
    except (OSError, ValueError):  # nothing was buffered, and a TLS object says so by an exception
        return b""


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()  # a thread of the parent's may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
