"""The end of a manager: everybody is told, nobody is waited for longer than allowed, and it can start again."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.helpers import (
    PATIENCE,
    EchoRecorder,
    FakeClock,
    Gate,
    Recorder,
    RestlessPoller,
    Script,
    Stage,
    open_fds,
    quiet,
    start_thread,
    tcp_pair,
    until,
    wait_for,
)
from ws4py.exc import ConnectionClosed, ManagerError
from ws4py.manager import WebSocketManager, process
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

PROMPTLY = 5.0
"""Seconds; far less than the drain that is allowed, and far more than is needed."""


def end(manager: WebSocketManager) -> float:
    """Stop and join; return how many seconds that took."""
    began = time.monotonic()
    manager.stop()
    manager.join(PATIENCE)
    assert not manager.is_alive()
    return time.monotonic() - began


def test_an_empty_manager_ends_at_once(stage: Stage) -> None:
    assert end(stage.manager()) < PROMPTLY


@pytest.mark.parametrize("workers", [0, 4])
def test_peers_that_answer_are_waited_for(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers, drain_timeout=PATIENCE)
    connections = [stage.connect(manager, EchoRecorder) for _ in range(10)]
    began = time.monotonic()
    manager.stop()
    assert not manager.running
    for _, peer in connections:
        assert peer.receive_close() == (1001, "Server is shutting down")
        peer.send(peer.text("my last words"), peer.goodbye(1001))
    for websocket, _ in connections:
        assert websocket.end() == (1001, b"")
        assert websocket.messages == [b"my last words"]
    manager.join(PATIENCE)
    assert not manager.is_alive()
    assert time.monotonic() - began < PROMPTLY


def test_managers_that_are_shut_down_together_have_one_deadline(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what one of them does is no other's affair."""
    monkeypatch.setattr(process, "GRACE", 0.5)
    managers = [stage.manager(workers=0, drain_timeout=0.1) for _ in range(20)]
    connections = [stage.connect(manager, Gate) for manager in managers]
    for websocket, peer in connections:
        peer.send(peer.text("wait"))
        websocket.wait_entered()
    began = time.monotonic()
    process.shut_down(*managers)
    assert time.monotonic() - began < PROMPTLY


@pytest.mark.parametrize("workers", [0, 4])
def test_peers_that_do_not_answer_are_dropped(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers, drain_timeout=0.3)
    connections = [stage.connect(manager, EchoRecorder) for _ in range(10)]
    for _, peer in connections:
        peer.sync()
    assert 0.25 < end(manager) < PROMPTLY
    for websocket, peer in connections:
        assert websocket.end() == (1006, "Going away")
        assert peer.receive_close()[0] == 1001
        peer.expect_end()
        assert [websocket.sock, websocket.stream, websocket.environ].count(None) == 3
    assert len(manager) == 0
    assert manager.stats().limits["drain_timeout"] == 10


def test_the_drain_goes_by_the_managers_clock(stage: Stage) -> None:
    clock, poller = FakeClock(), RestlessPoller()
    manager = stage.manager(poller=poller, clock=clock, drain_timeout=10.0, close_timeout=100.0)
    websocket, peer = stage.connect(manager, Recorder)
    peer.sync()
    manager.stop()
    assert peer.receive_close()[0] == 1001
    poller.wait_for_rounds()
    clock.advance(9.9)
    poller.wait_for_rounds()
    assert manager.is_alive()
    assert websocket.ends == []
    clock.advance(0.2)
    assert websocket.end()[0] == 1006
    manager.join(PATIENCE)
    assert not manager.is_alive()


def test_a_crowd_is_told_at_a_pace(stage: Stage) -> None:
    """So that not all come back in the same moment: half of the time is used for it."""
    clock = FakeClock()
    manager = stage.manager(poller=RestlessPoller(), clock=clock, drain_timeout=1.0, close_timeout=100.0)
    connections = [stage.connect(manager, Recorder) for _ in range(250)]
    for _, peer in connections:
        peer.sync()
    manager.stop()
    until(lambda: sum(websocket.server_terminated for websocket, _ in connections) == 100)
    clock.advance(0.051)
    until(lambda: sum(websocket.server_terminated for websocket, _ in connections) == 200)
    clock.advance(0.051)
    until(lambda: all(websocket.server_terminated for websocket, _ in connections))
    clock.advance(1.0)
    for websocket, _ in connections:
        websocket.end()


