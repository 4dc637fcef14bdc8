"""The limits of the manager and of its connections: each with the policy that acts past it, and its counter."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    EchoRecorder,
    FakeClock,
    Gate,
    Peer,
    Recorder,
    RestlessPoller,
    Script,
    Stage,
    present,
    start_thread,
    tcp_pair,
    until,
    wait_for,
)
from ws4py.engine.transport import PlainTransport
from ws4py.exc import ConnectionClosed, HandshakeError, SlowConsumer
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_PING, OPCODE_TEXT
from ws4py.manager import Limits, WebSocketManager
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

WORKERS = pytest.mark.parametrize("workers", [0, 4])


# --- messages ---------------------------------------------------------------------------------------------------------


@WORKERS
def test_a_message_of_the_greatest_size_passes_and_a_longer_one_does_not(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers, max_message_size=1000)
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.binary(bytes(1000)))
    assert peer.receive_message() == bytes(1000)
    peer.send(peer.binary(bytes(1001)))
    assert peer.receive_close()[0] == 1009
    peer.close()
    assert websocket.end()[0] == 1006
    assert manager.stats().limits["max_message_size"] == 1


def test_a_message_that_is_too_long_is_refused_at_its_announcement(stage: Stage) -> None:
    manager = stage.manager()
    _, peer = stage.connect(manager, Recorder)
    peer.send(peer.binary(bytes((1 << 20) + 1))[:14])
    assert peer.receive_close()[0] == 1009


def test_fragments_are_added_up(stage: Stage) -> None:
    manager = stage.manager(max_message_size=1000)
    websocket, peer = stage.connect(manager, Recorder)
    peer.send(peer.frame(OPCODE_BINARY, bytes(600)))
    peer.sync()
    peer.send(peer.frame(FIN | OPCODE_CONTINUATION, bytes(401)))
    assert peer.receive_close()[0] == 1009
    assert websocket.messages == []


def test_the_number_of_fragments(stage: Stage) -> None:
    manager = stage.manager(max_fragments=3)
    _, peer = stage.connect(manager, EchoRecorder)
    start, middle, end = peer.frame(OPCODE_TEXT, b"a"), peer.frame(0, b"b"), peer.frame(FIN, b"c")
    peer.send(start, middle, end)
    assert peer.receive_text() == "abc"
    peer.send(start, middle, middle, end)
    assert peer.receive_close()[0] == 1009
    assert manager.stats().limits["max_fragments"] == 1


def test_an_endpoint_has_its_own_limits(stage: Stage) -> None:
    manager = stage.manager(max_message_size=1000)
    _, strict = stage.connect(manager, EchoRecorder)
    websocket, free = stage.connect(None, EchoRecorder)
    manager.add(websocket, Limits(max_message_size=None))
    strict.send(strict.binary(bytes(1001)))
    free.send(free.binary(bytes(2_000_000)))
    assert strict.receive_close()[0] == 1009
    assert len(free.receive_message()) == 2_000_000


@WORKERS
def test_messages_a_second(stage: Stage, workers: int) -> None:
    manager, clock = stage.timed_manager(workers=workers, max_messages_per_second=5, ping_interval=None)
    clock.now = 1000.0
    websocket, peer = stage.connect(manager, EchoRecorder)
    for _ in range(3):
        peer.send(peer.ping(b"is counted, too"), *(peer.text(str(number)) for number in range(4)))
        assert [peer.receive_text() for _ in range(4)] == list("0123")
        clock.advance(1.0)
    peer.send(*(peer.text("quick") for _ in range(6)))
    frames = [frame for frame in peer.receive_rest_until_close() if frame.opcode == OPCODE_CLOSE]
    assert frames[0].payload[:2] == (1008).to_bytes(2, "big")
    peer.close()
    assert websocket.end()[0] == 1006
    assert manager.stats().limits["max_messages_per_second"] == 1


# --- the inbox --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "size"),
    [({"max_inbox_messages": 4}, 1000), ({"max_inbox_size": 4000, "max_inbox_messages": 10**6}, 1000)],
)
def test_a_full_inbox_makes_tcp_push_back_and_nothing_is_lost(stage: Stage, limits: dict[str, Any], size: int) -> None:
    manager = stage.manager(ping_interval=None, **limits)
    websocket, peer = stage.connect(manager, Gate, small=True)
    peer.send(peer.text("first"))
    websocket.wait_entered()
    frames = b"".join(peer.binary(b"pass%06d" % number + bytes(size)) for number in range(2000))
    sent = peer.send_until_pushed_back(frames)
    connection = websocket._connection
    assert connection is not None
    assert connection.reading_paused  # type: ignore[attr-defined]
    assert connection.inbox_length * size < 300_000  # type: ignore[attr-defined]
    assert manager.stats().limits["inbox"] >= 1
    websocket.gate.set()
    task = start_thread(peer.sock.sendall, frames[sent:])
    assert peer.receive_text() == "first"
    for number in range(2000):
        assert peer.receive_message()[:10] == b"pass%06d" % number
    task.result()
    assert not manager.stats().limits["send_timeout"]


def test_a_full_inbox_is_no_matter_of_others(stage: Stage) -> None:
    manager = stage.manager(max_inbox_messages=1)
    websocket, peer = stage.connect(manager, Gate)
    other, peer_of_other = stage.connect(manager, EchoRecorder)
    peer.send(*(peer.text("x") for _ in range(100)))
    websocket.wait_entered()
    for _ in range(20):
        peer_of_other.send(peer_of_other.text("other"))
        assert peer_of_other.receive_text() == "other"
    websocket.gate.set()
    assert [peer.receive_text() for _ in range(100)] == ["x"] * 100
    assert other.errors == []


@WORKERS
def test_inbox_limits_of_one(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers, max_inbox_messages=1, max_inbox_size=1, max_outbox_size=1)
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.send(*(peer.text(str(number)) for number in range(300)), peer.goodbye())
    assert [peer.receive_text() for _ in range(300)] == [str(number) for number in range(300)]
    assert peer.receive_close() == (1000, "")
    peer.expect_end()
    assert websocket.end() == (1000, b"")


# --- the outbox -------------------------------------------------------------------------------------------------------


def stuff(websocket: WebSocket, until_event: threading.Event | None = None) -> None:
    """Send to a peer that does not read, until that raises."""
    while until_event is None or not until_event.is_set():
        websocket.send(bytes(10_000), binary=True)


def fill(manager: WebSocketManager, websocket: WebSocket) -> None:
    """Send until the next message would have to wait."""
    connection: Any = websocket._connection
    while True:
        while not connection.outbox_full:
            websocket.send(bytes(10_000), binary=True)
        # Is it the peer that does not read, or has the manager not come round to writing?
        with contextlib.suppress(AssertionError):
            until(lambda: not connection.outbox_full, 0.05)
            continue
        return


def test_send_waits_for_a_slow_peer(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000, send_timeout=PATIENCE)
    websocket, peer = stage.connect(manager, Recorder, small=True)

    def send() -> None:
        for number in range(100):
            websocket.send(bytes([number]) * 10_000, binary=True)

    task = start_thread(send)
    until(lambda: manager.stats().limits["outbox"])
    assert task.is_alive()
    for number in range(100):
        assert peer.receive_message() == bytes([number]) * 10_000
    task.result()
    assert not manager.stats().limits["send_timeout"]


def test_a_slow_consumer_is_closed_and_others_are_not_concerned(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=50_000, send_timeout=0.2, close_timeout=0.2)
    websocket, _peer = stage.connect(manager, Recorder, small=True)
    _, peer_of_other = stage.connect(manager, EchoRecorder)
    task = start_thread(stuff, websocket)
    while task.is_alive():
        peer_of_other.send(peer_of_other.text("x"))
        assert peer_of_other.receive_text() == "x"
    with pytest.raises(SlowConsumer):
        task.result()
    with pytest.raises(ConnectionClosed):
        websocket.send("too late")
    assert websocket.end() == (1006, "Going away")
    assert manager.stats().limits["send_timeout"] == 1
    assert manager.stats().limits["close_timeout"] == 1
    until(lambda: len(manager) == 1)


def test_a_slow_consumer_that_reads_again_is_told_why(stage: Stage) -> None:
    """What was begun is finished; then comes a Close with 1013, and nothing else."""
    manager = stage.manager(max_outbox_size=50_000, send_timeout=0.1, close_timeout=PATIENCE)
    websocket, peer = stage.connect(manager, Recorder, small=True)
    with pytest.raises(SlowConsumer):
        stuff(websocket)
    frame = peer.receive()
    while frame.opcode != OPCODE_CLOSE:
        assert frame == (FIN | OPCODE_BINARY, bytes(10_000))
        frame = peer.receive()
    assert frame.payload == (1013).to_bytes(2, "big") + b"Slow consumer"
    peer.send(peer.goodbye(1013))
    peer.expect_end()
    assert websocket.end() == (1013, b"")


def test_a_handler_that_sends_to_a_slow_consumer(stage: Stage) -> None:
    """Its exception is no error of the handler's: the connection is gone, and closed() says so."""
    manager = stage.manager(max_outbox_size=50_000, send_timeout=0.1, close_timeout=0.1)
    websocket, peer = stage.connect(manager, Script.of(message=lambda websocket, message: stuff(websocket)), small=True)
    peer.send(peer.text("go"))
    assert websocket.end() == (1006, "Going away")
    assert websocket.errors == []


