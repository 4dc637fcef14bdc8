"""What a manager counts: it agrees with what the peers did, to the message and to the byte."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import (
    EchoRecorder,
    Gate,
    Peer,
    Recorder,
    Script,
    Stage,
    start_thread,
    tcp_pair,
    until,
    wait_for,
)
from ws4py.engine.histogram import KEPT_VALUES, TIME_BOUNDS, Histogram
from ws4py.extensions.permessage_deflate import PerMessageDeflate
from ws4py.framing import FIN, OPCODE_CONTINUATION, OPCODE_TEXT, build_frame, payload_size
from ws4py.manager import WebSocketManager
from ws4py.manager.ranking import SORT_KEYS
from ws4py.manager.snapshot import EVENTS, LIMITS, HistogramSnapshot, Snapshot
from ws4py.websocket import WebSocket

NOTHING = {"text": 0, "binary": 0, "ping": 0, "pong": 0, "close": 0}


def settled(manager: WebSocketManager) -> Snapshot:
    """Return the figures when every connection is gone and every turn has ended."""
    until(lambda: not (now := manager.stats().connections).open and not now.closing)
    until(lambda: manager.stats().workers.busy == 0)
    return manager.stats()


def in_turn(snapshot: Snapshot) -> int:
    return snapshot.workers.handler_time.count


# --- the traffic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 4])
def test_figures_agree_with_what_a_client_did(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, EchoRecorder)
    frames = [
        peer.text("one"),
        peer.text("zwei \N{SNOWMAN}"),
        peer.binary(bytes(300)),
        peer.ping(b"p"),
        peer.pong(b"qq"),
    ]
    frames += [peer.frame(OPCODE_TEXT, b"in "), peer.frame(OPCODE_CONTINUATION, b"three "), peer.frame(FIN, b"parts")]
    peer.send(*frames)
    received = [peer.receive_message() for _ in range(4)]
    websocket.send(iter(["from ", "a ", "generator"]))
    websocket.send(iter([b"a", b"b"]), binary=True)
    received += [peer.receive_message() for _ in range(2)]
    websocket.ping(b"mine")
    goodbye = peer.goodbye(1001, "bye")
    before = manager.stats()
    assert before.connections.open == 1
    peer.send(goodbye)
    assert peer.receive_close()[0] == 1001
    peer.expect_end()
    peer.close()
    websocket.end()
    stats = settled(manager)

    assert (stats.connections.open, stats.connections.closing, stats.connections.opened) == (0, 0, 1)
    assert stats.connections.closed == {1001: 1}
    assert stats.received.messages == {"text": 3, "binary": 1, "ping": 1, "pong": 1, "close": 1}
    assert stats.received.payload_bytes == {"text": 3 + 8 + 14, "binary": 300}
    assert stats.received.bytes == sum(map(len, frames)) + len(goodbye)
    assert stats.sent.messages == {"text": 4, "binary": 2, "ping": 1, "pong": 1, "close": 1}
    assert stats.sent.payload_bytes == {"text": 3 + 8 + 14 + 16, "binary": 300 + 2}
    assert sum(map(len, received)) == sum(stats.sent.payload_bytes.values())
    echoes = (2 + 3) + (2 + 8) + (4 + 300) + (2 + 14)
    generated = (3 * 2 + 16) + (2 * 2 + 2)
    assert stats.sent.bytes == echoes + generated + (2 + 4) + (2 + 1) + (2 + 2)
    assert stats.workers.messages == 4
    assert stats.workers.errors == 0
    assert in_turn(stats) == stats.workers.turns
    # What was counted when the connection was there is not counted anew, nor lost, when it is gone.
    for kind, number in before.sent.messages.items():
        assert number <= stats.sent.messages[kind]


def test_nothing_has_been_counted_yet(stage: Stage) -> None:
    stats = stage.manager(start=False).stats()
    assert stats.state == "new"
    assert stats.uptime == 0.0
    assert stats.sent.messages == stats.received.messages == NOTHING
    assert stats.workers.queue_wait.quantile(0.5) is None
    assert stats.compression.ratio is None
    assert set(stats.limits) == set(LIMITS)
    assert not any(stats.limits.values())


def test_many_clients_at_once(stage: Stage) -> None:
    """Several threads send, and the figures add up exactly."""
    manager = stage.manager()
    pairs = [stage.connect(manager, EchoRecorder) for _ in range(8)]

    def talk(peer: Peer, number: int) -> None:
        for _ in range(50):
            peer.send(peer.text("x" * number), peer.binary(b"y"))
            peer.receive_message()
            peer.receive_message()

    for task in [start_thread(talk, peer, number) for number, (_, peer) in enumerate(pairs)]:
        task.result()
    stats = manager.stats()
    assert stats.received.messages == {**NOTHING, "text": 400, "binary": 400}
    assert stats.sent.messages == {**NOTHING, "text": 400, "binary": 400}
    assert stats.sent.payload_bytes == {"text": 50 * sum(range(8)), "binary": 400}
    assert stats.workers.messages == 800
    assert (stats.connections.open, stats.connections.opened) == (8, 8)


def test_broadcasts(stage: Stage) -> None:
    manager = stage.manager()
    peers = [stage.connect(manager, Recorder)[1] for _ in range(3)]
    assert manager.broadcast("news") == 3
    assert manager.broadcast(b"\xff", binary=True) == 3
    for peer in peers:
        assert [peer.receive_message(), peer.receive_message()] == [b"news", b"\xff"]
    stats = manager.stats()
    assert (stats.broadcasts, stats.deliveries) == (2, 6)
    assert stats.sent.messages == {**NOTHING, "text": 3, "binary": 3}
    assert stats.sent.payload_bytes == {"text": 12, "binary": 3}


@pytest.mark.parametrize("takeover", [False, True])
def test_compression(stage: Stage, takeover: bool) -> None:
    manager = stage.manager()
    accepted = PerMessageDeflate(server_no_context_takeover=not takeover).accept(())
    assert accepted is not None
    codec, client = accepted[1].codec(), accepted[1].codec()
    text = b"again and again " * 64
    websocket, peer = stage.connect(None, EchoRecorder)
    websocket.stream.use(codec)
    manager.add(websocket)
    reserved, encoded = client.encode(text)
    peer.send(peer.frame(FIN | reserved | OPCODE_TEXT, encoded))
    echo = peer.receive()
    assert echo.first == FIN | 0x40 | OPCODE_TEXT
    manager.broadcast(text)
    news = peer.receive()
    websocket.send(iter([text.decode(), "end"]))
    parts = [peer.receive(), peer.receive()]
    stats = manager.stats()
    wire = len(echo.payload) + len(news.payload) + sum(len(part.payload) for part in parts)
    assert stats.received.payload_bytes["text"] == len(text)
    assert stats.sent.messages["text"] == 3
    assert stats.sent.payload_bytes["text"] == 3 * len(text) + 3
    compression = stats.compression
    assert (compression.received_before, compression.received_after) == (len(encoded), len(text))
    assert compression.sent_before == stats.sent.payload_bytes["text"]
    assert compression.sent_after == wire
    assert compression.ratio is not None
    assert compression.ratio > 5


def test_the_payload_of_a_frame() -> None:
    for size in (0, 1, 125, 126, 65535, 65536):
        for key in (None, b"abcd"):
            assert payload_size(build_frame(FIN | OPCODE_TEXT, bytes(size), key)) == size


# --- the connections --------------------------------------------------------------------------------------------------


def test_closes_are_counted_by_code(stage: Stage) -> None:
    manager = stage.manager()
    for code in (1000, 1000, 4000, None):
        websocket, peer = stage.connect(manager, Recorder)
        peer.say_goodbye(code)
        websocket.end()
    websocket, peer = stage.connect(manager, Recorder)
    peer.close()
    websocket.end()
    stats = settled(manager)
    assert stats.connections.closed == {1000: 2, 1005: 1, 1006: 1, "4xxx": 1}
    assert list(stats.connections.closed) == [1000, 1005, 1006, "4xxx"]
    assert stats.connections.opened == 5


def test_codes_that_peers_may_choose_are_few_labels(stage: Stage) -> None:
    manager = stage.manager()
    codes = (3000, 3001, 3999, 4000, 4001, 4500, 4999)
    for code in codes:
        websocket, peer = stage.connect(manager, Recorder)
        assert peer.say_goodbye(code)[0] == code
        assert websocket.end()[0] == code  # the application is told all the same
    stats = settled(manager)
    assert stats.connections.closed == {"3xxx": 3, "4xxx": 4}
    assert stats.as_dict()["connections"]["closed"] == {"3xxx": 3, "4xxx": 4}


def test_one_that_was_let_go(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("one"))
    peer.receive_message()
    manager.remove(websocket)
    stats = manager.stats()
    assert (stats.connections.open, stats.connections.removed) == (0, 1)
    assert stats.connections.closed == {}
    assert stats.sent.messages["text"] == 1


def test_one_whose_socket_the_application_has_closed(stage: Stage) -> None:
    """Its descriptor is another connection's before it has ended, and it is counted all the same."""
    manager = stage.manager()
    websocket, _ = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    sock = websocket.sock
    fd = sock.fileno()
    websocket.send("to nobody")
    until(lambda: manager.stats().sent.bytes)
    sock.close()
    others: list[EchoRecorder] = []
    while not others or others[-1].sock.fileno() != fd:
        others.append(stage.connect(manager, EchoRecorder)[0])
    websocket.end()
    until(lambda: manager.stats().connections.closed == {1006: 1})
    stats = manager.stats()
    assert stats.connections.open == len(others)
    assert stats.connections.opened == len(others) + 1
    assert stats.sent.messages["text"] == 1


