"""What programs do, those of 0.6 among them: subclasses, overrides, sockets closed behind our back."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.helpers import (
    WORKERS,
    EchoRecorder,
    Peer,
    Recorder,
    Script,
    Stage,
    open_fds,
    present,
    quiet,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.exc import ConnectionClosed
from ws4py.messaging import Message
from ws4py.websocket import EchoWebSocket, WebSocket

# --- applications that close their socket themselves ------------------------------------------------------------------


@WORKERS
def test_a_handler_may_close_its_socket_inside_closed(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)

    def on_closed(websocket: WebSocket, code: int, reason: object) -> None:
        websocket.sock.close()
        assert websocket.environ is not None
        websocket.environ.pop("own", None)

    for _ in range(50):
        websocket, peer = stage.connect(manager, Script.of(closed=on_closed), environ={"own": 1})
        peer.send(peer.text("x"), peer.goodbye())
        peer.receive_rest()
        assert websocket.end() == (1000, b"")
        assert websocket.errors == []
        peer.close()
    until(lambda: not present(manager))


@pytest.mark.parametrize("callback", ["opened", "message", "closed"])
@WORKERS
def test_no_stranger_gets_the_number_of_a_socket_that_the_application_has_closed(
    stage: Stage, workers: int, callback: str, tmp_path: Path
) -> None:
    """While files and connections are opened elsewhere: no byte comes there, and nobody else is troubled."""
    manager = stage.manager(workers=workers, ping_interval=None)
    files: list[Any] = []

    def close(websocket: WebSocket, *_: object) -> None:
        number = websocket.sock.fileno()
        websocket.sock.close()
        file = open(tmp_path / f"{len(files)} {id(websocket)}", "w+b", buffering=0)  # noqa: SIM115
        files.append(file)
        assert file.fileno() != number
        with contextlib.suppress(ConnectionClosed):
            websocket.send("for the peer")
            websocket.close()

    stage.closers.append(lambda: [file.close() for file in files])
    _, bystander = stage.connect(manager, EchoRecorder)
    for _ in range(20):
        websocket, peer = stage.connect(manager, Script.of(**{callback: close}), tcp_pair)
        with contextlib.suppress(OSError):
            peer.send(peer.text("x"))
            if callback == "closed":
                peer.say_goodbye()
        websocket.end()
    until(lambda: manager.stats().connections.closing == 0)
    assert len(files) == 20
    assert [os.fstat(file.fileno()).st_size for file in files] == [0] * 20
    assert len(manager) == 1
    bystander.send(bystander.text("x"))
    assert bystander.receive_text() == "x"


def test_an_application_that_closes_its_open_socket(stage: Stage) -> None:
    """The connection ends, and the descriptor is given back when closed() has returned."""
    manager = stage.manager(ping_interval=None)
    closed, gate = threading.Event(), threading.Event()
    stage.closers.append(gate.set)

    def on_closed(websocket: WebSocket, code: int, reason: object) -> None:
        closed.set()
        wait_for(gate)

    websocket, peer = stage.connect(manager, Script.of(closed=on_closed))
    peer.sync()
    fd = websocket.sock.fileno()
    websocket.sock.close()
    wait_for(closed)
    assert fd in {number for number, _ in open_fds()}
    gate.set()
    assert websocket.end() == (1006, "Going away")
    until(lambda: fd not in {number for number, _ in open_fds()})
    assert len(manager) == 0


@pytest.mark.parametrize("act", ["send", "close", "starve"])
def test_one_bad_socket_does_not_end_the_managers_thread(stage: Stage, act: str) -> None:
    manager = stage.manager(ping_interval=None, max_inbox_messages=1)
    done = threading.Event()

    def on_message(websocket: WebSocket, message: Message) -> None:
        websocket.sock.close()
        if act == "send":
            with contextlib.suppress(ConnectionClosed):  # it may be known by now
                websocket.send("x")
        elif act == "close":
            websocket.close()
        done.set()

    with quiet():
        websocket, peer = stage.connect(manager, Script.of(message=on_message))
        _, bystander = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("x"))
        wait_for(done)
        assert websocket.end()[0] == 1006
    bystander.send(bystander.text("alive"))
    assert bystander.receive_text() == "alive"
    assert manager.is_alive()
    assert len(manager) == 1


# --- what 0.6 programs do ---------------------------------------------------------------------------------------------


def test_a_subclass_with_any_arguments(stage: Stage) -> None:
    class Wide(EchoWebSocket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.room = "lobby"

        def closed(self, *args: Any) -> None:
            ended.append(args)
            done.set()

    ended: list[tuple[Any, ...]] = []
    done = threading.Event()
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Wide, protocols=["a"], environ={"x": 1}, heartbeat_freq=20)
    assert websocket.room == "lobby"
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    peer.say_goodbye(4001, "why")
    wait_for(done)
    assert ended == [(4001, b"why")]


def test_a_subclass_that_keeps_its_instances_in_new(stage: Stage) -> None:
    class Kept(EchoRecorder):
        instances: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            instance = super().__new__(cls)
            cls.instances.add(instance)
            return instance

    manager = stage.manager()
    websocket, peer = stage.connect(manager, Kept)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    assert set(Kept.instances) == {websocket}


def test_overridden_send_and_close_are_the_applications_alone(stage: Stage) -> None:
    """The manager answers Pings and Closes without them."""

    class Own(Recorder):
        def send(self, **message: Any) -> None:  # type: ignore[override]
            super().send(str(sorted(message.items())))

        def close(self, code: int = 1001, reason: Any = None) -> None:
            own.append(code)
            super().close(code, reason)

        def on_message(self, message: Message) -> None:
            self.send(b=2, a=1)

    own: list[int] = []
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Own, heartbeat_freq=20)
    peer.sync()
    peer.send(peer.text("x"))
    assert peer.receive_text() == "[('a', 1), ('b', 2)]"
    assert peer.say_goodbye() == (1000, "")
    websocket.end()
    assert own == []


def test_an_overridden_terminate_is_called_at_the_end(stage: Stage) -> None:
    class Own(Recorder):
        def terminate(self) -> None:
            calls.append(threading.current_thread().name)
            super().terminate()

    calls: list[str] = []
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Own)
    peer.say_goodbye()
    assert websocket.end() == (1000, b"")
    assert len(calls) == 1


def test_a_terminate_that_calls_nothing_of_ours_leaks_nothing(stage: Stage) -> None:
    class Own(WebSocket):
        def terminate(self) -> None:
            done.set()

    done = threading.Event()
    manager = stage.manager()
    _, peer = stage.connect(manager, Own)
    assert peer.say_goodbye() == (1000, "")
    wait_for(done)
    until(lambda: not present(manager))


def test_running_init_again_in_closed(stage: Stage) -> None:
    """So 0.6 programs connect anew: the new socket stays open, the old one is given back."""
    ours, theirs = unix_pair()
    manager = stage.manager()

    def on_closed(websocket: Recorder, code: int, reason: object) -> None:
        events, was_closed, inside = websocket.events, websocket.was_closed, websocket._inside
        type(websocket).__init__(websocket, ours)
        websocket.events, websocket.was_closed, websocket._inside = events, was_closed, inside

    websocket, peer = stage.connect(manager, Script.of(closed=on_closed))
    old = websocket.sock
    assert peer.say_goodbye() == (1000, "")
    wait_for(websocket.was_closed)
    until(lambda: old.fileno() == -1)
    assert websocket.sock is ours
    assert not websocket.terminated
    websocket.send("anew")
    new_peer = Peer(theirs)
    assert new_peer.receive_text() == "anew"
    new_peer.close()
    until(lambda: not present(manager))


def test_addresses(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    assert websocket.local_address == peer.sock.getpeername()
    assert websocket.peer_address == peer.sock.getsockname()
