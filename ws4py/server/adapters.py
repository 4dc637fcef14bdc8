"""How a WSGI application gets the socket of its request, on the servers that have a way.

====================================  ============================================================================
server                                its way
====================================  ============================================================================
ws4py's for gevent and for wsgiref    ``environ['ws4py.socket']``; they run ``environ['ws4py.websocket']`` after a 101
cheroot                               :mod:`ws4py.server.takeover`, with a manager that is attached to the server
gunicorn, werkzeug                    the raw socket in the environ: see :mod:`ws4py.server.rawsocket`
others                                none: the handshake is answered with 501
====================================  ============================================================================

A server that puts a socket into the environ is added to :data:`BY_KEY`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ws4py.exc import HandshakeError
from ws4py.server import rawsocket, takeover
from ws4py.websocket import WebSocket

__all__ = ["BY_KEY", "Headers", "ServerAdapter", "StartResponse", "find_server"]

SWITCHING: Final = "101 Switching Protocols"

StartResponse = Callable[..., Any]
Headers = Sequence[tuple[str, str]]


class ServerAdapter(ABC):
    """The server that has a request.

    :param environ: of the request.
    :param socket: of the connection.
    :param manager: who is to run the websocket, if the server itself does not bring one.
    """

    def __init__(self, environ: Mapping[str, Any], socket: Any, manager: Any) -> None:
        self.socket = socket
        self.manager = manager
        """Who will run the websocket; None if that is not known yet."""

    def admit(self, address: str | None) -> None:
        """Ask the manager whether there is room for a websocket from an address; yes, if there is no manager yet.

        :raises HandshakeError: if there is none; with 501 if nobody can run it.
        :raises ManagerError: if the manager has stopped.
        """
        if self.manager is not None:
            self.manager.admit(address)

    def refused(self, status: int) -> None:
        """Count a handshake that was refused."""
        if self.manager is not None:
            self.manager.count_refusal(status)

    @abstractmethod
    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """Answer with a 101, and have ``websocket`` run; return what the WSGI application is to return."""


class UnknownServer(ServerAdapter):
    """A server that gives no socket away."""

    def admit(self, address: str | None) -> None:
        """Refuse every websocket.

        :raises HandshakeError: with 501.
        """
        raise HandshakeError(
            "This server can't hand a websocket's connection over: serve with cheroot, with ws4py's server for gevent, "
            "or with gunicorn",
            501,
        )

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """Answer a handshake that was not asked about: with 501."""
        self.admit(None)
        return ()


class OwnServer(ServerAdapter):
    """A server of ours, which looks into the environ after the response."""

    def __init__(self, environ: Mapping[str, Any], socket: Any, manager: Any) -> None:
        super().__init__(environ, socket, environ.get("ws4py.manager"))

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

    def __init__(self, environ: Mapping[str, Any], connection: Any, manager: Any) -> None:
        if manager is None:
            manager = getattr(connection.server, "websocket_manager", None)
        super().__init__(environ, connection.socket, manager)
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


class RawSocketServer(ServerAdapter):
    """A server whose environ has the raw socket. The calling thread or greenlet stays until the websocket has ended."""

    def admit(self, address: str | None) -> None:
        """See :meth:`ServerAdapter.admit`. The manager of this process is made now, if no other is given."""
        if self.manager is None:
            self.manager = rawsocket.shared_manager(self.socket)
        super().admit(address)

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`ServerAdapter.upgrade`.

        :raises BrokenPipeError: in the end, always: so these servers learn that there is nothing left to answer.
        """
        rawsocket.serve(websocket, self.socket, environ, headers, self.manager)


BY_KEY: Final[Mapping[str, Callable[[Mapping[str, Any], Any, Any], ServerAdapter]]] = {
    "ws4py.socket": OwnServer,
    "gunicorn.socket": RawSocketServer,
    "werkzeug.socket": RawSocketServer,
}
"""The servers, by the key under which they put the socket into the environ. No websocket keeps these keys."""


def find_server(environ: Mapping[str, Any], manager: Any = None) -> ServerAdapter:
    """Return the server of a request.

    :param manager: who is to run the websocket, if the server itself does not bring one.
    """
    for key, adapter in BY_KEY.items():
        if environ.get(key) is not None:
            return adapter(environ, environ[key], manager)
    connection = takeover.current_connection()
    if connection is not None:
        return CherootServer(environ, connection, manager)
    own = environ.get("ws4py.manager")
    return UnknownServer(environ, None, manager if own is None else own)
