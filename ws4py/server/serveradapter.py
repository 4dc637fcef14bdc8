"""What a WSGI application needs of a server to have a websocket run, and how a handshake is refused."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from ws4py.exc import HandshakeError
from ws4py.websocket import WebSocket

__all__ = ["SWITCHING", "Headers", "ServerAdapter", "StartResponse", "UnknownServer", "refuse"]

SWITCHING: Final = "101 Switching Protocols"

StartResponse = Callable[..., Any]
Headers = Sequence[tuple[str, str]]


class ServerAdapter(ABC):
    """The server that has a request.

    :param socket: of the connection.
    :param manager: who is to run the websocket, if the server itself does not bring one.
    """

    def __init__(self, socket: Any, manager: Any) -> None:
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

    reason = "This server can't hand a websocket's connection over"

    def admit(self, address: str | None) -> None:
        """Refuse every websocket.

        :raises HandshakeError: with 501.
        """
        raise HandshakeError(
            f"{self.reason}: serve with gunicorn, cheroot or ws4py's server for gevent; see docs/servers.rst",
            501,
        )

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """Answer a handshake that was not asked about: with 501."""
        self.admit(None)
        return ()


def refuse(error: HandshakeError, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the status of a handshake that was refused."""
    body = f"{error.msg}\n".encode("utf-8", "replace")
    status = f"{error.status} {HTTPStatus(error.status).phrase}"
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    headers += [header for header in error.headers if header[0].lower() != "connection"]
    try:
        start_response(status, headers)
    except AssertionError:
        # A 426 has to have an Upgrade header, but PEP 3333 lets a server insist that it alone may set it.
        start_response(status, [header for header in headers if header[0].lower() != "upgrade"], sys.exc_info())
    return [body]
