"""Topics: who gets what is published, in which order, and what is left when nobody does any more."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers import (
    EchoRecorder,
    EchoWebSocket,
    Peer,
    Recorder,
    Script,
    Stage,
    quiet,
    start_thread,
    unix_pair,
    until,
    wait_for,
)
from tests.manager.test_faults import signals
from tests.manager.test_limits import fill
from ws4py.exc import ConnectionClosed, ManagerError, TooManyTopics
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_TEXT
from ws4py.limits import Limits, OverflowPolicy
from ws4py.manager import WebSocketManager
from ws4py.manager.fanout import SharedMessage
from ws4py.manager.registry import Registry
from ws4py.manager.topics import Topics
from ws4py.messaging import PingControlMessage, TextMessage
from ws4py.websocket import WebSocket


def subscribed(
    stage: Stage, manager: WebSocketManager, *topics: str, overflow: OverflowPolicy | None = None, small: bool = False
) -> tuple[Recorder, Peer]:
    """Return a websocket that is on topics, and its peer."""
    websocket, peer = stage.connect(manager, EchoRecorder, small=small)
    wait_for(websocket.was_opened)
    for topic in topics:
        websocket.subscribe(topic, overflow)
    return websocket, peer


def stalled(
    stage: Stage, manager: WebSocketManager, *topics: str, overflow: OverflowPolicy | None = None
) -> tuple[Recorder, Peer]:
    """Return a websocket that is on topics and whose outbox is full, and its peer."""
    websocket, peer = subscribed(stage, manager, *topics, overflow=overflow, small=True)
    fill(manager, websocket)
    return websocket, peer


def news(peer: Peer) -> Iterator[bytes]:
    """What a peer gets behind the messages that have filled the outbox."""
    return itertools.dropwhile(lambda message: message == bytes(10_000), iter(peer.receive_message, None))


def totals(manager: WebSocketManager) -> tuple[int, int]:
    """How many topics there are, and how many subscriptions."""
    stats = manager.stats()
    return stats.topics.open, stats.topics.subscriptions


# --- who gets it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 32])
def test_a_publication_reaches_those_on_the_topic(stage: Stage, workers: int) -> None:
    manager = stage.manager(workers=workers)
    _, one = subscribed(stage, manager, "news", "sport")
    _, two = subscribed(stage, manager, "news")
    _, other = subscribed(stage, manager, "weather")
    manager.publish("news", "text")
    manager.publish("news", b"\xff", binary=True)
    manager.publish("sport", TextMessage("goal"))
    manager.publish("chess", "nobody is on it")
    for peer in (one, two):
        assert peer.receive() == (FIN | OPCODE_TEXT, b"text")
        assert peer.receive() == (FIN | OPCODE_BINARY, b"\xff")
    assert one.receive_text() == "goal"
    for peer in (one, two, other):
        peer.send(peer.text("and no more"))
        assert peer.receive_text() == "and no more"
    stats = manager.stats()
    assert (stats.publications, stats.publication_deliveries) == (4, 5)
    assert (stats.topics.open, stats.topics.subscriptions) == (3, 4)
    assert (stats.broadcasts, stats.deliveries) == (0, 0)


def test_a_subscription_in_opened_misses_nothing(stage: Stage) -> None:
    """Another thread publishes all the time: from the first number that comes on, all come."""
    manager = stage.manager()
    ended = threading.Event()
    published = -1
    promised = {}

    def publish() -> None:
        nonlocal published
        for number in itertools.count():
            if ended.is_set():
                return
            published = number
            manager.publish("numbers", str(number))

    def opened(websocket: WebSocket) -> None:
        websocket.subscribe("numbers")
        promised[websocket] = published + 1  # this one has not been published yet

    publisher = start_thread(publish)
    connections = [stage.connect(manager, Script.of(opened=opened)) for _ in range(20)]
    for websocket, _ in connections:
        wait_for(websocket.was_opened)
    ended.set()
    publisher.result()
    manager.publish("numbers", "end")
    for websocket, peer in connections:
        numbers = [int(text) for text in iter(peer.receive_text, "end")]
        assert numbers == list(range(published + 1 - len(numbers), published + 1))
        assert len(numbers) >= published + 1 - promised[websocket]


def test_a_callback_may_publish_to_its_own_topic(stage: Stage) -> None:
    def opened(websocket: WebSocket) -> None:
        websocket.subscribe("room")
        manager.publish("room", "somebody has come")

    manager = stage.manager()
    _, one = stage.connect(manager, Script.of(opened=opened))
    assert one.receive_text() == "somebody has come"
    _, two = stage.connect(manager, Script.of(opened=opened))
    assert one.receive_text() == two.receive_text() == "somebody has come"


def test_who_unsubscribes_gets_no_more(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = subscribed(stage, manager, "a", "b")
    websocket.unsubscribe("a")
    websocket.unsubscribe("a")
    websocket.unsubscribe("never")
    manager.publish("a", "of a")
    manager.publish("b", "of b")
    assert peer.receive_text() == "of b"
    assert websocket.topics == {"b"}
    assert totals(manager) == (1, 1)
    websocket.unsubscribe("b")
    assert websocket.topics == frozenset()
    assert totals(manager) == (0, 0)
    websocket.subscribe("a")
    manager.publish("a", "again")
    assert peer.receive_text() == "again"


def test_to_subscribe_twice_is_to_subscribe_once(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = subscribed(stage, manager, "news", "news")
    assert totals(manager) == (1, 1)
    manager.publish("news", "once")
    manager.publish("news", "next")
    assert [peer.receive_text(), peer.receive_text()] == ["once", "next"]
    websocket.unsubscribe("news")
    assert totals(manager) == (0, 0)


def test_a_topic_of_one_costs_what_one_costs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is looked at who is not on the topic, and a message for nobody is not even encoded."""
    manager = stage.manager()
    _, peer = subscribed(stage, manager, "mine")
    for _ in range(50):
        subscribed(stage, manager, "theirs")
    offers: Counter[str] = Counter()
    offer, make = SharedMessage.offer, SharedMessage.__init__

    def counting(message: SharedMessage, *arguments: Any) -> bool:
        offers["offered"] += 1
        return offer(message, *arguments)

    def making(message: SharedMessage, *arguments: Any) -> None:
        offers["made"] += 1
        make(message, *arguments)

    monkeypatch.setattr(SharedMessage, "offer", counting)
    monkeypatch.setattr(SharedMessage, "__init__", making)
    monkeypatch.setattr(Registry, "members", None)
    manager.publish("mine", "x")
    manager.publish("nobody's", "x")
    assert offers == {"offered": 1, "made": 1}
    manager.publish("theirs", "x")
    assert offers == {"offered": 51, "made": 2}
    assert peer.receive_text() == "x"
    monkeypatch.undo()


