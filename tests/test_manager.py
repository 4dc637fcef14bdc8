"""The manager: one connection's life, the order of its callbacks, and every way in which it can end."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.helpers import (
    PATIENCE,
    Certificates,
    EchoRecorder,
    Gate,
    Peer,
    Recorder,
    Script,
    Stage,
    open_fds,
    quiet,
    start_thread,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.engine import Connection
from ws4py.engine.batch import BatchIO, Received
from ws4py.exc import ConnectionClosed, InvalidCloseCode, ManagerError
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CONTINUATION, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
from ws4py.manager import WebSocketManager
from ws4py.messaging import BinaryMessage, Message, TextMessage
from ws4py.websocket import EchoWebSocket, WebSocket

WORKERS = pytest.mark.parametrize("workers", [0, 1, 8])


class OwnError(Exception):
    """Raised by handlers here."""


# --- callbacks --------------------------------------------------------------------------------------------------------


@WORKERS
def test_an_echo(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("héllo"), peer.binary(b"\xff\x00"))
    assert peer.receive() == (FIN | OPCODE_TEXT, "héllo".encode())
    assert peer.receive() == (FIN | OPCODE_BINARY, b"\xff\x00")
    assert peer.say_goodbye(1000, "bye") == (1000, "")
    assert websocket.end() == (1000, b"bye")
    assert websocket.events == [
        ("opened",),
        ("message", "héllo".encode()),
        ("message", b"\xff\x00"),
        ("closed", 1000, b"bye"),
    ]


@WORKERS
def test_callbacks_come_in_order_and_never_overlap(stage: Stage, workers: int) -> None:
    """The recorders see an overlap, or a wrong order, themselves: the stage looks at that."""
    manager = stage.manager(workers=workers)
    connections = [stage.connect(manager, EchoRecorder) for _ in range(20)]
    for start in range(0, 200, 10):
        for _, peer in connections:
            peer.send(*(peer.text(str(number)) for number in range(start, start + 10)), peer.pong(b"%d" % start))
    for websocket, peer in connections:
        assert [peer.receive_text() for _ in range(200)] == [str(number) for number in range(200)]
        peer.say_goodbye()
        websocket.end()
        assert websocket.messages == [b"%d" % number for number in range(200)]
        pongs = [event[1] for event in websocket.events if event[0] == "ponged"]
        assert pongs == [b"%d" % start for start in range(0, 200, 10)]


def test_different_websockets_are_called_at_the_same_time(stage: Stage) -> None:
    barrier = threading.Barrier(3)
    manager = stage.manager(workers=4)
    kind = Script.of(message=lambda websocket, message: barrier.wait(PATIENCE))
    connections = [stage.connect(manager, kind) for _ in range(3)]
    for _, peer in connections:
        peer.send(peer.text("meet"))
    for websocket, peer in connections:
        peer.say_goodbye()
        assert websocket.end() == (1000, b"")
        assert websocket.errors == []


def test_callbacks_run_on_workers(stage: Stage) -> None:
    threads: list[threading.Thread] = []
    kind = Script.of(
        opened=lambda websocket: threads.append(threading.current_thread()),
        message=lambda websocket, message: threads.append(threading.current_thread()),
        pong=lambda websocket, pong: threads.append(threading.current_thread()),
        closed=lambda websocket, code, reason: threads.append(threading.current_thread()),
    )
    manager = stage.manager()
    websocket, peer = stage.connect(manager, kind)
    peer.send(peer.text("x"), peer.pong(b"y"))
    peer.say_goodbye()
    websocket.end()
    assert len(threads) == 4
    assert all(thread.name.startswith("WebSocketWorker") for thread in threads)


def test_without_workers_callbacks_run_on_the_managers_thread(stage: Stage) -> None:
    threads: set[str] = set()
    kind = Script.of(
        opened=lambda websocket: threads.add(threading.current_thread().name),
        message=lambda websocket, message: threads.add(threading.current_thread().name),
        closed=lambda websocket, code, reason: threads.add(threading.current_thread().name),
    )
    manager = stage.manager(workers=0)
    websocket, peer = stage.connect(manager, kind)
    peer.send(peer.text("x"))
    peer.say_goodbye()
    websocket.end()
    assert threads == {"WebSocketManager"}


@WORKERS
def test_opened_may_send_close_and_broadcast(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)

    def on_opened(websocket: WebSocket) -> None:
        websocket.send("sent")
        manager.broadcast("broadcast")
        websocket.close(4000, "enough")

    websocket, peer = stage.connect(manager, Script.of(opened=on_opened))
    assert peer.receive_text() == "sent"
    assert peer.receive_text() == "broadcast"
    assert peer.receive_close() == (4000, "enough")
    peer.send(peer.goodbye(4000, "enough"))
    peer.expect_end()
    assert websocket.end() == (4000, b"enough")


def test_early_bytes_are_read_after_opened(stage: Stage) -> None:
    manager = stage.manager()
    _, stranger = stage.connect(None, Recorder)
    early = stranger.text("one") + stranger.text("two")[:4]
    websocket, peer = stage.connect(manager, EchoRecorder, early=early)
    peer.send(stranger.text("two")[4:])
    assert peer.receive_text() == "one"
    assert peer.receive_text() == "two"
    assert websocket.events[0] == ("opened",)


def test_an_early_close(stage: Stage) -> None:
    manager = stage.manager()
    _, stranger = stage.connect(None, Recorder)
    websocket, peer = stage.connect(manager, EchoRecorder, early=stranger.text("x") + stranger.goodbye(1001))
    assert peer.receive_text() == "x"
    assert peer.receive_close() == (1001, "")
    peer.expect_end()
    assert websocket.end() == (1001, b"")


def test_bytes_may_come_one_by_one(stage: Stage) -> None:
    manager = stage.manager()
    _, peer = stage.connect(manager, EchoRecorder)
    for byte in peer.text("in pieces") + peer.ping(b"p") + peer.text("again"):
        peer.send(bytes([byte]))
    assert peer.receive_text() == "in pieces"
    assert peer.receive_text() == "again"
    assert [frame.payload for frame in peer.controls] == [b"p"]


def test_ponged_gets_the_answer_to_a_ping(stage: Stage) -> None:
    ponged = threading.Event()
    kind = Script.of(
        opened=lambda websocket: websocket.ping("are you there?"), pong=lambda websocket, pong: ponged.set()
    )
    manager = stage.manager()
    websocket, peer = stage.connect(manager, kind)
    assert peer.receive() == (FIN | OPCODE_PING, b"are you there?")
    peer.send(peer.pong(b"are you there?"))
    wait_for(ponged)
    assert websocket.events == [("opened",), ("ponged", b"are you there?")]


def test_a_ping_is_answered_with_its_payload(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    peer.send(peer.ping(b"one"), peer.ping(), peer.ping(bytes(125)))
    assert [peer.receive() for _ in range(3)] == [(FIN | OPCODE_PONG, data) for data in (b"one", b"", bytes(125))]
    assert websocket.messages == []


# --- every end --------------------------------------------------------------------------------------------------------

CLOSES = [(1000, ""), (1001, "going"), (1003, "x"), (1011, ""), (1012, ""), (1014, ""), (3000, ""), (4999, "é" * 61)]


@WORKERS
@pytest.mark.parametrize(("code", "reason"), CLOSES)
def test_the_peer_closes(stage: Stage, workers: int, code: int, reason: str) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    assert peer.say_goodbye(code, reason) == (code, "")
    assert websocket.end() == (code, reason.encode())
    assert (websocket.close_code, websocket.close_reason) == (code, reason)
    until(lambda: len(manager) == 0)


@WORKERS
def test_an_empty_close_is_answered_by_an_empty_close(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    assert peer.say_goodbye(None) == (None, "")
    assert websocket.end() == (1005, b"")
    assert (websocket.close_code, websocket.close_reason) == (1005, "")


@pytest.mark.parametrize(("code", "reason"), CLOSES)
@pytest.mark.parametrize(("answer", "answer_reason"), [(1000, ""), (None, ""), (4001, "mine")])
def test_this_side_closes(stage: Stage, code: int, reason: str, answer: int | None, answer_reason: str) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    websocket.close(code, reason)
    assert websocket.server_terminated
    websocket.close(1000, "a second one")
    assert peer.receive_close() == (code, reason)
    peer.send(peer.goodbye(answer, answer_reason))
    peer.expect_end()
    assert websocket.end() == (answer or 1005, answer_reason.encode())


def test_close_takes_no_reason(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    websocket.close(reason=None)
    assert peer.receive_close() == (1000, "")


@pytest.mark.parametrize("code", [999, 1004, 1006, 1015, 1016, 2999, 5000, 65536, -1])
def test_a_code_that_may_not_be_sent_raises_and_changes_nothing(stage: Stage, code: int) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    with pytest.raises(InvalidCloseCode):
        websocket.close(code)
    with pytest.raises(InvalidCloseCode):
        manager.close_all(code)
    peer.send(peer.text("still open"))
    assert peer.receive_text() == "still open"


@pytest.mark.parametrize("code", [None, 0, 1005])
def test_no_code_is_an_empty_close(stage: Stage, code: Any) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    websocket.close(code, "is left out")
    assert peer.receive_close() == (None, "")


def test_messages_come_until_the_peer_answers_the_close(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    websocket.close()
    assert peer.receive_close() == (1000, "")
    peer.send(peer.text("on its way"), peer.goodbye())
    peer.expect_end()
    websocket.end()
    assert websocket.messages == [b"on its way"]


@WORKERS
@pytest.mark.parametrize("callback", ["opened", "message", "pong", "closed"])
def test_close_in_a_callback(stage: Stage, workers: int, callback: str) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(
        manager, Script.of(**{callback: lambda websocket, *arguments: websocket.close(4000, "inside")})
    )
    peer.send(peer.text("x"), peer.pong(b"y"))
    if callback == "closed":
        peer.send(peer.goodbye())
        assert peer.receive_close() == (1000, "")
    else:
        assert peer.receive_close() == (4000, "inside")
        peer.send(peer.goodbye())
    peer.expect_end()
    assert websocket.end() == (1000, b"")


@WORKERS
@pytest.mark.parametrize("callback", ["opened", "message", "pong", "closed"])
def test_terminate_in_a_callback(stage: Stage, workers: int, callback: str) -> None:
    """closed() comes when the callback has returned, and is not called within it."""
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(
        manager, Script.of(**{callback: lambda websocket, *arguments: websocket.terminate()})
    )
    with contextlib.suppress(OSError):  # opened() may have ended the connection already
        peer.send(peer.text("x"), peer.pong(b"y"))
    if callback == "closed":
        peer.send(peer.goodbye())
        assert peer.receive_close() == (1000, "")
    peer.receive_rest()
    assert websocket.end() == ((1000, b"") if callback == "closed" else (1006, "Going away"))
    assert websocket.terminated
    until(lambda: websocket.sock is None)


@WORKERS
@pytest.mark.parametrize("callback", ["opened", "message", "pong", "closed"])
def test_an_exception_in_a_callback(stage: Stage, workers: int, callback: str) -> None:
    """It is logged with its traceback, given to unhandled_error(), and ends this connection only, with 1011."""
    error = OwnError("from a handler")

    def fail(websocket: WebSocket, *arguments: object) -> None:
        raise error

    manager = stage.manager(workers=workers)
    _, peer_of_other = stage.connect(manager, EchoRecorder)
    with quiet() as records:
        websocket, peer = stage.connect(manager, Script.of(**{callback: fail}))
        peer.send(peer.text("x"), peer.pong(b"y"))
        if callback == "closed":
            assert peer.say_goodbye() == (1000, "")
        else:
            assert peer.receive_close() == (1011, "")
            assert websocket.server_terminated
            peer.send(peer.goodbye(1011))
            peer.expect_end()
        assert websocket.end() == (1000 if callback == "closed" else 1011, b"")
        until(lambda: websocket.errors)
    assert websocket.errors == [error]
    assert [record.exc_info[1] for record in records if record.exc_info] == [error]
    until(lambda: websocket.sock is None)
    peer_of_other.send(peer_of_other.text("alive"))
    assert peer_of_other.receive_text() == "alive"
    until(lambda: len(manager) == 1)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, ConnectionClosed])
@WORKERS
def test_no_exception_ends_a_thread_of_ours(stage: Stage, workers: int, kind: type[BaseException]) -> None:
    def fail(websocket: WebSocket, *arguments: object) -> None:
        raise kind

    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, Script.of(message=fail))
    _, peer_of_other = stage.connect(manager, EchoRecorder)
    with quiet():
        peer.send(peer.text("x"))
        assert peer.receive_close() == (1011, "")
        peer.send(peer.goodbye())
        assert websocket.end() == (1000, b"")
    peer_of_other.send(peer_of_other.text("alive"))
    assert peer_of_other.receive_text() == "alive"
    assert manager.is_alive()


@WORKERS
def test_an_exception_in_unhandled_error(stage: Stage, workers: int) -> None:
    class Careless(Recorder):
        def on_message(self, message: Message) -> None:
            raise OwnError

        def unhandled_error(self, error: BaseException) -> None:
            raise ValueError("this one too")

    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, Careless)
    with quiet() as records:
        peer.send(peer.text("x"))
        assert peer.receive_close() == (1011, "")
        peer.send(peer.goodbye())
        assert websocket.end() == (1000, b"")
    assert len(records) == 2


@WORKERS
def test_the_peer_ends_tcp_without_a_close(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)
    peer.sync()
    peer.close()
    assert websocket.end() == (1006, "Going away")
    assert (websocket.close_code, websocket.close_reason) == (1006, "Going away")


def test_messages_before_the_end_of_tcp_are_delivered(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    peer.send(*(peer.text(str(number)) for number in range(50)), peer.text("half")[:-1])
    peer.close()
    assert websocket.end() == (1006, "Going away")
    assert websocket.messages == [b"%d" % number for number in range(50)]


def test_the_peer_ends_its_direction_only(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)
    peer.sync()
    peer.sock.shutdown(socket.SHUT_WR)
    peer.expect_end()
    assert websocket.end() == (1006, "Going away")


@WORKERS
def test_the_peer_resets(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)
    peer.sync()
    peer.reset()
    assert websocket.end() == (1006, "Going away")
    until(lambda: len(manager) == 0)


@pytest.mark.parametrize("pair", ["ssl_pair", "openssl_pair"])
def test_what_tls_could_not_write_at_once_is_written_when_the_peer_reads(
    stage: Stage, certificates: Certificates, pair: str
) -> None:
    """Also if nothing more is sent, and no Ping comes to its help."""
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(manager, Recorder, getattr(certificates, pair))
    wait_for(websocket.was_opened)
    connection: Any = websocket._connection
    sent = 0
    while not connection.transport.blocked:
        websocket.send(bytes(10_000), binary=True)
        sent += 1
        until(lambda: connection.transport.blocked or not connection.buffered)
    until(lambda: not connection.buffered)  # it is with OpenSSL
    assert [len(peer.receive_message()) for _ in range(sent)] == [10_000] * sent


def test_the_application_closes_a_tls_socket_that_is_just_being_read(stage: Stage, certificates: Certificates) -> None:
    """And another one gets its number: that one is served, and the thread does not turn round the first for ever."""
    manager = stage.manager(ping_interval=None)
    first, peer = stage.connect(manager, Recorder, certificates.ssl_pair)
    wait_for(first.was_opened)
    number = first.sock.fileno()
    server, client = unix_pair()
    others: list[tuple[EchoRecorder, Peer]] = []

    class Meddler(BatchIO):
        """Does what an application's thread might do in the midst of a batch."""

        def receive(self, connections: Sequence[Connection], began: float) -> list[Received]:
            if not others:
                first.sock.close()
                os.dup2(server.fileno(), number)
                others.append(stage.connect(manager, EchoRecorder, lambda: (socket.socket(fileno=number), client)))
                server.close()
            return super().receive(connections, began)

    manager._engine._io = Meddler()
    peer.send(peer.text("hello"))
    until(lambda: bool(others))
    other = others[0][1]
    other.send(other.text("hello"))
    assert other.receive_text() == "hello"
    assert first.end()[0] == 1006