def test_without_workers_a_send_to_a_slow_consumer_has_its_deadline_too(stage: Stage) -> None:
    manager = stage.manager(workers=0, max_outbox_size=50_000, send_timeout=0.1, close_timeout=0.1)
    websocket, peer = stage.connect(manager, Script.of(message=lambda websocket, message: stuff(websocket)), small=True)
    _, peer_of_other = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("go"))
    assert websocket.end() == (1006, "Going away")
    peer_of_other.send(peer_of_other.text("x"))
    assert peer_of_other.receive_text() == "x"


def test_without_workers_a_callback_may_send_more_than_the_outbox_takes(stage: Stage) -> None:
    manager = stage.manager(workers=0, max_outbox_size=1000)

    def on_message(websocket: WebSocket, message: Message) -> None:
        for number in range(100):
            websocket.send(b"%d" % number * 1000)
        websocket.send(b"part" * 1000 for _ in range(10))

    websocket, peer = stage.connect(manager, Script.of(message=on_message), small=True)
    peer.send(peer.text("go"), peer.goodbye())
    for number in range(100):
        assert peer.receive_message() == b"%d" % number * 1000
    assert peer.receive_message() == b"part" * 10_000
    assert peer.receive_close() == (1000, "")
    websocket.end()


def test_a_peer_that_does_not_read_holds_no_worker(stage: Stage) -> None:
    """Its callbacks wait in its inbox, and it is not read, until it reads."""
    manager = stage.manager(workers=1, max_outbox_size=20_000, send_timeout=PATIENCE, ping_interval=None)
    big = bytes(10_000)
    stalled, peer = stage.connect(manager, EchoRecorder, small=True)
    frames = peer.binary(big) * 500
    count = peer.send_until_pushed_back(frames)
    _, peer_of_other = stage.connect(manager, EchoRecorder)
    for _ in range(50):
        peer_of_other.send(peer_of_other.text("x"))
        assert peer_of_other.receive_text() == "x"
    task = start_thread(peer.sock.sendall, frames[count:])
    for _ in range(500):
        assert peer.receive_message() == big
    task.result()
    assert len(stalled.messages) == 500
    assert manager.stats().limits["outbox"] == 0


