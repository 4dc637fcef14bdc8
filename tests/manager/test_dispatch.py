"""Who runs callbacks and who polls: what differs between the ways, and what must not."""

from __future__ import annotations

import logging
import random
import threading
from typing import Any

import pytest

from tests.helpers import PATIENCE, EchoRecorder, Gate, Peer, Recorder, Script, Stage, until, wait_for
from ws4py.engine.pollers import default_poller
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message

DISPATCHES = ("adaptive", "pool")


@pytest.fixture(params=DISPATCHES)
def dispatch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- the option -------------------------------------------------------------------------------------------------------


def in_place(stage: Stage, **options: Any) -> bool:
    """Tell whether callbacks of such a manager run on the thread that has read what they are for."""
    manager = stage.manager(**options)
    _, peer = stage.connect(manager, EchoRecorder)
    for number in range(20):
        peer.send(peer.text(str(number)))
        assert peer.receive_text() == str(number)
    workers = manager.stats().workers
    assert workers.in_place + workers.handed_over <= workers.turns
    return workers.in_place > 0


def test_a_worker_that_polls_runs_quick_callbacks_itself(stage: Stage) -> None:
    assert in_place(stage)
    assert in_place(stage, dispatch="adaptive")


def test_with_a_pool_every_callback_goes_to_it(stage: Stage) -> None:
    assert not in_place(stage, dispatch="pool")


def test_the_environment_chooses_where_the_program_does_not(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS4PY_DISPATCH", "pool")
    assert not in_place(stage)
    assert in_place(stage, dispatch="adaptive")
    monkeypatch.setenv("WS4PY_DISPATCH", "")
    assert in_place(stage)


def test_another_word_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="dispatch must be one of adaptive, pool, not 'threads'"):
        WebSocketManager(dispatch="threads")
    monkeypatch.setenv("WS4PY_DISPATCH", "fast")
    with pytest.raises(ValueError, match="not 'fast'"):
        WebSocketManager()


def test_a_poller_of_ones_own_is_used_by_one_thread() -> None:
    poller = default_poller()
    try:
        with pytest.raises(ValueError, match="dispatch='pool'"):
            WebSocketManager(poller, dispatch="adaptive")
    finally:
        poller.release()


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_is_no_time_for_a_callback(seconds: float) -> None:
    with pytest.raises(ValueError, match="slow_callback"):
        WebSocketManager(slow_callback=seconds)


# --- callbacks that wait ----------------------------------------------------------------------------------------------


def test_a_callback_that_waits_delays_nobody(stage: Stage, dispatch: str) -> None:
    manager = stage.manager(workers=2, dispatch=dispatch)
    blocked, blocked_peer = stage.connect(manager, Gate)
    _, peer = stage.connect(manager, EchoRecorder)
    blocked_peer.send(blocked_peer.text("wait"))
    blocked.wait_entered()
    for number in range(50):
        peer.send(peer.text(str(number)))
        assert peer.receive_text() == str(number)
    late, late_peer = stage.connect(manager, EchoRecorder)
    wait_for(late.was_opened)
    assert late_peer.say_goodbye() == (1000, "")
    blocked.gate.set()
    assert blocked_peer.receive_text() == "wait"


@pytest.mark.parametrize("workers", [1, 4])
def test_with_all_workers_waiting_pings_are_answered_and_messages_kept(
    stage: Stage, dispatch: str, workers: int
) -> None:
    manager = stage.manager(workers=workers, dispatch=dispatch)
    blocked = [stage.connect(manager, Gate) for _ in range(workers)]
    _, peer = stage.connect(manager, EchoRecorder)
    for gate, gate_peer in blocked:
        gate_peer.send(gate_peer.text("wait"))
        gate.wait_entered()
    peer.send(*(peer.text(str(number)) for number in range(10)))
    for other in (peer, *(gate_peer for _, gate_peer in blocked)):
        other.sync()
    until(lambda: manager.stats().workers.waiting == 1)
    for gate, gate_peer in blocked:
        gate.gate.set()
        assert gate_peer.receive_text() == "wait"
    assert [peer.receive_text() for _ in range(10)] == [str(number) for number in range(10)]


