"""The handshake as a WSGI application, as far as no server is needed."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import quiet
from tests.serving import PATIENCE
from ws4py.exc import HandshakeError
from ws4py.manager import Limits, WebSocketManager
from ws4py.server.endpoint import Request
from ws4py.server.middleware import WebSocketMiddleware
from ws4py.server.wsgiutils import WebSocketWSGIApplication, refuse
from ws4py.websocket import EchoWebSocket, WebSocket

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.fixture
def environ() -> Iterator[dict[str, Any]]:
    """The environ of a good handshake, as a server of ours makes it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/ws",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "example.org",
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "keep-alive, Upgrade",
            "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
            "HTTP_COOKIE": "session=1",
            "wsgi.input": object(),
            "ws4py.socket": ours,
        }


class Answer:
    """What an application has said."""

    def __init__(self, application: Any, environ: dict[str, Any]) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        result = application(environ, self.start_response)
        self.body = b"".join(result)
        self.sized = hasattr(result, "__len__")
        getattr(result, "close", lambda: None)()

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status = int(status.split(" ", 1)[0])
        self.headers = headers

    def get(self, name: str) -> str | None:
        return dict(self.headers).get(name)


def test_accepts(environ: dict[str, Any]) -> None:
    sock = environ["ws4py.socket"]
    answer = Answer(WebSocketWSGIApplication(handler_cls=EchoWebSocket), environ)
    assert (answer.status, answer.get("Sec-WebSocket-Accept"), answer.body) == (101, ACCEPT, b"")
    assert not answer.sized, "a server would make a Content-Length of it"
    websocket = environ["ws4py.websocket"]
    assert isinstance(websocket, EchoWebSocket)
    assert websocket.sock is sock
    assert environ["ws4py.socket"] is None
    assert environ["websocket.version"] == "13"
    assert websocket.protocols is None
    assert websocket.environ is not None
    assert websocket.environ["HTTP_COOKIE"] == "session=1"
    assert not {"wsgi.input", "ws4py.socket", "ws4py.websocket"} & set(websocket.environ)


def test_chooses_one_subprotocol(environ: dict[str, Any]) -> None:
    environ["HTTP_SEC_WEBSOCKET_PROTOCOL"] = "other, news, chat"
    answer = Answer(WebSocketWSGIApplication(["chat", "news"], [], WebSocket), environ)
    assert answer.get("Sec-WebSocket-Protocol") == "news"
    assert environ["ws4py.websocket"].protocols == ["news"]