def test_close_and_terminate_end_a_connection_that_is_not_read(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000, close_timeout=0.1)
    for end in (WebSocket.close, WebSocket.terminate):
        websocket, _ = stage.connect(manager, Recorder, small=True)
        wait_for(websocket.was_opened)
        fill(manager, websocket)
        end(websocket)
        assert websocket.end() == (1006, "Going away")


# --- broadcast --------------------------------------------------------------------------------------------------------


def stall(stage: Stage, manager: WebSocketManager) -> tuple[Recorder, Peer]:
    websocket, peer = stage.connect(manager, Recorder, small=True)
    wait_for(websocket.was_opened)
    fill(manager, websocket)
    return websocket, peer


def test_broadcast_closes_a_stalled_peer(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000)
    stalled, peer = stall(stage, manager)
    _, reader = stage.connect(manager, Recorder)
    assert manager.broadcast("news") == 1
    assert reader.receive_text() == "news"
    assert manager.stats().limits["overflow_close"] == 1
    frames = [frame for frame in peer.receive_rest_until_close() if frame.opcode == OPCODE_CLOSE]
    assert frames[0].payload[:2] == (1013).to_bytes(2, "big")
    peer.send(peer.goodbye(1013))
    assert stalled.end() == (1013, b"")


def test_broadcast_leaves_a_stalled_peer_out(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000, overflow="drop")
    stalled, peer = stall(stage, manager)
    assert manager.broadcast("lost") == 0
    assert manager.stats().limits["overflow_drop"] == 1
    task = start_thread(stalled.send, "next")
    while (message := peer.receive_message()) == bytes(10_000):
        pass
    assert message == b"next"
    task.result()
    assert stalled.ends == []