def test_an_application_may_have_topics_of_its_own(stage: Stage) -> None:
    class Program(EchoRecorder):
        topics: Any

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.topics = ["mine"]

    websocket, _ = stage.connect(stage.manager(), Program)
    wait_for(websocket.was_opened)
    websocket.subscribe("news")
    assert websocket.topics == ["mine"]


# --- in which order ---------------------------------------------------------------------------------------------------


def received(peers: list[Peer], count: int) -> list[list[str]]:
    """What each peer gets, while all read at once."""
    readers = [start_thread(lambda peer=peer: [peer.receive_text() for _ in range(count)]) for peer in peers]
    results: list[Any] = [reader.result() for reader in readers]
    return results


def test_all_get_the_publications_to_a_topic_in_one_order(stage: Stage) -> None:
    manager = stage.manager()
    peers = [subscribed(stage, manager, "one", "two")[1] for _ in range(10)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def publish(name: str) -> None:
        for number in range(150):
            manager.publish("one", f"one {name} {number}")
            manager.publish("two", f"two {name} {number}")

    try:
        publishers = [start_thread(publish, name) for name in "abcd"]
        results = received(peers, 2 * 150 * len(publishers))
        for publisher in publishers:
            publisher.result()
    finally:
        sys.setswitchinterval(interval)
    for topic in ("one", "two"):
        orders = [[text for text in texts if text.startswith(topic)] for texts in results]
        assert all(order == orders[0] for order in orders)
        for name in "abcd":
            expected = [f"{topic} {name} {number}" for number in range(150)]
            assert [text for text in orders[0] if text.split()[1] == name] == expected


def test_a_signal_handlers_publications_have_the_same_order_for_all(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None, max_outbox_size=1 << 28)
    peers = [subscribed(stage, manager, "news")[1] for _ in range(10)]
    readers = [start_thread(lambda peer=peer: list(iter(peer.receive_text, "end"))) for peer in peers]
    sent: Counter[str] = Counter()

    def handle() -> None:
        sent["theirs"] += 1
        manager.publish("news", f"theirs {sent['theirs']}")

    with signals(handle):
        while sent["ours"] < 500 or sent["theirs"] < 50:
            sent["ours"] += 1
            manager.publish("news", f"ours {sent['ours']}")
    until(lambda: manager.stats().publication_deliveries == sum(sent.values()) * len(peers))
    manager.publish("news", "end")
    results: list[Any] = [reader.result() for reader in readers]
    assert all(texts == results[0] for texts in results)
    assert len(results[0]) == sum(sent.values())


# --- an outbox that is full -------------------------------------------------------------------------------------------


def test_events_close_who_does_not_read(stage: Stage) -> None:
    """It is the default; and who reads gets them all the same."""
    manager = stage.manager(max_outbox_size=20_000)
    _, slow = stalled(stage, manager, "events")
    _, reader = subscribed(stage, manager, "events")
    manager.publish("events", "event")
    assert reader.receive_text() == "event"
    assert slow.receive_rest_until_close()[-1].payload[:2] == (1013).to_bytes(2, "big")
    stats = manager.stats()
    assert stats.limits["overflow_close"] == 1
    assert stats.publication_deliveries == 1


def test_of_a_state_the_newest_is_kept_for_each_topic(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000)
    websocket, slow = stalled(stage, manager, "price of a", "price of b", overflow="latest")
    for number in range(10):
        manager.publish("price of a", f"a {number}")
        manager.publish("price of b", f"b {number}")
    messages = news(slow)
    assert [next(messages), next(messages)] == [b"a 9", b"b 9"]
    manager.publish("price of a", "a 10")
    assert next(messages) == b"a 10"
    assert websocket.ends == []


def test_a_publication_may_be_dropped(stage: Stage) -> None:
    manager = stage.manager(max_outbox_size=20_000, overflow="close")
    websocket, slow = stalled(stage, manager, "news")
    websocket.subscribe("news", "drop")
    manager.publish("news", "lost")
    task = start_thread(websocket.send, "next")
    messages = news(slow)
    assert next(messages) == b"next"
    task.result()
    assert manager.stats().limits["overflow_drop"] == 1


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 32])
@pytest.mark.parametrize("end", ["peer", "close", "terminate", "eof", "raise", "remove"])
def test_a_topic_goes_with_the_last_one_on_it(stage: Stage, end: str, workers: int) -> None:
    manager = stage.manager(workers=workers)

    def fail(websocket: WebSocket, message: Any) -> None:
        raise ArithmeticError

    websocket, peer = stage.connect(manager, Script.of(message=fail))
    wait_for(websocket.was_opened)
    websocket.subscribe("shared")
    websocket.subscribe("own")
    other, _ = subscribed(stage, manager, "shared")
    assert totals(manager) == (2, 3)
    with quiet():
        if end == "peer":
            peer.say_goodbye()
        elif end == "close":
            websocket.close()
            peer.receive_close()
            peer.send(peer.goodbye())
        elif end == "terminate":
            websocket.terminate()
        elif end == "eof":
            peer.close()
        elif end == "raise":
            peer.send(peer.text("x"))
            peer.receive_close()
            peer.send(peer.goodbye())
        else:
            manager.remove(websocket)
        until(lambda: totals(manager) == (1, 1))
    manager.publish("own", "nobody gets it")
    other.unsubscribe("shared")
    assert totals(manager) == (0, 0)