def test_what_a_callback_sends_leaves_while_it_waits(stage: Stage, dispatch: str) -> None:
    may_go_on = threading.Event()

    def ask(websocket: Recorder, message: Message) -> None:
        websocket.send(b"question")
        wait_for(may_go_on)
        websocket.send(b"done")

    manager = stage.manager(workers=1, dispatch=dispatch)
    stage.closers.append(may_go_on.set)
    _, peer = stage.connect(manager, Script.of(message=ask))
    peer.send(peer.text("begin"))
    assert peer.receive_text() == "question"
    may_go_on.set()
    assert peer.receive_text() == "done"


def test_a_callback_waits_for_a_message_of_another_websocket(stage: Stage, dispatch: str) -> None:
    answers: dict[str, threading.Event] = {"asked": threading.Event(), "answered": threading.Event()}

    def wait_for_answer(websocket: Recorder, message: Message) -> None:
        answers["asked"].set()
        wait_for(answers["answered"])
        websocket.send(b"heard")

    manager = stage.manager(workers=2, dispatch=dispatch)
    _, asking = stage.connect(manager, Script.of(message=wait_for_answer))
    _, answering = stage.connect(manager, Script.of(message=lambda websocket, message: answers["answered"].set()))
    asking.send(asking.text("ask"))
    wait_for(answers["asked"])
    answering.send(answering.text("answer"))
    assert asking.receive_text() == "heard"


def test_never_more_callbacks_at_once_than_workers(stage: Stage, dispatch: str) -> None:
    limit, inside, most = 3, [0], [0]
    lock = threading.Lock()

    def count(websocket: Recorder, message: Message) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.001)  # so that callbacks meet
        with lock:
            inside[0] -= 1
        websocket.send(message.data)

    manager = stage.manager(workers=limit, dispatch=dispatch)
    peers = [stage.connect(manager, Script.of(message=count))[1] for _ in range(20)]
    for number in range(5):
        for peer in peers:
            peer.send(peer.text(str(number)))
    for peer in peers:
        assert [peer.receive_text() for _ in range(5)] == [str(number) for number in range(5)]
    assert 1 < most[0] <= limit


def test_order_holds_whether_callbacks_wait_or_not(stage: Stage, dispatch: str) -> None:
    """The recorders see an overlap, or a wrong order, themselves: the stage looks at that."""
    dice = random.Random(7)

    def sometimes_wait(websocket: Recorder, message: Message) -> None:
        if dice.random() < 0.05:
            threading.Event().wait(0.003)
        websocket.send(message.data)

    manager = stage.manager(workers=4, dispatch=dispatch)
    peers = [stage.connect(manager, Script.of(message=sometimes_wait))[1] for _ in range(10)]
    for start in range(0, 100, 10):
        for peer in peers:
            peer.send(*(peer.text(str(number)) for number in range(start, start + 10)))
    for peer in peers:
        assert [peer.receive_text() for _ in range(100)] == [str(number) for number in range(100)]
        assert peer.say_goodbye() == (1000, "")


# --- a part of the workers for each class of websockets ---------------------------------------------------------------


def test_a_slow_class_leaves_workers_to_others(stage: Stage, dispatch: str) -> None:
    manager = stage.manager(workers=3, dispatch=dispatch)
    limits = manager.limits.but(max_workers=2)
    slow: list[tuple[Gate, Peer]] = []
    for _ in range(6):
        websocket, peer = stage.connect(None, Gate)
        manager.add(websocket, limits=limits)
        slow.append((websocket, peer))
        peer.send(peer.text("wait"))
    until(lambda: sum(bool(websocket.messages) for websocket, _ in slow) == 2)
    _, quick = stage.connect(manager, EchoRecorder)
    for number in range(50):
        quick.send(quick.text(str(number)))
        assert quick.receive_text() == str(number)
    for _, peer in slow:
        peer.sync()  # who waits for a worker is not forgotten
    assert sum(bool(websocket.messages) for websocket, _ in slow) == 2
    for websocket, _ in slow:
        websocket.gate.set()
    for websocket, peer in slow:
        assert peer.receive_text() == "wait"
        assert peer.say_goodbye() == (1000, "")
        assert websocket.end() == (1000, b"")


def test_the_part_is_kept_when_many_come_and_go(stage: Stage, dispatch: str) -> None:
    limit, inside, most = 2, [0], [0]
    lock = threading.Lock()

    def count(websocket: Recorder, message: Message) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        if int(message.data) % 7 == 0:
            threading.Event().wait(0.001)  # so that callbacks meet
        with lock:
            inside[0] -= 1
        websocket.send(message.data)

    manager = stage.manager(workers=8, dispatch=dispatch, max_workers=limit)
    kind = Script.of(message=count)
    peers = [stage.connect(manager, kind)[1] for _ in range(20)]
    for number in range(30):
        for peer in peers:
            peer.send(peer.text(str(number)))
    for peer in peers:
        assert [peer.receive_text() for _ in range(30)] == [str(number) for number in range(30)]
        assert peer.say_goodbye() == (1000, "")
    assert 1 <= most[0] <= limit


