"""The server of websockets only, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import resource
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.sync.client import connect, unix_connect

from tests.helpers import Recorder, Task, open_fds, quiet, stays, until, wait_for
from tests.manager.test_life import FragilePoller
from tests.serving import PATIENCE, Peer, Response, certificates, close_frame, frame
from ws4py.exc import HandshakeError
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.server import acceptor
from ws4py.server.acceptor import Acceptor
from ws4py.server.stats import StatsApplication, basic_auth
from ws4py.server.threadedserver import Answer, Endpoint, Request, WebSocketServer
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import EchoWebSocket, WebSocket


class Served:
    """A server that runs, and its clients."""

    def __init__(self, server: WebSocketServer, tls: bool = False) -> None:
        self.server = server
        self.tls = tls
        self._peers: list[Peer] = []

    @property
    def url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.server.server_address[1]}"

    def connect_plainly(self) -> Peer:
        """Return a new connection, without TLS."""
        address = self.server.server_address
        if isinstance(address, tuple):
            sock = socket.create_connection(address[:2], PATIENCE)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(address)
        peer = Peer(sock, "127.0.0.1")
        self._peers.append(peer)
        return peer

    def connect(self) -> Peer:
        """Return a new connection."""
        peer = self.connect_plainly()
        if self.tls:
            peer.sock = certificates().context.wrap_socket(peer.sock, server_hostname="127.0.0.1")
        return peer

    def open(self, path: str = "/", **headers: Any) -> Peer:
        """Return a connection that is a websocket."""
        peer = self.connect()
        assert peer.upgrade(path, **headers).status == 101
        return peer

    def ask(self, path: str, method: str = "GET", **headers: Any) -> Response:
        """Return the answer to a request after which the connection ends."""
        peer = self.connect()
        peer.sock.sendall(peer.request(path, method, **headers))
        response = peer.read_response(method != "HEAD")
        assert peer.read_to_the_end() == b""
        assert "close" in (response.get("connection") or "")
        return response

    def refused(self, path: str = "/", **headers: Any) -> Response:
        """Return the answer to a handshake after which the connection ends."""
        peer = self.connect()
        response = peer.upgrade(path, **headers)
        assert peer.read_to_the_end() == b""
        return response

    def close(self) -> None:
        for peer in self._peers:
            peer.close()


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server; nothing of it may stay behind."""
    threads, descriptors = set(threading.enumerate()), open_fds()
    with contextlib.ExitStack() as ends:

        def start(
            what: Any = EchoWebSocket, *, address: Any = ("127.0.0.1", 0), tls: bool = False, **options: Any
        ) -> Served:
            if tls:
                options["ssl_context"] = server_context()
            server = ends.enter_context(WebSocketServer(address, what, **options))
            served = Served(server, tls)
            ends.callback(served.close)
            return served

        yield start
    until(lambda: set(threading.enumerate()) <= threads)
    assert open_fds() <= descriptors


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates().certificate, certificates().key)
    return context


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


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


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_no_handshake(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls)
    response = server.ask("/")
    assert (response.status, response.get("upgrade")) == (426, "websocket")
    assert (response.get("sec-websocket-version"), response.get("connection")) == ("13, 8", "Upgrade, close")
    assert server.ask("/", "POST").status == 405
    assert server.ask("/", "HEAD").get("content-length") == "26"
    assert server.refused(Sec_WebSocket_Version="7").status == 426
    assert server.refused(Sec_WebSocket_Key="short").status == 400


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20_000, 431),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, 413),
    ],
)
def test_what_is_no_request(serve: Serve, tls: bool, request_: bytes, status: int) -> None:
    """A client gets its answer, whatever else it has sent."""
    server = serve(tls=tls)
    peer = server.connect()
    peer.sock.sendall(request_)
    assert peer.read_response().status == status
    assert server.server.manager.stats().connections.refused == {status: 1}