def test_in_closed_the_topics_are_those_of_the_end(stage: Stage) -> None:
    seen: list[Any] = []

    def closed(websocket: WebSocket, code: int, reason: Any) -> None:
        seen.append(websocket.topics)
        manager.publish("room", "somebody has left")
        with pytest.raises(ConnectionClosed):
            websocket.subscribe("another")
        websocket.unsubscribe("room")

    manager = stage.manager()
    websocket, peer = stage.connect(manager, Script.of(closed=closed))
    wait_for(websocket.was_opened)
    websocket.subscribe("room")
    websocket.subscribe("b")
    _, other = subscribed(stage, manager, "room")
    peer.say_goodbye()
    assert other.receive_text() == "somebody has left"
    websocket.end()
    assert seen == [{"room", "b"}]
    until(lambda: websocket.stream is None and not websocket.topics)


def test_a_closed_websocket_gets_on_no_topic(stage: Stage) -> None:
    manager = stage.manager()
    closing, _ = subscribed(stage, manager, "before")
    closing.close()
    with pytest.raises(ConnectionClosed):
        closing.subscribe("news")
    closed, peer = subscribed(stage, manager, "before")
    peer.say_goodbye()
    closed.end()
    until(lambda: closed.stream is None)
    with pytest.raises(ConnectionClosed):
        closed.subscribe("news")
    closed.unsubscribe("news")
    until(lambda: not closed.topics)


