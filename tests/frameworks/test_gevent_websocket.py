"""Applications that were written for gevent-websocket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.helpers import PATIENCE, quiet, wait_for
from ws4py import WebSocketServer
from ws4py.frameworks.gevent_websocket import with_websockets

Application = Callable[[dict[str, Any], Callable[..., Any]], Any]


@contextmanager
def served(application: Application) -> Iterator[str]:
    """Serve an application; return the address of its websockets."""
    with WebSocketServer(("127.0.0.1", 0), applications={"/": with_websockets(application)}) as server:
        yield f"ws://127.0.0.1:{server.server_address[1]}/"


def test_an_application_that_does_what_it_does_with_any_request() -> None:
    """It asks for the body, and has its answer closed."""
    ended = threading.Event()

    class Body(list[bytes]):
        def close(self) -> None:
            ended.set()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Body:
        websocket = environ["wsgi.websocket"]
        websocket.send(environ["wsgi.input"].read() + websocket.receive())
        start_response("200 OK", [])
        return Body()

    with served(application) as url, connect(url, proxy=None) as client:
        client.send(b"hello")
        assert client.recv(timeout=PATIENCE) == b"hello"
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == 1000
        wait_for(ended)


def test_an_answer_that_raises_is_closed() -> None:
    ended = threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            raise ZeroDivisionError

        def close(self) -> None:
            ended.set()

    with quiet(), served(lambda environ, start_response: Body()) as url, connect(url, proxy=None) as client:
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == 1011
        wait_for(ended)