def test_a_client_that_goes_on_sending_meets_no_reset(serve: Serve) -> None:
    peer = serve().connect()
    peer.sock.sendall(peer.request("/", "POST", Content_Length="100000"))
    assert peer.read_response().status == 413
    for _ in range(10):
        peer.sock.sendall(b"x" * 10_000)
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.sock.recv(1) == b""


def test_limits(serve: Serve) -> None:
    server = serve(max_connections=1, max_head_size=1000)
    server.open().echo("here")
    response = server.refused()
    assert (response.status, response.get("retry-after")) == (503, "10")
    assert server.refused(Cookie="x" * 1000).status == 431


def test_a_class_that_fails(serve: Serve) -> None:
    class Failing(WebSocket):
        def __init__(self, *_: Any) -> None:
            raise ZeroDivisionError

    server = serve({"/": EchoWebSocket, "/bad": Failing})
    with quiet() as records:
        response = server.refused("/bad")
    assert (response.status, response.body) == (500, b"The server has failed\n")
    assert records[0].exc_info is not None
    server.open().echo("here")


# --- requests that the application answers ----------------------------------------------------------------------------


def test_process_request(serve: Serve, tls: bool) -> None:
    answers: dict[str, Any] = {
        "/health": (200, "ok\n"),
        "/login": Answer(401, headers=[("WWW-Authenticate", "Basic")]),
        "/json": (200, b"{}", [("Content-Type", "application/json"), ("Connection", "keep-alive")]),
        "/none": (204,),
        "/ä": (200, "é"),
    }
    requests: list[Request] = []

    def process_request(request: Request) -> Any:
        requests.append(request)
        if request.path == "/secret":
            raise HandshakeError("Not for you", 403, [("X-Reason", "none")])
        return answers.get(request.path)

    server = serve(tls=tls, process_request=process_request)
    response = server.ask("/health")
    assert (response.status, response.body, response.get("content-type")) == (200, b"ok\n", "text/plain; charset=utf-8")
    response = server.ask("/health", "HEAD")
    assert (response.status, response.get("content-length")) == (200, "3")
    response = server.refused("/login")
    assert (response.status, response.body, response.get("www-authenticate")) == (401, b"", "Basic")
    response = server.ask("/json")
    assert (response.body, response.get("content-type")) == (b"{}", "application/json")
    response = server.ask("/none")
    assert (response.status, response.get("content-length")) == (204, None)
    assert server.ask("/%C3%A4").body == "é".encode()
    response = server.refused("/secret")
    assert (response.status, response.body, response.get("x-reason")) == (403, b"Not for you\n", "none")
    server.open("/echo", X_Mine="1").echo("here")
    request = requests[-1]
    assert (request.method, request.http_version, request.address) == ("GET", (1, 1), "127.0.0.1")
    assert (request.headers.get("x-mine"), request.scheme) == ("1", "https" if tls else "http")


@pytest.mark.parametrize("answer", [(101, ""), ("200", ""), (200, "", [("X", "a\r\nb")]), 200, ZeroDivisionError])
def test_a_process_request_that_fails(serve: Serve, answer: Any) -> None:
    def process_request(request: Request) -> Any:
        if request.path == "/bad":
            if answer is ZeroDivisionError:
                raise ZeroDivisionError
            return answer
        return None

    server = serve(process_request=process_request)
    with quiet() as records:
        assert server.ask("/bad").status == 500
    assert records[0].exc_info is not None
    server.open().echo("here")


def test_a_process_request_that_waits_delays_nobody(serve: Serve) -> None:
    gate, inside = threading.Event(), threading.Semaphore(0)

    def process_request(request: Request) -> Any:
        if request.path == "/slow":
            inside.release()
            wait_for(gate)
        return None

    server = serve(process_request=process_request, handshake_workers=4)
    slow = [server.connect() for _ in range(3)]
    for peer in slow:
        peer.sock.sendall(peer.handshake("/slow"))
        assert inside.acquire(timeout=PATIENCE)
    server.open().echo("here")
    gate.set()
    for peer in slow:
        assert peer.read_response().status == 101
        peer.echo("here")


