"""The connection of a websocket that runs by itself, on a port that is a script and a clock that is a number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE, FakeClock, Recorder, Script, Stage, start_thread, until
from ws4py.blocking import BlockingConnection
from ws4py.closing import State
from ws4py.exc import ConnectionClosed
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, build_frame
from ws4py.messaging import CloseControlMessage, Message
from ws4py.streaming import Stream
from ws4py.websocket import WebSocket

KEY = bytes(4)
LIMITS = {"ping_interval": 30.0, "ping_timeout": 10.0, "message_timeout": None}


class ScriptedPort:
    """Brings what comes at a time of its clock, and keeps what is sent."""

    kept = 0

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.coming: list[tuple[float, bytes]] = []
        self.sent: list[bytes] = []
        self.shut_down = False

    def make_lock(self) -> Any:
        return threading.Lock()

    def make_guard(self) -> Any:
        return threading.RLock()

    def current(self) -> object:
        return threading.get_ident()

    def begin(self) -> None:
        """There is nothing to prepare."""

    def receive(self, size: int, timeout: float | None) -> bytes | None:
        if self.shut_down:
            return b""
        now = self.clock.now
        if self.coming and (timeout is None or self.coming[0][0] <= now + timeout):
            at, data = self.coming.pop(0)
            self.clock.now = max(now, at)
            return data
        assert timeout is not None, "it would wait for ever"
        self.clock.advance(timeout)
        return None

    def writable(self) -> bool:
        return True

    def send_now(self, data: bytes | memoryview) -> int:
        self.sent.append(bytes(data))
        return len(data)

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """Nothing was left."""

    def repeat(self, seconds: float, function: Callable[[], bool]) -> Callable[[], None]:
        raise AssertionError("it has no heartbeat")

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def shut(self) -> None:
        self.shut_down = True

    close = shut


class Line:
    """A connection, and what its peer sees."""

    def __init__(self, **limits: Any) -> None:
        self.clock = FakeClock()
        self.port = ScriptedPort(self.clock)
        self.stream = Stream(always_mask=False)
        self.connection = BlockingConnection(
            object(), self.stream, {**LIMITS, **limits}, clock=self.clock, port=self.port
        )
        self.connection.begin()

    def come(self, *frames: bytes, after: float = 0.0) -> None:
        """Let frames of the peer come, some seconds from now."""
        self.port.coming.append((self.clock.now + after, b"".join(frames)))

    def read(self) -> list[Message] | None:
        """Read once, as the runner does; None at the end."""
        data = self.connection.receive(65536)
        if data is None:
            return []
        messages = self.connection.take_in(self.stream, data) if data else None
        for message in messages or ():
            if message.opcode == OPCODE_PONG:
                assert self.connection.ponged(message.data)
        return messages

    def pings(self) -> list[bytes]:
        """Return the payloads of the Pings that were sent since this was called last."""
        sent, self.port.sent = self.port.sent, []
        assert all(frame[0] == FIN | OPCODE_PING for frame in sent)
        return [frame[2:] for frame in sent]


def frame(opcode: int, payload: bytes = b"") -> bytes:
    return build_frame(FIN | opcode, payload, KEY)


def since(line: Line, begun: float) -> float:
    return line.clock.now - begun


# --- keepalive --------------------------------------------------------------------------------------------------------


def test_a_ping_is_sent_each_interval_and_its_answer_tells_the_latency() -> None:
    line = Line()
    for number in range(1, 4):
        assert line.read() == []
        assert since(line, 1000.0) == 30.0 * number
        [payload] = line.pings()
        line.come(frame(OPCODE_PONG, payload), after=0.25)
        line.read()
        assert line.connection.keepalive is not None
        assert line.connection.keepalive.latency == 0.25
    assert line.pings() == []


def test_messages_are_no_reason_to_leave_a_ping_out() -> None:
    line = Line()
    for _ in range(7):
        line.come(frame(OPCODE_TEXT, b"x"), after=5.0)
        assert line.read()
    assert since(line, 1000.0) == 35.0
    assert len(line.pings()) == 1


def test_what_a_ping_says_cannot_be_guessed() -> None:
    payloads = set()
    for _ in range(3):
        line = Line()
        line.read()
        payloads.update(line.pings())
    assert len(payloads) == 3, "at one time of the clock"


def test_a_peer_of_whom_nothing_comes_is_given_up() -> None:
    line = Line()
    assert line.read() == []
    assert line.read() is None
    assert since(line, 1000.0) == 40.0
    assert line.port.sent[-1] == b"\x88\x18\x03\xf3Keepalive ping timeout"
    assert line.port.shut_down
    line.connection.end()
    assert line.stream.closing_handshake.outcome == (1006, "Keepalive ping timeout")
    assert line.stream.closing_handshake.state is State.CLOSED


def test_bytes_that_come_are_a_sign_of_life() -> None:
    line = Line(message_timeout=None)
    line.read()
    [payload] = line.pings()
    line.come(build_frame(FIN | OPCODE_BINARY, bytes(100), KEY)[:50], after=9.0)
    assert line.read() == []
    assert line.read() == [], "it has as long again"
    assert since(line, 1030.0) == 10.0
    line.come(build_frame(FIN | OPCODE_BINARY, bytes(100), KEY)[50:], frame(OPCODE_PONG, payload), after=5.0)
    messages = line.read()
    assert messages is not None
    assert [message.opcode for message in messages] == [OPCODE_BINARY, OPCODE_PONG]
    assert not line.port.shut_down


def test_a_handler_that_takes_long_is_no_fault_of_the_peers() -> None:
    line = Line()
    line.read()
    [payload] = line.pings()
    line.come(frame(OPCODE_TEXT, b"x"), after=1.0)
    assert line.read()
    line.come(frame(OPCODE_PONG, payload))
    line.clock.advance(500.0)  # in the handler
    messages = line.read()
    assert messages is not None
    assert [message.opcode for message in messages] == [OPCODE_PONG]
    assert not line.port.shut_down


def test_without_an_interval_there_are_no_pings() -> None:
    line = Line(ping_interval=None)
    assert line.connection.patience() is None


def test_after_a_close_there_are_no_pings() -> None:
    line = Line(close_timeout=100.0)
    line.connection.close(CloseControlMessage(1000))
    assert line.port.sent.pop() == b"\x88\x02\x03\xe8"
    assert line.read() is None
    assert since(line, 1000.0) == 100.0
    assert line.pings() == []


# --- closing ----------------------------------------------------------------------------------------------------------


def test_of_several_closes_the_first_is_sent() -> None:
    line = Line()
    for code in (4000, 4001):
        line.connection.close(CloseControlMessage(code))
    assert line.port.sent == [b"\x88\x02\x0f\xa0"]
    assert line.stream.closing_handshake.state is State.CLOSING
    with pytest.raises(ConnectionClosed):
        line.connection.send_message(OPCODE_TEXT, b"x")


def test_the_peers_close_is_answered_once() -> None:
    line = Line()
    line.come(frame(8, (4000).to_bytes(2, "big")))
    line.read()
    for _ in range(2):
        line.connection.reply()
    line.connection.close(CloseControlMessage(4001))
    assert line.port.sent == [b"\x88\x02\x0f\xa0"]
    assert line.stream.closing_handshake.outcome == (4000, b"")


def test_the_answer_to_our_own_close_is_not_answered() -> None:
    line = Line()
    line.connection.close(CloseControlMessage(4000))
    line.come(frame(8, (4000).to_bytes(2, "big")))
    line.read()
    line.connection.reply()
    assert line.port.sent == [b"\x88\x02\x0f\xa0"]


def test_what_has_come_before_the_connection_broke_can_be_read() -> None:
    line = Line()
    line.come(frame(8, (4000).to_bytes(2, "big")))
    line.connection.drop()
    line.port.shut_down = False  # as the kernel has it: what has come stays
    line.read()
    assert line.stream.closing_handshake.outcome == (4000, b"")


# --- with real sockets ------------------------------------------------------------------------------------------------


def failing_parts() -> Iterator[str]:
    yield "a part"
    raise ValueError("on purpose")


@pytest.mark.parametrize("where", ["callback", "thread"])
def test_a_generator_that_raises_leaves_the_peer_its_time_for_a_close_and_no_more(stage: Stage, where: str) -> None:
    def send(websocket: WebSocket, message: object) -> None:
        if where == "callback":
            websocket.send(failing_parts())
            return
        task = start_thread(websocket.send, failing_parts())
        with pytest.raises(ValueError, match="on purpose"):
            task.result()

    websocket, peer = stage.connect(None, Script.of(message=send))
    websocket._limit({"close_timeout": 0.1, "ping_interval": None})
    task = start_thread(websocket.run)
    peer.send(peer.text("x"))
    task.result()
    assert websocket.events[-1][:2] == ("closed", 1006)
    assert peer.receive_close()[0] == 1011


def test_a_peer_that_reads_only_when_it_has_written_is_not_given_up(stage: Stage) -> None:
    """Its Pings are answered as far as it takes the answers; it is not waited for."""
    websocket, peer = stage.connect(None, Recorder, small=True)
    websocket._limit({"send_timeout": PATIENCE, "ping_interval": None})
    task = start_thread(websocket.run)
    peer.send(peer.ping(bytes(125)) * 5000, peer.text("behind them"))
    until(lambda: websocket.messages)
    assert websocket.messages == [b"behind them"]
    peer.close()
    task.result()


def test_no_pings_are_none_whatever_the_limits_say(stage: Stage) -> None:
    """As under a manager."""
    websocket, _ = stage.connect(None, WebSocket, heartbeat_freq=0)
    websocket._limit({"ping_interval": 0.001})
    assert websocket._own_limits()["ping_interval"] is None
