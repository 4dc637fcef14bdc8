"""Clients: :class:`WebSocketBaseClient`, which needs somebody to run it.

:mod:`ws4py.client.threadedclient` runs each client in a thread of its own, :mod:`ws4py.client.geventclient` in a
greenlet, :mod:`ws4py.client.tornadoclient` on the loop of tornado. A :class:`~ws4py.manager.WebSocketManager` runs
thousands at once: let :meth:`WebSocketBaseClient.handshake_ok` add the client to it.
"""

from __future__ import annotations

from ws4py.client.base import WebSocketBaseClient
from ws4py.client.reconnect import Backoff

__all__ = ["Backoff", "WebSocketBaseClient"]

# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.exc import HandshakeError  # noqa: F401
from ws4py.handshake import WS_KEY, WS_VERSION  # noqa: F401
from ws4py.websocket import WebSocket  # noqa: F401