def test_an_answer_that_is_large(serve: Serve, tls: bool) -> None:
    """It is written as fast as the client reads."""
    body = os.urandom(8 << 20)
    server = serve(tls=tls, process_request=lambda request: (200, body) if request.path == "/large" else None)
    peer = server.connect()
    peer.sock.sendall(peer.request("/large"))
    server.open().echo("here")
    assert peer.read_response().body == body


def test_statistics(serve: Serve, tls: bool) -> None:
    statistics = StatsApplication(authorize=basic_auth("me", "secret"), interval=0.05)
    server = serve(tls=tls, applications={"/stats": statistics})
    server.open().echo("here")
    login = {"Authorization": "Basic bWU6c2VjcmV0"}
    assert server.ask("/stats/stats.json").status == 401
    assert server.ask("/stats", **login).get("location") == "stats/"
    assert server.ask("/stats/", **login).get("content-type") == "text/html; charset=utf-8"
    response = server.ask("/stats/stats.json", **login)
    assert json.loads(response.body)["connections"]["open"] == 1
    assert server.refused("/stats/feed").status == 401
    feed = server.open("/stats/feed", **login)
    shown = feed.message()
    assert isinstance(shown, str)
    assert json.loads(shown)["stats"]["connections"]["open"] == 2
    assert server.refused("/stats/feed", Origin="http://example.org", **login).status == 403
    server.open("/statistics").echo("here")


def test_applications(serve: Serve) -> None:
    ended = threading.Event()

    class Body(list[bytes]):
        def close(self) -> None:
            ended.set()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/bad":
            raise ZeroDivisionError
        write = start_response("200 OK", [("X-Path", environ["SCRIPT_NAME"])])
        write(b"a" + environ["wsgi.input"].read())
        return Body([b"b", environ["PATH_INFO"].encode()])

    server = serve(applications={"/pages/": application})
    response = server.ask("/pages/x")
    assert (response.status, response.body, response.get("x-path")) == (200, b"ab/x", "/pages")
    wait_for(ended)
    response = serve(applications={"/": application}).ask("/x/y")
    assert (response.body, response.get("x-path")) == (b"ab/x/y", "")
    with quiet():
        assert server.ask("/pages/bad").status == 500


def test_an_application_that_fails_after_its_101(serve: Serve) -> None:
    made: list[WebSocket] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        list(WebSocketWSGIApplication(handler_cls=EchoWebSocket)(environ, start_response))
        made.append(environ["ws4py.websocket"])
        raise ZeroDivisionError

    server = serve(applications={"/": application})
    with quiet():
        assert server.refused("/").status == 500
    assert made[0].sock is None


# --- who holds whom up ------------------------------------------------------------------------------------------------


def test_mute_clients_cost_no_thread_and_are_dropped(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls, handshake_timeout=0.3, handshake_workers=1)
    threads = threading.active_count()
    mute = [server.connect_plainly() for _ in range(50)]
    mute[0].sock.sendall(b"\x16\x03\x01" if tls else b"GET / HT")
    server.open().echo("here")
    assert threading.active_count() <= threads + 1 + tls + 1
    for peer in mute:
        assert peer.read_to_the_end() == b""


def test_a_client_that_is_slow_to_the_end_is_dropped(serve: Serve, tls: bool) -> None:
    """The deadline is that of the whole handshake, whatever comes meanwhile."""
    peer = serve(tls=tls, handshake_timeout=0.3).connect()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        for _ in range(3000):
            peer.sock.sendall(b"G")
            threading.Event().wait(0.01)
        raise AssertionError("it was not dropped")