def test_broadcast_keeps_the_latest_for_a_stalled_peer(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000, overflow="close")
    stalled, peer = stall(stage, manager)
    for number in range(10):
        assert manager.broadcast(f"state {number}", overflow="latest") == 1
    assert manager.stats().limits["overflow_latest"] == 10
    while (message := peer.receive_message()) == bytes(10_000):
        pass
    assert message == b"state 9"
    manager.broadcast("state 10")
    assert peer.receive_text() == "state 10"
    assert stalled.ends == []


def test_broadcast_never_waits(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000, send_timeout=10 * PATIENCE, close_timeout=0.1)
    stalled = [stall(stage, manager)[0] for _ in range(3)]
    websocket, reader = stage.connect(None, Recorder)
    manager.add(websocket, Limits())

    def broadcast() -> None:
        for number in range(200):
            manager.broadcast(b"%d" % number + bytes(1000))

    task = start_thread(broadcast)
    for number in range(200):
        assert reader.receive_message() == b"%d" % number + bytes(1000)
    task.result()
    manager.close_all()
    for websocket in stalled:
        assert websocket.end()[0] == 1006


# --- connections ------------------------------------------------------------------------------------------------------


def refused(manager: WebSocketManager, address: str | None = None) -> tuple[int, tuple[tuple[str, str], ...]]:
    with pytest.raises(HandshakeError) as caught:
        manager.admit(address)
    return caught.value.status, tuple(caught.value.headers)


def test_max_connections(stage: Stage) -> None:
    manager = stage.manager(max_connections=2)
    manager.admit()
    first, peer = stage.connect(manager, Recorder)
    stage.connect(manager, Recorder)
    status, headers = refused(manager)
    assert status == 503
    assert dict(headers)["Retry-After"].isdigit()
    assert manager.stats().limits["max_connections"] == 1
    peer.say_goodbye()
    first.end()
    until(lambda: not manager.stats().connections.closing)
    manager.admit()


def test_max_connections_per_ip(stage: Stage) -> None:
    manager = stage.manager(max_connections_per_ip=2)
    first, peer = stage.connect(manager, Recorder, tcp_pair)
    stage.connect(manager, Recorder, tcp_pair)
    status, headers = refused(manager, "127.0.0.1")
    assert status == 429
    assert dict(headers)["Retry-After"].isdigit()
    manager.admit("192.0.2.1")
    manager.admit()
    assert manager.stats().limits["max_connections_per_ip"] == 1
    peer.close()
    first.end()
    until(lambda: manager.stats().connections.closing == 0)
    manager.admit("127.0.0.1")


def test_a_word_that_is_no_address_is_the_sockets(stage: Stage) -> None:
    """Whatever a client makes a proxy say, it is counted as somebody; and so is one address in two spellings."""
    manager = stage.manager(max_connections_per_ip=1)
    websocket, peer = stage.connect(None, Recorder, tcp_pair)
    manager.add(websocket, address="<script>")
    assert [row.address for row in manager.connection_stats()] == ["127.0.0.1"]
    assert refused(manager, "127.0.0.1")[0] == 429
    assert refused(manager, "::ffff:127.0.0.1")[0] == 429
    assert refused(manager, "127.0.0.1:4711")[0] == 429
    manager.admit("x")
    peer.say_goodbye()
    websocket.end()