def test_the_peer_resets_while_it_is_written_to(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=1 << 16)
    websocket, peer = stage.connect(manager, Recorder, tcp_pair, small=True)
    wait_for(websocket.was_opened)

    def send() -> None:
        while True:
            websocket.send(bytes(10_000), binary=True)

    task = start_thread(send)
    peer.receive()
    peer.reset()
    with pytest.raises(ConnectionClosed):
        task.result()
    assert websocket.end() == (1006, "Going away")


BAD_FRAMES = [
    pytest.param(b"\x83\x80" + bytes(4), 1002, id="opcode"),
    pytest.param(b"\xc1\x80" + bytes(4), 1002, id="reserved bit"),
    pytest.param(b"\x81\x00", 1002, id="unmasked"),
    pytest.param(b"\x80\x80" + bytes(4), 1002, id="continuation"),
    pytest.param(b"\x89\xfe\x00\x7e", 1002, id="long ping"),
    pytest.param(b"\x81\x81" + bytes(4) + b"\xff", 1007, id="utf-8"),
    pytest.param(b"\x88\x82" + bytes(4) + b"\x03\xed", 1002, id="1005"),
    pytest.param(b"\x88\x81" + bytes(4) + b"\x03", 1002, id="half a code"),
    pytest.param(b"\x82\xff" + (1 << 21).to_bytes(8, "big") + bytes(4), 1009, id="too big"),
]


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES)
@pytest.mark.parametrize("workers", [0, 8])
def test_a_bad_frame(stage: Stage, frame: bytes, code: int, workers: int) -> None:
    """What came before it is handled and answered; then the connection is closed with a code that says why."""
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("good"), frame, peer.text("ignored"), peer.goodbye())
    assert peer.receive_text() == "good"
    sent, reason = peer.receive_close()
    assert sent == code
    assert reason
    peer.expect_end()
    peer.close()
    assert websocket.end() == (1006, reason)
    assert websocket.messages == [b"good"]