@pytest.mark.parametrize("workers", [0, 32])
def test_who_subscribes_and_leaves_at_once_is_no_error(stage: Stage, workers: int) -> None:
    """Its Close is known already when its message is handled."""
    manager = stage.manager(workers=workers)
    websocket, peer = stage.connect(manager, Script.of(message=lambda websocket, message: websocket.subscribe("news")))
    wait_for(websocket.was_opened)
    with quiet() as records:
        peer.send(peer.text("subscribe"), peer.goodbye(1000, "bye"))
        assert peer.receive_close() == (1000, "")
        assert websocket.end() == (1000, b"bye")
    assert [record for record in records if record.levelname != "DEBUG"] == []
    assert totals(manager) == (0, 0)


def test_a_websocket_without_a_manager_is_on_no_topic(stage: Stage) -> None:
    websocket, peer = stage.connect(None, EchoRecorder)
    for use in (websocket.subscribe, websocket.unsubscribe):
        with pytest.raises(ManagerError, match="no manager runs"):
            use("news")
    assert websocket.topics == frozenset()
    runner = start_thread(websocket.run)
    wait_for(websocket.was_opened)
    with pytest.raises(ManagerError, match="no manager runs"):
        websocket.subscribe("news")
    peer.say_goodbye()
    runner.result()
    with pytest.raises(ConnectionClosed):
        websocket.subscribe("news")
    websocket.unsubscribe("news")


def test_under_another_manager_it_is_on_no_topic_of_the_first(stage: Stage) -> None:
    first, second = stage.manager(), stage.manager()
    websocket, peer = stage.connect(first, EchoWebSocket)
    peer.sync()
    websocket.subscribe("news")
    first.remove(websocket)
    second.add(websocket)
    websocket.subscribe("sport")
    first.publish("news", "of the first")
    second.publish("news", "of the second")
    second.publish("sport", "goal")
    assert peer.receive_text() == "goal"
    assert websocket.topics == {"sport"}


def test_a_manager_that_starts_again_has_no_topics(stage: Stage) -> None:
    manager = stage.manager(drain_timeout=0.0)
    subscribed(stage, manager, "news")
    manager.stop()
    manager.join()
    assert totals(manager) == (0, 0)
    manager.start()
    _, peer = subscribed(stage, manager, "news")
    manager.publish("news", "again")
    assert peer.receive_text() == "again"


