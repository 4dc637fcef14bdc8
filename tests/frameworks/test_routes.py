"""Websockets behind the routes of Flask and Django: arguments, session, login, and what is around each callback."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.framework_app import WORKERS, Room
from tests.helpers import until
from tests.hosting import Hosted
from tests.serving import PATIENCE
from ws4py.frameworks.routes import RoutedMiddleware
from ws4py.websocket import EchoWebSocket

SERVERS = ["flask cheroot", "django cheroot", "flask run", "django runserver", "flask gunicorn", "django gunicorn"]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """An application on cheroot, on its framework's own server, and on gunicorn as it is."""
    framework, kind = request.param.split()
    pytest.importorskip(framework)
    pytest.importorskip("cheroot")
    program = ["-m", "tests.framework_app", framework, kind, "PORT"]
    if kind == "gunicorn":
        pytest.importorskip("gunicorn")
        program = [
            "-m",
            "gunicorn",
            "-b",
            "127.0.0.1:PORT",
            "--threads",
            "2",
            f"tests.framework_app:{framework}_application()",
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE", str(tmp_path_factory.mktemp("database") / "tests.sqlite3"))
        server = Hosted("", program, status=None, quiet=False)
    with server:
        yield server


def enter(server: Hosted, path: str, user: str | None = "ada", **options: Any) -> ClientConnection:
    headers = {}
    if user is not None:
        cookie = server.get(f"/login/{user}").get("set-cookie")
        assert cookie is not None
        headers["Cookie"] = cookie.partition(";")[0]
    client: ClientConnection = connect(server.url(path), additional_headers=headers, **options)
    return client


def ask(client: ClientConnection, text: str) -> str:
    client.send(text)
    return str(client.recv(timeout=PATIENCE))


def test_arguments_and_session(server: Hosted) -> None:
    for user in ("ada", "grace"):
        with enter(server, "/rooms/tea", user) as client:
            assert client.recv(timeout=PATIENCE) == f"{user} is in tea"


def test_a_decorator_refuses(server: Hosted) -> None:
    with pytest.raises(InvalidStatus) as caught:
        enter(server, "/rooms/tea", None)
    assert caught.value.response.status_code == 401


def test_a_function(server: Hosted) -> None:
    with enter(server, "/echo", None, subprotocols=["news", "chat"]) as client:
        assert ask(client, "hello") == "hello"
        assert client.subprotocol == "chat"


def test_other_paths_are_the_applications(server: Hosted) -> None:
    for path, status in (("/nowhere", 404), ("/connections", (200, 400))):
        with pytest.raises(InvalidStatus) as caught:
            enter(server, path, None)
        assert caught.value.response.status_code in (status if isinstance(status, tuple) else (status,))
    assert server.get("/rooms/tea").status == 426
    assert server.get("/connections").status == 200


def test_callbacks_have_a_context_of_their_websockets_own(server: Hosted) -> None:
    """Whatever threads they run on."""
    with enter(server, "/rooms/a") as one, enter(server, "/rooms/b") as other:
        for client in (one, other):
            client.recv(timeout=PATIENCE)
        for number in range(1, 6):
            assert ask(one, "one") == f"one {number} 42"
        assert ask(other, "other") == "other 1 42"


def test_around_is_told_of_a_mistake(server: Hosted) -> None:
    with enter(server, "/rooms/mistakes") as client:
        client.recv(timeout=PATIENCE)
        client.send("fail")
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == 1011
    server.wait_for_line("raised on purpose")
    server.wait_for_line("closed 1011 42")
    assert re.search(r"enter\s+raised on purpose\s+leave", server.log())


def test_connections_to_the_database(server: Hosted) -> None:
    """At no time are there more of them than workers, and none is left."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(enter(server, f"/rooms/{number}")) for number in range(40)]
        for client in clients:
            client.recv(timeout=PATIENCE)
        barrier = threading.Barrier(len(clients))

        def talk(client: ClientConnection) -> None:
            barrier.wait(PATIENCE)
            for _ in range(5):
                assert ask(client, "x").endswith(" 42")

        run_all([lambda client=client: talk(client) for client in clients])  # type: ignore[misc]

        def figures() -> tuple[int, ...]:
            return tuple(map(int, server.get("/connections").body.split()))

        until(lambda: figures()[0] == 0)  # the answer of the last callback comes before its connection is given back
        assert 1 <= figures()[1] <= (WORKERS if "cheroot" in str(server.process.args) else 32)


def run_all(functions: list[Callable[[], None]]) -> None:
    from tests.helpers import start_thread

    for task in [start_thread(function) for function in functions]:
        task.result()


def test_flask_routes_a_page_once() -> None:
    """Though any path may be a websocket's, for what the middleware knows."""
    flask = pytest.importorskip("flask")
    routing = pytest.importorskip("werkzeug.routing")
    from ws4py.frameworks.flask import WebSockets

    seen: list[str] = []

    class Counted(routing.BaseConverter):  # type: ignore[name-defined]
        def to_python(self, value: str) -> str:
            seen.append(value)
            return value

    app = flask.Flask("pages")
    app.url_map.converters["counted"] = Counted
    app.add_url_rule("/<counted:name>", "page", lambda name: name)
    websockets = WebSockets(app)
    websockets.route("/<counted:name>/ws")(Room)
    websockets.route("/<counted:name>", endpoint="both")(Room)
    client = app.test_client()
    assert client.get("/x").data == b"x"
    assert seen == ["x"]
    response = client.get("/x/ws")
    assert (response.status_code, response.headers["Upgrade"]) == (426, "websocket")
    assert client.get("/x/y").status_code == 404
    assert client.post("/x/ws").status_code == 405


def test_decorators_are_for_each_function() -> None:
    """Which is put behind a rule with what a call of ``route`` has returned, be it used twice."""
    flask = pytest.importorskip("flask")
    from ws4py.frameworks.flask_sock import Sock

    decorated: list[Any] = []

    def decorator(view: Any) -> Any:
        decorated.append(view)
        return view

    sock = Sock(flask.Flask("twice"))
    put = sock.route("/<name>", decorators=[decorator])

    def one(ws: Any, name: str) -> None:
        """Do nothing."""

    def other(ws: Any, name: str) -> None:
        """Do nothing."""

    put(one)
    put(other)
    assert len(decorated) == 2


# --- bad use ----------------------------------------------------------------------------------------------------------


def test_flask_mistakes() -> None:
    flask = pytest.importorskip("flask")
    from ws4py.frameworks.flask import WebSockets

    websockets = WebSockets(flask.Flask("mistakes"))
    with pytest.raises(TypeError, match="subclass of WebSocket"):
        websockets.route("/ws")(dict)
    with pytest.raises(TypeError, match="no_such_limit"):
        websockets.route("/ws", no_such_limit=1)(lambda websocket, message: None)


def test_django_mistakes(tmp_path: Path) -> None:
    pytest.importorskip("django")
    from ws4py.frameworks.django import websocket_path

    with pytest.raises(TypeError, match="subclass of WebSocket"):
        websocket_path("ws", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_message_size"):
        websocket_path("ws", lambda websocket, message: None, max_message_size=-1)


def test_an_application_that_is_a_generator_answers_as_it_does() -> None:
    """It starts its response when the server asks for the first part."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("404 Not Found", [])
        yield b"nothing here"

    middleware = RoutedMiddleware(application, {"/ws": EchoWebSocket})
    for path in ("/ws", "/other"):
        told: list[str] = []
        answer = middleware({"PATH_INFO": path}, lambda status, headers, told=told: told.append(status))
        assert (list(answer), told) == ([b"nothing here"], ["404 Not Found"])
