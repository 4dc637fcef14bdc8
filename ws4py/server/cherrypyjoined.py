"""CherryPy in one of several processes, which all accept connections from one socket."""

from __future__ import annotations

import socket
from typing import Any

import cherrypy
from cherrypy._cpwsgi_server import CPWSGIServer

__all__ = ["serve_from"]


class _Server(CPWSGIServer):  # type: ignore[misc]
    """CherryPy's HTTP server, with a socket that listens already.

    :param listener: the socket. The server closes a duplicate of it.
    """

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(cherrypy.server)
        self._listener = listener
        self.bind_addr = listener.getsockname()[:2]

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002 - cheroot's name
        """Take the socket. Called by the server when it is prepared."""
        self.socket = self._listener.dup()
        return self.socket

    def prepare(self) -> None:
        """Prepare to serve. Another process may be the first to accept what there is: so accepting must not wait."""
        super().prepare()
        self.socket.setblocking(False)


def serve_from(listener: socket.socket) -> None:
    """Have CherryPy serve from a socket that listens. To be called before the engine starts."""
    # Without an address CherryPy does not look whether somebody listens there, which others do.
    cherrypy.server.socket_host = cherrypy.server.socket_port = None
    cherrypy.server.httpserver = _Server(listener)
