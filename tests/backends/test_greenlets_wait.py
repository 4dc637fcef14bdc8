"""Greenlets that all wait, and callbacks that end what they are part of: what goes on all the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

gevent = pytest.importorskip("gevent")

from gevent import socket  # noqa: E402
from gevent.event import Event  # noqa: E402

from tests.helpers import KEY, PATIENCE, open_fds, present  # noqa: E402
from ws4py.exc import ConnectionClosed  # noqa: E402
from ws4py.framing import FIN, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, build_frame  # noqa: E402
from ws4py.messaging import Message  # noqa: E402
from ws4py.server.geventmanager import GreenletManager  # noqa: E402
from ws4py.websocket import WebSocket  # noqa: E402

LONG = 10 * PATIENCE
X = build_frame(FIN | OPCODE_TEXT, b"x", KEY)
PING = build_frame(FIN | OPCODE_PING, b"p", KEY)
PONG = build_frame(FIN | OPCODE_PONG, b"x", KEY)
GOODBYE = build_frame(FIN | OPCODE_CLOSE, b"\x03\xe9", KEY)
CALLBACKS = ("opened", "message", "pong", "closed")


class Actor(WebSocket):
    """Does something in one of its callbacks, and keeps how often it has ended."""

    callback = ""
    act: ClassVar[Any]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ends: list[int] = []
        self.errors: list[BaseException] = []
        self.ended = Event()

    def _do(self, callback: str) -> None:
        if callback == self.callback:
            type(self).act(self)

    def opened(self) -> None:
        self._do("opened")

    def received_message(self, message: Message) -> None:
        self._do("message")

    def ponged(self, pong: Message) -> None:
        self._do("pong")

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.ends.append(code)
        try:
            self._do("closed")
        finally:
            self.ended.set()

    def unhandled_error(self, error: BaseException) -> None:
        self.errors.append(error)


def connect(manager: GreenletManager, callback: str = "", act: Any = None) -> tuple[Actor, Any]:
    """Return a websocket that a manager runs, which does something in a callback, and the other end."""
    kind = type("Acting", (Actor,), {"callback": callback, "act": act})
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    websocket = kind(ours)
    manager.add(websocket)
    return websocket, theirs


def receive(peer: Any) -> tuple[int, bytes]:
    """Return the opcode and the payload of a short frame."""
    head = peer.recv(2)
    if not head:
        raise EOFError
    payload = b""
    while len(payload) < head[1]:
        payload += peer.recv(head[1] - len(payload))
    return head[0] & 0x0F, payload


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is true that announces itself by no event."""
    with gevent.Timeout(PATIENCE):
        while not condition():
            gevent.sleep(0.001)


@pytest.fixture
def manager() -> Any:
    gevent.sleep(0)  # the hub has its descriptors then
    fds = open_fds()
    manager = GreenletManager(drain_timeout=LONG, close_timeout=LONG)
    manager.start()
    yield manager
    manager.stop()
    with gevent.Timeout(PATIENCE):
        manager.join()
    wait_until(lambda: not open_fds() - fds)


def expect_goodbye(peer: Any) -> None:
    assert receive(peer) == (OPCODE_CLOSE, b"\x03\xe9Server is shutting down")
    peer.sendall(GOODBYE)


