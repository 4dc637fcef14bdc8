"""Functions that receive in a loop. ``docs/moving.rst`` has programs of Flask-Sock and gevent-websocket that do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import ClientConnection, connect

from tests.helpers import PATIENCE, start_thread, wait_for
from ws4py import ConnectionClosed, WebSocketServer
from ws4py.frameworks.receiving import Receiver, ReceivingWebSocket


@contextmanager
def handled(function: Callable[[Any], object]) -> Iterator[ClientConnection]:
    """Serve a function of a loop, and connect."""

    class Handled(ReceivingWebSocket):
        def function(self, receiver: Receiver) -> None:
            function(receiver)

    with WebSocketServer(("127.0.0.1", 0), Handled) as server:
        task = start_thread(server.serve_forever)
        with connect(f"ws://127.0.0.1:{server.server_address[1]}/", proxy=None) as client:
            yield client
        server.shutdown()
        task.result()


def test_the_peer_ends_it() -> None:
    """What had come before is received first."""
    seen: queue.Queue[Any] = queue.Queue()
    go_on = threading.Event()

    def loop(websocket: Any) -> None:
        wait_for(go_on)
        try:
            while True:
                seen.put(websocket.receive())
        except ConnectionClosed as end:
            seen.put((end.code, end.reason))
            raise

    with handled(loop) as client:
        client.send("text")
        client.send(b"bytes")
        client.close(4000, "enough")
        go_on.set()
        assert [seen.get(timeout=PATIENCE) for _ in range(3)] == ["text", b"bytes", (4000, "enough")]


def test_it_returns() -> None:
    """Messages that come later hold nobody up."""
    with handled(lambda websocket: websocket.send(websocket.receive())) as client:
        with suppress(PeerClosed):
            for number in range(200):
                client.send(str(number))
        assert client.recv(timeout=PATIENCE) == "0"
        with pytest.raises(PeerClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == 1000


def test_it_raises() -> None:
    def loop(websocket: Any) -> None:
        raise LookupError(websocket.receive())

    with handled(loop) as client:
        client.send("this")
        with pytest.raises(PeerClosed):
            client.recv(timeout=PATIENCE)
        assert client.close_code == 1011


def test_it_is_slower_than_its_peer() -> None:
    go_on = threading.Event()

    def loop(websocket: Any) -> None:
        wait_for(go_on)
        for _ in range(500):
            websocket.send(websocket.receive())

    with handled(loop) as client:
        for number in range(500):
            client.send(str(number))
        go_on.set()
        assert [client.recv(timeout=PATIENCE) for _ in range(500)] == [str(number) for number in range(500)]


def test_nothing_comes() -> None:
    def loop(websocket: Any) -> None:
        for timeout in (0, 0.01):
            websocket.send(str(websocket.receive(timeout)))

    with handled(loop) as client:
        assert [client.recv(timeout=PATIENCE) for _ in range(2)] == ["None", "None"]
