"""Under a manager: the order of callbacks, what runs them, and what a handler that blocks holds up."""

from __future__ import annotations

import os
import threading

from tests.helpers import (
    PATIENCE,
    WORKERS,
    EchoRecorder,
    Gate,
    Recorder,
    Script,
    Stage,
    present,
    start_thread,
    until,
    wait_for,
)
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

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
    until(lambda: not present(manager))
