"""The server of websockets only, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.sync.client import connect, unix_connect

from tests.helpers import Recorder, Task, quiet, until, wait_for
from tests.manager.test_life import FragilePoller
from tests.server.served import Serve
from tests.serving import PATIENCE, certificates, close_frame, frame
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.server import acceptor
from ws4py.server.acceptor import Acceptor
from ws4py.server.threadedserver import Endpoint, Request, WebSocketServer
from ws4py.websocket import EchoWebSocket, WebSocket


class Greeting(WebSocket):
    """Says on which path it is."""

    def opened(self) -> None:
        assert self.environ is not None
        self.send(self.environ["PATH_INFO"])


# --- websockets -------------------------------------------------------------------------------------------------------


def test_echo(serve: Serve, tls: bool) -> None:
    """With a client of others, that uses one thread: over TLS the one with two may lose what it sends."""
    server = serve(tls=tls, compression=True)

    async def converse() -> None:
        async with async_connect(server.url, ssl=certificates().context if tls else None) as client:
            for message in ("", "text é", b"", b"binary", "x" * 200_000):
                await client.send(message)
                assert await asyncio.wait_for(client.recv(), PATIENCE) == message
            assert client.response is not None
            assert "permessage-deflate" in client.response.headers["Sec-WebSocket-Extensions"]
        assert client.close_code == 1000

    asyncio.run(converse())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # of what asyncio leaves with TLS on Python 3.10


def test_frames_behind_the_handshake(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls)
    messages = ["one", "two", "x" * 60_000, "y" * 60_000]
    data = b"".join(map(frame, messages))
    peer = server.connect()
    assert peer.upgrade("/", data[:-1]).status == 101
    assert [peer.message() for _ in messages[:-1]] == messages[:-1]
    peer.sock.sendall(data[-1:])
    assert peer.message() == messages[-1]
    peer.finish()


def test_a_head_that_comes_byte_by_byte(serve: Serve, tls: bool) -> None:
    peer = serve(tls=tls).connect()
    for byte in peer.handshake("/"):
        peer.sock.sendall(bytes([byte]))
    assert peer.read_response().status == 101
    peer.echo("here")


def test_paths(serve: Serve) -> None:
    room = Endpoint(handler_cls=Greeting, protocols=["b"], max_message_size=10)
    server = serve({"/echo": EchoWebSocket, "/rooms/*": room, "/rooms/ä": EchoWebSocket}, protocols=["a"])
    peer = server.connect()
    assert peer.upgrade("/echo?x", Sec_WebSocket_Protocol="b, a").get("sec-websocket-protocol") == "a"
    peer.echo("here")
    peer = server.connect()
    assert peer.upgrade("/rooms/1", Sec_WebSocket_Protocol="a, b").get("sec-websocket-protocol") == "b"
    assert peer.message() == "/rooms/1"
    peer.send("x" * 11)
    assert peer.receive().code == 1009
    server.open("/rooms/%C3%A4").echo("here")
    for response in (server.refused("/elsewhere"), server.ask("/"), server.refused("/rooms")):
        assert (response.status, response.body) == (404, b"There is no such path here\n")
    assert server.server.manager.stats().connections.refused == {404: 3}


def test_what_a_websocket_knows(serve: Serve) -> None:
    seen: list[dict[str, Any]] = []

    class Seeing(WebSocket):
        def opened(self) -> None:
            assert self.environ is not None
            seen.append({**self.environ, "peer": self.peer_address[0]})
            self.send("seen")

    server = serve(Seeing)
    peer = server.connect()
    request = peer.handshake("/a%20b?c=d", Cookie="e=f")
    peer.sock.sendall(request.replace(b"Cookie", b"X_Real_IP: 1.2.3.4\r\nCookie"))
    assert peer.read_response().status == 101
    assert peer.message() == "seen"
    (environ,) = seen
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_COOKIE"]) == ("/a b", "c=d", "e=f")
    assert (environ["REMOTE_ADDR"], environ["peer"], environ["wsgi.url_scheme"]) == ("127.0.0.1", "127.0.0.1", "http")
    assert not [name for name in environ if "REAL" in name]


def test_a_client_behind_a_proxy(serve: Serve) -> None:
    """Its address is what limits, statistics and the application go by."""

    class Seeing(WebSocket):
        def opened(self) -> None:
            assert self.environ is not None
            self.send(self.environ["REMOTE_ADDR"])

    server = serve(Seeing, trusted_proxies=["127.0.0.1"], max_connections_per_ip=1)
    for client in ("203.0.113.7", "203.0.113.8"):
        assert server.open("/", X_Forwarded_For=f"203.0.113.9, {client}").message() == client
    assert server.refused("/", X_Forwarded_For="203.0.113.7").status == 429
    stats = server.server.manager.connection_stats()
    assert {row.address for row in stats} == {"203.0.113.7", "203.0.113.8"}
    assert serve(Seeing).open("/", X_Forwarded_For="203.0.113.7").message() == "127.0.0.1"


def test_pages_of_others(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls, hosts=["127.0.0.1"])
    scheme = "https" if tls else "http"
    server.open(Origin=f"{scheme}://127.0.0.1").echo("here")
    assert server.refused(Origin=f"{scheme}://example.org").status == 403
    assert server.refused(Host="example.org").status == 403
    if tls:
        assert server.refused(Origin="http://127.0.0.1").status == 403


def test_what_surrounds_each_callback(serve: Serve) -> None:
    around: list[str] = []

    @contextlib.contextmanager
    def surround(websocket: WebSocket) -> Iterator[None]:
        around.append("in")
        yield
        around.append("out")

    peer = serve(around=surround).open()
    peer.echo("here")
    peer.finish()
    until(lambda: around == ["in", "out"] * 3)


# --- life -------------------------------------------------------------------------------------------------------------


def test_shutdown(serve: Serve, tls: bool) -> None:
    ended: list[Recorder] = []

    class Ending(Recorder):
        def on_closed(self, code: int, reason: Any) -> None:
            ended.append(self)

    server = serve(Ending, tls=tls)
    address = server.server.server_address
    peers = [server.open() for _ in range(3)]
    mute = server.connect_plainly()
    until(lambda: len(server.server.manager) == 3)
    server.server.shutdown()
    server.server.shutdown()
    for peer in peers:
        assert peer.receive().code == 1001
        peer.finish_after_close(1001)
    assert mute.read_to_the_end() == b""
    server.server.join(PATIENCE)
    assert server.server.manager.state == "stopped"
    assert len(ended) == 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, PATIENCE)
    with pytest.raises(RuntimeError, match="has ended"):
        server.server.start()


def test_shutdown_while_handshakes_take_their_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The websockets are closed before anybody waits for the workers, and these are waited for together."""
    monkeypatch.setattr(acceptor, "GRACE", 0.5)
    gate, inside = threading.Event(), threading.Semaphore(0)

    def process_request(request: Request) -> None:
        if request.path == "/slow":
            inside.release()
            wait_for(gate)

    workers = 20  # whose waits one after the other would take ten seconds
    server = serve(process_request=process_request, handshake_workers=workers)
    established = server.open()
    slow = [server.connect() for _ in range(workers)]
    for peer in slow:
        peer.sock.sendall(peer.handshake("/slow"))
        assert inside.acquire(timeout=PATIENCE)
    server.server.shutdown()
    established.sock.settimeout(5.0)
    assert established.receive().code == 1001
    established.finish_after_close(1001)
    server.server.join(5.0)
    assert not server.server.manager.is_alive()
    gate.set()
    for peer in slow:
        assert peer.read_response().status == 503


