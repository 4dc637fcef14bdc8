"""What fails under gevent: of one connection, of the manager, and what is meant for the program."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

import pytest

gevent = pytest.importorskip("gevent")

from gevent import socket  # noqa: E402
from gevent.event import Event  # noqa: E402

from tests.helpers import KEY, PATIENCE, quiet  # noqa: E402
from tests.manager.test_fork import in_child  # noqa: E402
from ws4py.exc import ManagerError  # noqa: E402
from ws4py.framing import FIN, OPCODE_CLOSE, OPCODE_TEXT, build_frame  # noqa: E402
from ws4py.messaging import Message  # noqa: E402
from ws4py.server.geventmanager import GreenletManager  # noqa: E402
from ws4py.streaming import Stream  # noqa: E402
from ws4py.websocket import EchoWebSocket  # noqa: E402

X = build_frame(FIN | OPCODE_TEXT, b"x", KEY)
ECHO = build_frame(FIN | OPCODE_TEXT, b"x")
GOODBYE = build_frame(FIN | OPCODE_CLOSE, b"\x03\xe9", KEY)


class Oddity(BaseException):
    """What no code expects."""


class Echo(EchoWebSocket):
    """Echoes, and tells when it has ended, and how often."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.ends: list[int] = []
        self.ended = Event()

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.ends.append(code)
        self.ended.set()


def connect(manager: GreenletManager, kind: type[Echo] = Echo) -> tuple[Echo, Any]:
    """Return a websocket that a manager runs, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    websocket = kind(ours)
    manager.add(websocket)
    return websocket, theirs


def check(peer: Any) -> None:
    peer.sendall(X)
    assert peer.recv(100) == ECHO


class OddStream(Stream):
    """Can't be read."""

    def fail(self, *_: Any) -> Any:
        raise Oddity

    receive = receive_some = take_message = fail  # type: ignore[assignment]


