"""What a request gets for an answer on a server of websockets that has no HTTP server around it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from ws4py.exc import HandshakeError
from ws4py.handshake import format_head
from ws4py.manager import WebSocketManager
from ws4py.server.endpoint import Endpoint, Request
from ws4py.server.environ import RequestHeaders, variable
from ws4py.server.forwarded import TrustedProxies
from ws4py.server.request import RequestHead
from ws4py.server.routes import Routes, as_in_wsgi
from ws4py.websocket import WebSocket

__all__ = ["Answer", "Application", "Caller", "ProcessRequest", "Reply", "Responder"]

logger = logging.getLogger("ws4py")

Headers = Iterable[tuple[str, str]]
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Answer(NamedTuple):
    """An answer that ends the connection; a plain tuple of its parts is one, too."""

    status: int
    """From 200 on."""
    body: str | bytes = b""
    headers: Headers = ()


ProcessRequest = Callable[[Request], Answer | tuple[Any, ...] | None]


class Reply(NamedTuple):
    """What is to be written, and the websocket that the connection is after that, if it is one.

    :ivar address: of its client.
    """

    data: bytes
    websocket: WebSocket | None = None
    address: str | None = None


class Caller(NamedTuple):
    """Who has sent a request.

    :ivar socket: of the connection.
    :ivar address: of its other end, as the socket has it.
    :ivar scheme: ``http`` or ``https``.
    """

    socket: Any
    address: Any
    scheme: str


class _Connection:
    """What an endpoint asks about a handshake; see :class:`~ws4py.server.endpoint.Server`."""

    def __init__(self, socket: Any, manager: WebSocketManager) -> None:
        self.socket = socket
        self.admit = manager.admit
        self.refused = manager.count_refusal


class Responder:
    """Answers requests. Any number of threads may ask at once.

    :param endpoints: what is spoken on each path.
    :param manager: of the websockets.
    :param process_request: is asked about each request first. What it returns is the answer; with None the request goes
        on. It may raise :class:`~ws4py.exc.HandshakeError`.
    :param applications: of WSGI, by the path that each is under.
    :param server_name: for the environ.
    :param trusted_proxies: whose word about a client's address is believed.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint],
        manager: WebSocketManager,
        process_request: ProcessRequest | None,
        applications: Mapping[str, Application],
        server_name: tuple[str, str],
        trusted_proxies: TrustedProxies,
    ) -> None:
        self._endpoints = Routes(endpoints)
        self._manager = manager
        self._process_request = process_request
        mounted: dict[str, tuple[str, Application]] = {}
        for name, application in applications.items():
            path = f"/{name.strip('/')}".rstrip("/")
            mounted[path] = mounted[f"{path}/*"] = as_in_wsgi(path), application
        self._applications = Routes(mounted)
        self._server_name = server_name
        self._proxies = trusted_proxies
        self.may_wait = process_request is not None or bool(applications)
        """Whether an answer calls functions of the application's, so that it may take any time."""

    def answer(self, head: RequestHead, caller: Caller) -> Reply:
        """Return the answer to a request. No fault of the application's goes further than this."""
        try:
            environ = self._environ(head, caller)
            return self._answer(head, caller, environ)._replace(address=environ.get("REMOTE_ADDR"))
        except HandshakeError as error:
            return refusal(error, head.method)
        except Exception:
            logger.exception("A request could not be answered")
            return refusal(HandshakeError("The server has failed", 500), head.method)

    def refuse(self, error: HandshakeError) -> Reply:
        """Return the answer to what could not be read as a request."""
        self._manager.count_refusal(error.status)
        return refusal(error)

    def _answer(self, head: RequestHead, caller: Caller, environ: dict[str, Any]) -> Reply:
        address = environ.get("REMOTE_ADDR")
        request = Request(head.method, RequestHeaders(environ), head.http_version, caller.scheme, address, environ)
        if self._process_request is not None:
            try:
                answer = self._process_request(request)
            except HandshakeError as error:
                self._manager.count_refusal(error.status)
                raise
            if answer is not None:
                return _complete(Answer(*answer), head.method)
        mounted = self._applications.find(environ["PATH_INFO"])
        if mounted is not None:
            return self._call(*mounted, environ, caller)
        endpoint = self._endpoints.find(environ["PATH_INFO"])
        if endpoint is None:
            self._manager.count_refusal(404)
            raise HandshakeError("There is no such path here", 404)
        acceptance, websocket = endpoint.open(request, _Connection(caller.socket, self._manager))
        return Reply(format_head("HTTP/1.1 101 Switching Protocols", acceptance.headers), websocket)

    def _environ(self, head: RequestHead, caller: Caller) -> dict[str, Any]:
        """Return the environ of WSGI for a request."""
        name, port = self._server_name
        environ = {
            "REQUEST_METHOD": head.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(head.path).decode("latin-1"),
            "QUERY_STRING": head.query,
            "SERVER_PROTOCOL": f"HTTP/{head.http_version[0]}.{head.http_version[1]}",
            "SERVER_NAME": name,
            "SERVER_PORT": port,
            "wsgi.url_scheme": caller.scheme,
        }
        for key, value in head.headers.items():
            if "_" not in key:  # it would be taken for another one that has dashes, which a proxy has perhaps set
                environ[variable(key)] = value
        peer = str(caller.address[0]) if isinstance(caller.address, tuple) else None
        address = self._proxies.client(peer, environ.get("HTTP_X_FORWARDED_FOR"))
        if address is not None:
            environ["REMOTE_ADDR"] = address
        return environ

    def _call(self, path: str, application: Application, environ: dict[str, Any], caller: Caller) -> Reply:
        """Ask a WSGI application that is under a path."""
        environ["SCRIPT_NAME"] = path
        environ["PATH_INFO"] = environ["PATH_INFO"][len(path) :]
        environ |= {
            "wsgi.version": (1, 0),
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "ws4py.socket": caller.socket,
            "ws4py.manager": self._manager,
        }
        started: list[tuple[str, Headers]] = []
        written: list[bytes] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
            started.append((status, headers))
            return written.append

        reply = None
        try:
            result = application(environ, start_response)
            try:
                body = b"".join([*result])
            finally:
                getattr(result, "close", bool)()
            status, headers = started[-1]
            websocket = environ.get("ws4py.websocket")
            if websocket is not None and status.startswith("101"):
                reply = Reply(format_head(f"HTTP/1.1 {status}", headers), websocket)
                return reply
        finally:
            if reply is None and "ws4py.websocket" in environ:
                environ["ws4py.websocket"].sock = None
        return _complete(Answer(int(status[:3]), b"".join(written) + body, headers), environ["REQUEST_METHOD"])


def refusal(error: HandshakeError, method: str = "GET") -> Reply:
    """Return the answer for a handshake that was refused."""
    return _complete(Answer(error.status, f"{error.msg}\n", error.headers), method)


def _complete(answer: Answer, method: str) -> Reply:
    """Return the reply that an answer makes.

    :raises ValueError: for a status that is none, or none of an answer that ends a connection; for a header that can't
        be sent.
    """
    status, body, given = answer
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"An answer has a status from 200 to 599, not {status!r}")
    if isinstance(body, str):
        body = body.encode("utf-8", "replace")
    headers = [item for item in given if item[0].lower() not in ("connection", "content-length", "transfer-encoding")]
    names = {name.lower() for name, _ in headers}
    if body and "content-type" not in names:
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    if status not in (204, 304):
        headers.append(("Content-Length", str(len(body))))
    headers += [("Date", formatdate(usegmt=True)), ("Connection", "Upgrade, close" if "upgrade" in names else "close")]
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    try:
        data = format_head(f"HTTP/1.1 {status} {phrase}", headers)
    except HandshakeError as error:
        raise ValueError(error.msg) from error
    return Reply(data if method == "HEAD" or status in (204, 304) else data + body)
