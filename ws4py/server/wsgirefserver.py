"""WebSockets on the server of the standard library, for tests and demonstrations. It answers one request at a time.

.. code-block:: python

    from wsgiref.simple_server import make_server
    from ws4py.server.wsgirefserver import WebSocketWSGIRequestHandler, WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket

    server = make_server('', 9000, server_class=WSGIServer, handler_class=WebSocketWSGIRequestHandler,
                         app=WebSocketWSGIApplication(handler_cls=EchoWebSocket))
    server.initialize_websockets_manager()
    server.serve_forever()
"""

from __future__ import annotations

from typing import Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler
from wsgiref.simple_server import WSGIServer as _WSGIServer
from wsgiref.util import is_hop_by_hop

from ws4py.exc import HandshakeError
from ws4py.manager import WebSocketManager
from ws4py.manager.process import shut_down
from ws4py.server.rawsocket import take_buffered
from ws4py.server.running import hand_over
from ws4py.server.wsgiutils import refuse
from ws4py.websocket import WebSocket

__all__ = ["WSGIServer", "WebSocketWSGIHandler", "WebSocketWSGIRequestHandler"]

MAX_REQUEST_LINE = 65536


class WebSocketWSGIHandler(ServerHandler):
    """Answers one request, perhaps with a 101."""

    http_version = "1.1"
    request_handler: WebSocketWSGIRequestHandler
    environ: Any
    headers: Any
    status: str | None

    def setup_environ(self) -> None:
        """Make the environ. Called by wsgiref."""
        super().setup_environ()
        self.environ["ws4py.socket"] = self.request_handler.connection
        self.environ["ws4py.manager"] = self.request_handler.server.manager

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """Begin the response; unlike wsgiref's own, with headers that are the connection's."""
        write = super().start_response(status, [item for item in headers if not is_hop_by_hop(item[0])], exc_info)
        for name, value in headers:
            if is_hop_by_hop(name):
                self.headers.add_header(name, value)
        if not status.startswith("101"):
            self.headers.add_header("Connection", "close")  # there is one request in a connection here
        return write

    def cleanup_headers(self) -> None:
        """Complete the headers. Called by wsgiref."""
        if self.status is not None and self.status.startswith("101"):
            del self.headers["Content-Length"]
        else:
            super().cleanup_headers()

    def run(self, application: Any) -> None:
        """Answer, and give the websocket to the server if the answer was a 101."""
        super().run(_answering(application, self))

    def finish_response(self) -> None:
        """Send the response. Called by wsgiref."""
        environ, switching = self.environ or {}, (self.status or "").startswith("101")
        super().finish_response()
        websocket = environ.get("ws4py.websocket")
        if websocket is None:
            return
        if switching:
            self.request_handler.link(websocket)
        else:
            websocket.sock = None


def _answering(application: Any, handler: WebSocketWSGIHandler) -> Any:
    """Return an application that answers a handshake that was refused, where ``application`` raises."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            return application(environ, start_response)
        except HandshakeError as error:
            return refuse(error, start_response)

    return answer


class WebSocketWSGIRequestHandler(WSGIRequestHandler):
    """Reads one request from a connection, and has it answered."""

    WebSocketWSGIHandler = WebSocketWSGIHandler
    protocol_version = "HTTP/1.1"
    server: WSGIServer

    def handle(self) -> None:
        """Answer the request. Called by socketserver."""
        self.raw_requestline = self.rfile.readline(MAX_REQUEST_LINE + 1)
        if len(self.raw_requestline) > MAX_REQUEST_LINE:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
            return
        if not self.parse_request():  # which has answered
            return
        environ = self.get_environ()
        environ["SERVER_PROTOCOL"] = self.request_version
        output: Any = self.wfile
        handler = self.WebSocketWSGIHandler(self.rfile, output, self.get_stderr(), environ, multithread=False)
        handler.request_handler = self
        handler.run(self.server.get_app())

    def link(self, websocket: WebSocket) -> None:
        """Take a websocket over from the connection."""
        sock = self.connection
        websocket.buf = take_buffered(sock, self.rfile)
        self.server.taken.add(sock)
        if not hand_over(self.server.link_websocket_to_server, websocket):
            self.server.taken.discard(sock)
            websocket.sock = None


class WSGIServer(_WSGIServer):
    """The server. Its websockets are run by ``manager``, a :class:`~ws4py.manager.WebSocketManager`."""

    manager: WebSocketManager | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self.taken: set[Any] = set()  # sockets that are not the server's to close any more
        super().__init__(*args, **options)

    def initialize_websockets_manager(self, manager: WebSocketManager | None = None) -> None:
        """Start the manager of the websockets; to be called before the first handshake.

        :param manager: one's own, not started.
        """
        self.manager = manager if manager is not None else WebSocketManager()
        self.manager.daemon = True  # the server stops it
        self.manager.start()

    def link_websocket_to_server(self, ws: WebSocket) -> None:
        """Have a websocket run whose handshake is done.

        :raises ManagerError: if the manager has stopped.
        """
        if self.manager is None:
            self.initialize_websockets_manager()
        assert self.manager is not None
        self.manager.add(ws)

    def shutdown_request(self, request: Any) -> None:
        """End a connection, unless it is a websocket's now. Called by socketserver."""
        if request in self.taken:
            self.taken.discard(request)
            return
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the server, every websocket with 1001, and wait for those."""
        if self.manager is not None:
            shut_down(self.manager)
        super().server_close()


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.logs import format_addresses  # noqa: E402, F401
from ws4py.server.running import logger  # noqa: E402, F401
from ws4py.server.wsgiutils import WebSocketWSGIApplication  # noqa: E402, F401