def test_an_address_may_be_given(stage: Stage) -> None:
    """As a proxy tells it; then it is that one which counts."""
    manager = stage.manager(max_connections_per_ip=1)
    websocket, _ = stage.connect(None, Recorder, tcp_pair)
    manager.add(websocket, address="192.0.2.7")
    assert refused(manager, "192.0.2.7")[0] == 429
    manager.admit("127.0.0.1")
    manager.remove(websocket)
    manager.admit("192.0.2.7")


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_ip"])
def test_a_crowd_that_was_admitted_at_the_same_time_is_closed(stage: Stage, limit: str) -> None:
    options: dict[str, Any] = {limit: 3}
    manager = stage.manager(**options)
    connections = [stage.connect(manager, Recorder, tcp_pair) for _ in range(5)]
    for _, peer in connections[:3]:
        peer.sync()
    for websocket, peer in connections[3:]:
        assert peer.receive_close() == (1013, "Too many connections")
        peer.send(peer.goodbye(1013))
        websocket.end()
    assert manager.stats().limits[limit] == 2
    until(lambda: len(manager) == 3)


def test_admit_before_start_and_after_stop(stage: Stage) -> None:
    manager = stage.manager(start=False)
    assert refused(manager)[0] == 503
    manager.start()
    manager.admit()
    manager.stop()
    manager.join(PATIENCE)
    status, headers = refused(manager)
    assert status == 503
    assert dict(headers)["Retry-After"] == "10"


# --- times, by a clock of the test's ----------------------------------------------------------------------------------

SLOT = 0.06
"""Timers are up to so much late, in seconds."""


