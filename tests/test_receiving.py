"""Functions that receive in a loop. ``docs/moving.rst`` has programs of Flask-Sock and gevent-websocket that do."""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed as PeerClosed
from websockets.sync.client import ClientConnection, connect

from tests.helpers import PATIENCE, quiet, start_thread, wait_for
from tests.serving import Peer, close_frame, frame
from ws4py import ConnectionClosed, WebSocketServer
from ws4py.frameworks.receiving import Receiver, ReceivingWebSocket
from ws4py.server.threadedserver import Endpoint


@contextmanager
def handled(function: Callable[[Any], object], **options: Any) -> Iterator[ClientConnection]:
    """Serve a function of a loop, and connect.

    :param options: of the endpoint.
    """

    class Handled(ReceivingWebSocket):
        def function(self, receiver: Receiver) -> None:
            function(receiver)

    with WebSocketServer(("127.0.0.1", 0), Endpoint(handler_cls=Handled, **options)) as server:
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


@pytest.mark.parametrize("way", ["close", "reset"])
def test_it_does_not_receive_and_its_peer_goes(way: str) -> None:
    """The worker that hands its messages on is others' then."""
    end = threading.Event()

    def loop(websocket: Any) -> None:
        websocket.send("here")
        wait_for(end)

    with handled(loop, max_workers=1, send_timeout=3600.0, close_timeout=0.2) as client:
        assert client.recv(timeout=PATIENCE) == "here"
        with Peer(socket.create_connection(client.remote_address[:2], PATIENCE), "h") as peer:
            assert peer.upgrade("/").status == 101
            assert peer.message() == "here"
            peer.sock.sendall(frame("x") * 40)
            if way == "reset":
                peer.reset()
            else:
                peer.sock.sendall(close_frame())
            with connect(f"ws://127.0.0.1:{client.remote_address[1]}/", proxy=None) as other:
                assert other.recv(timeout=PATIENCE) == "here"
        end.set()


def test_it_does_not_receive() -> None:
    """It is given up as a slow consumer; what was kept for it it may still receive."""
    end = threading.Event()
    seen: queue.Queue[Any] = queue.Queue()

    def loop(websocket: Any) -> None:
        wait_for(end)
        with suppress(ConnectionClosed):
            while True:
                seen.put(websocket.receive())
        seen.put(None)

    with quiet() as records, handled(loop, send_timeout=0.1) as client:
        for number in range(40):
            client.send(str(number))
        with pytest.raises(PeerClosed):
            client.recv(timeout=PATIENCE)
        assert (client.close_code, client.close_reason) == (1013, "The function does not receive")
        end.set()
        received = list(iter(lambda: seen.get(timeout=PATIENCE), None))
        assert received == [str(number) for number in range(len(received))]
        assert len(received) == 32
    assert [record.levelno for record in records] == [logging.WARNING]