def test_terminate_from_outside(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    for task in [start_thread(websocket.terminate) for _ in range(8)]:
        task.result()
    assert websocket.end() == (1006, "Going away")
    peer.expect_end()
    websocket.terminate()
    websocket.close()
    websocket.close_connection()
    assert len(websocket.ends) == 1


def test_terminate_passes_over_what_waits(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Gate)
    peer.send(peer.text("one"), peer.text("two"))
    websocket.wait_entered()
    websocket.terminate()
    websocket.gate.set()
    websocket.end()
    assert websocket.messages == [b"one"]


def test_terminate_right_after_add(stage: Stage) -> None:
    """closed() comes after opened() even so."""
    manager = stage.manager()
    for _ in range(50):
        websocket, _ = stage.connect(manager, Recorder)
        websocket.terminate()
        websocket.end()
        assert [event[0] for event in websocket.events] == ["opened", "closed"]


def test_terminate_before_start(stage: Stage) -> None:
    manager = stage.manager(start=False)
    websocket, _ = stage.connect(manager, Recorder)
    websocket.terminate()
    manager.start()
    assert websocket.end()[0] == 1006


def test_close_connection_from_outside(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    websocket.close_connection()
    assert websocket.end() == (1006, "Going away")
    peer.expect_end()


def test_all_ways_at_once(stage: Stage) -> None:
    """Whatever comes first, closed() is called once."""
    manager = stage.manager(close_timeout=0.2)
    random_ = random.Random(1)
    for _ in range(60):
        websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)

        def fail(websocket: WebSocket = websocket) -> None:
            with contextlib.suppress(ConnectionClosed):
                websocket.send(iter(["a", "b"]))

        def hang_up(peer: Peer = peer) -> None:
            peer.send(peer.text("x"), peer.goodbye())
            peer.reset()

        ways: list[Callable[[], object]] = [
            websocket.close,
            websocket.terminate,
            websocket.close_connection,
            fail,
            hang_up,
            manager.close_all,
            lambda: manager.broadcast("x"),
        ]
        random_.shuffle(ways)
        for task in [start_thread(way) for way in ways]:
            task.result()
        websocket.end()
    until(lambda: len(manager) == 0)


def test_two_peers_that_close_at_the_same_time(stage: Stage) -> None:
    manager = stage.manager()
    for _ in range(50):
        websocket, peer = stage.connect(manager, Recorder)
        wait_for(websocket.was_opened)
        task = start_thread(websocket.close, 4000)
        peer.send(peer.goodbye(4001))
        task.result()
        code, _ = peer.receive_close()
        assert code in (4000, 4001)
        peer.expect_end()
        assert websocket.end() == (4001, b"")


# --- what is there inside closed(), and after -------------------------------------------------------------------------


@WORKERS
@pytest.mark.parametrize("way", ["peer", "terminate", "eof", "error", "exception"])
def test_socket_stream_and_environ_are_there_inside_closed(stage: Stage, workers: int, way: str) -> None:
    inside: list[object] = []
    environ = {"PATH_INFO": "/ws"}

    def on_message(websocket: WebSocket, message: Message) -> None:
        raise OwnError

    def on_closed(websocket: WebSocket, code: int, reason: object) -> None:
        inside.extend((websocket.sock.fileno(), websocket.stream.closing is not None, websocket.environ))

    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, Script.of(message=on_message, closed=on_closed), environ=environ)
    fd = websocket.sock.fileno()
    with quiet():
        if way == "peer":
            peer.say_goodbye()
        elif way == "terminate":
            websocket.terminate()
        elif way == "eof":
            peer.close()
        elif way == "error":
            peer.send(b"\xff\xff")
            peer.close()
        else:
            peer.send(peer.text("x"), peer.goodbye())
            peer.receive_rest()
        websocket.end()
    assert inside == [fd, way in ("peer", "exception"), environ]
    until(lambda: websocket.sock is None and websocket.stream is None and websocket.environ is None)
    assert websocket.terminated