class Timed:
    """A manager by a fake clock, and ways to pass its time."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        self.stage = stage
        self.manager, self.clock = stage.timed_manager(**options)

    def connect(self, kind: type[Recorder] = Recorder, **options: Any) -> tuple[Any, Peer]:
        websocket, peer = self.stage.connect(self.manager, kind, **options)
        wait_for(websocket.was_opened)
        peer.sync()
        return websocket, peer

    def settle(self) -> None:
        """Return when the manager has done all that was to be done."""
        poller = self.manager._engine.poller
        assert isinstance(poller, RestlessPoller)
        poller.wait_for_rounds()

    def advance(self, seconds: float) -> None:
        """Let the clock go on when the manager has done what was due, and let it do what is due then."""
        self.settle()
        self.clock.advance(seconds)
        self.settle()


@pytest.fixture
def timed(stage: Stage) -> Callable[..., Timed]:
    return lambda **options: Timed(stage, **options)


def test_a_ping_is_sent_when_it_is_due(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=30.0, ping_timeout=20.0)
    websocket, peer = context.connect()
    for _ in range(3):
        context.advance(29.9)
        peer.sync()
        assert peer.controls == []
        context.advance(0.1 + SLOT)
        ping = peer.receive()
        assert ping.opcode == OPCODE_PING
        peer.send(peer.pong(ping.payload))
        peer.sync()
        assert peer.controls == []
    assert websocket.events == [("opened",)]  # such Pongs are no matter of the application's
    assert context.manager.stats().round_trip.count == 3


def test_a_peer_whose_pong_is_overdue_is_dropped(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=30.0, ping_timeout=20.0)
    websocket, peer = context.connect()
    other, peer_of_other = context.connect()
    context.advance(30.0 + SLOT)
    assert peer.receive().opcode == OPCODE_PING
    peer_of_other.send(peer_of_other.pong(peer_of_other.receive().payload))
    peer_of_other.sync()
    context.advance(19.8)
    assert websocket.ends == []
    context.advance(0.2 + SLOT)
    assert websocket.end() == (1006, "Going away")
    code, reason = peer.receive_close()
    assert (code, reason) == (1011, "Keepalive ping timeout")
    peer.expect_end()
    assert context.manager.stats().limits["ping_timeout"] == 1
    peer_of_other.sync()
    assert other.ends == []


@pytest.mark.parametrize("pong", [b"wrong", b""])
def test_a_pong_with_another_payload_is_no_answer_but_a_sign_of_life(timed: Callable[..., Timed], pong: bytes) -> None:
    context = timed(ping_interval=30.0, ping_timeout=20.0)
    websocket, peer = context.connect()
    context.advance(30.0 + SLOT)
    assert peer.receive().opcode == OPCODE_PING
    peer.send(peer.pong(pong))
    peer.sync()
    context.advance(20.0 + SLOT)
    assert websocket.ends == []
    context.advance(20.0 + SLOT)
    assert websocket.end()[0] == 1006
    assert context.manager.stats().round_trip.count == 0


def test_a_peer_is_alive_while_the_bytes_of_a_long_frame_come(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=30.0, ping_timeout=20.0, message_timeout=None)
    websocket, peer = context.connect()
    frame = peer.binary(bytes(2000))
    peer.send(frame[:1000])
    context.advance(30.0 + SLOT)
    ping = peer.receive()
    for position in range(1000, 1900, 100):
        peer.send(frame[position : position + 100])
        context.advance(15.0)
    assert websocket.ends == []
    peer.send(frame[1900:], peer.pong(ping.payload))
    peer.sync()
    until(lambda: websocket.messages == [bytes(2000)])
    context.advance(30.0 + SLOT)
    # The next Ping is overdue, so it may have come before the answer that was waited for.
    assert (peer.controls or [peer.receive()])[0].opcode == OPCODE_PING
    context.advance(20.0 + SLOT)
    assert websocket.end()[0] == 1006


# --- unfinished messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beginning", ["fragment", "frame", "header"])
def test_a_message_that_is_not_finished_in_time(timed: Callable[..., Timed], beginning: str) -> None:
    context = timed(ping_interval=None, message_timeout=100.0)
    websocket, peer = context.connect()
    begun = {
        "fragment": peer.frame(OPCODE_TEXT, b"part"),
        "frame": peer.text("whole")[:-1],
        "header": peer.text("whole")[:1],
    }
    peer.send(begun[beginning])
    context.advance(99.0)
    if beginning == "fragment":
        peer.sync()  # what comes between the fragments is none of the message
    assert websocket.ends == []
    context.advance(1.0 + SLOT)
    assert peer.receive_close() == (1008, "A message was not finished in time")
    assert context.manager.stats().limits["message_timeout"] == 1
    peer.close()
    assert websocket.end()[0] == 1006


def test_a_message_may_take_long_while_it_comes_fast(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=None, message_timeout=100.0)
    websocket, peer = context.connect()
    part = bytes(26 << 10)
    peer.send(peer.frame(OPCODE_BINARY, part))
    for _ in range(8):  # more than a KiB for each of 25 seconds
        peer.sync()
        context.advance(25.0)
        peer.send(peer.frame(0, part))
    peer.sync()
    assert websocket.ends == []
    assert context.manager.stats().inbox.bytes == 9 * len(part)
    peer.send(peer.frame(0, bytes(100)))
    peer.sync()
    context.advance(50.0)
    assert peer.receive_close()[0] == 1008
    assert websocket.messages == []


def test_each_message_has_a_deadline_of_its_own(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=None, message_timeout=100.0)
    websocket, peer = context.connect()
    peer.send(peer.frame(OPCODE_TEXT, b"0"))
    for number in range(1, 5):
        peer.sync()
        context.advance(60.0)
        peer.send(peer.frame(FIN), peer.frame(OPCODE_TEXT, str(number).encode()))
    peer.sync()
    until(lambda: websocket.messages == [b"0", b"1", b"2", b"3"])
    assert websocket.ends == []
    context.advance(100.0 + SLOT)
    assert peer.receive_close()[0] == 1008


def test_a_message_that_we_do_not_read_on_is_not_late(timed: Callable[..., Timed], stage: Stage) -> None:
    context = timed(ping_interval=None, message_timeout=100.0, max_inbox_messages=1)
    websocket, peer = stage.connect(context.manager, Gate)
    peer.send(peer.text("handled"))
    websocket.wait_entered()
    peer.send(peer.text("waits"), peer.frame(OPCODE_TEXT, b"begun"))
    until(lambda: context.manager.stats().limits["inbox"])
    context.advance(200.0)
    context.advance(200.0)
    websocket.gate.set()
    peer.send(peer.frame(FIN, b" and finished"))
    assert [peer.receive_text() for _ in range(3)] == ["handled", "waits", "begun and finished"]


def test_without_a_message_timeout_a_message_may_take_for_ever(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=None, message_timeout=None)
    websocket, peer = context.connect()
    peer.send(peer.frame(OPCODE_TEXT, b"for "))
    peer.sync()
    context.advance(1e6)
    peer.send(peer.frame(FIN, b"ever"))
    until(lambda: websocket.messages == [b"for ever"])


def test_without_a_ping_timeout_the_pong_may_take_for_ever(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=30.0, ping_timeout=None)
    websocket, peer = context.connect()
    context.advance(30.0 + SLOT)
    ping = peer.receive()
    context.advance(10_000.0)
    peer.sync()
    assert websocket.ends == []
    peer.send(peer.pong(ping.payload))
    assert peer.receive().opcode == OPCODE_PING  # at once: it is long overdue


def test_without_a_ping_interval_none_is_sent(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=None)
    _, peer = context.connect()
    context.advance(100_000.0)
    peer.sync()
    assert peer.controls == []


def test_a_heartbeat_of_the_websockets_own(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=30.0, ping_timeout=20.0)
    _, quick = context.connect(heartbeat_freq=5)
    _, none = context.connect(heartbeat_freq=0)
    _, default = context.connect(heartbeat_freq=None)
    context.advance(5.0 + SLOT)
    quick.send(quick.pong(quick.receive().payload))
    quick.sync()
    context.advance(25.0)
    for peer in (quick, none, default):
        peer.sync()
    assert [len(peer.controls) for peer in (quick, none, default)] == [1, 0, 1]


def test_a_peer_that_we_do_not_read_is_not_blamed(timed: Callable[..., Timed]) -> None:
    """Its Pong may have come: it is this side's handler that blocks."""
    context = timed(ping_interval=30.0, ping_timeout=20.0, max_inbox_messages=1)
    websocket, peer = context.connect(Gate)
    peer.send(peer.text("block"))
    websocket.wait_entered()
    peer.send(peer.text("pass"))
    until(lambda: context.manager.stats().limits["inbox"] >= 2)
    context.advance(30.0 + SLOT)
    ping = peer.receive()
    peer.send(peer.pong(ping.payload))
    for _ in range(5):
        context.advance(20.0 + SLOT)
    assert websocket.ends == []
    websocket.gate.set()
    assert [peer.receive_text(), peer.receive_text()] == ["block", "pass"]
    peer.sync()
    assert websocket.ends == []


