"""What the server of websockets only answers to requests."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

import pytest

from tests.helpers import quiet, wait_for
from tests.server.served import Serve
from tests.serving import PATIENCE
from ws4py.exc import HandshakeError
from ws4py.server.stats import StatsApplication, basic_auth
from ws4py.server.threadedserver import Answer, Request
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import EchoWebSocket, WebSocket

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


def test_a_client_that_goes_on_sending_meets_no_reset(serve: Serve, tls: bool) -> None:
    peer = serve(tls=tls).connect()
    peer.sock.sendall(peer.request("/", "POST", Content_Length="120000") + b"x" * 20_000)
    assert peer.read_response().status == 413
    for _ in range(10):
        peer.sock.sendall(b"x" * 10_000)
    if not tls:
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
    assert (request.headers["x-mine"], request.scheme) == ("1", "https" if tls else "http")
    assert "X-MINE" in request.headers


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
