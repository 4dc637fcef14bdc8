"""WebSocket (RFC 6455) for threaded Python servers and clients.

What applications need most is here: ``from ws4py import WebSocket, WebSocketManager, ConnectionClosed``. Each name is
brought from its module when it is first asked for, so ``import ws4py`` imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # the same as _HOMES, for type checkers and for the layers: no module of ours may import from here
    from ws4py.client import Backoff, WebSocketBaseClient
    from ws4py.client.threadedclient import WebSocketClient
    from ws4py.closing import State
    from ws4py.exc import (
        ConnectionClosed,
        HandshakeError,
        InvalidCloseCode,
        ManagerError,
        MessageTooBigException,
        ProtocolException,
        SlowConsumer,
        TextFrameEncodingException,
        TooManyTopics,
        WebSocketException,
    )
    from ws4py.extensions.permessage_deflate import PerMessageDeflate
    from ws4py.handshake import WS_KEY, WS_VERSION
    from ws4py.logs import configure_logger, format_addresses
    from ws4py.manager import WebSocketManager
    from ws4py.messaging import (
        BinaryMessage,
        CloseCode,
        CloseControlMessage,
        Message,
        PingControlMessage,
        PongControlMessage,
        TextMessage,
    )
    from ws4py.server.cherrypyserver import WebSocketPlugin as WebSocketPlugin
    from ws4py.server.cherrypyserver import WebSocketTool as WebSocketTool
    from ws4py.server.geventmanager import GreenletManager as GreenletManager
    from ws4py.server.middleware import WebSocketMiddleware
    from ws4py.server.stats import StatsApplication
    from ws4py.server.threadedserver import WebSocketServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket, WebSocket

__version__ = "1.0.0.dev0"
__all__ = [
    "WS_KEY",
    "WS_VERSION",
    "Backoff",
    "BinaryMessage",
    "CloseCode",
    "CloseControlMessage",
    "ConnectionClosed",
    "EchoWebSocket",
    "HandshakeError",
    "InvalidCloseCode",
    "ManagerError",
    "Message",
    "MessageTooBigException",
    "PerMessageDeflate",
    "PingControlMessage",
    "PongControlMessage",
    "ProtocolException",
    "SlowConsumer",
    "State",
    "StatsApplication",
    "TextFrameEncodingException",
    "TextMessage",
    "TooManyTopics",
    "WebSocket",
    "WebSocketBaseClient",
    "WebSocketClient",
    "WebSocketException",
    "WebSocketManager",
    "WebSocketMiddleware",
    "WebSocketServer",
    "WebSocketWSGIApplication",
    "configure_logger",
    "format_addresses",
]

_HOMES: Final[dict[str, str]] = {
    "Backoff": "ws4py.client",
    "BinaryMessage": "ws4py.messaging",
    "CloseCode": "ws4py.messaging",
    "CloseControlMessage": "ws4py.messaging",
    "ConnectionClosed": "ws4py.exc",
    "EchoWebSocket": "ws4py.websocket",
    "GreenletManager": "ws4py.server.geventmanager",
    "HandshakeError": "ws4py.exc",
    "InvalidCloseCode": "ws4py.exc",
    "ManagerError": "ws4py.exc",
    "Message": "ws4py.messaging",
    "MessageTooBigException": "ws4py.exc",
    "PerMessageDeflate": "ws4py.extensions.permessage_deflate",
    "PingControlMessage": "ws4py.messaging",
    "PongControlMessage": "ws4py.messaging",
    "ProtocolException": "ws4py.exc",
    "SlowConsumer": "ws4py.exc",
    "State": "ws4py.closing",
    "StatsApplication": "ws4py.server.stats",
    "TextFrameEncodingException": "ws4py.exc",
    "TextMessage": "ws4py.messaging",
    "TooManyTopics": "ws4py.exc",
    "WS_KEY": "ws4py.handshake",
    "WS_VERSION": "ws4py.handshake",
    "WebSocket": "ws4py.websocket",
    "WebSocketBaseClient": "ws4py.client",
    "WebSocketClient": "ws4py.client.threadedclient",
    "WebSocketException": "ws4py.exc",
    "WebSocketManager": "ws4py.manager",
    "WebSocketMiddleware": "ws4py.server.middleware",
    "WebSocketPlugin": "ws4py.server.cherrypyserver",
    "WebSocketServer": "ws4py.server.threadedserver",
    "WebSocketTool": "ws4py.server.cherrypyserver",
    "WebSocketWSGIApplication": "ws4py.server.wsgiutils",
    "configure_logger": "ws4py.logs",
    "format_addresses": "ws4py.logs",
}
"""In which module each name is."""

_EXTRAS: Final = {"GreenletManager": "gevent", "WebSocketPlugin": "cherrypy", "WebSocketTool": "cherrypy"}
"""Which names need an extra, by the name of the extra and of what it installs. They are not in ``__all__``, since a
star import must not fail for want of one."""


if not TYPE_CHECKING:  # to a type checker it would mean that there is every name

    def __getattr__(name: str) -> Any:
        """Bring a name from its module.

        :raises ImportError: if the extra that it needs is not installed.
        """
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(home)
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get(name)
            if extra is None or error.name != extra:
                raise
            raise ImportError(f"ws4py.{name} needs {extra}: pip install 'ws4py[{extra}]'", name=extra) from error
        value = globals()[name] = getattr(module, name)
        return value


def __dir__() -> list[str]:
    """Return every name that can be had, those of the extras that are installed among them."""
    from importlib.util import find_spec

    missing = {name for name, extra in _EXTRAS.items() if find_spec(extra) is None}
    return sorted({*globals(), *_HOMES} - missing)