def test_subscriptions_of_many_threads_leave_nothing(stage: Stage) -> None:
    """While others publish, and websockets come and go."""
    manager = stage.manager()
    ended = threading.Event()

    def publish() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            manager.publish(f"topic {number % 5}", "x")

    def come_and_go(name: int) -> None:
        for turn in range(20):
            ours, theirs = unix_pair()
            websocket, peer = EchoWebSocket(ours), Peer(theirs)
            manager.add(websocket)
            for number in range(5):
                websocket.subscribe(f"topic {number}")
                websocket.unsubscribe(f"topic {(number + name) % 5}")
            if turn % 2:
                websocket.terminate()
            peer.close()

    publisher = start_thread(publish)
    threads = [start_thread(come_and_go, name) for name in range(5)]
    for thread in threads:
        thread.result()
    ended.set()
    publisher.result()
    until(lambda: totals(manager) == (0, 0))
    until(lambda: not len(manager))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_websocket_is_on_max_topics_at_most(stage: Stage) -> None:
    manager = stage.manager(max_topics=2)
    websocket, peer = subscribed(stage, manager, "a", "b")
    with pytest.raises(TooManyTopics, match="max_topics"):
        websocket.subscribe("c")
    websocket.subscribe("b", "latest")
    assert websocket.topics == {"a", "b"}
    assert manager.stats().limits["max_topics"] == 1
    websocket.unsubscribe("a")
    websocket.subscribe("c")
    manager.publish("c", "x")
    assert peer.receive_text() == "x"
    assert totals(manager) == (2, 2)


def test_without_max_topics_there_may_be_any_number(stage: Stage) -> None:
    manager = stage.manager(max_topics=None)
    websocket, _ = subscribed(stage, manager, *map(str, range(1000)))
    assert totals(manager) == (1000, 1000)
    assert len(websocket.topics) == 1000


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "\ud800"])
def test_a_name_has_1_to_255_bytes(stage: Stage, name: str) -> None:
    manager = stage.manager()
    websocket, _ = subscribed(stage, manager, "x" * 255, "é" * 127)
    with pytest.raises(ValueError, match=r"255 bytes|surrogates"):
        websocket.subscribe(name)
    with pytest.raises(ValueError, match=r"255 bytes|surrogates"):
        manager.publish(name, "x")
    assert totals(manager) == (2, 2)


def test_arguments_that_can_not_be(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = subscribed(stage, manager, "news")
    name: Any = b"news"
    with pytest.raises(TypeError, match="is a str"):
        websocket.subscribe(name)
    with pytest.raises(TypeError, match="is a str"):
        manager.publish(name, "x")
    policy: Any = "wait"
    with pytest.raises(ValueError, match="close, drop, latest"):
        websocket.subscribe("sport", policy)
    with pytest.raises(ValueError, match="control frame"):
        manager.publish("news", PingControlMessage("x"))
    assert websocket.topics == {"news"}
    peer.send(peer.text("and nothing was sent"))
    assert peer.receive_text() == "and nothing was sent"


# --- memory -----------------------------------------------------------------------------------------------------------


class Somebody:
    """A subscriber."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.subscriptions: Any = None


def allocated(count: int, per_subscriber: int, topics: int) -> float:
    """How many bytes a subscription takes, of so many subscribers on so many of the topics each."""
    limits = Limits()
    engine: Any = SimpleNamespace(count_limit=None)
    connection: Any = SimpleNamespace(may_append=True, limits=limits)
    subscribers = [Somebody(connection) for _ in range(count)]
    registry = Topics(engine, threading.RLock)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number, subscriber in enumerate(subscribers):
            for turn in range(per_subscriber):
                registry.subscribe(subscriber, f"topic {(number * per_subscriber + turn) % topics}", None)
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert registry.subscriptions == count * per_subscriber
    assert len(registry) == topics
    return used / registry.subscriptions


@pytest.mark.parametrize(
    ("count", "per_subscriber", "topics", "most"),
    [(5000, 1, 50, 300), (5000, 10, 500, 150), (5000, 1, 1, 300), (5000, 1, 5000, 600)],
    ids=["one topic each", "ten topics each", "a topic of all", "topics of one"],
)
def test_a_subscription_takes_little_memory(count: int, per_subscriber: int, topics: int, most: int) -> None:
    assert allocated(count, per_subscriber, topics) <= most