def test_after_the_end_everything_says_so(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    address = websocket.peer_address
    peer.say_goodbye()
    websocket.end()
    until(lambda: websocket.stream is None)
    payloads: list[Any] = ["x", b"x", TextMessage("x"), iter(["x"])]
    for payload in payloads:
        with pytest.raises(ConnectionClosed):
            websocket.send(payload)
    with pytest.raises(ConnectionClosed):
        websocket.ping("x")
    with pytest.raises(RuntimeError):  # what 0.6 raised
        websocket.send("x")
    websocket.close()
    websocket.terminate()
    assert websocket.peer_address == address
    assert websocket not in manager
    with pytest.raises(ValueError, match="no open socket"):
        manager.add(websocket)


def test_sending_inside_closed_raises(stage: Stage) -> None:
    errors: list[BaseException] = []

    def on_closed(websocket: WebSocket, code: int, reason: object) -> None:
        try:
            websocket.send("x")
        except ConnectionClosed as error:
            errors.append(error)

    manager = stage.manager()
    websocket, peer = stage.connect(manager, Script.of(closed=on_closed))
    assert peer.say_goodbye() == (1000, "")
    websocket.end()
    assert len(errors) == 1


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
    cases: list[tuple[Any, bool, int, bytes]] = [
        ("é", False, OPCODE_TEXT, b"\xc3\xa9"),
        (b"abc", False, OPCODE_TEXT, b"abc"),
        (b"", False, OPCODE_TEXT, b""),
        (b"\xff", True, OPCODE_BINARY, b"\xff"),
        (bytearray(b"\xfe"), True, OPCODE_BINARY, b"\xfe"),
        (memoryview(b"\xfd"), True, OPCODE_BINARY, b"\xfd"),
        (TextMessage("t"), False, OPCODE_TEXT, b"t"),
        (TextMessage("t"), True, OPCODE_TEXT, b"t"),
        (BinaryMessage(b"\xfc"), False, OPCODE_BINARY, b"\xfc"),
    ]
    for payload, binary, opcode, data in cases:
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


# --- blocked handlers -------------------------------------------------------------------------------------------------


def test_control_frames_are_answered_with_every_worker_blocked(stage: Stage) -> None:
    manager = stage.manager(workers=2)
    blocked = [stage.connect(manager, Gate) for _ in range(2)]
    bystander, peer = stage.connect(manager, EchoRecorder)
    wait_for(bystander.was_opened)
    for websocket, peer_of_blocked in blocked:
        peer_of_blocked.send(peer_of_blocked.text("block"))
        websocket.wait_entered()
    for _, peer_of_blocked in blocked:
        peer_of_blocked.sync()
    peer.sync()
    peer.send(peer.goodbye(1000, "bye"))
    assert peer.receive_close() == (1000, "")
    peer.expect_end()
    assert not bystander.was_closed.is_set()
    for websocket, _ in blocked:
        websocket.gate.set()
    assert bystander.end() == (1000, b"bye")


def test_this_side_can_close_with_every_worker_blocked(stage: Stage) -> None:
    manager = stage.manager(workers=1)
    websocket, peer = stage.connect(manager, Gate)
    peer.send(peer.text("block"))
    websocket.wait_entered()
    websocket.close(4000)
    assert peer.receive_close() == (4000, "")


def test_a_blocked_handler_delays_nobody_while_there_is_a_free_worker(stage: Stage) -> None:
    manager = stage.manager(workers=6)
    for _ in range(5):
        websocket, peer = stage.connect(manager, Gate)
        peer.send(peer.text("block"))
        websocket.wait_entered()
    _, peer = stage.connect(manager, EchoRecorder)
    for number in range(50):
        peer.send(peer.text(str(number)))
        assert peer.receive_text() == str(number)


def test_all_workers_allowed_are_there_when_needed_though_the_processor_is_busy(stage: Stage) -> None:
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    manager = stage.manager(workers=8)
    burner = start_thread(burn)
    stage.closers.append(stop.set)
    for _ in range(7):
        websocket, peer = stage.connect(manager, Gate)
        peer.send(peer.text("block"))
        websocket.wait_entered()
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("served"))
    assert peer.receive_text() == "served"
    stop.set()
    burner.result()