@pytest.mark.parametrize(
    ("changes", "text", "status"),
    [
        ({"REQUEST_METHOD": "POST"}, "HTTP method must be a GET", 405),
        ({"HTTP_UPGRADE": None}, "Header HTTP_UPGRADE is not defined", 426),
        ({"HTTP_UPGRADE": "h2c"}, "Illegal value for header HTTP_UPGRADE: h2c", 426),
        ({"HTTP_CONNECTION": None}, "Header HTTP_CONNECTION is not defined", 426),
        ({"HTTP_SEC_WEBSOCKET_VERSION": None}, "Unhandled or missing WebSocket version", 426),
        ({"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, "WebSocket key's length is invalid", 400),
        ({"HTTP_ORIGIN": "http://evil.example"}, "Origin http://evil.example is not allowed here", 403),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, "A websocket needs HTTP/1.1", 400),
        ({"SERVER_PROTOCOL": "HTTP/2"}, "A websocket needs HTTP/1.1", 400),
        ({"SERVER_PROTOCOL": "HTTP/2.0"}, "A websocket needs HTTP/1.1", 400),
    ],
)
def test_raises_or_answers(environ: dict[str, Any], changes: dict[str, Any], text: str, status: int) -> None:
    environ.update(changes)
    for name in [name for name, value in environ.items() if value is None]:
        del environ[name]
    with pytest.raises(HandshakeError) as caught:
        Answer(WebSocketWSGIApplication(), environ)
    assert str(caught.value) == text
    assert caught.value.status == status
    assert "ws4py.websocket" not in environ
    answer = Answer(WebSocketWSGIApplication(answer=True), environ)
    assert (answer.status, answer.body) == (status, f"{text}\n".encode())
    assert answer.get("Content-Length") == str(len(answer.body))


def test_origins(environ: dict[str, Any]) -> None:
    environ["HTTP_ORIGIN"] = "http://evil.example"
    assert Answer(WebSocketWSGIApplication(origins="*"), environ).status == 101


def test_hosts(environ: dict[str, Any]) -> None:
    assert Answer(WebSocketWSGIApplication(answer=True, hosts=["example.com"]), environ).status == 403
    assert Answer(WebSocketWSGIApplication(hosts=("example.com", "example.org")), environ).status == 101


def test_without_a_socket(environ: dict[str, Any]) -> None:
    del environ["ws4py.socket"]
    answer = Answer(WebSocketWSGIApplication(answer=True), environ)
    assert answer.status == 501
    assert b"can't hand a websocket's connection over" in answer.body


class Channel:
    """What waitress may make of its channels some day."""

    socket: Any = None

    def check_client_disconnected(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("waitress.client_disconnected", Channel().check_client_disconnected),
        ("waitress.client_disconnected", lambda: False),
        ("uwsgi.version", b"2.0"),
        ("SERVER_SOFTWARE", "WSGIServer/0.2 CPython/3.12"),
    ],
    ids=str,
)
def test_a_server_with_other_insides(environ: dict[str, Any], key: str, value: Any) -> None:
    """What is not as it is known to be is left alone."""
    del environ["ws4py.socket"]
    environ[key] = value
    answer = Answer(WebSocketWSGIApplication(answer=True), environ)
    assert (answer.status, b"serve with gunicorn" in answer.body) == (501, True)


def test_asks_the_manager(environ: dict[str, Any]) -> None:
    environ["ws4py.manager"] = manager = WebSocketManager(limits=Limits(max_connections_per_ip=1))
    application = WebSocketWSGIApplication(answer=True)
    answer = Answer(application, environ)
    assert (answer.status, answer.get("Retry-After")) == (503, "10")
    assert manager.stats().connections.refused == {503: 1}
    del environ["HTTP_UPGRADE"]
    assert Answer(application, environ).status == 426
    assert manager.stats().connections.refused == {503: 1, 426: 1}


def test_options_are_checked() -> None:
    with pytest.raises(TypeError, match="no limit named colour"):
        WebSocketWSGIApplication(colour=1)
    with pytest.raises(TypeError, match="max_connections can't be set for an endpoint"):
        WebSocketWSGIApplication(max_connections=1)
    with pytest.raises(ValueError, match="max_message_size"):
        WebSocketWSGIApplication(max_message_size=0)


def test_options_reach_the_websocket(environ: dict[str, Any]) -> None:
    Answer(WebSocketWSGIApplication(heartbeat_freq=7.0, max_message_size=9), environ)
    websocket = environ["ws4py.websocket"]
    assert (websocket.heartbeat_freq, websocket._limits) == (7.0, {"max_message_size": 9})


