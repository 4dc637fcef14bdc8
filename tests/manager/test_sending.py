"""Sending under a manager: by many threads, between fragments, to all."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    PAYLOADS,
    WORKERS,
    EchoRecorder,
    Recorder,
    Stage,
    start_thread,
    wait_for,
)
from ws4py.exc import ConnectionClosed
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CONTINUATION, OPCODE_PONG, OPCODE_TEXT
from ws4py.messaging import TextMessage

# --- sending ----------------------------------------------------------------------------------------------------------


@WORKERS
def test_many_threads_send_and_nothing_interleaves(stage: Stage, workers: int) -> None:
    """Whole messages, generators, Pings of both sides and echoes, by many threads, to a peer that checks all."""
    manager = stage.manager(workers=workers, max_outbox_size=1 << 16)
    websocket, peer = stage.connect(manager, EchoRecorder, small=True)
    names = "abcdef"

    def send(name: str) -> None:
        for number in range(60):
            text = f"{name}{number:03}" * (1 + number)
            if number % 2:
                websocket.send(text[index : index + 4] for index in range(0, len(text), 4))
            else:
                websocket.send(text)
            if number % 20 == 0:
                websocket.ping(name)

    tasks = [start_thread(send, name) for name in names]
    peer.send(*itertools.chain.from_iterable((peer.text(f"z{number:03}"), peer.ping(b"p")) for number in range(60)))
    received: dict[str, list[str]] = {name: [] for name in "z" + names}
    for _ in range(60 * 7):
        text = peer.receive_text()
        received[text[0]].append(text)
    for task in tasks:
        task.result()
    for name in names:
        assert received[name] == [f"{name}{number:03}" * (1 + number) for number in range(60)]
    assert received["z"] == [f"z{number:03}" for number in range(60)]
    peer.sync()
    pongs = [frame for frame in peer.controls if frame.opcode == OPCODE_PONG]
    assert len(pongs) == 60


def test_a_ping_is_answered_between_the_fragments_of_a_generator(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    go_on = threading.Semaphore(0)

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        assert go_on.acquire(timeout=PATIENCE)
        yield "three"

    task = start_thread(websocket.send, parts())
    assert peer.receive() == (OPCODE_TEXT, b"one")
    websocket.send("another message")
    peer.sync()
    go_on.release()
    task.result()
    assert peer.receive() == (OPCODE_CONTINUATION, b"two")
    assert peer.receive() == (FIN, b"three")
    assert peer.receive_text() == "another message"


def test_the_peer_closes_in_the_middle_of_a_generator(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    go_on = threading.Event()

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        wait_for(go_on)
        yield "three"
        yield "four"

    task = start_thread(websocket.send, parts())
    assert peer.receive() == (OPCODE_TEXT, b"one")
    peer.send(peer.goodbye())
    assert peer.receive_close() == (1000, "")
    websocket.end()
    go_on.set()
    with pytest.raises(ConnectionClosed):
        task.result()
    peer.expect_end()


def test_kinds_of_payload(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    for payload, binary, opcode, data in PAYLOADS:
        websocket.send(payload, binary)
        assert peer.receive() == (FIN | opcode, data)
    buffer = bytearray(b"before")
    websocket.send(buffer, binary=True)
    buffer[:] = b"after!"
    assert peer.receive_message() == b"before"


@pytest.mark.parametrize(
    ("payload", "binary", "error"),
    [("x", True, TypeError), (b"\xff", False, ValueError), (1, False, ValueError), (None, False, ValueError)],
)
def test_a_bad_payload_raises_and_changes_nothing(
    stage: Stage, payload: Any, binary: bool, error: type[Exception]
) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    with pytest.raises(error):
        websocket.send(payload, binary)
    with pytest.raises(error):
        manager.broadcast(payload, binary)
    peer.send(peer.text("fine"))
    assert peer.receive_text() == "fine"


# --- broadcast and close_all ------------------------------------------------------------------------------------------


def test_broadcast_reaches_all(stage: Stage) -> None:
    manager = stage.manager()
    connections = [stage.connect(manager, Recorder) for _ in range(5)]
    connections[4][0].close()
    assert manager.broadcast("text") == 4
    assert manager.broadcast(b"\xff", binary=True) == 4
    assert manager.broadcast(TextMessage("message")) == 4
    for _, peer in connections[:4]:
        assert peer.receive() == (FIN | OPCODE_TEXT, b"text")
        assert peer.receive() == (FIN | OPCODE_BINARY, b"\xff")
        assert peer.receive() == (FIN | OPCODE_TEXT, b"message")
    assert connections[4][1].receive_close() == (1000, "")
    connections[4][1].send(connections[4][1].goodbye())
    connections[4][1].expect_end()


def test_broadcast_masks_for_clients(stage: Stage) -> None:
    """A websocket in the client's role has a frame of its own."""
    manager = stage.manager()
    websocket, peer = stage.connect(None, Recorder)
    websocket.stream.always_mask = True
    websocket.stream.expect_masking = False
    manager.add(websocket)
    _, other = stage.connect(manager, Recorder)
    manager.broadcast("masked")
    assert peer.sock.recv(2) == b"\x81\x86"
    assert other.receive() == (FIN | OPCODE_TEXT, b"masked")


def test_broadcast_to_nobody(stage: Stage) -> None:
    assert stage.manager().broadcast("x") == 0
    assert stage.manager(start=False).broadcast("x") == 0


def test_broadcast_keeps_each_senders_order(stage: Stage) -> None:
    manager = stage.manager()
    peers = [stage.connect(manager, Recorder)[1] for _ in range(5)]

    def send(name: str) -> None:
        for number in range(100):
            manager.broadcast(f"{name}{number}")

    for task in [start_thread(send, name) for name in "abc"]:
        task.result()
    for peer in peers:
        received = [peer.receive_text() for _ in range(300)]
        for name in "abc":
            assert [text for text in received if text[0] == name] == [f"{name}{number}" for number in range(100)]


def test_broadcast_waits_for_no_generator(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)

    def parts() -> Iterator[str]:
        yield "a"
        yield "b"
        assert manager.broadcast("broadcast") == 1
        yield "c"

    websocket.send(parts())
    assert peer.receive_text() == "abc"
    assert peer.receive_text() == "broadcast"


def test_close_all(stage: Stage) -> None:
    manager = stage.manager()
    connections = [stage.connect(manager, Recorder) for _ in range(5)]
    manager.close_all()
    for websocket, peer in connections:
        assert peer.receive_close() == (1001, "Server is shutting down")
        peer.send(peer.goodbye(1001))
        assert websocket.end() == (1001, b"")
    late, peer = stage.connect(manager, EchoRecorder)
    manager.close_all(4000, "go")
    assert late.server_terminated
    assert peer.receive_close() == (4000, "go")
