"""What is spoken on a path, who may connect, and what comes of a handshake: the same for every server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ws4py import handshake
from ws4py.around import Around, Surroundings
from ws4py.exc import HandshakeError, ManagerError
from ws4py.extensions import Extension
from ws4py.extensions.permessage_deflate import with_compression
from ws4py.handshake import WS_VERSION, Acceptance
from ws4py.limits import Limits
from ws4py.server.environ import client_address, kept_environ
from ws4py.websocket import WebSocket

__all__ = ["Endpoint", "Request", "Server"]

logger = logging.getLogger("ws4py")


class Request(NamedTuple):
    """A request, as the server has it."""

    method: str
    headers: Mapping[str, str]
    """By their names, in any case."""
    http_version: tuple[int, int]
    scheme: str
    """``http`` or ``https``."""
    address: str | None
    """Of the client, without its port, as the server or a proxy has it."""
    environ: Mapping[str, Any]
    """Of WSGI, or like one of WSGI."""

    @property
    def path(self) -> str:
        """The whole path, without percents."""
        path = f"{self.environ.get('SCRIPT_NAME') or ''}{self.environ.get('PATH_INFO') or ''}"
        return path.encode("latin-1", "replace").decode("utf-8", "replace")


class Server(Protocol):
    """The server that has a request."""

    socket: Any
    """The socket of the connection."""

    def admit(self, address: str | None) -> None:
        """Ask whether there is room for a websocket from an address.

        :raises HandshakeError: if there is none, or nobody can run it.
        :raises ManagerError: if the manager has stopped.
        """

    def refused(self, status: int) -> None:
        """Count a handshake that was refused."""


class Endpoint:
    """What handshakes are accepted, and the websockets that come of them.

    :param protocols: the subprotocols that are spoken here. The client's first wish among them is granted.
    :param extensions: the extensions that are spoken here.
    :param handler_cls: the class of the websocket; it is called with (sock, protocols, extensions, environ).
    :param versions: of the protocol, that are spoken here.
    :param origins: the origins whose pages may connect, ``'*'`` for all; None for the pages of this host.
    :param hosts: the names by which this server may be asked, as in the Host header, with or without a port; None for
        any.
    :param heartbeat_freq: after how many seconds a Ping is sent; None for the manager's default, 0 for none.
    :param compression: True, or a :class:`~ws4py.extensions.permessage_deflate.PerMessageDeflate` of one's own:
        compress messages for clients that offer it.
    :param keep_environ: what a websocket keeps of the request's environ: True for all of it, up to 16 KiB of text;
        False for nothing; or the names to keep.
    :param around: called with the websocket before each callback; the callback runs within the context manager that it
        returns, and in a context of :mod:`contextvars` of its websocket's own, a copy of the handshake's.
    :param limits: of these connections, by their names in :class:`~ws4py.manager.Limits`.
    :raises TypeError: for a limit with an unknown name, one of the manager's (of how many connections, and of the
        drain), or a ``compression`` that is none.
    :raises ValueError: for a limit out of range.
    """

    def __init__(
        self,
        protocols: Sequence[str] | None = None,
        extensions: Sequence[str | Extension] | None = None,
        handler_cls: Callable[..., WebSocket] = WebSocket,
        *,
        versions: Sequence[int] = WS_VERSION,
        origins: str | Iterable[str] | None = None,
        hosts: str | Iterable[str] | None = None,
        heartbeat_freq: float | None = None,
        compression: bool | Extension | None = None,
        keep_environ: bool | str | Collection[str] = True,
        around: Around | None = None,
        **limits: Any,
    ) -> None:
        Limits.check_endpoint(limits)
        with_compression((), compression)  # say now if it is none
        self.protocols = protocols
        self.extensions = extensions
        self.handler_cls = handler_cls
        self.versions = versions
        self.origins = origins if origins is None or isinstance(origins, str) else tuple(origins)
        self.hosts = hosts if hosts is None or isinstance(hosts, str) else tuple(hosts)
        self.heartbeat_freq = heartbeat_freq
        self.compression = compression
        self.keep_environ = keep_environ
        self.around = around
        self.limits = limits

    def make_websocket(
        self, sock: Any, protocols: list[str] | None, extensions: list[str], environ: dict[str, Any]
    ) -> WebSocket:
        """Make the websocket of an accepted handshake. May be overridden.

        :param protocols: the subprotocol that was chosen, in a list; None if there is none.
        :param extensions: those that were granted, by name.
        :param environ: of the request, without what belongs to the server.
        """
        return self.handler_cls(sock, protocols, extensions, environ)

    def open(self, request: Request, server: Server) -> tuple[Acceptance, WebSocket]:
        """Check a handshake, and make the websocket of it.

        :raises HandshakeError: if the handshake is refused: 400, 403, 405, 426, 429, 503; 501 if the server gives no
            socket away.
        :raises TypeError: if ``handler_cls`` makes no WebSocket.
        """
        try:
            acceptance = self._decide(request, server)
        except HandshakeError as error:
            if error.status in (500, 501):
                logger.error("A websocket was refused with %s: %s", error.status, error)
            server.refused(error.status)
            raise
        chosen = None if acceptance.protocol is None else [acceptance.protocol]
        environ = kept_environ(request.environ, self.keep_environ)
        websocket = self.make_websocket(server.socket, chosen, list(acceptance.extensions), environ)
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"handler_cls must make a WebSocket, but {self.handler_cls!r} made {websocket!r}")
        if self.heartbeat_freq is not None:
            websocket.heartbeat_freq = self.heartbeat_freq
        websocket._limit(self.limits)
        if self.around is not None:
            websocket._surroundings = Surroundings(self.around)
        if acceptance.agreement is not None:
            websocket.stream.use(acceptance.agreement.codec())
        return acceptance, websocket

    def _decide(self, request: Request, server: Server) -> Acceptance:
        acceptance = handshake.negotiate(
            request.method,
            request.headers,
            protocols=self.protocols or (),
            extensions=with_compression(self.extensions, self.compression),
            origins=self.origins,
            hosts=self.hosts,
            versions=self.versions,
            http_version=request.http_version,
            scheme=request.scheme,
        )
        try:
            server.admit(client_address(request.address, server.socket))
        except ManagerError as error:
            raise HandshakeError(str(error), 503) from error
        return acceptance
