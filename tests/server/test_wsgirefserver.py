"""WebSockets on the server of the standard library. What all servers do is in test_adapters.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.simple_server import make_server

import pytest

from tests.serving import PATIENCE, Peer
from ws4py.manager import WebSocketManager
from ws4py.server.wsgirefserver import WebSocketWSGIRequestHandler, WSGIServer
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import EchoWebSocket


class QuietHandler(WebSocketWSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """Have websockets and a page."""
    if environ["PATH_INFO"] == "/page":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"page"]
    answer = WebSocketWSGIApplication(handler_cls=EchoWebSocket)(environ, start_response)
    if environ["PATH_INFO"] == "/refused":
        start_response("403 Forbidden", [], (ValueError, ValueError(), None))
        return [b"no"]
    return answer


@pytest.fixture
def server() -> Iterator[WSGIServer]:
    server = make_server("127.0.0.1", 0, application, server_class=WSGIServer, handler_class=QuietHandler)
    server.initialize_websockets_manager()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join(PATIENCE)
    server.server_close()
    assert server.manager is not None
    assert not server.manager.is_alive()


def connect(server: WSGIServer) -> Peer:
    return Peer(
        socket.create_connection(("127.0.0.1", server.server_port), PATIENCE), f"127.0.0.1:{server.server_port}"
    )


def test_a_page(server: WSGIServer) -> None:
    with connect(server) as peer:
        response = peer.get("/page")
        assert (response.status, response.body, response.get("connection")) == (200, b"page", "close")


def test_several_at_once(server: WSGIServer) -> None:
    peers = [connect(server) for _ in range(3)]
    for peer in peers:
        assert peer.upgrade("/").status == 101
    for peer in peers:
        peer.echo("here")
    with connect(server) as peer:
        assert peer.get("/page").status == 200
    for peer in peers:
        peer.finish()
    assert not server.taken


def test_refused_by_the_application(server: WSGIServer) -> None:
    with connect(server) as peer:
        assert peer.upgrade("/refused").status == 403
        assert peer.read_to_the_end() == b""
    assert server.manager is not None
    assert len(server.manager) == 0


def test_a_line_that_is_too_long(server: WSGIServer) -> None:
    with connect(server) as peer:
        peer.sock.sendall(b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n")
        assert b" 414 " in peer.read_to_the_end()


def test_the_manager_is_made_when_it_is_needed() -> None:
    with make_server("127.0.0.1", 0, application, server_class=WSGIServer, handler_class=QuietHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with connect(server) as peer:
            assert peer.upgrade("/").status == 101
            peer.echo("here")
            peer.finish()
        thread.join(PATIENCE)


def test_a_manager_of_ones_own() -> None:
    manager = WebSocketManager(max_connections=1)
    with make_server("127.0.0.1", 0, application, server_class=WSGIServer, handler_class=QuietHandler) as server:
        server.initialize_websockets_manager(manager)
        assert server.manager is manager
        assert manager.running
