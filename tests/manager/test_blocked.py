"""All workers wait, in code of the application or in a call of ours: what goes on all the same, and what follows."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    EchoRecorder,
    Gate,
    Peer,
    Recorder,
    Script,
    Stage,
    quiet,
    start_thread,
    stays,
    until,
    wait_for,
)
from ws4py.framing import FIN, OPCODE_PING
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

LONG = 10 * PATIENCE
"""Seconds until a wait comes back by itself: so long that every test has failed by then."""

MUCH = 300_000
"""Bytes; more than the kernel takes of a peer that does not read."""

THREADED = [{"dispatch": dispatch, "workers": workers} for dispatch in ("adaptive", "pool") for workers in (1, 2, 32)]
EVERY = [{"workers": 0}, *THREADED]


def ids(options: dict[str, Any]) -> str:
    return f"{options.get('dispatch', 'inline')}-{options['workers']}"


@pytest.fixture(params=THREADED, ids=ids)
def threaded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a manager with workers."""
    return dict(request.param)


@pytest.fixture(params=EVERY, ids=ids)
def every(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of a manager of every kind."""
    return dict(request.param)


class Bystanders:
    """Connections whose callbacks have nothing to do with those that wait."""

    def __init__(self, stage: Stage, manager: WebSocketManager) -> None:
        self._quiet, self._quiet_peer = stage.connect(manager, EchoRecorder)
        self._slow, self._slow_peer = stage.connect(manager, Recorder, small=True, heartbeat_freq=0)
        self._pinged, self._pinged_peer = stage.connect(manager, Recorder, heartbeat_freq=0.02)
        self._closing = [stage.connect(manager, EchoRecorder) for _ in range(3)]
        everybody = [self._quiet, self._slow, self._pinged, *(websocket for websocket, _ in self._closing)]
        for websocket in everybody:
            wait_for(websocket.was_opened)

    def check(self) -> None:
        """Look whether the manager does its own part: what is to be done without a callback."""
        self._quiet_peer.sync()
        self._quiet.send("from a thread of the application's")
        assert self._quiet_peer.receive_text() == "from a thread of the application's"
        # More than the kernel takes at once: the rest is written as the peer reads.
        self._slow.send(bytes(MUCH), binary=True)
        assert self._slow_peer.receive_message() == bytes(MUCH)
        while self._pinged_peer.receive().first != FIN | OPCODE_PING:
            pass
        for number, (_, peer) in enumerate(self._closing):
            assert peer.say_goodbye(1000 + number) == (1000 + number, "")
        _, peer = self._closing.pop()
        peer.close()

    def answer_goodbye(self) -> None:
        """Answer the Close of a manager that stops."""
        for peer in (self._quiet_peer, self._slow_peer, self._pinged_peer):
            assert peer.receive_close()[0] == 1001
            peer.send(peer.goodbye(1001))

    def check_end(self) -> None:
        """Look whether the callbacks have come that had to wait."""
        self._quiet_peer.send(self._quiet_peer.text("x"))
        assert self._quiet_peer.receive_text() == "x"
        for number, (websocket, _) in enumerate(self._closing):
            assert websocket.end() == (1000 + number, b"")


@pytest.fixture
def manager(stage: Stage, threaded: dict[str, Any]) -> WebSocketManager:
    """A manager all of whose workers may wait."""
    return stage.manager(
        **threaded,
        max_waiting_senders=threaded["workers"],
        max_outbox_size=MUCH + 1000,
        send_timeout=LONG,
        ping_timeout=None,
        drain_timeout=LONG,
    )


def test_in_the_applications_code(stage: Stage, manager: WebSocketManager) -> None:
    bystanders = Bystanders(stage, manager)
    waiting = [stage.connect(manager, Gate) for _ in range(manager.workers)]
    for gate, peer in waiting:
        peer.send(peer.text("wait"), peer.text("pass"))
        gate.wait_entered()
    bystanders.check()
    for gate, peer in waiting:
        peer.sync()
        gate.send("in between")
        assert peer.receive_text() == "in between"
        peer.send(peer.goodbye(4000))  # the answers to the messages before it go first
    for gate, _ in waiting:
        gate.gate.set()
    for gate, peer in waiting:
        assert peer.receive_text() == "wait"
        assert peer.receive_text() == "pass"
        assert peer.receive_close() == (4000, "")
        assert gate.end() == (4000, b"")
    bystanders.check_end()


def test_in_send(stage: Stage, manager: WebSocketManager) -> None:
    sent: list[WebSocket] = []

    def send(websocket: WebSocket, message: Message) -> None:
        for _ in range(6):  # two find room, and one more may while others are being written
            websocket.send(bytes(MUCH), binary=True)
        sent.append(websocket)

    bystanders = Bystanders(stage, manager)
    waiting = [stage.connect(manager, Script.of(message=send), small=True) for _ in range(manager.workers)]
    for _, peer in waiting:
        peer.send(peer.text("send"))
    until(lambda: all(websocket.buffered > MUCH + 1000 for websocket, _ in waiting))
    bystanders.check()
    assert not sent
    tasks = [start_thread(lambda peer=peer: [peer.receive_message() for _ in range(6)]) for _, peer in waiting]
    for task in tasks:
        assert task.result() == [bytes(MUCH)] * 6
    for websocket, peer in waiting:
        assert peer.say_goodbye() == (1000, "")
        assert websocket.end() == (1000, b"")
        assert websocket.errors == []
    assert len(sent) == manager.workers
    bystanders.check_end()


def test_in_remove(stage: Stage, manager: WebSocketManager) -> None:
    """Each half of the workers waits for the other one: to remove a websocket is to wait for its callback."""
    pairs: list[tuple[Gate, Peer]] = []
    removers: list[tuple[Recorder, Peer]] = []
    removed = threading.Semaphore(0)
    begun = threading.Semaphore(0)
    bystanders = Bystanders(stage, manager)
    for _ in range(manager.workers // 2):
        gate, peer = stage.connect(manager, Gate)
        pairs.append((gate, peer))

        def remove(websocket: WebSocket, message: Message, target: Gate = gate) -> None:
            begun.release()
            manager.remove(target)
            removed.release()

        removers.append(stage.connect(manager, Script.of(message=remove)))
    for gate, peer in pairs:
        peer.send(peer.text("wait"))
        gate.wait_entered()
    for _, peer in removers:
        peer.send(peer.text("remove"))
    for _ in removers:
        assert begun.acquire(timeout=PATIENCE)
    until(lambda: not any(gate in manager for gate, _ in pairs))
    bystanders.check()
    assert not removed.acquire(blocking=False)
    for gate, _ in pairs:
        gate.gate.set()
    for _ in removers:
        assert removed.acquire(timeout=PATIENCE)
    for gate, peer in pairs:
        assert peer.receive_text() == "wait"  # by the websocket itself: it is let go, open
        assert gate.ends == []
    bystanders.check_end()


def test_all_remove_at_once(stage: Stage, manager: WebSocketManager) -> None:
    """Which needs somebody who polls."""
    meeting = threading.Barrier(manager.workers)

    def remove(websocket: WebSocket, message: Message) -> None:
        meeting.wait(PATIENCE)
        manager.remove(targets[message.data])
        websocket.send("removed")

    targets = {b"%d" % number: stage.connect(manager, Recorder)[0] for number in range(manager.workers)}
    peers = [stage.connect(manager, Script.of(message=remove))[1] for _ in range(manager.workers)]
    for number, peer in enumerate(peers):
        peer.send(peer.text(str(number)))
    for peer in peers:
        assert peer.receive_text() == "removed"
    for target in targets.values():
        assert target not in manager
        assert target.ends == []


def test_in_join(stage: Stage, manager: WebSocketManager) -> None:
    begun = threading.Semaphore(0)
    states: list[str] = []

    def join(websocket: WebSocket, message: Message) -> None:
        begun.release()
        manager.join(LONG)
        states.append(manager.state)

    bystanders = Bystanders(stage, manager)
    waiting = [stage.connect(manager, Script.of(message=join)) for _ in range(manager.workers)]
    for _, peer in waiting:
        peer.send(peer.text("join"))
    for _ in waiting:
        assert begun.acquire(timeout=PATIENCE)
    bystanders.check()
    for _, peer in waiting:
        peer.sync()
    assert not states
    manager.stop()
    bystanders.answer_goodbye()
    for _, peer in waiting:
        assert peer.receive_close()[0] == 1001
        peer.send(peer.goodbye(1001))
    for websocket, _ in waiting:
        assert websocket.end() == (1001, b"")
    assert states == ["stopped"] * manager.workers


@pytest.mark.parametrize("options", [THREADED[0], THREADED[3]], ids=ids)
def test_in_join_where_few_of_a_class_may(stage: Stage, options: dict[str, Any]) -> None:
    """It has the places of its class, and the last callbacks of the others come all the same."""
    manager = stage.manager(**options, max_workers=1, drain_timeout=LONG)
    joined = threading.Event()

    def join(websocket: WebSocket, message: Message) -> None:
        manager.stop()
        manager.join(LONG)
        joined.set()

    connections = [stage.connect(manager, Script.of(message=join)) for _ in range(5)]
    connections[0][1].send(connections[0][1].text("join"))
    for _, peer in connections:
        assert peer.receive_close()[0] == 1001
        peer.send(peer.goodbye(1001))
    wait_for(joined)
    for websocket, _ in connections:
        assert websocket.end() == (1001, b"")


def test_a_place_that_was_lent_is_taken_back(stage: Stage, threaded: dict[str, Any]) -> None:
    """After a join() that has given up there run no more callbacks at once than before, but for those that did."""
    manager = stage.manager(**threaded, max_workers=1)
    lock = threading.Lock()
    inside = [0]

    def join(websocket: WebSocket, message: Message) -> None:
        manager.join(0.001)
        websocket.send("joined")

    def count(websocket: WebSocket, message: Message) -> None:
        with lock:
            inside[0] += 1
            most = inside[0]
        threading.Event().wait(0.001)  # so that callbacks meet
        with lock:
            inside[0] -= 1
        websocket.send(str(most))

    _, joining = stage.connect(manager, Script.of(message=join))
    kind = Script.of(message=count)
    peers = [stage.connect(manager, kind)[1] for _ in range(5)]
    for _ in range(10):
        for peer in (joining, *peers):
            peer.send(peer.text("x"))
        assert joining.receive_text() == "joined"
        assert [peer.receive_text() for peer in peers] == ["1"] * len(peers)
    assert manager.stats().workers.limit == manager.workers


@pytest.mark.parametrize("options", [THREADED[1], THREADED[4]], ids=ids)
def test_as_many_workers_as_before_when_all_have_joined_for_a_while(stage: Stage, options: dict[str, Any]) -> None:
    manager = stage.manager(**options)

    def join(websocket: WebSocket, message: Message) -> None:
        manager.join(0.001)
        manager.join(0.001)
        websocket.send("joined")

    kind = Script.of(message=join)
    peers = [stage.connect(manager, kind)[1] for _ in range(10)]
    for peer in peers:
        peer.send(*[peer.text("x")] * 10)
    for peer in peers:
        assert [peer.receive_text() for _ in range(10)] == ["joined"] * 10
    until(lambda: manager.stats().workers.idle == manager.stats().workers.size)
    gates = [stage.connect(manager, Gate) for _ in range(5)]
    for _, peer in gates:
        peer.send(peer.text("wait"))
    until(lambda: sum(bool(gate.messages) for gate, _ in gates) == manager.workers)
    stays(lambda: sum(bool(gate.messages) for gate, _ in gates) == manager.workers)
    for gate, _ in gates:
        gate.gate.set()
    for _, peer in gates:
        assert peer.receive_text() == "wait"


def test_join_where_there_was_no_thread_for_a_worker(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last callbacks then run on the thread that polls, which can't wait for itself."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if "Worker" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    manager = stage.manager(dispatch="pool", drain_timeout=0.1)

    def end(websocket: WebSocket, *_: object) -> None:
        manager.join(LONG)
        manager.remove(websocket)

    with quiet():
        websocket, _ = stage.connect(manager, Script.of(opened=end, closed=end))
        until(lambda: manager.stats().workers.waiting)
        manager.stop()
        manager.join(PATIENCE)
    assert manager.state == "stopped"
    assert websocket.end()[0] == 1006
    assert websocket.errors == []


# --- without workers --------------------------------------------------------------------------------------------------


def test_without_workers_all_waits_and_nothing_is_lost(stage: Stage) -> None:
    """But nobody else's thread: it may send, ask for figures, and stop."""
    manager = stage.manager(workers=0, send_timeout=0.01, ping_timeout=None)
    gate, gate_peer = stage.connect(manager, Gate)
    other, peer = stage.connect(manager, EchoRecorder)
    closing, closing_peer = stage.connect(manager, EchoRecorder)
    removed, _ = stage.connect(manager, EchoRecorder)
    for websocket in (other, closing, removed):
        wait_for(websocket.was_opened)
    gate_peer.send(gate_peer.text("wait"))
    gate.wait_entered()
    peer.send(peer.text("first"), peer.ping(b"second"))
    closing_peer.send(closing_peer.text("last"), closing_peer.goodbye(4000))
    other.send("from a thread")
    assert manager.broadcast("to all") == 4
    assert manager.stats().connections.open == 4
    manager.remove(removed)  # returns, though nobody can do it now
    manager.join(0.01)
    assert manager.is_alive()
    gate.gate.set()
    assert [gate_peer.receive_text() for _ in range(2)] == ["to all", "wait"]
    assert [peer.receive_text() for _ in range(3)] == ["from a thread", "to all", "first"]
    assert [frame.payload for frame in peer.controls] == [b"second"]
    assert [closing_peer.receive_text() for _ in range(2)] == ["to all", "last"]
    assert closing_peer.receive_close() == (4000, "")
    assert closing.end() == (4000, b"")
    until(lambda: removed not in manager)
    assert removed.ends == []


# --- a callback that ends what it is part of --------------------------------------------------------------------------

CALLBACKS = ["opened", "message", "pong", "closed"]


def trigger(callback: str, peer: Peer) -> None:
    """Have a callback called, the opened one aside."""
    frames = {"message": peer.text("x"), "pong": peer.pong(b"x"), "closed": peer.goodbye(4000)}
    if callback in frames:
        peer.send(frames[callback])


Others = tuple[WebSocketManager, list[tuple[EchoRecorder, Peer]]]


@pytest.fixture
def others(stage: Stage, every: dict[str, Any]) -> Others:
    """A manager of each kind, with a few connections."""
    manager = stage.manager(**every, drain_timeout=LONG)
    connections = [stage.connect(manager, EchoRecorder) for _ in range(3)]
    for websocket, _ in connections:
        wait_for(websocket.was_opened)
    return manager, list(connections)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_callback_may_remove_its_own_websocket(stage: Stage, others: Others, callback: str) -> None:
    """It is open then, but in ``closed()``, where it stays the manager's until that has returned."""
    manager, _ = others
    done = threading.Event()

    def remove(websocket: WebSocket, *_: object) -> None:
        manager.remove(websocket)
        done.set()

    websocket, peer = stage.connect(manager, Script.of(**{callback: remove}))
    trigger(callback, peer)
    wait_for(done)
    until(lambda: websocket not in manager)
    if callback == "closed":
        assert peer.receive_close() == (4000, "")
        assert websocket.end() == (4000, b"")
    else:
        assert not websocket.terminated
        websocket.send("still open")
        assert peer.receive_text() == "still open"
        assert websocket.ends == []
    assert websocket.errors == []
    check_echo(others)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_callback_may_stop_and_join(stage: Stage, others: Others, callback: str) -> None:
    """It waits for all but itself; without workers there is nobody to wait for it."""
    manager, connections = others
    states: list[str] = []
    done = threading.Event()

    def end(websocket: WebSocket, *_: object) -> None:
        manager.stop()
        manager.join(LONG)
        states.append(manager.state)
        done.set()

    websocket, peer = stage.connect(manager, Script.of(**{callback: end}))
    trigger(callback, peer)
    for _, other in connections:
        assert other.receive_close()[0] == 1001
        other.send(other.goodbye(1001))
    if callback == "closed":
        assert peer.receive_close() == (4000, "")
    else:
        assert peer.receive_close()[0] == 1001
        peer.send(peer.goodbye(1001))
    wait_for(done)
    assert states == ["stopping" if manager.workers == 0 else "stopped"]
    manager.join(PATIENCE)
    assert manager.state == "stopped"
    assert websocket.end()[0] == (4000 if callback == "closed" else 1001)
    for other_websocket, _ in connections:
        assert other_websocket.end() == (1001, b"")
    assert websocket.errors == []


def check_echo(others: Others) -> None:
    for _, peer in others[1]:
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