@pytest.mark.parametrize(("pace", "step", "number"), [(4, 0.25, 1), (100, 0.05, 5)])
def test_a_pace_that_is_asked_for(stage: Stage, pace: int, step: float, number: int) -> None:
    clock, poller = FakeClock(), RestlessPoller()
    manager = stage.manager(poller=poller, clock=clock, drain_timeout=2.5, close_timeout=100.0, drain_pace=pace)
    connections = [stage.connect(manager, Recorder) for _ in range(3 * number)]
    for _, peer in connections:
        peer.sync()

    def told() -> int:
        return sum(websocket.server_terminated for websocket, _ in connections)

    manager.stop()
    until(lambda: told() == number)
    clock.advance(0.9 * step)
    poller.wait_for_rounds()
    assert told() == number
    clock.advance(0.2 * step)
    until(lambda: told() == 2 * number)
    clock.advance(2.5)  # however many are left
    for websocket, _ in connections:
        websocket.end()
    manager.join(PATIENCE)
    assert not manager.is_alive()


def test_a_drain_of_no_time_still_says_goodbye(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0)
    websocket, peer = stage.connect(manager, Recorder)
    peer.sync()
    assert end(manager) < PROMPTLY
    assert peer.receive_close() == (1001, "Server is shutting down")
    peer.expect_end()
    assert websocket.end()[0] == 1006


def test_peers_that_do_not_read_delay_nothing(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.3, max_outbox_size=20_000, send_timeout=10 * PATIENCE)
    websocket, _ = stage.connect(manager, Recorder, small=True)

    def stuff() -> None:
        while True:
            websocket.send(bytes(10_000), binary=True)

    task = start_thread(stuff)
    until(lambda: manager.stats().limits["outbox"])
    assert end(manager) < PROMPTLY
    with pytest.raises(ConnectionClosed):
        task.result()
    assert websocket.end()[0] == 1006


def test_a_blocked_handler_is_left_behind_and_others_get_their_closed(stage: Stage) -> None:
    """With one worker blocked, and no other one there yet, the last callbacks of the others still come."""
    manager = stage.manager(workers=4, drain_timeout=0.2)
    websocket, peer = stage.connect(manager, Gate)
    others = [stage.connect(manager, Recorder) for _ in range(20)]
    for other, _ in others:
        wait_for(other.was_opened)
    peer.send(peer.text("block"))
    websocket.wait_entered()
    assert end(manager) < PROMPTLY
    for other, _ in others:
        assert other.end()[0] == 1006
    assert websocket.ends == []
    websocket.gate.set()
    assert websocket.end()[0] == 1006
    assert websocket.messages == [b"block"]


def test_stop_in_a_handler(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.2)

    def on_message(websocket: WebSocket, message: Message) -> None:
        manager.stop()
        manager.join(PATIENCE)
        joined.set()

    joined = threading.Event()
    websocket, peer = stage.connect(manager, Script.of(message=on_message))
    peer.send(peer.text("stop"))
    wait_for(joined)
    assert not manager.is_alive()
    assert websocket.end()[0] == 1006


def test_stop_and_join_in_a_handler_without_workers(stage: Stage) -> None:
    """A thread can't wait for itself: join() then returns at once."""
    manager = stage.manager(workers=0, drain_timeout=0.2)

    def on_message(websocket: WebSocket, message: Message) -> None:
        manager.stop()
        manager.join()

    websocket, peer = stage.connect(manager, Script.of(message=on_message))
    peer.send(peer.text("stop"))
    assert websocket.end()[0] == 1006
    manager.join(PATIENCE)
    assert not manager.is_alive()


def test_a_handler_that_is_woken_by_the_stop(stage: Stage) -> None:
    """It waits for room that never comes; the end of the connection ends its wait."""
    manager = stage.manager(drain_timeout=0.2, max_outbox_size=20_000, send_timeout=10 * PATIENCE)
    errors: list[BaseException] = []

    def on_message(websocket: WebSocket, message: Message) -> None:
        try:
            while True:
                websocket.send(bytes(10_000), binary=True)
        except ConnectionClosed as error:
            errors.append(error)

    websocket, peer = stage.connect(manager, Script.of(message=on_message), small=True)
    peer.send(peer.text("go"))
    until(lambda: manager.stats().limits["outbox"])
    assert end(manager) < PROMPTLY
    websocket.end()
    assert len(errors) == 1


def test_join_has_a_deadline(stage: Stage) -> None:
    manager = stage.manager()
    began = time.monotonic()
    manager.join(0.01)
    assert time.monotonic() - began < PROMPTLY
    assert manager.is_alive()


def test_join_before_start_returns(stage: Stage) -> None:
    stage.manager(start=False).join()


def test_stopping_again_or_before_start(stage: Stage) -> None:
    manager = stage.manager()
    for _ in range(3):
        manager.stop()
    manager.join(PATIENCE)
    manager.stop()
    manager.join()
    fresh = stage.manager(start=False)
    fresh.stop()
    fresh.join()
    fresh.start()
    assert fresh.running