def test_handler_cls_must_make_a_websocket(environ: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must make a WebSocket"):
        Answer(WebSocketWSGIApplication(handler_cls=lambda *_: 1), environ)  # type: ignore[arg-type]


def test_make_websocket_may_be_overridden(environ: dict[str, Any]) -> None:
    class Application(WebSocketWSGIApplication):
        def make_websocket(self, sock: Any, protocols: Any, extensions: Any, environ: dict[str, Any]) -> WebSocket:
            environ["app"] = "mine"
            return super().make_websocket(sock, protocols, extensions, environ)

    Answer(Application(handler_cls=EchoWebSocket), environ)
    assert environ["ws4py.websocket"].environ["app"] == "mine"


def test_refusal_where_the_server_insists_on_its_headers(environ: dict[str, Any]) -> None:
    said: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        assert "Upgrade" not in dict(headers), "a hop-by-hop header"
        said.append((status, exc_info is not None))

    body = refuse(HandshakeError("no", 426, [("Upgrade", "websocket"), ("Connection", "Upgrade")]), start_response)
    assert (said, list(body)) == ([("426 Upgrade Required", True)], [b"no\n"])


def test_the_headers_of_a_request(environ: dict[str, Any]) -> None:
    """Whoever looks at a request has them by their names, in any case."""
    requests: list[Request] = []

    class Application(WebSocketWSGIApplication):
        def open(self, request: Request, server: Any) -> Any:
            requests.append(request)
            return super().open(request, server)

    environ |= {"CONTENT_LENGTH": "0", "HTTP_X_MINE": "1"}
    Answer(Application(), environ)
    headers = requests[0].headers
    assert (headers["x-mine"], headers["HOST"], headers.get("Content-Length")) == ("1", "example.org", "0")
    assert "X-Mine" in headers
    assert "X-Other" not in headers
    assert headers.get("Path-Info") is None
    with pytest.raises(KeyError, match="X-Other"):
        headers["X-Other"]
    usual = {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "cookie"}
    assert {name.lower() for name in headers} == {*usual, "content-length", "x-mine"}
    assert len(headers) == 8


def test_no_descriptor_for_one_more(environ: dict[str, Any]) -> None:
    """The client is told to come again when a drain would be over, as with any refusal for want of room."""
    manager = WebSocketManager(drain_timeout=33.0)
    manager.start()
    environ["gunicorn.socket"] = environ.pop("ws4py.socket")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        application = WebSocketWSGIApplication(answer=True, manager=manager)
        with quiet():
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
            answer = Answer(application, environ)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        manager.stop()
        manager.join(PATIENCE)
    assert (answer.status, answer.get("Retry-After")) == (503, "33")


# --- what is kept of the request --------------------------------------------------------------------------------------


def kept(environ: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return what the websocket of an accepted handshake keeps."""
    ours = environ["ws4py.socket"]
    assert Answer(WebSocketWSGIApplication(**options), environ).status == 101
    environ["ws4py.socket"] = ours
    result = environ["ws4py.websocket"].environ
    assert isinstance(result, dict)
    return result


def texts_of(environ: dict[str, Any]) -> int:
    return sum(len(name) + len(value) for name, value in environ.items() if isinstance(value, str))


def test_a_usual_environ_is_kept_whole(environ: dict[str, Any]) -> None:
    environ |= {"HTTP_COOKIE": "c" * 4096, "HTTP_AUTHORIZATION": "a" * 4096, "QUERY_STRING": "q" * 1024}
    environ |= {"app.session": {"user": "ada"}, "app.name": "mine"}
    before = {name: value for name, value in environ.items() if name not in ("wsgi.input", "ws4py.socket")}
    environ_kept = kept(environ)
    assert environ_kept == before


@pytest.mark.parametrize(
    "key", ["ws4py.socket", "gunicorn.socket", "waitress.client_disconnected", "ws4py.manager", "wsgi.input"]
)
def test_what_is_the_servers_own_is_not_kept(environ: dict[str, Any], key: str) -> None:
    """It would keep the server's connection, or the request's buffers, for as long as the websocket lives."""
    ours = environ["ws4py.socket"]
    own: dict[str, Any] = {"ws4py.manager": None, "wsgi.input": object()}
    environ[key] = own.get(key, ours)
    assert key not in kept(environ)
    assert key not in kept(environ, keep_environ=[key])


def test_the_longest_texts_are_left_out(environ: dict[str, Any]) -> None:
    session = environ["app.session"] = {"user": "ada"}
    usual = {name: value for name, value in environ.items() if name not in ("wsgi.input", "ws4py.socket")}
    environ |= {"HTTP_X_FILLER": "x" * 480_000, "HTTP_X_OTHER": "y" * 20_000, "HTTP_X_SHORT": "short"}
    assert kept(environ) == {**usual, "HTTP_X_SHORT": "short"}
    assert environ["ws4py.websocket"].environ["app.session"] is session


def test_many_short_texts_are_bounded(environ: dict[str, Any]) -> None:
    environ |= {f"HTTP_X_{number}": "x" for number in range(10_000)}
    result = kept(environ)
    assert texts_of(result) < 16384
    assert len(result) < 500
    assert result["PATH_INFO"] == "/ws"


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (False, set()),
        ((), set()),
        ("HTTP_HOST", {"HTTP_HOST"}),
        (["PATH_INFO", "HTTP_X_MISSING", "ws4py.socket"], {"PATH_INFO"}),
        ({"app.session", "PATH_INFO"}, {"app.session", "PATH_INFO"}),
    ],
)
def test_what_is_kept_can_be_chosen(environ: dict[str, Any], keep: Any, names: set[str]) -> None:
    environ["app.session"] = {"user": "ada"}
    assert set(kept(environ, keep_environ=keep)) == names
    Answer(WebSocketMiddleware(Pages(), {"/ws": EchoWebSocket}, keep_environ=keep), environ)
    assert set(environ["ws4py.websocket"].environ) == names


def test_nothing_of_a_client_outlives_its_websocket(environ: dict[str, Any]) -> None:
    """But short values of a few headers that are alike for many: those are one object for all who have them."""
    first = {name: value for name, value in environ.items() if name != "ws4py.websocket"}
    names = ("HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_X_TOKEN", "QUERY_STRING", "REQUEST_URI", "HTTP_USER_AGENT")
    for name in names:
        first[name] = f"a value of {name}"
    first["HTTP_ACCEPT_LANGUAGE"] = "".join(["en", ", en" * 1000])
    second = {**first, **{name: "".join(list(value)) for name, value in first.items() if isinstance(value, str)}}
    own = {name: value for name, value in first.items() if name not in ("ws4py.socket", "HTTP_USER_AGENT")}
    before = {name: sys.getrefcount(value) for name, value in own.items() if name in (*names, "HTTP_ACCEPT_LANGUAGE")}
    one, other = kept(first), kept(second)
    assert one["HTTP_USER_AGENT"] is other["HTTP_USER_AGENT"]
    assert all(one[name] is not other[name] for name in before)
    del first["ws4py.websocket"], one
    assert {name: sys.getrefcount(value) for name, value in own.items() if name in before} == before


# --- raw sockets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["x\r\nSet-Cookie: session=attackers", "x\ny: z", "x\0", "\u2603"])
def test_a_header_can_not_break_out_of_its_line(environ: dict[str, Any], value: str) -> None:
    """The server that gives a raw socket away does not see the head of the response."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Set-Cookie", value)])
        return []

    ours, theirs = socket.socketpair()
    with ours, theirs:
        del environ["ws4py.socket"]
        environ["gunicorn.socket"] = ours
        manager = WebSocketManager()
        manager.start()
        try:
            with pytest.raises(HandshakeError, match=r"Set-Cookie|Latin-1"):
                Answer(WebSocketMiddleware(application, {"/ws": EchoWebSocket}, manager), environ)
        finally:
            manager.stop()
            manager.join(PATIENCE)
        ours.close()
        assert theirs.recv(1000) == b""


