"""The manager as a collection: what is added, removed, counted and told of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    EchoRecorder,
    Recorder,
    Script,
    Stage,
    start_thread,
    until,
    wait_for,
)
from ws4py.exc import ConnectionClosed, ManagerError
from ws4py.framing import OPCODE_BINARY
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

# --- the collection ---------------------------------------------------------------------------------------------------


def test_a_manager_is_a_collection_of_open_websockets(stage: Stage) -> None:
    manager = stage.manager()
    assert len(manager) == 0
    first, peer = stage.connect(manager, Recorder)
    second, _ = stage.connect(manager, Recorder)
    stranger, _ = stage.connect(None, Recorder)
    assert len(manager) == 2
    assert set(manager) == {first, second}
    assert first in manager
    assert stranger not in manager
    assert "x" not in manager
    assert manager.websockets == {first.sock.fileno(): first, second.sock.fileno(): second}
    assert len(manager.websockets.values()) == 2
    manager.websockets.clear()  # a copy
    assert len(manager) == 2
    peer.say_goodbye()
    first.end()
    assert first not in manager
    assert set(manager) == {second}


def test_iterating_while_websockets_come_and_go(stage: Stage) -> None:
    manager = stage.manager()
    stop = threading.Event()

    def iterate() -> None:
        while not stop.is_set():
            for websocket in manager:
                assert isinstance(websocket, WebSocket)
            len(manager)
            manager.broadcast("x", overflow="drop")

    tasks = [start_thread(iterate) for _ in range(2)]
    stage.closers.append(stop.set)
    for _ in range(200):
        _, peer = stage.connect(manager, Recorder)
        peer.close()
    stop.set()
    for task in tasks:
        task.result()
    until(lambda: len(manager) == 0)


def test_adding_twice_is_once(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    manager.add(websocket)
    wait_for(websocket.was_opened)
    manager.add(websocket)
    assert len(manager) == 1
    peer.sync()
    assert websocket.events == [("opened",)]


def test_what_cannot_be_added(stage: Stage) -> None:
    manager, other = stage.manager(), stage.manager()
    websocket, _ = stage.connect(manager, Recorder)
    not_a_websocket: Any = object()
    with pytest.raises(TypeError, match="not a WebSocket"):
        manager.add(not_a_websocket)
    with pytest.raises(ValueError, match="under another manager"):
        other.add(websocket)
    closed, _ = stage.connect(None, Recorder)
    closed.sock.close()
    with pytest.raises(ValueError, match="no open socket"):
        manager.add(closed)
    without, _ = stage.connect(None, Recorder)
    without.close_connection()
    with pytest.raises(ValueError, match="no open socket"):
        manager.add(without)
    assert len(manager) == 1


@pytest.mark.parametrize("frequency", ["30", -1, float("nan"), float("inf"), (1,)])
def test_a_bad_heartbeat_is_refused_at_once(stage: Stage, frequency: Any) -> None:
    manager = stage.manager()
    websocket, _ = stage.connect(None, Recorder, heartbeat_freq=frequency)
    with pytest.raises(ValueError, match="heartbeat_freq must be"):
        manager.add(websocket)
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("alive"))
    assert peer.receive_text() == "alive"


def test_add_before_start(stage: Stage) -> None:
    manager = stage.manager(start=False)
    connections = [stage.connect(manager, EchoRecorder) for _ in range(3)]
    assert len(manager) == 3
    for websocket, peer in connections:
        websocket.send("sent before")
        peer.send(peer.text("received before"))
    manager.start()
    for websocket, peer in connections:
        assert peer.receive_text() == "sent before"
        assert peer.receive_text() == "received before"
        assert websocket.events == [("opened",), ("message", b"received before")]


def test_a_websocket_may_be_used_with_any_name_of_its_socket(stage: Stage) -> None:
    manager = stage.manager()
    websocket, _ = stage.connect(manager, Recorder)
    assert websocket.connection is websocket.sock


# --- remove -----------------------------------------------------------------------------------------------------------


def test_a_removed_websocket_is_open_and_its_own(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    manager.remove(websocket)
    manager.remove(websocket)
    assert websocket not in manager
    assert len(manager) == 0
    assert websocket.sock.getblocking()
    websocket.send("by itself")
    assert peer.receive_text() == "by itself"
    peer.send(peer.text("read by itself"))
    assert websocket.once()
    until(lambda: b"read by itself" in websocket.messages)
    assert websocket.ends == []


def test_a_websocket_removed_before_start_runs_by_itself(stage: Stage) -> None:
    manager = stage.manager(start=False)
    websocket, peer = stage.connect(manager, EchoRecorder)
    manager.remove(websocket)
    manager.start()
    other, _peer_of_other = stage.connect(manager, Recorder)
    wait_for(other.was_opened)
    assert websocket.events == []
    task = start_thread(websocket.run)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    assert peer.say_goodbye() == (1000, "")
    task.result()
    assert websocket.end() == (1000, b"")


def test_a_sender_that_waits_is_told_of_the_removal(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=1000, send_timeout=PATIENCE)
    websocket, _ = stage.connect(manager, Recorder, small=True)
    wait_for(websocket.was_opened)

    def send() -> None:
        while True:
            websocket._connection.send_message(OPCODE_BINARY, bytes(10_000))  # type: ignore[union-attr]

    task = start_thread(send)
    until(lambda: manager.stats().limits["outbox"])
    manager.remove(websocket)
    with pytest.raises((ConnectionClosed, AttributeError)):
        task.result()


def test_remove_in_a_handler(stage: Stage) -> None:
    manager = stage.manager()
    removed = threading.Event()

    def on_message(websocket: WebSocket, message: Message) -> None:
        manager.remove(websocket)
        removed.set()

    websocket, peer = stage.connect(manager, Script.of(message=on_message))
    peer.send(peer.text("x"))
    wait_for(removed)
    assert len(manager) == 0
    assert websocket.ends == []


def test_remove_of_a_stranger_does_nothing(stage: Stage) -> None:
    manager = stage.manager()
    stranger, _ = stage.connect(None, Recorder)
    manager.remove(stranger)
    websocket, _ = stage.connect(stage.manager(), Recorder)
    manager.remove(websocket)
    assert not websocket.sock.getblocking()


# --- counters ---------------------------------------------------------------------------------------------------------


def test_what_is_counted(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    manager.broadcast("news")
    frames = peer.text("one") + peer.binary(b"two") + peer.ping(b"p") + peer.pong(b"q")
    peer.send(frames)
    assert [peer.receive_message() for _ in range(3)] == [b"news", b"one", b"two"]
    goodbye = peer.goodbye()
    peer.say_goodbye()
    websocket.end()
    until(lambda: manager.stats().connections.closed)
    stats = manager.stats()
    assert stats.connections.opened == 1
    assert stats.connections.closed == {1000: 1}
    assert stats.received.messages == {"text": 1, "binary": 1, "ping": 1, "pong": 1, "close": 1}
    assert stats.received.payload_bytes == {"text": 3, "binary": 3}
    assert stats.received.bytes == len(frames) + len(goodbye)
    assert stats.sent.bytes == 6 + 5 + 5 + 3 + 4
    assert stats.sent.messages == {"text": 2, "binary": 1, "ping": 0, "pong": 1, "close": 1}
    assert (stats.broadcasts, stats.deliveries) == (1, 1)
    until(lambda: manager.stats().workers.messages == 2)
    assert manager.stats().workers.errors == 0


def test_the_manager_says_what_it_is_doing(stage: Stage) -> None:
    manager = stage.manager(start=False)
    assert not manager.running
    assert not manager.is_alive()
    manager.start()
    assert manager.running
    assert manager.is_alive()
    with pytest.raises(ManagerError, match="running already"):
        manager.start()
    manager.stop()
    manager.join(PATIENCE)
    assert not manager.running
    assert not manager.is_alive()


def test_a_manager_as_a_context(stage: Stage) -> None:
    with WebSocketManager(drain_timeout=0.0) as manager:
        _, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
    assert not manager.is_alive()