def test_a_peer_that_does_not_answer_the_close_is_dropped(timed: Callable[..., Timed]) -> None:
    context = timed(close_timeout=5.0, ping_interval=None)
    websocket, peer = context.connect()
    websocket.close(1000, "bye")
    assert peer.receive_close() == (1000, "bye")
    context.advance(4.8)
    assert websocket.ends == []
    context.advance(0.2 + SLOT)
    assert websocket.end() == (1006, "Going away")
    peer.expect_end()
    assert context.manager.stats().limits["close_timeout"] == 1


def test_a_peer_that_does_not_end_tcp_is_dropped(timed: Callable[..., Timed]) -> None:
    """After an error it is told why, and has a while to read that, in which what it sends is thrown away."""
    context = timed(close_timeout=5.0, ping_interval=None)
    websocket, peer = context.connect()
    peer.send(b"\xff\xff")
    assert peer.receive_close()[0] == 1002
    peer.expect_end()
    assert websocket.end()[0] == 1006
    peer.send(bytes(100_000))
    fd = websocket._connection.fd
    assert fd in context.manager._engine.connections
    context.advance(5.0 + SLOT)
    until(lambda: fd not in context.manager._engine.connections)


def test_a_close_of_a_peer_whose_handler_blocks_is_answered_in_time(timed: Callable[..., Timed]) -> None:
    """The echoes of its messages should go first, but not for ever."""
    context = timed(close_timeout=5.0, ping_interval=None)
    websocket, peer = context.connect(Gate)
    peer.send(peer.text("block"))
    websocket.wait_entered()
    peer.send(peer.goodbye(1000, "bye"))
    until(lambda: websocket.client_terminated)
    context.advance(4.8)
    assert websocket.ends == []
    context.advance(0.2 + SLOT)
    assert peer.receive_close() == (1000, "")
    peer.expect_end()
    websocket.gate.set()
    assert websocket.end() == (1000, b"bye")


class FullTransport(PlainTransport):
    """Takes all, and says that the kernel has not: as TLS does with a record that is kept."""

    __slots__ = ()

    def send(self, data: bytes | memoryview, write: object = None) -> int:
        self.blocked = True
        return len(data)