class Odd(Echo):
    """Can't be read."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.stream = OddStream(always_mask=False)


class Killed(Echo):
    """Is killed in a callback."""

    def received_message(self, message: Message) -> None:
        gevent.getcurrent().throw(gevent.GreenletExit)

    def unhandled_error(self, error: BaseException) -> None:
        raise AssertionError("it is nobody's fault")


class Loud(Echo):
    """Raises wherever it may."""

    def received_message(self, message: Message) -> None:
        raise Oddity

    def unhandled_error(self, error: BaseException) -> None:
        raise error


class Changed(Echo):
    """Has a heartbeat that is no number."""

    def opened(self) -> None:
        self.heartbeat_freq = "30"  # type: ignore[assignment]


class Shut(Echo):
    """Is removed when its socket is closed already."""

    manager: GreenletManager

    def received_message(self, message: Message) -> None:
        self.sock.close()
        self.manager.remove(self)


@pytest.mark.parametrize("kind", [Odd, Loud, Changed, Shut])
def test_what_fails_for_one_connection_is_nobody_elses_business(kind: type[Echo]) -> None:
    manager = GreenletManager(ping_interval=0.05)
    Shut.manager = manager
    manager.start()
    _, bystander = connect(manager)
    websocket, peer = connect(manager, kind)
    with quiet():
        peer.sendall(X)
        if kind is Changed:
            gevent.sleep(0)
            data = peer.recv(100)
            while b"\x89\x04" not in data and (more := peer.recv(100)):
                data += more
            with contextlib.suppress(OSError, ValueError):  # it may end before the first Ping
                ping = data[data.index(b"\x89\x04") + 2 :][:4]
                peer.sendall(build_frame(0x8A, ping, KEY))
        if kind is Loud:
            while b"\x88\x02\x03\xf3" not in peer.recv(1000):
                pass
            peer.sendall(build_frame(FIN | OPCODE_CLOSE, b"\x03\xf3", KEY))
        assert websocket.ended.wait(PATIENCE)
    assert len(websocket.ends) == 1
    while ECHO not in (bystander.sendall(X), bystander.recv(1000))[1]:
        pass
    assert manager.running
    bystander.close()
    peer.close()
    manager.stop()
    manager.join(PATIENCE)
    assert not manager.is_alive()


def test_to_kill_a_callback_is_no_fault_of_it() -> None:
    manager = GreenletManager(drain_timeout=0.2)
    manager.start()
    with quiet() as records:
        websocket, peer = connect(manager, Killed)
        peer.sendall(X)
        assert websocket.ended.wait(PATIENCE)
        assert peer.recv(100) == b""
    assert (websocket.ends, records) == ([1006], [])
    assert manager.stats().workers.errors == 0
    peer.close()
    manager.stop()
    manager.join(PATIENCE)


def test_a_manager_that_fails_says_so_and_can_be_started_again() -> None:
    manager = GreenletManager()
    manager.start()
    websocket, peer = connect(manager)
    check(peer)
    told = Event()
    manager.on_failure = told.set

    def fail(timeout: float | None = None) -> Any:
        raise RuntimeError("the poller is broken")

    with quiet() as records:
        poller: Any = manager._engine.poller
        poller.poll = fail
        peer.sendall(X)
        manager.join(PATIENCE)
        assert told.wait(PATIENCE)
    assert [record.levelname for record in records] == ["CRITICAL"]
    assert manager.failed
    assert not manager.is_alive()
    assert manager.stats().state == "failed"
    assert websocket.ends == [1006]
    assert peer.recv(100)[2:4] == b"\x03\xe9"
    peer.close()
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ManagerError):
        manager.add(Echo(ours))
    manager.start()
    websocket, peer = connect(manager)
    check(peer)
    peer.close()
    assert websocket.ended.wait(PATIENCE)
    manager.stop()
    manager.join(PATIENCE)
    assert manager.state == "stopped"


def test_removing_waits_for_the_callback_that_runs() -> None:
    gate, entered = Event(), Event()
    log: list[str] = []

    class Slow(Echo):
        def received_message(self, message: Message) -> None:
            entered.set()
            assert gate.wait(PATIENCE)
            log.append("callback")

    manager = GreenletManager()
    manager.start()
    websocket, peer = connect(manager, Slow)
    peer.sendall(X)
    assert entered.wait(PATIENCE)

    def remove() -> None:
        manager.remove(websocket)
        log.append("removed")

    remover = gevent.spawn(remove)
    gevent.sleep(0)
    another = GreenletManager()
    another.start()
    with pytest.raises(ManagerError):
        another.add(websocket)
    gate.set()
    remover.join(PATIENCE)
    assert log == ["callback", "removed"]
    another.add(websocket)
    peer.close()
    assert websocket.ended.wait(PATIENCE)
    for one in (manager, another):
        one.stop()
        one.join(PATIENCE)


def test_joining_in_a_callback_does_not_wait_for_that_callback() -> None:
    log: list[str] = []

    class Joining(Echo):
        def received_message(self, message: Message) -> None:
            manager.stop()
            manager.join()
            log.append(manager.state)

        def closed(self, code: int, reason: str | bytes | None = None) -> None:
            log.append("closed")
            super().closed(code, reason)

    manager = GreenletManager(drain_timeout=10 * PATIENCE)
    manager.start()
    websocket, peer = connect(manager, Joining)
    peer.sendall(X)
    assert peer.recv(100)[2:4] == b"\x03\xe9"
    peer.sendall(GOODBYE)
    manager.join(PATIENCE)
    assert manager.state == "stopped"
    assert websocket.ended.wait(PATIENCE)
    assert log == ["stopped", "closed"]
    peer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_sends_and_leaves_the_rest_to_its_parent() -> None:
    """Its hub is a copy of the parent's."""
    manager = GreenletManager(drain_timeout=0.2)
    manager.start()
    websocket, peer = connect(manager)
    check(peer)
    peer.sendall(X)

    def child() -> None:
        gevent.reinit()
        websocket.send("y")
        ours, theirs = socket.socketpair()
        theirs.sendall(b"x")
        ours.recv(1)  # so the hub has looked at the sockets
        with pytest.raises(ManagerError):
            manager.stop()

    in_child(child)
    data = b""
    while len(data) < 6:
        data += peer.recv(100)
    assert {data[:3], data[3:]} == {ECHO, b"\x81\x01y"}
    check(peer)
    peer.close()
    manager.stop()
    manager.join(PATIENCE)


PROGRAM = """
import gevent, sys
from gevent import socket
from ws4py.server.geventmanager import GreenletManager
from ws4py.streaming import Stream
from ws4py.websocket import EchoWebSocket

class Interrupted(Stream):
    def interrupt(self, *_):
        raise KeyboardInterrupt
    receive_some = take_message = interrupt

class Echo(EchoWebSocket):
    def __init__(self, sock):
        super().__init__(sock)
        if sys.argv[1] == "interrupt the hub":
            self.stream = Interrupted(always_mask=False)
    def received_message(self, message):
        raise KeyboardInterrupt
    def closed(self, code, reason=None):
        print("closed", code, flush=True)

manager = GreenletManager(drain_timeout=0.2)
manager.start()
ours, theirs = socket.socketpair()
manager.add(Echo(ours))
gevent.sleep(0)
try:
    if sys.argv[1].startswith("interrupt"):
        theirs.sendall(b"\\x81\\x81\\0\\0\\0\\0x")
        gevent.sleep(20)
except KeyboardInterrupt:
    print("interrupted", theirs.recv(100)[:4], flush=True)
"""


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("interrupt a callback", ["closed 1006", r"interrupted b'\x88\x02\x03\xf3'"]),
        ("interrupt the hub", ["closed 1006", "interrupted b''"]),
        ("end", ["closed 1006"]),
    ],
)
def test_what_is_meant_for_the_program_goes_on(way: str, expected: list[str]) -> None:
    """When the connection has ended; and at the end of the process all of them do."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split("\n") == [*expected, ""]
