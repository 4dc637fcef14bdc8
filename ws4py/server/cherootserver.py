"""WebSockets on plain cheroot, with any WSGI application: Flask's, Django's, Bottle's.

.. code-block:: python

    from cheroot.wsgi import Server
    from ws4py.server.cherootserver import WebSocketMiddleware, attach
    from ws4py.websocket import EchoWebSocket

    server = Server(('127.0.0.1', 9000), WebSocketMiddleware(application, {'/ws': EchoWebSocket}))
    attach(server)
    server.start()

HTTP's worker threads are free again once a handshake is done: the websockets are the manager's.
"""

from __future__ import annotations

import logging
from typing import Any

from ws4py.manager import WebSocketManager
from ws4py.manager.process import shut_down
from ws4py.server.listenqueue import raise_cheroots
from ws4py.server.middleware import WebSocketMiddleware

__all__ = ["WebSocketMiddleware", "attach"]

logger = logging.getLogger("ws4py")


def attach(server: Any, manager: WebSocketManager | None = None, **options: Any) -> WebSocketManager:
    """Let a manager run the websockets of a server: it starts with the server, and stops with it.

    When the server stops, its websockets are closed with 1001, and waited for until the manager's ``drain_timeout``.
    The server's ``request_queue_size`` becomes what the system allows, if it is cheroot's default, so that many clients
    may come at once.

    :param server: a ``cheroot.wsgi.Server``, running or not.
    :param manager: a manager of one's own; by default one is made.
    :param options: of that one: see :class:`~ws4py.manager.WebSocketManager`.
    :returns: the manager; it is the server's ``websocket_manager``, too.
    :raises TypeError: for options besides a manager.
    :raises ValueError: if the server has a manager already, or a limit is out of range.
    """
    if manager is not None and options:
        raise TypeError("Options are for a manager that is made here: give them to yours")
    if getattr(server, "websocket_manager", None) is not None:
        raise ValueError("This server has a manager already")
    if manager is None:
        manager = WebSocketManager(**options)
    allowed = raise_cheroots(server)
    if allowed is not None:
        logger.info("%d connections may wait for the HTTP server (request_queue_size)", allowed)
    _Attachment(server, manager)
    return manager


class _Attachment:
    """Stands before two methods of a server."""

    def __init__(self, server: Any, manager: WebSocketManager) -> None:
        self._manager = manager
        self._prepare = server.prepare
        self._stop = server.stop
        server.websocket_manager = manager
        server.prepare = self.prepare
        server.stop = self.stop
        if getattr(server, "ready", False):
            self._start()

    def _start(self) -> None:
        if not self._manager.running:
            if not self._manager.is_alive():
                self._manager.daemon = True  # the server stops it
            self._manager.start()

    def prepare(self) -> None:
        """Start the server, and the manager; not earlier, since a daemon forks before that."""
        self._prepare()
        self._start()

    def stop(self) -> None:
        """Stop the server, then the manager, and wait for it. A second call does nothing."""
        try:
            self._stop()
        finally:
            shut_down(self._manager)
