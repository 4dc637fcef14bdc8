"""Sending: how long it waits for a peer that does not read, who may wait, and what ends a message in fragments.

What holds whoever runs the websocket is tested for a manager, for ``run()`` and for a client alike.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client_servers import Scripted, accept
from tests.helpers import (
    PATIENCE,
    Certificates,
    EchoRecorder,
    Peer,
    Recorder,
    Script,
    Stage,
    narrow,
    start_thread,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.client.threadedclient import WebSocketClient
from ws4py.exc import ConnectionClosed, SlowConsumer
from ws4py.framing import FIN, OPCODE_CLOSE, OPCODE_TEXT
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

WAYS = pytest.mark.parametrize("way", ["manager", "run"])


def start(stage: Stage, way: str, **options: Any) -> tuple[Recorder, Peer]:
    """Return a websocket that is run in some way, and its peer."""
    manager = stage.manager(max_outbox_size=100_000, ping_interval=None) if way == "manager" else None
    websocket, peer = stage.connect(manager, EchoRecorder, **options)
    if manager is None:
        task = start_thread(websocket.run)
        stage.closers.append(peer.close)
        stage.closers.append(task.join)
    wait_for(websocket.was_opened)
    return websocket, peer


def numbered(number: int) -> bytes:
    return b"%06d" % number * 1000


def fill(websocket: WebSocket, pause: Callable[[float], object] = time.sleep) -> int:
    """Send messages while that takes no waiting, until the kernel takes no more either; return how many were sent."""
    refusals = 0
    for number in itertools.count():
        while refusals < 3:
            try:
                websocket.send(numbered(number), binary=True, timeout=0)
            except SlowConsumer:
                refusals += 1
                pause(0.02)
            else:
                refusals = 0
                break
        else:
            return number
    raise AssertionError("unreachable")


def send_on(websocket: WebSocket, timeout: float) -> None:
    """Send until that raises."""
    while True:
        websocket.send(numbered(0), timeout=timeout)


# --- workers that wait ------------------------------------------------------------------------------------------------


def report(websocket: WebSocket, message: Message) -> None:
    for _ in range(128):
        websocket.send(bytes(65536), binary=True)


def test_a_hundred_peers_that_read_nothing_leave_workers_for_the_others(stage: Stage) -> None:
    manager = stage.manager(send_timeout=PATIENCE, ping_interval=None)
    _, reader = stage.connect(manager, EchoRecorder)
    for _ in range(100):
        _, peer = stage.connect(manager, Script.of(message=report))
        peer.send(peer.text("report"))
    reader.send(reader.text("x"))
    assert reader.receive_text() == "x"
    assert manager.stats().limits["send_timeout"] == 0
    until(lambda: manager.stats().limits["max_waiting_senders"] == 84)  # half of 32 workers wait
    reader.send(reader.text("y"))
    assert reader.receive_text() == "y"
    assert manager.stats().limits["send_timeout"] == 0


@pytest.mark.parametrize(("workers", "limit", "waiting"), [(4, None, 2), (4, 3, 3), (1, None, 1)])
def test_how_many_workers_may_wait(stage: Stage, workers: int, limit: int | None, waiting: int) -> None:
    manager = stage.manager(workers=workers, max_waiting_senders=limit, send_timeout=PATIENCE, ping_interval=None)
    refused = int(workers > waiting)
    websockets, peers = [], []
    for _ in range(waiting + refused):
        websocket, peer = stage.connect(manager, Script.of(message=report))
        websockets.append(websocket)
        peers.append(peer)
        peer.send(peer.text("report"))
    if refused:
        until(lambda: manager.stats().limits["max_waiting_senders"])
    else:
        until(lambda: all(websocket.buffered >= 1 << 20 for websocket in websockets))

    def read(peer: Peer) -> bytes | None:
        for _ in range(128):
            frame = peer.receive_data()
            if frame.opcode == OPCODE_CLOSE:
                return frame.payload
        return None  # it waited, and has what it waited for

    closes = [task.result() for task in [start_thread(read, peer) for peer in peers]]
    assert [close for close in closes if close] == [(1013).to_bytes(2, "big") + b"Slow consumer"] * refused
    assert manager.stats().limits["send_timeout"] == 0
    assert [websocket.errors for websocket in websockets] == [[]] * len(websockets)


def test_who_waits_for_another_message_in_fragments_counts_as_well(stage: Stage) -> None:
    manager = stage.manager(workers=4, max_waiting_senders=1, send_timeout=PATIENCE, ping_interval=None)
    busy, peer = stage.connect(manager, Recorder)
    go_on = threading.Event()
    stage.closers.append(go_on.set)

    def parts() -> Iterator[str]:
        yield "one "
        yield "two"
        wait_for(go_on)

    task = start_thread(busy.send, parts())
    assert peer.receive().payload == b"one "
    raised: list[BaseException] = []

    def send_in_fragments(websocket: WebSocket, message: Message) -> None:
        try:
            busy.send(iter(["a", "b"]))
        except SlowConsumer as error:
            raised.append(error)
            go_on.set()

    for _ in range(2):
        _, other = stage.connect(manager, Script.of(message=send_in_fragments))
        other.send(other.text("go"))
    wait_for(go_on)
    task.result()
    assert len(raised) == 1
    assert manager.stats().limits["max_waiting_senders"] == 1
    assert peer.receive().payload == b"two"
    assert peer.receive_text() == "ab"


def test_threads_of_the_application_may_all_wait(stage: Stage) -> None:
    manager = stage.manager(workers=2, max_waiting_senders=1, send_timeout=PATIENCE, ping_interval=None)
    tasks, peers = [], []
    for _ in range(5):
        websocket, peer = stage.connect(manager, Recorder)
        peers.append(peer)
        tasks.append(start_thread(report, websocket, None))
        until(lambda: websocket.buffered >= 1 << 20)  # noqa: B023 - it is called at once
    for peer in peers:
        assert [len(peer.receive_message()) for _ in range(128)] == [65536] * 128
    for task in tasks:
        task.result()
    assert manager.stats().limits["max_waiting_senders"] == 0


# --- timeouts ---------------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize("secure", [False, True])
def test_a_send_that_never_waits(stage: Stage, way: str, secure: bool, certificates: Certificates) -> None:
    websocket, peer = start(stage, way, pair=certificates.ssl_pair if secure else unix_pair)
    assert websocket.buffered == 0
    websocket.send("first", timeout=0)
    assert peer.receive_text() == "first"
    for _ in range(2):
        count = fill(websocket)
        assert websocket.buffered > 0 or way == "run"
        for number in range(count):
            assert peer.receive_message() == numbered(number)
        until(lambda: websocket.buffered == 0)
        websocket.send("after that", timeout=0)
        assert peer.receive_text() == "after that"
        websocket.send((part for part in ("in ", "parts")), timeout=0)
        assert peer.receive_text() == "in parts"
    peer.send(peer.text("echo"))
    assert peer.receive_text() == "echo"
    peer.say_goodbye()
    assert websocket.end() == (1000, b"")
    assert websocket.buffered == 0


def test_a_generator_for_which_there_is_no_room_is_not_begun(stage: Stage) -> None:
    manager = stage.manager(start=False, max_outbox_size=1000)
    websocket, peer = stage.connect(manager, Recorder)
    websocket.send(bytes(1000), binary=True)
    parts = iter(["in ", "parts"])
    with pytest.raises(SlowConsumer):
        websocket.send(parts, timeout=0)
    manager.start()
    assert peer.receive_message() == bytes(1000)
    until(lambda: websocket.buffered == 0)
    websocket.send(parts, timeout=0)
    assert peer.receive_text() == "in parts"


@WAYS
def test_a_send_has_its_own_deadline(stage: Stage, way: str) -> None:
    websocket, _ = start(stage, way)
    with pytest.raises(SlowConsumer, match=r"0\.05 seconds|in time"):
        send_on(websocket, 0.05)
    with pytest.raises(ConnectionClosed):
        websocket.send("x")


@WAYS
def test_half_a_message_for_which_there_is_no_more_room_ends_the_websocket(stage: Stage, way: str) -> None:
    websocket, peer = start(stage, way)

    def parts() -> Iterator[bytes]:
        while True:
            yield bytes(10_000)

    with pytest.raises(SlowConsumer):
        websocket.send(parts(), binary=True, timeout=0)
    with pytest.raises(ConnectionClosed):
        websocket.send("x")
    with contextlib.suppress(EOFError):  # there may have been no room for the Close either
        while (frame := peer.receive()).opcode != OPCODE_CLOSE:
            assert not frame.first & FIN
        assert frame.payload == (1011).to_bytes(2, "big")
    peer.close()
    websocket.end()


def test_buffered_bytes_are_forgotten_at_the_end(stage: Stage) -> None:
    for way in ("manager", "run"):
        websocket, peer = start(stage, way)
        fill(websocket)
        peer.close()
        websocket.end()
        assert websocket.buffered == 0


def test_sends_that_never_wait_do_not_mistake_each_other_for_a_slow_peer(stage: Stage) -> None:
    websocket, peer = stage.connect(None, EchoRecorder, tcp_pair)
    task = start_thread(websocket.run)

    def send(name: str) -> None:
        for number in range(40):
            websocket.send(f"{name}{number}", timeout=0)

    tasks = [start_thread(send, name) for name in "abcd"]
    received = [peer.receive_text() for _ in range(160)]
    for other in tasks:
        other.result()
    for name in "abcd":
        assert [text[1:] for text in received if text[0] == name] == [str(number) for number in range(40)]
    peer.say_goodbye()
    task.result()


def test_a_send_that_never_waits_under_gevent() -> None:
    gevent = pytest.importorskip("gevent")
    from gevent import socket

    from ws4py.server.geventmanager import GreenletManager

    def play(websocket: WebSocket, peer: Any, finish: Callable[[], None]) -> None:
        count = fill(websocket, gevent.sleep)
        assert websocket.buffered > 0 or not managed
        reader = Peer(peer)
        for number in range(count):
            assert reader.receive_message() == numbered(number)
        with gevent.Timeout(PATIENCE):
            while websocket.buffered:
                gevent.sleep(0)
        websocket.send("after that", timeout=0)
        assert reader.receive_text() == "after that"
        reader.say_goodbye()
        finish()
        assert websocket.buffered == 0
        peer.close()

    for managed in (True, False):
        ours, theirs = socket.socketpair()
        narrow(ours, theirs)
        websocket = Recorder(ours)
        if managed:
            manager = GreenletManager(max_outbox_size=100_000)
            manager.start()
            manager.add(websocket)
            play(websocket, theirs, manager.stop)
            manager.join(PATIENCE)
        else:
            greenlet = gevent.spawn(websocket.run)
            play(websocket, theirs, lambda greenlet=greenlet: greenlet.join(PATIENCE))  # type: ignore[misc]
        assert websocket.end() == (1000, b"")


# --- a Close, and an error, while a message is sent in fragments -----------------------------------------------------


class OwnError(Exception):
    """Raised by generators here."""


class Client(WebSocketClient):
    """Keeps how it ended."""

    ended: tuple[Any, ...] = ()

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        self.ended = (code, reason)


def with_peer(stage: Stage, way: str, send: Callable[[WebSocket], None], check: Callable[[Peer], None]) -> None:
    """Run ``send`` with a websocket, and ``check`` with its peer; then answer the Close that came."""

    def answer(peer: Peer) -> None:
        check(peer)
        peer.send(peer.goodbye(4000))

    if way == "client":
        with Scripted(lambda sock: answer(accept(sock))) as server:
            client = Client(server.url, proxy=None)
            client.connect()
            send(client)
            client.run_forever()
        assert client.ended == (4000, b"")
        return
    websocket, peer = start(stage, way)
    send(websocket)
    answer(peer)
    assert websocket.end() == (4000, b"")


ALL_WAYS = pytest.mark.parametrize("way", ["manager", "run", "client"])


@ALL_WAYS
def test_a_close_waits_for_the_end_of_a_message_in_fragments(stage: Stage, way: str) -> None:
    def send(websocket: WebSocket) -> None:
        def parts() -> Iterator[str]:
            yield "one "
            yield "two "
            websocket.close(4001, "bye")
            websocket.close(4002, "the first one counts")
            websocket.ping("may go between")
            with pytest.raises(ConnectionClosed):
                start_thread(websocket.send, "not begun").result()
            yield "three"

        websocket.send(parts())
        with pytest.raises(ConnectionClosed):
            websocket.send("too late")

    def check(peer: Peer) -> None:
        assert peer.receive_text() == "one two three"
        assert [frame.payload for frame in peer.controls] == [b"may go between"]
        assert peer.receive_close() == (4001, "bye")

    with_peer(stage, way, send, check)


@ALL_WAYS
@pytest.mark.parametrize("begun", [False, True])
def test_a_generator_that_raises_closes(stage: Stage, way: str, begun: bool) -> None:
    def send(websocket: WebSocket) -> None:
        def parts() -> Iterator[str]:
            if begun:
                yield "one"
                yield "two"
            raise OwnError

        with pytest.raises(OwnError):
            websocket.send(parts())
        with pytest.raises(ConnectionClosed):
            websocket.send("x")

    def check(peer: Peer) -> None:
        if begun:
            assert peer.receive() == (OPCODE_TEXT, b"one")
        assert peer.receive_close() == (1011, "")

    with_peer(stage, way, send, check)


@ALL_WAYS
def test_a_close_of_a_generator_that_then_raises(stage: Stage, way: str) -> None:
    def send(websocket: WebSocket) -> None:
        def parts() -> Iterator[str]:
            yield "one"
            yield "two"
            websocket.close(4001, "bye")
            raise OwnError

        with pytest.raises(OwnError):
            websocket.send(parts())

    def check(peer: Peer) -> None:
        assert peer.receive() == (OPCODE_TEXT, b"one")
        assert peer.receive_close() == (4001, "bye")

    with_peer(stage, way, send, check)


@WAYS
@pytest.mark.parametrize("closing", [False, True])
def test_the_peers_close_does_not_wait_for_a_generator(stage: Stage, way: str, closing: bool) -> None:
    """It reads no more, so there is nobody to complete the message for; our own Close that waits is the answer."""
    websocket, peer = start(stage, way)
    answers = []

    def parts() -> Iterator[str]:
        yield "one"
        yield "two"
        if closing:
            websocket.close(4001, "bye")
        peer.send(peer.goodbye(4000))
        assert peer.receive() == (OPCODE_TEXT, b"one")
        answers.append(peer.receive_close())
        yield "three"
        yield "four"

    with pytest.raises(ConnectionClosed):
        websocket.send(parts())
    assert answers == [(4001, "bye") if closing else (4000, "")]
    assert websocket.end() == (4000, b"")