def test_serve_forever_returns_when_all_is_ended() -> None:
    server = WebSocketServer(("127.0.0.1", 0), EchoWebSocket)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with connect(f"ws://127.0.0.1:{server.server_address[1]}") as client:
        client.send("here")
        assert client.recv(timeout=PATIENCE) == "here"
        server.shutdown()
        with pytest.raises(Exception, match="1001"):
            client.recv(timeout=PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not server.manager.is_alive()


def test_shutdown_by_a_callback(serve: Serve) -> None:
    class Ending(WebSocket):
        def received_message(self, message: Message) -> None:
            server.server.shutdown()

    server = serve(Ending)
    peer = server.open()
    peer.send("end")
    assert peer.receive().code == 1001
    peer.sock.sendall(close_frame(1001))
    server.server.join(PATIENCE)
    assert not server.server.manager.is_alive()


def test_a_server_that_was_never_started() -> None:
    server = WebSocketServer(("127.0.0.1", 0))
    address = server.server_address
    server.shutdown()
    server.join()
    with pytest.raises(RuntimeError, match="has ended"):
        server.start()
    with socket.create_server(address):
        pass


def test_it_can_not_be_started() -> None:
    """It listens no more then."""
    server = WebSocketServer(("127.0.0.1", 0))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.server_address, PATIENCE)
    with pytest.raises(RuntimeError, match="has ended"):
        server.start()


def test_it_can_be_started_once(serve: Serve) -> None:
    server = serve().server
    with pytest.raises(RuntimeError, match="runs already"):
        server.start()


