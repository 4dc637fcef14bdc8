"""The handshake as a WSGI application.

.. code-block:: python

    from ws4py.server.geventserver import WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket

    WSGIServer(('localhost', 9000), WebSocketWSGIApplication(handler_cls=EchoWebSocket)).serve_forever()

It answers with a 101 and makes the websocket; who runs it depends on the server: see :mod:`ws4py.server.hosts`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from ws4py import WS_VERSION, handshake
from ws4py.exc import HandshakeError, ManagerError
from ws4py.extensions import Extension
from ws4py.extensions.permessage_deflate import with_compression
from ws4py.handshake import Acceptance
from ws4py.manager.limits import Limits
from ws4py.server.environ import client_address, kept_environ
from ws4py.server.hosts import Headers, Host, StartResponse, find_host, find_manager
from ws4py.websocket import WebSocket

__all__ = ["WebSocketWSGIApplication", "refuse"]


logger = logging.getLogger("ws4py")


class _Headers(dict[str, str]):
    """The headers of a WSGI environ, by their own names."""

    def __init__(self, environ: dict[str, Any]) -> None:
        super().__init__()
        self._environ = environ

    def get(self, name: str, default: Any = None) -> Any:
        return self._environ.get("HTTP_" + name.upper().replace("-", "_"), default)


class Prepared(NamedTuple):
    """A handshake that is to be accepted."""

    acceptance: Acceptance
    host: Host
    websocket: WebSocket


class WebSocketWSGIApplication:
    """A WSGI application every path of which is a websocket.

    :param protocols: the subprotocols that are spoken here. The client's first wish among them is granted.
    :param extensions: the extensions that are spoken here.
    :param handler_cls: the class of the websocket; it is called with (sock, protocols, extensions, environ).
    :param answer: answer a handshake that is refused with its status. Otherwise :class:`~ws4py.exc.HandshakeError` is
        raised, as it was by 0.6; the servers for gevent and for wsgiref then answer with the error's status, others
        with 500.
    :param origins: the origins whose pages may connect, ``'*'`` for all; None for the pages of this host.
    :param manager: who is to run the websocket, on servers that don't bring one: see :mod:`ws4py.server.hosts`.
    :param heartbeat_freq: after how many seconds a Ping is sent; None for the manager's default, 0 for none.
    :param compression: True, or a :class:`~ws4py.extensions.permessage_deflate.PerMessageDeflate` of one's own:
        compress messages for clients that offer it.
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
        answer: bool = False,
        origins: str | Iterable[str] | None = None,
        manager: Any = None,
        heartbeat_freq: float | None = None,
        compression: bool | Extension | None = None,
        **limits: Any,
    ) -> None:
        Limits.check_endpoint(limits)
        self.protocols = protocols
        self.extensions = extensions
        self.compression = compression
        with_compression((), compression)  # say now if it is none
        self.handler_cls = handler_cls
        self.answer = answer
        self.origins = origins if origins is None or isinstance(origins, str) else tuple(origins)
        self.manager = manager
        self.heartbeat_freq = heartbeat_freq
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

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Accept the handshake, or refuse it.

        :raises HandshakeError: if it is refused and ``answer`` is not set; its text names headers as the environ does.
        """
        try:
            prepared = self.prepare(environ)
        except HandshakeError as error:
            if self.answer:
                return refuse(error, start_response)
            raise
        return self.accept(prepared, environ, start_response)

    def prepare(self, environ: dict[str, Any]) -> Prepared:
        """Check the handshake, and make the websocket, as ``environ['ws4py.websocket']``.

        :raises HandshakeError: if the handshake is refused: 400, 403, 405, 426, 429, 503; 501 if the server gives no
            socket.
        """
        host: Host | None = None
        try:
            major, _, minor = environ.get("SERVER_PROTOCOL", "").rpartition("/")[2].partition(".")
            acceptance = handshake.negotiate(
                environ["REQUEST_METHOD"],
                _Headers(environ),
                protocols=self.protocols or (),
                extensions=with_compression(self.extensions, self.compression),
                origins=self.origins,
                versions=WS_VERSION,
                http_version=(int(major or 1), int(minor or 0)),
            )
            host = find_host(environ, self.manager)
            if host.manager is not None:
                host.manager.admit(client_address(environ.get("REMOTE_ADDR"), host.socket))
        except ManagerError as error:
            raise HandshakeError(str(error), 503) from error
        except HandshakeError as error:
            manager = host.manager if host is not None else find_manager(environ, self.manager)
            if error.status == 501:
                logger.error("A websocket was refused with 501: %s", error)
            if manager is not None:
                manager.count_refusal(error.status)
            raise HandshakeError(_in_terms_of_wsgi(error.msg), error.status, error.headers) from error
        environ["websocket.version"] = environ["HTTP_SEC_WEBSOCKET_VERSION"]
        chosen = None if acceptance.protocol is None else [acceptance.protocol]
        websocket = self.make_websocket(host.socket, chosen, list(acceptance.extensions), kept_environ(environ))
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"handler_cls must make a WebSocket, but {self.handler_cls!r} made {websocket!r}")
        if self.heartbeat_freq is not None:
            websocket.heartbeat_freq = self.heartbeat_freq
        websocket._limits = self.limits or None
        if acceptance.agreement is not None:
            websocket.stream.use(acceptance.agreement.codec())
        environ["ws4py.websocket"] = websocket
        return Prepared(acceptance, host, websocket)

    def accept(
        self, prepared: Prepared, environ: dict[str, Any], start_response: StartResponse, headers: Headers = ()
    ) -> Iterable[bytes]:
        """Answer with the 101, and have the websocket run.

        :param headers: further ones of the response, such as cookies.
        """
        acceptance, host, websocket = prepared
        return host.upgrade(websocket, environ, start_response, (*acceptance.headers, *headers))


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


def _in_terms_of_wsgi(text: str) -> str:
    """Name a header as 0.6 did: programs compare these texts."""
    return re.sub(r"(?<=[Hh]eader )[A-Z][A-Za-z-]+", lambda match: "HTTP_" + match[0].upper().replace("-", "_"), text)


# --- names that 0.6 had here ------------------------------------------------------------------------------------------

from ws4py import WS_KEY, format_addresses  # noqa: E402, F401