def test_each_class_has_its_own_part(stage: Stage, dispatch: str) -> None:
    class Other(Gate):
        """Another class."""

    manager = stage.manager(workers=4, dispatch=dispatch, max_workers=1)
    held = [stage.connect(manager, kind) for kind in (Gate, Other)]
    for websocket, peer in held:
        peer.send(peer.text("wait"))
        websocket.wait_entered()


# --- callbacks that take long -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"dispatch": "adaptive"}, {"dispatch": "pool"}, {"workers": 0}])
def test_a_callback_that_takes_long_is_logged_with_its_stack(
    stage: Stage, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    manager = stage.manager(slow_callback=0.02, **options)
    websocket, peer = stage.connect(manager, Gate)
    with caplog.at_level(logging.WARNING, "ws4py"):
        peer.send(peer.text("wait"))
        websocket.wait_entered()
        until(lambda: manager.stats().workers.slow_callbacks == 1)
        until(lambda: "wait_for(self.gate)" in caplog.text)  # where it is
        websocket.gate.set()
        assert peer.receive_text() == "wait"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "(Gate)" in record.getMessage()


def test_a_class_is_logged_once_a_minute_and_always_counted(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    manager = stage.manager(slow_callback=0.02)
    with caplog.at_level(logging.WARNING, "ws4py"):
        for count in range(1, 4):
            websocket, peer = stage.connect(manager, Gate)
            peer.send(peer.text("wait"))
            until(lambda count=count: manager.stats().workers.slow_callbacks == count)  # type: ignore[misc]
            websocket.gate.set()
            assert peer.receive_text() == "wait"
    assert len(caplog.records) == 1


def test_without_slow_callback_nothing_is_said(stage: Stage, caplog: pytest.LogCaptureFixture, dispatch: str) -> None:
    manager = stage.manager(slow_callback=None, dispatch=dispatch)
    watched = stage.manager(slow_callback=0.02, dispatch=dispatch)
    (quiet, quiet_peer), (loud, loud_peer) = stage.connect(manager, Gate), stage.connect(watched, Gate)
    with caplog.at_level(logging.WARNING, "ws4py"):
        quiet_peer.send(quiet_peer.text("wait"))
        quiet.wait_entered()
        loud_peer.send(loud_peer.text("wait"))
        until(lambda: watched.stats().workers.slow_callbacks == 1)  # which began later
        until(lambda: caplog.records)  # it is counted first
    assert manager.stats().workers.slow_callbacks == 0
    assert len(caplog.records) == 1
    quiet.gate.set()
    loud.gate.set()
    assert quiet_peer.receive_text() == loud_peer.receive_text() == "wait"


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_callback_may_stop_its_manager_and_wait_for_the_others(stage: Stage, dispatch: str) -> None:
    def stop(websocket: Recorder, message: Message) -> None:
        manager.stop()
        manager.join(PATIENCE)

    manager = stage.manager(workers=2, dispatch=dispatch)
    others = [stage.connect(manager, EchoRecorder) for _ in range(5)]
    stopping, peer = stage.connect(manager, Script.of(message=stop))
    peer.send(peer.text("stop"))
    for _, other in others:
        assert other.receive_close()[0] == 1001
        other.send(other.goodbye(1001))
    for websocket, _ in others:
        assert websocket.end()[0] == 1001
    assert peer.receive_close()[0] == 1001
    peer.send(peer.goodbye(1001))
    assert stopping.end() == (1001, b"")
    assert stopping.errors == []


def test_starting_and_stopping_leaves_no_thread(stage: Stage, dispatch: str) -> None:
    before = threading.active_count()
    manager = stage.manager(start=False, dispatch=dispatch)
    for _ in range(20):
        manager.start()
        websocket, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("here"))
        assert peer.receive_text() == "here"
        manager.stop()
        assert peer.receive_close()[0] == 1001
        peer.close()
        manager.join(PATIENCE)
        assert not manager.is_alive()
        websocket.end()
    until(lambda: threading.active_count() <= before)