@pytest.mark.parametrize("where", ["application", "join", "remove"])
def test_all_callbacks_wait(manager: GreenletManager, where: str) -> None:
    gate, entered = Event(), []

    def act(websocket: Actor) -> None:
        entered.append(websocket)
        if where == "join":
            manager.join(LONG)
        elif where == "remove" and websocket is not waiting[0][0]:
            manager.remove(waiting[0][0])
        else:
            gate.wait(LONG)

    waiting = [connect(manager, "message", act) for _ in range(32)]
    quiet, quiet_peer = connect(manager)
    closing, closing_peer = connect(manager)
    for _, peer in waiting:
        peer.sendall(X)
        wait_until(lambda peer=peer: len(entered) > [p for _, p in waiting].index(peer))  # type: ignore[misc]
    for _, peer in [*waiting[1:], (quiet, quiet_peer)]:
        peer.sendall(PING)
        assert receive(peer) == (OPCODE_PONG, b"p")
    quiet.send("from elsewhere")
    assert receive(quiet_peer) == (OPCODE_TEXT, b"from elsewhere")
    closing_peer.sendall(GOODBYE)
    assert receive(closing_peer) == (OPCODE_CLOSE, b"\x03\xe9")
    assert closing.ended.wait(PATIENCE)
    gate.set()
    manager.stop()
    members = [pair for pair in [*waiting, (quiet, quiet_peer)] if where != "remove" or pair is not waiting[0]]
    for _, peer in members:
        expect_goodbye(peer)
    for websocket, _ in members:
        assert websocket.ended.wait(PATIENCE)
        assert websocket.ends == [1001]
        assert websocket.errors == []
    for _, peer in [*waiting, (quiet, quiet_peer), (closing, closing_peer)]:
        peer.close()
    if where == "remove":
        assert waiting[0][0].ends == []
        waiting[0][0].close_connection()


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_callback_may_stop_and_join(manager: GreenletManager, callback: str) -> None:
    states: list[str] = []

    def end(websocket: Actor) -> None:
        manager.stop()
        manager.join(LONG)
        states.append(manager.state)

    others = [connect(manager) for _ in range(3)]
    gevent.sleep(0)
    websocket, peer = connect(manager, callback, end)
    peer.sendall({"opened": b"", "message": X, "pong": PONG, "closed": GOODBYE}[callback])
    for _, other in others:
        expect_goodbye(other)
    if callback == "closed":
        assert receive(peer)[0] == OPCODE_CLOSE
    else:
        expect_goodbye(peer)
    for one, _ in [*others, (websocket, peer)]:
        assert one.ended.wait(PATIENCE)
        assert one.ends == [1001]
        assert one.errors == []
    assert states == ["stopped"]
    for _, other in [*others, (websocket, peer)]:
        other.close()


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_callback_may_remove_its_own_websocket(manager: GreenletManager, callback: str) -> None:
    done = Event()

    def remove(websocket: Actor) -> None:
        manager.remove(websocket)
        done.set()

    websocket, peer = connect(manager, callback, remove)
    peer.sendall({"opened": b"", "message": X, "pong": PONG, "closed": GOODBYE}[callback])
    assert done.wait(PATIENCE)
    wait_until(lambda: not present(manager))
    if callback == "closed":
        assert receive(peer)[0] == OPCODE_CLOSE
        assert websocket.ends == [1001]
    else:
        websocket.send("still open")
        assert receive(peer) == (OPCODE_TEXT, b"still open")
        assert websocket.ends == []
        websocket.close_connection()
    peer.close()


@pytest.mark.parametrize("callback", CALLBACKS)
def test_no_stranger_gets_the_number_of_a_socket_that_was_closed(
    manager: GreenletManager, callback: str, tmp_path: Path
) -> None:
    """Greenlets open files at once in the place of the sockets that callbacks close."""
    files: list[Any] = []

    def close(websocket: Actor) -> None:
        websocket.sock.close()
        gevent.sleep(0)
        files.append(open(tmp_path / str(len(files)), "w+b", buffering=0))  # noqa: SIM115
        with contextlib.suppress(ConnectionClosed):
            websocket.send("for the peer")
        websocket.close()

    _, quiet_peer = connect(manager)
    peers: list[Any] = []
    for _ in range(20):
        websocket, peer = connect(manager, callback, close)
        with contextlib.suppress(OSError):
            peer.sendall(X + PONG + (GOODBYE if callback == "closed" else b""))
        wait_until(lambda: len(files) == len(peers) + 1)
        websocket.terminate()  # or it is found closed by a timer, within a minute
        assert websocket.ended.wait(PATIENCE)
        peers.append(peer)
    wait_until(lambda: present(manager) == 1)
    for file in files:
        assert os.fstat(file.fileno()).st_size == 0
        file.close()
    quiet_peer.sendall(PING)
    assert receive(quiet_peer) == (OPCODE_PONG, b"p")
    for peer in [*peers, quiet_peer]:
        peer.close()


def test_starts_and_exits_under_traffic() -> None:
    """Clients send on, some without an answer to the Close: nothing hangs, nothing is left, every end is told once."""
    fds = open_fds()
    manager = GreenletManager(drain_timeout=0.01)

    def send_on(peer: Any, polite: bool) -> None:
        with contextlib.suppress(OSError, EOFError), peer:
            while True:
                peer.sendall(X)
                if receive(peer)[0] == OPCODE_CLOSE and polite:
                    peer.sendall(GOODBYE)
                    return

    for number in range(100):
        manager.start()
        echoed = Event()

        def echo(websocket: Actor, echoed: Any = echoed, number: int = number) -> None:
            with contextlib.suppress(ConnectionClosed):
                websocket.send("x")
            echoed.set()
            if number % 2:
                manager.stop()
                manager.join(PATIENCE)

        connections = [connect(manager, "message", echo) for _ in range(3)]
        clients = [gevent.spawn(send_on, peer, place != 1) for place, (_, peer) in enumerate(connections)]
        assert echoed.wait(PATIENCE)
        manager.stop()
        manager.join(PATIENCE)
        assert manager.state == "stopped"
        for websocket, _ in connections:
            assert websocket.ended.wait(PATIENCE)
            assert len(websocket.ends) == 1
            assert websocket.errors == []
        gevent.joinall(clients, timeout=PATIENCE, raise_error=True)
    figures = manager.stats().connections
    assert (figures.opened, sum(figures.closed.values()), present(manager)) == (300, 300, 0)
    wait_until(lambda: not open_fds() - fds)
