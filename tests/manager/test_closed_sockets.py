"""Applications that close their socket in a callback, while others open files and sockets: none is mistaken."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Certificates, EchoRecorder, Script, Stage, Task, start_thread, tcp_pair, unix_pair, until
from ws4py.exc import ConnectionClosed
from ws4py.websocket import WebSocket

KINDS = [
    {"workers": 0},
    *({"dispatch": dispatch, "workers": workers} for dispatch in ("adaptive", "pool") for workers in (1, 32)),
]
ROUNDS = 40
CONTENT = b"a stranger's content"


class Strangers:
    """Threads that open files and sockets, use them, and close them, again and again.

    :param folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ended = threading.Event()
        self.rounds = 0
        self._tasks: list[Task] = [start_thread(self._run, number) for number in range(3)]

    def _run(self, number: int) -> None:
        path = self._folder / str(number)
        while not self._ended.is_set():
            with contextlib.ExitStack() as stack:
                files = []
                for _ in range(5):
                    file = stack.enter_context(open(path, "w+b", buffering=0))
                    file.write(CONTENT)
                    files.append((file, os.fstat(file.fileno())))
                    files_end = stack.enter_context(open(path, "r+b", buffering=0))
                    files.append((files_end, os.fstat(files_end.fileno())))
                pairs = [socket.socketpair() for _ in range(5)]
                for one in (end for pair in pairs for end in pair):
                    one.setblocking(False)
                    stack.enter_context(one)
                for one, other in pairs:
                    one.send(CONTENT)
                    assert other.recv(1000) == CONTENT
                for file, known in files:
                    now = os.fstat(file.fileno())
                    assert (now.st_dev, now.st_ino) == (known.st_dev, known.st_ino)
                    file.seek(0)
                    assert file.read() == CONTENT
                for end in (end for pair in pairs for end in pair):
                    with pytest.raises(BlockingIOError):
                        end.recv(1)  # neither a byte of another's, nor an end
            self.rounds += 1

    def end(self) -> None:
        """Stop, and raise what was wrong."""
        self._ended.set()
        for task in self._tasks:
            task.result()


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[Strangers]:
    strangers = Strangers(tmp_path)
    yield strangers
    strangers.end()


def close_and_use(websocket: WebSocket, *_: object) -> None:
    """Close the socket, and go on as if nothing had happened."""
    websocket.sock.close()
    with contextlib.suppress(ConnectionClosed):
        websocket.send("for the peer")
        websocket.ping(b"x")
    websocket.close()
    websocket.sock.close()


def detach(websocket: WebSocket, *_: object) -> None:
    """Take the descriptor, and close that."""
    os.close(websocket.sock.detach())


def shut_down_and_close(websocket: WebSocket, *_: object) -> None:
    """End TCP first, as programs do."""
    with contextlib.suppress(OSError):
        websocket.sock.shutdown(socket.SHUT_RDWR)
    websocket.sock.close()


@pytest.mark.parametrize("act", [close_and_use, detach, shut_down_and_close], ids=lambda act: act.__name__)
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_in_every_callback(stage: Stage, strangers: Strangers, options: dict[str, Any], act: Any) -> None:
    manager = stage.manager(**options, ping_interval=None)
    bystander, bystander_peer = stage.connect(manager, EchoRecorder)
    begun = strangers.rounds
    for number in range(ROUNDS):
        ended = []
        for callback in ("opened", "message", "pong", "closed"):
            pair = tcp_pair if number % 4 == 0 else unix_pair
            websocket, peer = stage.connect(manager, Script.of(**{callback: act}), pair)
            with contextlib.suppress(OSError):
                peer.send(peer.text("x"), peer.pong(b"x"), peer.goodbye())
            ended.append((websocket, peer))
        for websocket, peer in ended:
            websocket.end()
            assert websocket.errors == []
            peer.receive_rest()
            peer.close()
        bystander_peer.send(bystander_peer.text(str(number)))
        assert bystander_peer.receive_text() == str(number)
    until(lambda: strangers.rounds > begun)
    until(lambda: manager.stats().connections.closing == 0)
    assert len(manager) == 1
    assert bystander_peer.say_goodbye() == (1000, "")
    assert bystander.end() == (1000, b"")


@pytest.mark.parametrize("pair", ["ssl_pair", "openssl_pair"])
def test_over_tls(stage: Stage, strangers: Strangers, certificates: Certificates, pair: str) -> None:
    """Such a socket is its own owner: it is closed at once, and what is found closed is let alone."""
    manager = stage.manager(ping_interval=None)
    for number in range(5):
        for callback in ("opened", "message", "pong", "closed"):
            websocket, peer = stage.connect(
                manager, Script.of(**{callback: close_and_use}), getattr(certificates, pair)
            )
            with contextlib.suppress(OSError):
                peer.send(peer.text(str(number)), peer.pong(b"x"), peer.goodbye())
                peer.receive_rest()
            peer.close()
            websocket.end()
    until(lambda: manager.stats().connections.closing == 0)
    assert len(manager) == 0
