"""How a WSGI application gets the socket of its request, on the servers that have a way.

====================================  ============================================================================
server                                its way
====================================  ============================================================================
ws4py's for gevent and for wsgiref    ``environ['ws4py.socket']``; they run ``environ['ws4py.websocket']`` after a 101
cheroot                               :mod:`ws4py.server.takeover`, with a manager that is attached to the server
gunicorn, werkzeug, waitress, uWSGI,  the connection is taken away from under them: :mod:`ws4py.server.unaware`
wsgiref, Django's runserver
others                                none: the handshake is answered with 501
====================================  ============================================================================

A server that is told by a key of the environ is added to :data:`BY_KEY`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ws4py.exc import HandshakeError
from ws4py.server import takeover
from ws4py.server.serveradapter import SWITCHING, Headers, ServerAdapter, StartResponse, UnknownServer
from ws4py.server.unaware import find_gunicorn, find_uwsgi, find_waitress, find_werkzeug, find_wsgiref
from ws4py.websocket import WebSocket

__all__ = ["BY_KEY", "find_server"]


class OwnServer(ServerAdapter):
    """A server of ours, which looks into the environ after the response."""

    def __init__(self, environ: Mapping[str, Any], socket: Any, manager: Any) -> None:
        super().__init__(socket, environ.get("ws4py.manager"))

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`ServerAdapter.upgrade`."""
        environ["ws4py.websocket"] = websocket
        environ["ws4py.socket"] = None
        start_response(SWITCHING, list(headers))
        return iter(())  # without a length, since servers make a Content-Length of that


class CherootServer(ServerAdapter):
    """cheroot, by itself or under CherryPy."""

    def __init__(self, connection: Any, manager: Any) -> None:
        if manager is None:
            manager = getattr(connection.server, "websocket_manager", None)
        super().__init__(connection.socket, manager)
        self._connection = connection

    def admit(self, address: str | None) -> None:
        """See :meth:`ServerAdapter.admit`."""
        if self.manager is None:
            raise HandshakeError("No manager is attached to this server: see ws4py.server.cherootserver.attach", 501)
        super().admit(address)

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`ServerAdapter.upgrade`."""
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


BY_KEY: Final[Mapping[str, Callable[[Mapping[str, Any], Any, Any], ServerAdapter]]] = {
    "ws4py.socket": OwnServer,
    "gunicorn.socket": find_gunicorn,
    "werkzeug.socket": find_werkzeug,
    "waitress.client_disconnected": find_waitress,
    "uwsgi.version": find_uwsgi,
}
"""The servers, by the key that tells them, under which most have the connection. No websocket keeps these keys."""


def find_server(environ: Mapping[str, Any], manager: Any = None) -> ServerAdapter:
    """Return the server of a request.

    :param manager: who is to run the websocket, if the server itself does not bring one.
    """
    for key, adapter in BY_KEY.items():
        if environ.get(key) is not None:
            return adapter(environ, environ[key], manager)
    connection = takeover.current_connection()
    if connection is not None:
        return CherootServer(connection, manager)
    own = environ.get("ws4py.manager")
    return find_wsgiref(environ, manager) or UnknownServer(None, manager if own is None else own)