def test_many_threads_stop_and_join(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.1)
    _, peer = stage.connect(manager, Recorder)
    peer.sync()
    for task in [start_thread(end, manager) for _ in range(8)]:
        task.result()


def test_add_after_stop(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.2)
    _, peer = stage.connect(manager, Recorder)
    peer.sync()
    late, peer_of_late = stage.connect(None, Recorder)
    manager.stop()
    with pytest.raises(ManagerError, match="was stopped"):
        manager.add(late)
    manager.join(PATIENCE)
    with pytest.raises(ManagerError, match="was stopped"):
        manager.add(late)
    with pytest.raises(RuntimeError):
        manager.add(late)
    assert late not in manager
    late.send("still its own")
    assert peer_of_late.receive_text() == "still its own"


def test_adding_while_it_stops(stage: Stage) -> None:
    """Each is either refused, or ended with all others."""
    for _ in range(10):
        manager = stage.manager(drain_timeout=0.1)
        added: list[Recorder] = []
        refused: list[Recorder] = []

        def add(
            manager: WebSocketManager = manager, added: list[Recorder] = added, refused: list[Recorder] = refused
        ) -> None:
            while not refused:
                websocket, _ = stage.connect(None, Recorder)
                try:
                    manager.add(websocket)
                    added.append(websocket)
                except ManagerError:
                    refused.append(websocket)

        task = start_thread(add)
        until(lambda: len(added) > 3)  # noqa: B023 - it is called here
        end(manager)
        task.result()
        for websocket in added:
            assert websocket.end()[0] == 1006
        assert len(manager) == 0
        for websocket in refused:
            assert websocket.events == []


def test_using_it_after_its_end(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, Recorder)
    peer.close()
    websocket.end()
    end(manager)
    assert manager.broadcast("x") == 0
    manager.close_all()
    manager.remove(websocket)
    assert list(manager) == []
    assert websocket not in manager
    websocket.terminate()
    websocket.close()


@pytest.mark.parametrize("workers", [0, 4])
def test_it_starts_again(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers, drain_timeout=0.1)
    for number in range(5):
        websocket, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text(f"round {number}"))
        assert peer.receive_text() == f"round {number}"
        with pytest.raises(ManagerError, match="running already"):
            manager.start()
        end(manager)
        assert websocket.end()[0] == 1006
        manager.start()
    assert manager.stats().connections.opened == 5


def test_it_starts_again_with_a_poller_of_ones_own(stage: Stage) -> None:
    poller = RestlessPoller()
    manager = stage.manager(poller=poller, drain_timeout=0.1)
    for _ in range(3):
        _, peer = stage.connect(manager, EchoRecorder)
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
        end(manager)
        manager.start()


def test_a_handler_left_behind_does_not_trouble_the_next_round(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.1)
    blocked, peer = stage.connect(manager, Gate)
    peer.send(peer.text("block"))
    blocked.wait_entered()
    end(manager)
    manager.start()
    _, peer_of_next = stage.connect(manager, EchoRecorder)
    peer_of_next.send(peer_of_next.text("x"))
    assert peer_of_next.receive_text() == "x"
    blocked.gate.set()
    assert blocked.end()[0] == 1006
    peer_of_next.send(peer_of_next.text("y"))
    assert peer_of_next.receive_text() == "y"
    assert len(manager) == 1


def test_nothing_is_left_open(stage: Stage) -> None:
    fds = open_fds()
    threads = set(threading.enumerate())
    for workers in (0, 4):
        manager = WebSocketManager(workers=workers, drain_timeout=0.0)
        manager.start()
        websocket, peer = stage.connect(manager, EchoRecorder, tcp_pair)
        peer.send(peer.text("x"))
        assert peer.receive_text() == "x"
        end(manager)
        websocket.end()
        peer.close()
    until(lambda: set(threading.enumerate()) == threads)
    assert open_fds() == fds


class BrokenPoller(RestlessPoller):
    """Fails when it is told to."""

    broken = False

    def poll(self, timeout: float | None = None) -> Any:
        if self.broken:
            raise OSError("the poller is broken")
        return super().poll(timeout)


def test_a_poller_that_fails_ends_all_in_order(stage: Stage) -> None:
    """That can't be survived; but it is said, every closed() is called, and the manager can be started again."""
    poller = BrokenPoller()
    manager = stage.manager(poller=poller)
    websocket, peer = stage.connect(manager, EchoRecorder)
    peer.sync()
    with quiet() as records:
        poller.broken = True
        assert websocket.end()[0] == 1006
        manager.join(PATIENCE)
    assert "its connections were dropped" in records[0].getMessage()
    assert peer.receive_close()[0] == 1001
    peer.expect_end()
    with pytest.raises(ManagerError):
        manager.add(stage.connect(None, Recorder)[0])
    poller.broken = False
    manager.start()
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