def test_what_breaks_the_thread_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours, which nothing can cause from outside."""

    def fail(self: Acceptor) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Acceptor, "_turn", fail)
    server = WebSocketServer(("127.0.0.1", 0))
    with quiet() as records, pytest.raises(RuntimeError, match="has failed"):
        server.serve_forever()
    assert records[0].levelno == logging.CRITICAL
    assert not server.manager.is_alive()


def test_a_manager_that_fails_ends_the_server() -> None:
    poller = FragilePoller()
    manager = WebSocketManager(poller=poller)
    server = WebSocketServer(("127.0.0.1", 0), EchoWebSocket, manager=manager)
    serving = Task(server.serve_forever)
    with quiet(), connect(f"ws://127.0.0.1:{server.server_address[1]}") as client:
        client.send("here")
        assert client.recv(timeout=PATIENCE) == "here"
        poller.fails_to = "poll"
        with pytest.raises(RuntimeError, match="has failed"):
            serving.result()
    assert manager.failed
    assert manager.on_failure is None
    poller.release()


def test_a_manager_of_ones_own(serve: Serve) -> None:
    manager = WebSocketManager(workers=2)
    server = serve(manager=manager)
    assert server.server.manager is manager
    peer = server.open()
    peer.echo("here")
    peer.finish()
    server.server.shutdown()
    server.server.join(PATIENCE)
    assert not manager.is_alive()


def test_a_manager_that_runs_already_goes_on(serve: Serve) -> None:
    with WebSocketManager() as manager:
        server = serve(manager=manager)
        peer = server.open()
        server.server.shutdown()
        server.server.join(PATIENCE)
        peer.echo("still here")
        peer.finish()


# --- where it listens -------------------------------------------------------------------------------------------------


def test_a_socket_that_is_given(serve: Serve) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = serve(address=listener)
    assert server.server.server_address == listener.getsockname()
    peer = server.open()
    peer.echo("here")
    peer.finish()
    server.server.shutdown()
    server.server.join(PATIENCE)
    assert listener.fileno() == -1


def test_a_unix_socket(serve: Serve, tls: bool, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = serve(Greeting, address=path, tls=tls)
    assert server.server.server_address == str(path)
    peer = server.open("/x")
    assert peer.message() == "/x"
    peer.finish()
    if not tls:
        with unix_connect(str(path), "ws://127.0.0.1/y") as client:
            assert client.recv(timeout=PATIENCE) == "/y"
    with pytest.raises(OSError, match="in use"):
        WebSocketServer(str(path))
    server.server.shutdown()
    server.server.join(PATIENCE)
    assert not path.exists()


def test_the_path_of_a_unix_socket_that_nobody_listens_at(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    serve(address=str(path)).open().echo("here")
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        WebSocketServer(file)
    assert file.read_text() == "precious"


def test_the_path_of_a_unix_socket_that_is_anothers_by_now(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = serve(address=path)
    path.unlink()
    path.write_text("another's")
    server.server.shutdown()
    server.server.join(PATIENCE)
    assert path.read_text() == "another's"


def test_several_servers_on_a_port(serve: Serve) -> None:
    first = serve(reuse_port=True)
    second = serve(address=first.server.server_address, reuse_port=True)
    first.server.shutdown()
    first.server.join(PATIENCE)
    second.open().echo("here")
    with pytest.raises(OSError, match="in use"):
        WebSocketServer(second.server.server_address)


def test_ipv6(serve: Serve) -> None:
    try:
        server = serve(address=("::1", 0))
    except OSError:
        pytest.skip("There is no IPv6 here")
    server.open().echo("here")


def test_messages_are_not_held_back(serve: Serve) -> None:
    delays: list[int] = []

    class Looking(WebSocket):
        def opened(self) -> None:
            delays.append(self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.send("seen")

    assert serve(Looking).open().message() == "seen"
    assert delays[0]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"handshake_timeout": 0}, ValueError, "handshake_timeout"),
        ({"max_handshakes": 0}, ValueError, "max_handshakes"),
        ({"max_head_size": 10}, ValueError, "max_head_size"),
        ({"handshake_workers": True}, ValueError, "handshake_workers"),
        ({"max_conections": 1}, TypeError, "max_conections"),
        ({"manager": WebSocketManager(), "max_connections": 1}, TypeError, "give them to yours"),
        ({"compression": 3}, TypeError, "compression"),
        ({"trusted_proxies": ["proxy"]}, ValueError, "proxy"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        WebSocketServer(("127.0.0.1", 0), **options)
