"""The handshake as a WSGI application.

.. code-block:: python

    from ws4py.server.geventserver import WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket

    WSGIServer(('localhost', 9000), WebSocketWSGIApplication(handler_cls=EchoWebSocket)).serve_forever()

It answers with a 101 and makes the websocket; who runs it depends on the server: see :mod:`ws4py.server.adapters`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ws4py.exc import HandshakeError
from ws4py.extensions import Extension
from ws4py.handshake import Acceptance
from ws4py.server.adapters import find_server
from ws4py.server.endpoint import Endpoint, Request
from ws4py.server.environ import RequestHeaders
from ws4py.server.serveradapter import Headers, ServerAdapter, StartResponse, refuse
from ws4py.websocket import WebSocket

__all__ = ["WebSocketWSGIApplication", "refuse"]


class Prepared(NamedTuple):
    """A handshake that is to be accepted."""

    acceptance: Acceptance
    server: ServerAdapter
    websocket: WebSocket


class WebSocketWSGIApplication(Endpoint):
    """A WSGI application every path of which is a websocket.

    :param protocols: the subprotocols that are spoken here. The client's first wish among them is granted.
    :param extensions: the extensions that are spoken here.
    :param handler_cls: the class of the websocket; it is called with (sock, protocols, extensions, environ).
    :param answer: answer a handshake that is refused with its status. Otherwise :class:`~ws4py.exc.HandshakeError` is
        raised, as it was by 0.6; the servers for gevent and for wsgiref then answer with the error's status, others
        with 500.
    :param manager: who is to run the websocket, on servers that don't bring one: see :mod:`ws4py.server.adapters`.
    :param options: further ones of an :class:`~ws4py.server.endpoint.Endpoint`: ``origins``, ``hosts``,
        ``compression``, ``heartbeat_freq``, ``keep_environ``, ``around``, and limits by their names.
    """

    def __init__(
        self,
        protocols: Sequence[str] | None = None,
        extensions: Sequence[str | Extension] | None = None,
        handler_cls: Callable[..., WebSocket] = WebSocket,
        *,
        answer: bool = False,
        manager: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(protocols, extensions, handler_cls, **options)
        self.answer = answer
        self.manager = manager

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
        server = find_server(environ, self.manager)
        major, _, minor = environ.get("SERVER_PROTOCOL", "").rpartition("/")[2].partition(".")
        request = Request(
            environ["REQUEST_METHOD"],
            RequestHeaders(environ),
            (int(major or 1), int(minor or 0)),
            environ.get("wsgi.url_scheme", "http"),
            environ.get("REMOTE_ADDR"),
            environ,
        )
        try:
            acceptance, websocket = self.open(request, server)
        except HandshakeError as error:
            raise HandshakeError(_in_terms_of_wsgi(error.msg), error.status, error.headers) from error
        environ["websocket.version"] = environ["HTTP_SEC_WEBSOCKET_VERSION"]
        environ["ws4py.websocket"] = websocket
        return Prepared(acceptance, server, websocket)

    def accept(
        self, prepared: Prepared, environ: dict[str, Any], start_response: StartResponse, headers: Headers = ()
    ) -> Iterable[bytes]:
        """Answer with the 101, and have the websocket run.

        :param headers: further ones of the response, such as cookies.
        """
        acceptance, server, websocket = prepared
        return server.upgrade(websocket, environ, start_response, (*acceptance.headers, *headers))


def _in_terms_of_wsgi(text: str) -> str:
    """Name a header as 0.6 did: programs compare these texts."""
    return re.sub(r"(?<=[Hh]eader )[A-Z][A-Za-z-]+", lambda match: "HTTP_" + match[0].upper().replace("-", "_"), text)


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.handshake import WS_KEY, WS_VERSION  # noqa: E402, F401
from ws4py.logs import format_addresses  # noqa: E402, F401
from ws4py.server.endpoint import logger  # noqa: E402, F401