# --- the middleware ---------------------------------------------------------------------------------------------------


class Pages:
    """An application with a few answers."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.asked = 0
        self.closed = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.asked += 1
        if "ws4py.websocket" in environ:
            environ["ws4py.websocket"].user = "ada"
        environ["session"] = {"user": "ada"}
        start_response(self.status, [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Other", "1")])
        return self

    def __iter__(self) -> Iterator[bytes]:
        return iter((b"one", b"two"))

    def close(self) -> None:
        self.closed += 1


def test_middleware_with_consent(environ: dict[str, Any]) -> None:
    pages = Pages()
    answer = Answer(WebSocketMiddleware(pages, {"/ws": EchoWebSocket}), environ)
    assert (answer.status, answer.body) == (101, b"")
    assert [value for name, value in answer.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert answer.get("X-Other") is None
    websocket = environ["ws4py.websocket"]
    assert websocket.user == "ada"
    assert websocket.environ["session"] == {"user": "ada"}
    assert (pages.asked, pages.closed) == (1, 1)


@pytest.mark.parametrize("status", ["401 Unauthorized", "302 Found", "404 Not Found", "500 Internal Server Error"])
def test_middleware_without_consent(environ: dict[str, Any], status: str) -> None:
    pages = Pages()
    pages.status = status
    answer = Answer(WebSocketMiddleware(pages, {"/ws": EchoWebSocket}), environ)
    assert (answer.status, answer.body, answer.get("X-Other")) == (int(status[:3]), b"onetwo", "1")
    assert "ws4py.websocket" not in environ
    assert pages.closed == 1


def test_middleware_does_not_ask_about_bad_handshakes(environ: dict[str, Any]) -> None:
    pages = Pages()
    del environ["HTTP_SEC_WEBSOCKET_KEY"]
    assert Answer(WebSocketMiddleware(pages, {"/ws": EchoWebSocket}), environ).status == 400
    assert pages.asked == 0


def test_middleware_that_does_not_ask(environ: dict[str, Any]) -> None:
    pages = Pages()
    assert Answer(WebSocketMiddleware(pages, {"/ws": EchoWebSocket}, ask=False), environ).status == 101
    assert pages.asked == 0


def test_middleware_where_the_application_raises(environ: dict[str, Any]) -> None:
    made: list[WebSocket] = []

    def fail(environ: dict[str, Any], start_response: Any) -> Any:
        made.append(environ["ws4py.websocket"])
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        Answer(WebSocketMiddleware(fail, {"/ws": EchoWebSocket}), environ)
    assert made[0].sock is None


def test_middleware_where_the_first_part_of_an_answer_raises(environ: dict[str, Any]) -> None:
    """The application can end what it has begun for the request."""

    class Failing(Pages):
        def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
            return self

        def __iter__(self) -> Iterator[bytes]:
            raise RuntimeError("on purpose")

    pages = Failing()
    with pytest.raises(RuntimeError):
        Answer(WebSocketMiddleware(pages, {"/ws": EchoWebSocket}), environ)
    assert pages.closed == 1


@pytest.mark.parametrize(
    ("script", "path", "found"),
    [
        ("", "/größe".encode().decode("latin-1"), "size"),
        ("", "/ws", "exact"),
        ("/app", "/ws", "other"),
        ("", "/rooms/1", "rooms"),
        ("", "/rooms/top/1", "top"),
        ("", "/", None),
    ],
)
def test_middleware_paths(environ: dict[str, Any], script: str, path: str, found: str | None) -> None:
    kinds = {name: type(name, (EchoWebSocket,), {}) for name in ("exact", "other", "rooms", "top", "size")}
    websockets: dict[str, Any] = {"/ws": kinds["exact"], "/rooms/*": kinds["rooms"], "/rooms/top/*": kinds["top"]}
    websockets["/größe"] = kinds["size"]
    websockets["/app/ws"] = WebSocketWSGIApplication(handler_cls=kinds["other"])
    environ |= {"SCRIPT_NAME": script, "PATH_INFO": path}
    answer = Answer(WebSocketMiddleware(Pages(), websockets), environ)
    if found is None:
        assert answer.status == 200
    else:
        assert type(environ["ws4py.websocket"]) is kinds[found]
