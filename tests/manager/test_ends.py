"""Every way in which a connection can end under a manager, and what is there inside ``closed()`` and after."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.helpers import (
    WORKERS,
    Certificates,
    EchoRecorder,
    Gate,
    Peer,
    Recorder,
    Script,
    Stage,
    quiet,
    start_thread,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.engine import Connection
from ws4py.engine.batch import BatchIO, Received
from ws4py.exc import ConnectionClosed, InvalidCloseCode
from ws4py.messaging import Message, TextMessage
from ws4py.websocket import WebSocket


class OwnError(Exception):
    """Raised by handlers here."""


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