def test_no_more_than_the_workers_allowed(stage: Stage) -> None:
    manager = stage.manager(workers=3)
    connections = [stage.connect(manager, Gate) for _ in range(3)]
    for websocket, peer in connections:
        peer.send(peer.text("block"))
        websocket.wait_entered()
    fourth, peer_of_fourth = stage.connect(manager, EchoRecorder)
    peer_of_fourth.send(peer_of_fourth.text("waits"))
    peer_of_fourth.sync()
    assert fourth.events == []
    connections[1][0].gate.set()
    assert peer_of_fourth.receive_text() == "waits"


def test_the_echo_of_a_message_goes_out_before_the_answer_to_the_close_behind_it(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Gate)
    peer.send(peer.text("block"), peer.text("pass 1"), peer.goodbye(), peer.text("behind the Close"))
    websocket.wait_entered()
    websocket.gate.set()
    assert peer.receive_text() == "block"
    assert peer.receive_text() == "pass 1"
    assert peer.receive_close() == (1000, "")
    peer.expect_end()
    assert websocket.end() == (1000, b"")
    assert websocket.messages == [b"block", b"pass 1"]


@WORKERS
def test_the_echo_goes_out_before_the_answer_to_the_close_every_time(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    for _ in range(100):
        _, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("last words"), peer.goodbye())
        assert peer.receive_text() == "last words"
        assert peer.receive_close() == (1000, "")
        peer.expect_end()
        peer.close()


