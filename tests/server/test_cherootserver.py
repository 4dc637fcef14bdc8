"""WebSockets on plain cheroot. What all servers do is in test_adapters.py."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.hosting import Hosted
from tests.serving import PATIENCE, Peer, eventually, frame, free_port

wsgi = pytest.importorskip("cheroot.wsgi")

from ws4py.manager import WebSocketManager  # noqa: E402
from ws4py.server.cherootserver import WebSocketMiddleware, attach  # noqa: E402
from ws4py.websocket import EchoWebSocket  # noqa: E402


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def server(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    with Hosted("cheroot", tls=request.param) as server:
        yield server


def test_the_cookies_of_the_consent(server: Hosted) -> None:
    with server.connect() as peer:
        response = peer.upgrade("/rooms/1", Cookie="session=ada")
        assert (response.status, response.get("set-cookie")) == (101, "seen=1")
        peer.echo("here")
        peer.finish()
    server.wait_for("opened", "/rooms/1", "session=ada")


def test_the_answer_of_the_application(server: Hosted) -> None:
    with server.connect() as peer:
        response = peer.upgrade("/rooms/secret")
        assert (response.status, response.body, response.get("www-authenticate")) == (401, b"secret", "Basic")
        # and the connection goes on
        response = peer.upgrade("/rooms/lazy")
        assert (response.status, response.body) == (403, b"nono")
        assert peer.upgrade("/rooms/2").status == 101
        peer.finish()
    assert '["opened", "/rooms/secret"' not in server.log()


def test_an_application_that_fails(server: Hosted) -> None:
    server.quiet = False
    with server.connect() as peer:
        assert peer.upgrade("/rooms/broken").status == 500


def test_other_paths(server: Hosted) -> None:
    response = server.get("/elsewhere")
    assert (response.status, response.body) == (200, b"hello")


def test_subprotocol(server: Hosted) -> None:
    with server.connect() as peer:
        assert peer.upgrade("/chat", Sec_WebSocket_Protocol="news, chat").get("sec-websocket-protocol") == "news"
        peer.finish()


def test_a_message_in_opened(server: Hosted) -> None:
    with server.open("/greet") as peer:
        assert peer.message() == "hello"
        peer.finish()


def test_the_worker_is_free_again(server: Hosted) -> None:
    """There are three of them."""
    peers = [server.open("/") for _ in range(8)]
    assert server.get("/elsewhere").status == 200
    for peer in peers:
        peer.echo("here")
        peer.finish()


def test_after_a_request_on_the_same_connection(server: Hosted) -> None:
    with server.connect() as peer:
        assert peer.get("/elsewhere").body == b"hello"
        assert peer.upgrade("/", frame("early")).status == 101
        assert peer.message() == "early"
        peer.finish()


def test_no_descriptor_is_left(server: Hosted) -> None:
    process = psutil.Process(server.process.pid)
    server.open("/").finish()
    before = process.num_fds()
    for number in range(30):
        peer = server.open("/")
        peer.finish() if number % 2 else peer.reset()
    eventually(lambda: process.num_fds() <= before, "the descriptors are given back")


def test_admission() -> None:
    with Hosted("cheroot", limits={"max_connections": 1}) as server, server.open("/") as first:
        first.echo("here")  # the 101 is there before the manager has its socket
        with server.connect() as peer:
            response = peer.upgrade("/")
            assert (response.status, response.get("retry-after")) == (503, "10")
        first.finish()


def test_stop_drops_what_does_not_answer() -> None:
    with Hosted("cheroot", limits={"drain_timeout": 0.3}) as server, server.open("/") as mute:
        mute.echo("here")
        server.process.terminate()
        assert mute.receive().code == 1001
        assert mute.read_to_the_end() == b""
        assert server.wait() == 0
        server.wait_for("closed", 1006)


# --- attach(), here ---------------------------------------------------------------------------------------------------


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return []


def serve(server: Any) -> threading.Thread:
    """Run a server in a thread."""
    server.prepare()
    thread = threading.Thread(target=server.serve)
    thread.start()
    return thread


@pytest.mark.parametrize("prepared", [False, True])
def test_the_manager_lives_with_the_server(prepared: bool) -> None:
    port = free_port()
    server = wsgi.Server(("127.0.0.1", port), WebSocketMiddleware(page, {"/": EchoWebSocket}), numthreads=2)
    if prepared:
        server.prepare()
    manager = attach(server, drain_timeout=0.2)
    assert manager.running is prepared
    assert server.websocket_manager is manager
    if prepared:
        thread = threading.Thread(target=server.serve)
        thread.start()
    else:
        thread = serve(server)
    assert manager.running
    with Peer(socket.create_connection(("127.0.0.1", port), PATIENCE), f"127.0.0.1:{port}") as peer:
        assert peer.upgrade("/").status == 101
        peer.echo("here")
        server.stop()
        assert peer.receive().code == 1001
    thread.join(PATIENCE)
    assert not manager.is_alive()
    server.stop()


@pytest.mark.parametrize("prepared", [False, True])
def test_many_clients_may_come_at_once(prepared: bool, caplog: pytest.LogCaptureFixture) -> None:
    """They wait until the server accepts them, which this one never does."""
    caplog.set_level("INFO", "ws4py")
    server = wsgi.Server(("127.0.0.1", free_port()), page)
    if prepared:
        server.prepare()
    attach(server)
    if not prepared:
        server.prepare()
    with contextlib.ExitStack() as clients:
        clients.callback(server.stop)
        for _ in range(200):
            clients.enter_context(socket.create_connection(server.bind_addr, timeout=5))
    assert "connections may wait" in caplog.text


def test_a_listen_queue_of_ones_own() -> None:
    server = wsgi.Server(("127.0.0.1", 0), page, request_queue_size=7)
    attach(server)
    assert server.request_queue_size == 7


def test_a_manager_of_ones_own() -> None:
    server = wsgi.Server(("127.0.0.1", 0), page)
    manager = WebSocketManager()
    assert attach(server, manager) is manager
    with pytest.raises(ValueError, match="has a manager already"):
        attach(server)
    with pytest.raises(TypeError, match="give them to yours"):
        attach(wsgi.Server(("127.0.0.1", 0), page), manager, drain_timeout=1)


def test_without_attach() -> None:
    port = free_port()
    server = wsgi.Server(("127.0.0.1", port), WebSocketMiddleware(page, {"/": EchoWebSocket}), numthreads=1)
    thread = serve(server)
    with Peer(socket.create_connection(("127.0.0.1", port), PATIENCE), f"127.0.0.1:{port}") as peer:
        response = peer.upgrade("/")
    server.stop()
    thread.join(PATIENCE)
    assert response.status == 501
    assert b"attach" in response.body
