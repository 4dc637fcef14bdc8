"""Functions that were written for Flask-Sock."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.hosting import Hosted
from tests.serving import PATIENCE

pytest.importorskip("flask")
pytest.importorskip("gunicorn")


@pytest.fixture(scope="module", params=["ws4py.frameworks.flask_sock", "flask_sock"])
def server(request: pytest.FixtureRequest) -> Iterator[Hosted]:
    """The application with Flask-Sock, and with what stands in its place."""
    if importlib.util.find_spec(request.param.partition(".")[0]) is None:
        pytest.skip("Flask-Sock is not installed")
    program = ["-m", "gunicorn", "-b", "127.0.0.1:PORT", "--threads", "8", "tests.flask_sock_app:application()"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOCK", request.param)
        server = Hosted("", program, status=None, quiet=False)
    with server:
        yield server


@contextlib.contextmanager
def enter(server: Hosted) -> Iterator[ClientConnection]:
    cookie = server.get("/login/ada").get("set-cookie")
    assert cookie is not None
    headers = {"Cookie": cookie.partition(";")[0]}
    with connect(server.url("/rooms/tea?mood=glad"), additional_headers=headers) as client:
        assert client.recv(timeout=PATIENCE) == "ada is in tea, glad"
        yield client


def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=PATIENCE)
    return client.close_code, client.close_reason


def test_echo(server: Hosted) -> None:
    with connect(server.url("/echo")) as client:
        for message in ("text", "", b"bytes", b"", "x" * 100_000):
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message


@pytest.mark.parametrize(("word", "code"), [("leave", 1000), ("close", 4001)])
def test_the_function_ends_the_websocket(server: Hosted, word: str, code: int) -> None:
    with enter(server) as client:
        client.send(word)
        assert closed(client)[0] == code


def test_the_peer_ends_the_websocket(server: Hosted) -> None:
    said = server.log().count("ended False")
    with enter(server) as client:
        client.send("wait")
    server.wait_for_line("ended False", said + 1)


def test_a_function_that_raises() -> None:
    program = ["-m", "gunicorn", "-b", "127.0.0.1:PORT", "--threads", "2", "tests.flask_sock_app:application()"]
    with Hosted("", program, status=None, quiet=False) as server, enter(server) as client:
        client.send("fail")
        assert closed(client)[0] == 1011
        server.wait_for_line("RuntimeError: on purpose")


def test_pages_are_served_beside_many_websockets() -> None:
    """The server's own two threads are free."""
    program = ["-m", "gunicorn", "-b", "127.0.0.1:PORT", "--threads", "2", "tests.flask_sock_app:application()"]
    with Hosted("", program, status=None, quiet=False) as server, contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(enter(server))
        assert server.get("/login/ada").status == 302


def test_a_function_that_is_slow_pushes_its_peer_back(server: Hosted) -> None:
    """And the others go on."""
    with enter(server) as stubborn, connect(server.url("/echo")) as other:
        stubborn.send("slow")
        for number in range(100):
            stubborn.send(f"{number:04}")
        other.send("still there")
        assert other.recv(timeout=PATIENCE) == "still there"
        assert server.get("/go").status == 200
        for number in range(100):
            assert stubborn.recv(timeout=PATIENCE) == f"{number:04}"