def test_a_close_that_the_kernel_never_takes_ends_in_time(timed: Callable[..., Timed]) -> None:
    context = timed(close_timeout=5.0, ping_interval=None)
    websocket, peer = context.connect()
    connection: Any = websocket._connection
    connection.transport = FullTransport(websocket.sock)
    peer.send(peer.goodbye(1000, "bye"))
    assert websocket.end() == (1000, b"bye")
    fd = connection.fd
    context.advance(4.8)
    assert fd in context.manager._engine.connections
    context.advance(0.2 + SLOT)
    until(lambda: fd not in context.manager._engine.connections)


def test_a_closed_that_blocks_keeps_nothing_but_its_descriptor(timed: Callable[..., Timed]) -> None:
    context = timed(close_timeout=5.0, ping_interval=None)
    gate = threading.Event()
    context.stage.closers.append(gate.set)
    websocket, peer = context.connect(Script.of(closed=lambda websocket, code, reason: wait_for(gate)))
    assert peer.say_goodbye() == (1000, "")
    until(lambda: len(context.manager) == 0)
    context.advance(100.0)
    assert websocket.sock.fileno() >= 0
    gate.set()
    websocket.end()
    until(lambda: not present(context.manager))


def test_timers_of_many_connections(timed: Callable[..., Timed]) -> None:
    context = timed(ping_interval=30.0, ping_timeout=20.0)
    connections = [context.connect() for _ in range(50)]
    context.advance(30.0 + SLOT)
    for index, (_, peer) in enumerate(connections):
        ping = peer.receive()
        if index % 2:
            peer.send(peer.pong(ping.payload))
            peer.sync()
    context.advance(20.0 + SLOT)
    for index, (websocket, _) in enumerate(connections):
        if index % 2 == 0:
            assert websocket.end()[0] == 1006
    until(lambda: len(context.manager) == 25)


def test_the_manager_sleeps_until_the_next_timer(stage: Stage) -> None:
    clock = FakeClock(1000.0)
    timeouts: list[float | None] = []

    class Watched(RestlessPoller):
        def poll(self, timeout: float | None = None) -> Any:
            timeouts.append(timeout)
            return super().poll(timeout)

    poller = Watched()
    manager = stage.manager(poller=poller, clock=clock, ping_interval=30.0)
    until(lambda: timeouts[-1:] == [None])
    websocket, peer = stage.connect(manager, Recorder)
    wait_for(websocket.was_opened)
    until(lambda: timeouts[-1] is not None and 29.0 < timeouts[-1] < 31.0)
    peer.say_goodbye()
    websocket.end()
    until(lambda: timeouts[-1] is None)


# --- a limit counts until the descriptor is given back ----------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_ip"])
def test_a_connection_counts_until_closed_has_returned(stage: Stage, limit: Any) -> None:
    gate, entered = threading.Event(), threading.Event()
    stage.closers.append(gate.set)

    def on_closed(websocket: Recorder, *_: object) -> None:
        entered.set()
        wait_for(gate)

    options: dict[str, Any] = {limit: 1}
    manager = stage.manager(**options)
    websocket, peer = stage.connect(manager, Script.of(closed=on_closed), tcp_pair)
    peer.close()
    wait_for(entered)
    assert len(manager) == 0
    assert refused(manager, "127.0.0.1")[0] in (429, 503)
    late, peer_of_late = stage.connect(manager, Recorder, tcp_pair)
    assert peer_of_late.receive_close() == (1013, "Too many connections")
    peer_of_late.send(peer_of_late.goodbye(1013))
    gate.set()
    websocket.end()
    late.end()
    until(lambda: manager.stats().connections.closing == 0)
    manager.admit("127.0.0.1")


def test_a_connection_counts_while_its_end_is_waited_for(stage: Stage) -> None:
    """After a broken rule the peer has close_timeout seconds to end TCP."""
    manager, clock = stage.timed_manager(max_connections=1, close_timeout=5.0)
    websocket, peer = stage.connect(manager, Recorder)
    peer.send(b"\xff\xff")
    assert peer.receive_close()[0] == 1002
    websocket.end()
    assert len(manager) == 0
    assert refused(manager)[0] == 503
    clock.advance(5.1)
    until(lambda: manager.stats().connections.closing == 0)
    manager.admit()