def test_refusals_and_limits(stage: Stage) -> None:
    manager = stage.manager()
    manager.count_refusal(403)
    manager.count_refusal(503)
    manager.count_refusal(403)
    for status in (470, 471, 498):
        manager.count_refusal(status)
    manager._engine.count_limit("max_connections")
    stats = manager.stats()
    assert stats.connections.refused == {403: 2, 503: 1, "4xx": 3}
    assert {name: count for name, count in stats.limits.items() if count} == {"max_connections": 1}


def test_every_limit_has_its_place() -> None:
    """Those that act are known before they do, so that they can be shown with a 0."""
    source = "".join(path.read_text() for path in Path(__file__).parents[2].glob("ws4py/**/*.py"))
    names = set(re.findall(r'count_limit\(\s*"(\w+)"', source)) | set(re.findall(r'Excess\("(\w+)"', source))
    assert names
    assert names | {"overflow_close", "overflow_drop", "overflow_latest"} <= set(LIMITS)


def test_what_is_counted_where_it_happens_has_its_place() -> None:
    source = "".join(path.read_text() for path in Path(__file__).parents[2].glob("ws4py/*/*.py"))
    assert set(re.findall(r'count\("(\w+)"', source)) == {*EVENTS, "slow_callbacks"}


# --- queues and workers -----------------------------------------------------------------------------------------------