def test_a_closed_that_blocks_does_not_hold_the_answer_back(stage: Stage) -> None:
    gate = threading.Event()
    stage.closers.append(gate.set)
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Script.of(closed=lambda websocket, code, reason: wait_for(gate)))
    peer.send(peer.text("x"), peer.goodbye())
    assert peer.receive_close() == (1000, "")
    peer.expect_end()
    gate.set()
    assert websocket.end() == (1000, b"")


# --- many at once -----------------------------------------------------------------------------------------------------


def test_a_large_outbox_and_a_ping_in_the_same_cycle(stage: Stage) -> None:
    """Both have the connection looked at; what is written stays in order all the same."""
    manager = stage.manager(max_outbox_size=1 << 23, max_message_size=1 << 23)
    parts = [os.urandom(100_000) for _ in range(30)]

    def on_message(websocket: WebSocket, message: Message) -> None:
        for part in parts:
            websocket.send(part, binary=True)

    websocket, peer = stage.connect(manager, Script.of(message=on_message), small=True)
    for _ in range(3):
        for _ in range(5):
            peer.send(peer.ping(b"a"), peer.text("go"), peer.ping(b"b"))
        for _ in range(5):
            assert [peer.receive_message() for _ in parts] == parts
    assert websocket.events[0] == ("opened",)


