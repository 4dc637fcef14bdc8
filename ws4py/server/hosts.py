"""How a WSGI application gets the socket of its request, on the servers that have a way.

====================================  ============================================================================
server                                its way
====================================  ============================================================================
ws4py's for gevent and for wsgiref    ``environ['ws4py.socket']``; they run ``environ['ws4py.websocket']`` after a 101
cheroot                               :mod:`ws4py.server.takeover`, with a manager that is attached to the server
gunicorn, werkzeug                    the raw socket in the environ: see :mod:`ws4py.server.rawsocket`
others                                none: the handshake is answered with 501
====================================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from ws4py.exc import HandshakeError
from ws4py.server import rawsocket, takeover
from ws4py.websocket import WebSocket

__all__ = ["Headers", "Host", "StartResponse", "find_host", "find_manager"]

SWITCHING: Final = "101 Switching Protocols"

StartResponse = Callable[..., Any]
Headers = Sequence[tuple[str, str]]


class Host(Protocol):
    """The server that has a request, as a handshake sees it."""

    socket: Any
    """The socket of the connection."""
    manager: Any
    """Who will run the websocket; None if that is not known, and so it can't be asked whether there is room."""

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """Answer with a 101, and have ``websocket`` run; return what the WSGI application is to return."""


class OwnHost:
    """A server of ours, which looks into the environ after the response."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.socket = environ["ws4py.socket"]
        self.manager = environ.get("ws4py.manager")

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`Host.upgrade`."""
        environ["ws4py.websocket"] = websocket
        environ["ws4py.socket"] = None
        start_response(SWITCHING, list(headers))
        return iter(())  # without a length, since servers make a Content-Length of that


class CherootHost:
    """cheroot, by itself or under CherryPy."""

    def __init__(self, connection: Any, manager: Any) -> None:
        self._connection = connection
        self.socket = connection.socket
        self.manager: Any = manager if manager is not None else getattr(connection.server, "websocket_manager", None)
        if self.manager is None:
            raise HandshakeError("No manager is attached to this server: see ws4py.server.cherootserver.attach", 501)

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`Host.upgrade`."""
        start_response(SWITCHING, list(headers))
        manager, address = self.manager, environ.get("REMOTE_ADDR")

        def receive(sock: Any, early: bytes) -> None:
            websocket.sock = sock
            websocket.buf = early
            manager.add(websocket, address=address)

        return _Arming(self._connection, receive)


class _Arming:
    """The empty body of a 101. cheroot calls ``close`` when it has written the head, and not if it could not."""

    def __init__(self, connection: Any, receiver: Callable[[Any, bytes], None]) -> None:
        self._connection = connection
        self._receiver = receiver

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        takeover.arm(self._connection, self._receiver)


class RawHost:
    """A server whose environ has the raw socket. The calling thread or greenlet stays until the websocket has ended."""

    def __init__(self, environ: dict[str, Any], manager: Any) -> None:
        self.socket = rawsocket.find_socket(environ)
        self.manager = manager if manager is not None else rawsocket.shared_manager(self.socket)

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`Host.upgrade`.

        :raises BrokenPipeError: in the end, always: so these servers learn that there is nothing left to answer.
        """
        rawsocket.serve(websocket, self.socket, environ, headers, self.manager)


def find_manager(environ: dict[str, Any], manager: Any = None) -> Any:
    """Return who runs the websockets of the server that has a request, None if that is not known.

    :param manager: who does if the server does not bring one.
    """
    if environ.get("ws4py.manager") is not None:
        return environ["ws4py.manager"]
    if manager is None:
        manager = getattr(getattr(takeover.current_connection(), "server", None), "websocket_manager", None)
    return manager


def find_host(environ: dict[str, Any], manager: Any = None) -> Host:
    """Return the server of a request.

    :param manager: who is to run the websocket, if the server itself does not bring one.
    :raises HandshakeError: with 501 if the server gives no socket away.
    """
    if environ.get("ws4py.socket") is not None:
        return OwnHost(environ)
    connection = takeover.current_connection()
    if connection is not None:
        return CherootHost(connection, manager)
    if rawsocket.find_socket(environ) is not None:
        return RawHost(environ, manager)
    raise HandshakeError(
        "This server can't hand a websocket's connection over: serve with cheroot, with ws4py's server for gevent, or "
        "with gunicorn",
        501,
    )