def test_inboxes_and_workers(stage: Stage) -> None:
    manager = stage.manager(workers=2)
    gate, peer = stage.connect(manager, Gate)
    idle, _ = stage.connect(manager, Recorder)
    wait_for(gate.was_opened)
    wait_for(idle.was_opened)
    peer.send(peer.text("held"))
    gate.wait_entered()
    peer.send(peer.text("pass 1"), peer.text("pass 22"))
    peer.sync()
    stats = manager.stats()
    inbox = stats.inbox
    assert (inbox.messages, inbox.bytes, inbox.largest_messages, inbox.largest_bytes) == (2, 13, 2, 13)
    workers = stats.workers
    assert (workers.limit, workers.busy) == (2, 1)
    assert workers.size == workers.idle + 1
    gate.gate.set()
    assert [peer.receive_message() for _ in range(3)] == [b"held", b"pass 1", b"pass 22"]
    until(lambda: manager.stats().workers.busy == 0)
    stats = manager.stats()
    assert (stats.inbox.messages, stats.inbox.bytes) == (0, 0)
    assert stats.workers.messages == 3


def test_outboxes(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=1 << 22)
    websocket, peer = stage.connect(manager, Recorder, small=True)
    websocket.send(bytes(1 << 20), binary=True)
    until(lambda: 0 < manager.stats().outbox.bytes < 1 << 20)  # the kernel has taken what it can
    stats = manager.stats()
    assert stats.outbox.largest_bytes == stats.outbox.bytes
    assert manager.connection_stats(1, "outbox")[0].outbox_bytes > 0
    assert len(peer.receive_message()) == 1 << 20
    until(lambda: manager.stats().sent.bytes == (1 << 20) + 10)
    assert manager.stats().outbox.bytes == 0


