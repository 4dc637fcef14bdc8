"""The broker of one process, where it has to do with processes, and with time."""

from __future__ import annotations

import os
import threading

import pytest

from tests.helpers import EchoRecorder, FakeClock, Peer, Stage, start_thread, unix_pair, wait_for
from tests.manager.test_faults import interrupted
from tests.manager.test_fork import in_child
from ws4py.broker import Interruption, MemoryBroker, Publication, Retention, Retentions
from ws4py.broker.histories import PUBLICATION_SIZE, RECORD_SIZE
from ws4py.broker.interface import KEY_SECONDS
from ws4py.framing import OPCODE_TEXT
from ws4py.manager import WebSocketManager
from ws4py.websocket import EchoWebSocket

NEWS = Publication("news", OPCODE_TEXT, b"x")


def test_it_is_delivered_when_publish_returns() -> None:
    """Also if another thread is in the midst of another one."""
    broker = MemoryBroker()
    entered, gate = threading.Event(), threading.Event()
    got: list[bytes] = []

    def receive(publication: Publication | Interruption) -> None:
        assert isinstance(publication, Publication)
        if not entered.is_set():
            entered.set()
            wait_for(gate)
        got.append(publication.payload)

    broker.subscribe("news", receive)
    first = start_thread(broker.publish, NEWS)
    wait_for(entered)
    second = start_thread(broker.publish, NEWS._replace(payload=b"y"))
    gate.set()
    second.result()
    assert got == [b"x", b"y"]
    first.result()


def test_the_main_thread_leaves_a_publication_to_who_delivers_and_does_not_come_to_an_end() -> None:
    """It may be in a signal handler, which has interrupted what that one waits for."""
    broker = MemoryBroker()
    entered, gate = threading.Event(), threading.Event()
    got: list[bytes] = []

    def receive(publication: Publication | Interruption) -> None:
        assert isinstance(publication, Publication)
        entered.set()
        wait_for(gate)
        got.append(publication.payload)

    broker.subscribe("news", receive)
    other = start_thread(broker.publish, NEWS)
    wait_for(entered)
    broker.publish(NEWS._replace(payload=b"y"))
    assert got == []
    gate.set()
    other.result()
    assert got == [b"x", b"y"]


def test_what_a_signal_handler_raises_keeps_nobody_else_from_publishing() -> None:
    broker = MemoryBroker()
    got: list[object] = []
    broker.subscribe("news", got.append)
    interrupted(200, lambda: broker.publish(NEWS))
    got.clear()
    start_thread(broker.publish, NEWS).result()
    assert got[-1:] == [NEWS]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_may_use_it_while_its_parent_delivers() -> None:
    broker = MemoryBroker()
    entered, gate = threading.Event(), threading.Event()

    def block(publication: Publication | Interruption) -> None:
        entered.set()
        wait_for(gate)

    broker.subscribe("news", block)
    task = start_thread(broker.publish, NEWS)
    wait_for(entered)

    def child() -> None:
        got: list[object] = []
        broker.unsubscribe("news", block)
        broker.subscribe("news", got.append)
        broker.publish(NEWS)
        assert got == [NEWS]

    try:
        in_child(child)
    finally:
        gate.set()
        task.result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_what_a_child_publishes_stays_in_the_child(stage: Stage) -> None:
    broker = MemoryBroker()
    manager = stage.manager(broker=broker)
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    websocket.subscribe("news")

    def child() -> None:
        ours, theirs = unix_pair()
        own = WebSocketManager(broker=broker, drain_timeout=0.0)
        with own:
            another = EchoWebSocket(ours)
            own.add(another)
            another.subscribe("news")
            own.publish("news", "of the child")
            assert Peer(theirs).receive_text() == "of the child"
            assert own.stats().publication_deliveries == 1
        stats = manager.stats()
        assert (stats.publication_deliveries, stats.topics.open, stats.topics.subscriptions) == (0, 0, 0)

    in_child(child)
    manager.publish("news", "of the parent")
    assert peer.receive_text() == "of the parent"


# --- what it keeps ----------------------------------------------------------------------------------------------------

