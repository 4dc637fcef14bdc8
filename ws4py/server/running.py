"""What servers do with their managers: give them websockets, and have them stopped."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ws4py.exc import ManagerError
from ws4py.manager import WebSocketManager
from ws4py.websocket import WebSocket

__all__ = ["hand_over", "stop_with_main_thread"]

logger = logging.getLogger("ws4py")


def hand_over(add: Callable[..., None], websocket: WebSocket, **options: Any) -> bool:
    """Have a websocket run whose handshake is done.

    :param add: a manager's :meth:`~ws4py.manager.WebSocketManager.add`, or what calls it.
    :param options: of ``add``.
    :returns: False if it can't be run: the manager has stopped meanwhile, or the peer is gone. The socket is still the
        caller's then.
    """
    try:
        add(websocket, **options)
    except (ManagerError, OSError, ValueError) as error:
        logger.debug("A websocket could not be run: %s", error)
        return False
    return True


_waiting: weakref.WeakKeyDictionary[WebSocketManager, int] = weakref.WeakKeyDictionary()
"""Those that somebody waits for the main thread for, and in which process."""


def stop_with_main_thread(manager: WebSocketManager) -> None:
    """Have a manager stopped when the main thread has ended.

    The interpreter stops those by itself that are daemons. For others it would wait for ever, and first.
    """
    if manager.daemon or _waiting.get(manager) == os.getpid():
        return
    _waiting[manager] = os.getpid()

    def wait() -> None:
        threading.main_thread().join()
        manager.stop()

    threading.Thread(target=wait, name="ws4py-end", daemon=True).start()