def test_errors_of_handlers(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: WebSocket, message: Any) -> None:
        raise RuntimeError("as it should")

    manager = stage.manager()
    websocket, peer = stage.connect(manager, Script.of(message=fail))
    peer.send(peer.text("x"))
    assert peer.receive_close()[0] == 1011
    peer.send(peer.goodbye(1011))
    websocket.end()
    stats = settled(manager)
    assert stats.workers.errors == 1
    assert "as it should" in caplog.text


def test_round_trips_and_lag(stage: Stage) -> None:
    manager, clock = stage.timed_manager(ping_interval=10.0)
    _, peer = stage.connect(manager, Recorder)
    peer.sync()
    assert manager.connection_stats()[0].round_trip is None
    clock.advance(10.1)
    ping = peer.receive()
    clock.advance(0.5)
    peer.send(peer.pong(ping.payload))
    until(lambda: manager.stats().round_trip.count == 1)
    stats = manager.stats()
    assert stats.round_trip.sum == pytest.approx(0.5)
    assert stats.round_trip.quantile(0.5) == pytest.approx(0.375, abs=0.13)
    assert stats.loop_lag.count >= 1
    assert (stats.sent.messages["ping"], stats.received.messages["pong"]) == (1, 1)
    (row,) = manager.connection_stats(by="round_trip")
    assert row.round_trip == pytest.approx(0.5)
    assert row.age == pytest.approx(10.6)
    assert row.idle == pytest.approx(10.6)  # Pings are no messages
    assert stats.uptime == pytest.approx(10.6)


def test_it_may_be_asked_for_within_a_callback(stage: Stage) -> None:
    for workers in (0, 2):
        seen: list[Snapshot] = []
        manager = stage.manager(workers=workers)

        def ask(_: WebSocket, message: Any, manager: WebSocketManager = manager, seen: list[Any] = seen) -> None:
            seen.append(manager.stats())

        _, peer = stage.connect(manager, Script.of(message=ask))
        peer.send(peer.text("now"))
        until(seen.copy)
        assert seen[0].received.messages["text"] == 1


# --- single connections -----------------------------------------------------------------------------------------------


class Named(EchoRecorder):
    """Says where it comes from."""

    def __init__(self, sock: Any, path: str) -> None:
        super().__init__(sock, ["chat"], None, {"SCRIPT_NAME": "", "PATH_INFO": path})


def test_what_came_with_the_handshake_counts_as_a_sign_of_life(stage: Stage) -> None:
    manager = stage.manager()
    websocket, _ = stage.connect(manager, Recorder, early=build_frame(FIN | OPCODE_TEXT, b"early", bytes(4)))
    until(lambda: websocket.messages == [b"early"])
    [row] = manager.connection_stats(1, "idle")
    assert 0 <= row.idle <= row.age


def test_single_connections(stage: Stage) -> None:
    manager = stage.manager()
    peers = []
    for number in range(5):
        _, peer = stage.connect(manager, Named, tcp_pair, path=f"/{number}")
        peer.send(*[peer.text("x" * (10 - number))] * number)
        for _ in range(number):
            peer.receive_message()
        peers.append(peer)
    until(lambda: manager.connection_stats(1, "messages")[0].bytes_sent == 4 * (2 + 6))  # its peer may know before
    rows = manager.connection_stats(3, "messages")
    assert [row.path for row in rows] == ["/4", "/3", "/2"]
    assert [row.messages_received for row in rows] == [4, 3, 2]
    assert [row.messages_sent for row in rows] == [4, 3, 2]
    first = rows[0]
    assert (first.address, first.subprotocol, first.closing) == ("127.0.0.1", "chat", False)
    assert first.bytes_received == 4 * (6 + 6)
    assert 0 <= first.idle <= first.age
    assert (first.inbox_messages, first.inbox_bytes, first.outbox_bytes) == (0, 0, 0)
    assert first.id == 5
    assert [row.path for row in manager.connection_stats(None, "age")] == ["/0", "/1", "/2", "/3", "/4"]
    assert [row.path for row in manager.connection_stats(1, "bytes_received")] == ["/4"]
    assert manager.connection_stats(0) == ()
    for key in SORT_KEYS:
        assert len(manager.connection_stats(2, key)) == 2
        assert len(manager.connection_stats(100, key)) == 5
    json.dumps(first.as_dict())