def test_no_wake_up_is_missed(stage: Stage) -> None:
    """Each message is sent by a thread while the manager goes to sleep; the next only when it has arrived."""
    manager = stage.manager(ping_interval=None)

    def talk() -> None:
        websocket, peer = connections.pop()
        for number in range(1500):
            websocket.send(b"%d" % number)
            assert peer.receive_message() == b"%d" % number

    connections = [stage.connect(manager, Recorder) for _ in range(4)]
    for task in [start_thread(talk) for _ in range(4)]:
        task.result()


def test_many_connections_that_talk_all_at_once(stage: Stage) -> None:
    manager = stage.manager()
    connections = [stage.connect(manager, EchoRecorder) for _ in range(200)]
    for _ in range(5):
        for index, (_, peer) in enumerate(connections):
            peer.send(peer.text(f"{index} a"), peer.text(f"{index} b"))
        for index, (_, peer) in enumerate(connections):
            assert [peer.receive_text(), peer.receive_text()] == [f"{index} a", f"{index} b"]
    assert len(manager) == 200
    for _, peer in connections:
        peer.send(peer.goodbye())
    for websocket, peer in connections:
        assert peer.receive_close() == (1000, "")
        assert websocket.end() == (1000, b"")
    until(lambda: not manager._engine.connections)


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
    until(lambda: not manager._engine.connections)


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
    until(lambda: not manager._engine.connections)


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
    until(lambda: not manager._engine.connections)