def test_a_crowd(serve: Serve, tls: bool) -> None:
    """Many at once, some of which say nothing, or only begin to."""
    server = serve(tls=tls, handshake_workers=2)
    established = server.open()
    mute = [server.connect_plainly() for _ in range(10)]
    for peer in mute[5:]:
        peer.sock.sendall(b"\x16\x03\x01\x00" if tls else b"GET")
    done = threading.Semaphore(0)

    def come() -> None:
        server.open().echo("here")
        done.release()

    threads = [threading.Thread(target=come, daemon=True) for _ in range(60)]
    for thread in threads:
        thread.start()
    established.echo("meanwhile")
    for _ in threads:
        assert done.acquire(timeout=PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)


def test_a_tls_handshake_that_takes_its_time_delays_nobody(serve: Serve) -> None:
    gate, inside = threading.Event(), threading.Event()
    server = serve(tls=True, handshake_workers=2)

    def wait(*_: Any) -> None:
        if not inside.is_set():
            inside.set()
            wait_for(gate)

    context = server.server._context
    assert context is not None
    context.sni_callback = wait
    slow = Task(server.open)
    wait_for(inside)
    server.open().echo("here")
    gate.set()
    slow.result()


def test_who_waits_for_a_mute_client_gets_its_place(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(max_handshakes=2)
    monkeypatch.setattr(acceptor, "PATIENCE", 0.2)
    mute = [server.connect_plainly() for _ in range(2)]
    server.open().echo("here")
    assert mute[0].read_to_the_end() == b""
    mute[1].sock.sendall(mute[1].handshake("/"))
    assert mute[1].read_response().status == 101


def test_handshakes_are_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PATIENCE", 3600.0)
    server = serve(max_handshakes=2)
    mute = [server.connect_plainly() for _ in range(2)]
    running = server.server._acceptor
    assert running is not None
    until(lambda: len(running) == 2)
    waiting = server.connect()
    waiting.sock.sendall(waiting.handshake("/"))
    stays(lambda: len(running) == 2 and len(server.server.manager) == 0)
    mute[0].close()
    assert waiting.read_response().status == 101
    waiting.echo("here")


def test_no_descriptor_for_one_more(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[OSError] = []
    pause = Acceptor._pause

    def count(self: Acceptor, error: OSError, now: float) -> None:
        pauses.append(error)
        pause(self, error, now)

    monkeypatch.setattr(Acceptor, "_pause", count)
    server = serve()
    server.open().echo("here")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(2)]
    fillers: list[int] = []
    with quiet() as records:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fd for fd, _ in open_fds()) + 8, before[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            for client in clients:
                client.settimeout(PATIENCE)
                client.connect(server.server.server_address)
            until(lambda: len(pauses) >= 2)
            stays(lambda: len(pauses) < 20, 0.3)
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for client in clients:
            peer = Peer(client, "h")
            assert peer.upgrade("/").status == 101
            peer.echo("here")
            peer.close()
    assert {error.errno for error in pauses} == {errno.EMFILE}
    assert [record.levelno for record in records] == [logging.ERROR]


def test_clients_that_vanish(serve: Serve, tls: bool) -> None:
    server = serve(tls=tls)
    for _ in range(20):
        server.connect_plainly().reset()
        peer = server.connect()
        peer.sock.sendall(peer.handshake("/"))
        peer.reset()
    peer = server.connect_plainly()
    peer.sock.sendall(b"GET / HTTP/1.1\r\n")
    peer.close()
    server.open().echo("here")
    running = server.server._acceptor
    assert running is not None
    until(lambda: len(running) == 0)


def test_a_client_without_tls(serve: Serve) -> None:
    server = serve(tls=True)
    peer = server.connect_plainly()
    peer.sock.sendall(peer.handshake("/"))
    assert b"HTTP" not in peer.read_to_the_end()
    server.open().echo("here")


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
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        WebSocketServer(("127.0.0.1", 0), **options)