def test_a_wrong_wish(stage: Stage) -> None:
    manager = stage.manager()
    for top in (-1, 1.5, True, "1"):
        with pytest.raises(ValueError, match="top must be"):
            manager.connection_stats(top)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="messages_sent"):
        manager.connection_stats(1, "beauty")  # type: ignore[arg-type]


def test_many_connections_are_looked_at_in_slices(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ws4py.manager.snapshot.SLICE", 2)
    manager = stage.manager()
    breaths: list[int] = []
    monkeypatch.setattr(manager._backend, "breathe", lambda: breaths.append(threading.get_ident()))
    for _ in range(5):
        stage.connect(manager, Recorder)
    assert manager.stats().connections.open == 5
    assert len(breaths) == 2
    assert len(manager.connection_stats(3)) == 3


# --- the snapshot -----------------------------------------------------------------------------------------------------


def test_it_is_immutable(stage: Stage) -> None:
    manager = stage.manager()
    stats = manager.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.broadcasts = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats.limits["inbox"] = 1  # type: ignore[index]
    manager._engine.count_limit("inbox")
    manager.count_refusal(400)
    assert stats.limits["inbox"] == 0
    assert stats.connections.refused == {}


def test_histograms() -> None:
    histogram = Histogram()
    assert HistogramSnapshot(TIME_BOUNDS, *histogram.read()).quantile(0.5) is None
    for value in (0.00005, 0.002, 0.002, 0.003, 100.0):
        histogram.observe(value)
    snapshot = HistogramSnapshot(TIME_BOUNDS, *histogram.read())
    assert snapshot.count == histogram.count == 5
    assert snapshot.sum == pytest.approx(100.00705)
    assert snapshot.quantile(0.1) == pytest.approx(0.0000375)
    assert snapshot.quantile(0.5) == pytest.approx(0.001 + 0.0015 * 0.75)
    assert snapshot.quantile(1.0) == TIME_BOUNDS[-1]
    other = histogram.copy()
    other.merge(histogram)
    assert (other.count, histogram.count) == (10, 5)


def test_a_histogram_tells_at_any_moment_what_it_was_given() -> None:
    values = [*TIME_BOUNDS, 0.0, 11.0, *(1.0 / number for number in range(1, 2 * KEPT_VALUES))] * 2
    histogram = Histogram()
    expected = [0] * (len(TIME_BOUNDS) + 1)
    for number, value in enumerate(values, 1):
        histogram.observe(value)
        expected[bisect_left(TIME_BOUNDS, value)] += 1
        assert histogram.count == number
        if number % 100 == 1 or number % KEPT_VALUES in {KEPT_VALUES - 1, 0, 1}:
            buckets, total = histogram.read()
            assert list(buckets) == expected
            assert total == pytest.approx(sum(values[:number]))


def test_whoever_reads_a_histogram_while_it_counts_meets_each_value_once() -> None:
    class Watched(Histogram):
        """Is read, as by another thread, wherever what readers see is about to change, and was just changed."""

        changes = 0

        def __setattr__(self, name: str, value: Any) -> None:
            if hasattr(self, "_state"):
                before = self.read()
                super().__setattr__(name, value)
                assert before == self.read() == (before[0], len(observed))
                assert sum(before[0]) == len(observed)
                Watched.changes += 1
            else:
                super().__setattr__(name, value)

    observed: list[float] = []
    histogram = Watched()
    for _ in range(3 * KEPT_VALUES):
        observed.append(1.0)
        histogram.observe(1.0)
    assert Watched.changes == 3
    assert histogram.count == 3 * KEPT_VALUES


def test_the_sum_of_a_histogram_never_falls() -> None:
    """By the clock, what is measured may have begun before it was asked for."""
    histogram = Histogram()
    for value in [0.1, -0.004] * KEPT_VALUES:
        before = histogram.read()[1]
        histogram.observe(value)
        assert histogram.read()[1] >= before
    assert histogram.read()[1] == pytest.approx(0.1 * KEPT_VALUES)
    assert histogram.read()[0][0] == KEPT_VALUES