def test_addresses(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    assert websocket.local_address == peer.sock.getpeername()
    assert websocket.peer_address == peer.sock.getsockname()


# --- leaks ------------------------------------------------------------------------------------------------------------


def test_two_thousand_connections_leave_nothing(stage: Stage) -> None:
    """No descriptor, no object, no entry, whichever way they end, though a Ping was due in a minute."""
    manager = stage.manager(ping_interval=60.0, max_connections_per_ip=100)

    class Counted(EchoWebSocket):
        pass

    ends = itertools.cycle(("peer", "eof", "terminate", "close", "error"))

    def cycle(end: str) -> weakref.ref[Counted]:
        ours, theirs = unix_pair()
        websocket, peer = Counted(ours), Peer(theirs)
        manager.add(websocket, address="192.0.2.1")
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
        if end == "peer":
            peer.say_goodbye()
        elif end == "terminate":
            websocket.terminate()
        elif end == "close":
            websocket.close()
            peer.send(peer.goodbye())
        elif end == "error":
            peer.send(b"\xff\xff")
            peer.receive_rest()
        peer.close()
        until(lambda: websocket.stream is None)
        return weakref.ref(websocket)

    for _ in range(10):
        cycle(next(ends))
    until(lambda: not manager._engine.connections)
    gc.collect()
    fds = len(open_fds())
    objects = Counter(type(item) for item in gc.get_objects())
    references = [cycle(next(ends)) for _ in range(2000)]
    until(lambda: not manager._engine.connections)
    gc.collect()
    assert [reference for reference in references if reference() is not None] == []
    del references
    gc.collect()
    assert len(open_fds()) == fds
    grown = Counter(type(item) for item in gc.get_objects()) - objects
    assert {kind: count for kind, count in grown.items() if count > 100} == {}
    assert not manager._registry._addresses
    assert manager._engine.lifecycle.wheel.next_time() is None
    assert len(manager) == 0


IDLE = """
import socket, sys, threading
sys.path.insert(0, "")
from ws4py.manager import WebSocketManager
from ws4py.websocket import EchoWebSocket

manager = WebSocketManager(ping_interval=None, drain_timeout=0)
manager.daemon = True
manager.start()
peers = []
for _ in range(20):
    ours, theirs = socket.socketpair()
    manager.add(EchoWebSocket(ours))
    theirs.sendall(b"\\x81\\x81\\0\\0\\0\\0x")
    assert theirs.recv(10) == b"\\x81\\x01x"
    peers.append(theirs)
threads = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
print(*(thread.native_id for thread in threads), flush=True)
sys.stdin.readline()
"""


def is_quiet(tasks: Path) -> bool:
    """Tell whether no thread of a process wakes up for a while."""

    def wake_ups() -> list[str]:
        lines = [line for task in tasks.iterdir() for line in (task / "status").read_text().splitlines()]
        return [line for line in lines if "ctxt_switches" in line]

    before = wake_ups()
    threading.Event().wait(0.1)
    return wake_ups() == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="this needs strace")
def test_an_idle_manager_makes_no_system_call(tmp_path: Any) -> None:
    """Nor do its workers, in 5 seconds of real time, with 20 connections and Pings off."""
    with subprocess.Popen(
        [sys.executable, "-c", IDLE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        threads = process.stdout.readline().split()
        assert len(threads) >= 2
        log = tmp_path / "strace"
        tasks = Path(f"/proc/{process.pid}/task")
        until(lambda: {(task / "stat").read_text().rsplit(")", 1)[1].split()[0] for task in tasks.iterdir()} == {"S"})
        until(lambda: is_quiet(tasks))
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(process.pid), "-o", str(log)], stderr=subprocess.PIPE, text=True
        )
        assert strace.stderr is not None
        attached = 0
        while attached == 0:
            assert select.select([strace.stderr], [], [], PATIENCE)[0]
            line = strace.stderr.readline()
            if "Operation not permitted" in line:
                process.stdin.close()
                pytest.skip("strace may not attach here")
            attached += "attached" in line
        time.sleep(5.0)  # the idleness itself
        strace.terminate()
        strace.wait(PATIENCE)
        strace.stderr.close()
        process.stdin.close()
        process.wait(PATIENCE)
    calls = [line.split(None, 1) for line in log.read_text().splitlines()]
    of_ours = [
        call
        for thread, call in calls
        if thread in threads and "resuming interrupted" not in call and "detached" not in call
    ]
    # What each thread was in when strace came is shown once, unfinished.
    waiting = [call for call in of_ours if "unfinished" in call or call.startswith(("futex(", "epoll_wait("))]
    assert of_ours == waiting
    assert len(of_ours) <= len(threads)


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