KEPT = Retention(10, 60.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> MemoryBroker:
    return MemoryBroker(clock=clock)


def test_a_history_is_kept_until_some_time_after_the_newest(broker: MemoryBroker, clock: FakeClock) -> None:
    start = broker.history("news", KEPT).position
    for _ in range(2):
        clock.advance(60.0)
        broker.publish(NEWS, KEPT)
    clock.advance(60.0)
    assert len(broker.history("news", KEPT, start).publications) == 2
    clock.advance(0.1)
    assert broker.history("news", KEPT, start) == ((), start._replace(offset=2), False)
    assert broker.history("news", KEPT, start._replace(offset=2)).recovered
    broker.publish(NEWS, KEPT)
    assert [each.position for each in broker.history("news", KEPT, last=10).publications] == [start._replace(offset=3)]


def test_a_position_is_good_as_long_as_somebody_is_on_the_topic(broker: MemoryBroker, clock: FakeClock) -> None:
    def receive(publication: object) -> None:
        pass

    broker.subscribe("news", receive)
    start = broker.history("news", KEPT).position
    clock.advance(1000.0)
    for number in range(10):  # others come by
        broker.publish(Publication(str(number), OPCODE_TEXT, b"x"), KEPT)
    assert broker.history("news", KEPT, start) == ((), start, True)
    clock.advance(1000.0)
    broker.unsubscribe("news", receive)
    clock.advance(60.0)
    assert broker.history("news", KEPT, start) == ((), start, True)
    clock.advance(60.1)
    for _ in range(10):
        broker.publish(Publication("another", OPCODE_TEXT, b"x"), KEPT)
    assert not broker.history("news", KEPT, start).recovered


def test_topics_that_nobody_uses_are_forgotten(broker: MemoryBroker, clock: FakeClock) -> None:
    for number in range(500):
        broker.publish(Publication(str(number), OPCODE_TEXT, b"x"), KEPT)
    assert len(broker._histories) == 500
    clock.advance(60.1)
    for number in range(500):
        broker.publish(Publication(f"other {number % 2}", OPCODE_TEXT, b"x"), KEPT)
    assert len(broker._histories) == 2


def test_all_histories_together_are_bounded(clock: FakeClock) -> None:
    """Where messages had to go, it is said that they are missing; positions stay good where somebody is subscribed."""
    broker = MemoryBroker(clock=clock, max_kept=100_000)
    retention = Retention(200, 60.0)
    broker.subscribe("news", lambda publication: None)
    start = broker.history("news", retention).position
    for number in range(500):
        broker.publish(Publication("news" if number % 5 else f"{number}", OPCODE_TEXT, bytes(1000)), retention)
        assert broker._histories.size <= 100_000
    history = broker.history("news", retention, start, last=200)
    assert not history.recovered
    assert history.position == start._replace(offset=400)
    assert len(history.publications) < 100
    assert broker.history("news", retention, history.position).recovered
    for number in range(500, 2000):
        broker.publish(Publication(str(number), OPCODE_TEXT, b""), retention)
        assert broker._histories.size <= 100_000
    assert len(broker._histories) < 200
    assert broker.history("news", retention, history.position).recovered
    clock.advance(60.1)
    for _ in range(200):
        broker.publish(Publication("last", OPCODE_TEXT, b""), Retention(1, 60.0))
    assert len(broker._histories) == 2
    assert broker._histories.size == 2 * RECORD_SIZE + PUBLICATION_SIZE


def test_keys_are_known_for_a_while(broker: MemoryBroker, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[object] = []
    broker.subscribe("news", got.append)
    broker.publish(NEWS, key="1")
    clock.advance(KEY_SECONDS - 0.1)
    broker.publish(NEWS, key="1")
    broker.publish(NEWS, key="2")
    assert len(got) == 2
    clock.advance(0.1)
    broker.publish(NEWS, key="1")
    assert len(got) == 3
    monkeypatch.setattr("ws4py.broker.histories.MAX_KEYS", 2)
    broker.publish(NEWS, key="3")
    broker.publish(NEWS, key="2")
    assert len(got) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_goes_on_with_no_history_of_its_parent(broker: MemoryBroker) -> None:
    position = broker.history("news", KEPT).position
    broker.publish(NEWS, KEPT)
    broker.enter("news", "ann", b"", NEWS, NEWS)

    def child() -> None:
        broker.publish(NEWS, KEPT)
        history = broker.history("news", KEPT, position)
        assert not history.recovered
        assert history.position.epoch != position.epoch
        assert broker.presence("news") == {}

    in_child(child)
    assert broker.history("news", KEPT, position).recovered


def test_the_longest_rule_says_what_is_kept() -> None:
    rules = Retentions({"room/*": (10, 1), "room/big/*": (20, 2), "room/big": (30, 3), "*": (1, 9)})
    found = [rules.find(topic) for topic in ("room/1", "room/big/1", "room/big", "room", "")]
    assert found == [(10, 1), (20, 2), (30, 3), (1, 9), (1, 9)]
    assert Retentions().find("room") is None


@pytest.mark.parametrize("rule", [(0, 1), (-1, 1), (1.5, 1), (True, 1), (1, 0), (1, float("inf")), (1, float("nan"))])
def test_a_rule_that_can_not_be(rule: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="history of 'news'"):
        Retentions({"news": rule})
