"""What every broker promises: each of them runs these tests."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE, EchoRecorder, Peer, Recorder, Stage, quiet, start_thread, until, wait_for
from tests.manager.test_faults import signals
from tests.redis_server import broker_maker
from ws4py.broker import Broker, Interruption, MemoryBroker, Position, Publication, Retention
from ws4py.exc import BrokerError
from ws4py.framing import OPCODE_BINARY, OPCODE_TEXT
from ws4py.manager import WebSocketManager


@pytest.fixture(params=["memory", "redis"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    if request.param == "redis":
        with broker_maker(request.getfixturevalue("shared_redis")) as make:
            yield make()
    else:
        broker = MemoryBroker()
        yield broker
        broker.close()


class Reader:
    """A receiver that keeps what it gets, and sees whether it gets two at once."""

    def __init__(self) -> None:
        self.got: list[Publication] = []
        self.overlapped = False
        self._inside = threading.Lock()

    def __call__(self, publication: Publication | Interruption) -> None:
        assert isinstance(publication, Publication)
        if not self._inside.acquire(blocking=False):
            self.overlapped = True
            return
        self.got.append(publication)
        self._inside.release()

    def wait_for(self, *texts: str) -> None:
        """Wait until it has got these texts, and no others."""
        until(lambda: len(self.got) >= len(texts))
        assert [publication.payload.decode() for publication in self.got] == list(texts)

    def wait_for_number(self, number: int) -> None:
        until(lambda: len(self.got) == number)

    def wait_until_after(self, position: Position) -> None:
        until(lambda: self.got and self.got[-1].position is not None and self.got[-1].position > position)

    def wait_for_last(self, text: str) -> None:
        until(lambda: self.got and self.got[-1].payload == text.encode())


def publish(broker: Broker, topic: str, text: str) -> None:
    broker.publish(Publication(topic, OPCODE_TEXT, text.encode()))


def settle(broker: Broker) -> None:
    """Wait until what was published is out, and who has unsubscribed is."""
    broker.flush(PATIENCE)
    assert broker.wait_subscribed(PATIENCE)


def test_it_carries_what_is_published_to_those_on_the_topic(broker: Broker) -> None:
    one, two, other = Reader(), Reader(), Reader()
    broker.subscribe("news", one)
    broker.subscribe("news", two)
    broker.subscribe("sport", other)
    publications = [
        Publication("news", OPCODE_TEXT, "é".encode()),
        Publication("news", OPCODE_BINARY, b"\0\xff\r\n" * 999),
    ]
    for publication in publications:
        broker.publish(publication)
    broker.publish(Publication("chess", OPCODE_TEXT, b"nobody is on it"))
    publish(broker, "sport", "goal")
    for reader in (one, two):
        reader.wait_for_number(2)
        assert reader.got == publications
    other.wait_for("goal")


def test_to_subscribe_twice_is_to_subscribe_once(broker: Broker) -> None:
    reader = Reader()
    broker.subscribe("news", reader)
    broker.subscribe("news", reader)
    publish(broker, "news", "a")
    publish(broker, "news", "b")
    reader.wait_for("a", "b")
    broker.unsubscribe("news", reader)
    other = Reader()
    broker.subscribe("news", other)
    publish(broker, "news", "c")
    other.wait_for("c")
    reader.wait_for("a", "b")


def test_who_unsubscribes_gets_no_more(broker: Broker) -> None:
    gone, stays = Reader(), Reader()
    for reader in (gone, stays):
        broker.subscribe("news", reader)
    broker.unsubscribe("news", gone)
    broker.unsubscribe("news", gone)
    broker.unsubscribe("never", gone)
    publish(broker, "news", "a")
    stays.wait_for("a")
    assert gone.got == []
    broker.subscribe("news", gone)
    publish(broker, "news", "b")
    gone.wait_for("b")


def test_a_topic_that_has_gone_comes_back(broker: Broker) -> None:
    reader = Reader()
    for number in range(5):
        broker.subscribe("news", reader)
        publish(broker, "news", str(number))
        reader.wait_for(*map(str, range(number + 1)))
        broker.unsubscribe("news", reader)
    settle(broker)
    publish(broker, "news", "for nobody")
    settle(broker)
    broker.subscribe("news", reader)
    publish(broker, "news", "5")
    reader.wait_for(*map(str, range(6)))


def test_a_receiver_that_raises_keeps_it_from_no_other_one(broker: Broker) -> None:
    def fail(publication: Publication | Interruption) -> None:
        raise ArithmeticError

    reader = Reader()
    broker.subscribe("news", fail)
    broker.subscribe("news", reader)
    with quiet() as records:
        publish(broker, "news", "a")
        publish(broker, "news", "b")
        reader.wait_for("a", "b")
    assert [record.levelname for record in records] == ["ERROR", "ERROR"]


def test_all_receivers_get_one_order(broker: Broker) -> None:
    readers = [Reader() for _ in range(5)]
    for reader in readers:
        broker.subscribe("news", reader)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def publish_many(name: str) -> None:
        for number in range(200):
            publish(broker, "news", f"{name} {number}")

    try:
        for task in [start_thread(publish_many, name) for name in "abcd"]:
            task.result()
    finally:
        sys.setswitchinterval(interval)
    publish(broker, "news", "end")
    for reader in readers:
        reader.wait_for_last("end")
        assert not reader.overlapped
        assert reader.got == readers[0].got
    texts = [publication.payload.decode() for publication in readers[0].got]
    for name in "abcd":
        assert [text for text in texts if text[0] == name] == [f"{name} {number}" for number in range(200)]


def test_a_signal_handler_may_publish(broker: Broker) -> None:
    readers = [Reader() for _ in range(5)]
    for reader in readers:
        broker.subscribe("news", reader)
    sent: Counter[str] = Counter()

    def handle() -> None:
        sent["theirs"] += 1
        publish(broker, "news", f"theirs {sent['theirs']}")

    with signals(handle):
        while sent["ours"] < 2000 or sent["theirs"] < 100:
            sent["ours"] += 1
            publish(broker, "news", f"ours {sent['ours']}")
    for reader in readers:
        reader.wait_for_number(sum(sent.values()))
        assert not reader.overlapped
        assert reader.got == readers[0].got


def test_a_receiver_may_publish(broker: Broker) -> None:
    """To the same topic, too: its own comes behind."""

    def answer(publication: Publication | Interruption) -> None:
        if isinstance(publication, Publication) and publication.payload == b"question":
            publish(broker, "news", "answer")

    reader = Reader()
    broker.subscribe("news", answer)
    broker.subscribe("news", reader)
    publish(broker, "news", "question")
    reader.wait_for("question", "answer")


# --- history ----------------------------------------------------------------------------------------------------------

KEPT = Retention(3, 60.0)


def keep(broker: Broker, *texts: str, topic: str = "news", retention: Retention = KEPT) -> None:
    for text in texts:
        broker.publish(Publication(topic, OPCODE_TEXT, text.encode()), retention)


def texts_since(broker: Broker, since: Position | None, last: int = 0) -> tuple[list[str], bool]:
    """What came after a position, as soon as what was published is there; and whether that is all."""
    history = broker.history("news", KEPT, since, last)
    return [publication.payload.decode() for publication in history.publications], history.recovered


def published(broker: Broker, reader: Reader, *texts: str) -> None:
    """Publish to a history, and wait until that is done."""
    number = len(reader.got) + len(texts)
    keep(broker, *texts)
    reader.wait_for_number(number)


@pytest.fixture
def reader(broker: Broker) -> Reader:
    reader = Reader()
    broker.subscribe("news", reader)
    return reader


def test_a_publication_that_is_kept_has_a_position(broker: Broker, reader: Reader) -> None:
    before = broker.history("news", KEPT)
    assert (before.publications, before.recovered, before.position.offset) == ((), False, 0)
    publication = Publication("news", OPCODE_BINARY, b"\0\xff")
    broker.publish(publication, KEPT)
    keep(broker, "b")
    reader.wait_for_number(2)
    epoch = before.position.epoch
    assert reader.got == [
        publication._replace(position=Position(epoch, 1)),
        Publication("news", OPCODE_TEXT, b"b", Position(epoch, 2)),
    ]
    history = broker.history("news", KEPT, before.position)
    assert history == (tuple(reader.got), Position(epoch, 2), True)
    assert epoch.isascii()
    assert 0 < len(epoch) <= 64


def test_what_is_not_kept_has_none(broker: Broker, reader: Reader) -> None:
    publish(broker, "news", "a")
    reader.wait_for("a")
    assert reader.got[0].position is None
    assert texts_since(broker, None, 9) == ([], False)


def test_what_came_after_a_position_is_there_or_it_is_said_that_it_is_not(broker: Broker, reader: Reader) -> None:
    start = broker.history("news", KEPT).position
    published(broker, reader, "a", "b", "c")
    assert texts_since(broker, start) == (["a", "b", "c"], True)
    assert texts_since(broker, start._replace(offset=2)) == (["c"], True)
    assert texts_since(broker, start._replace(offset=3)) == ([], True)
    assert texts_since(broker, start._replace(offset=4)) == ([], False)
    published(broker, reader, "d")
    assert texts_since(broker, start) == ([], False)
    assert texts_since(broker, start, last=2) == (["c", "d"], False)
    assert texts_since(broker, start._replace(offset=1)) == (["b", "c", "d"], True)
    assert texts_since(broker, Position("another", 1)) == ([], False)
    assert texts_since(broker, None, last=100) == (["b", "c", "d"], False)
    assert texts_since(broker, None, last=1) == (["d"], False)


def test_topics_have_histories_of_their_own(broker: Broker, reader: Reader) -> None:
    other = broker.history("sport", KEPT).position
    keep(broker, "goal", topic="sport")
    published(broker, reader, "a")
    assert texts_since(broker, None, 9) == (["a"], False)
    assert other.epoch != broker.history("news", KEPT).position.epoch
    assert [each.payload for each in broker.history("sport", KEPT, other).publications] == [b"goal"]


def test_a_topic_without_receivers_is_kept_as_well(broker: Broker) -> None:
    start = broker.history("news", KEPT).position
    keep(broker, "a", "b")
    until(lambda: texts_since(broker, start) == (["a", "b"], True))


def test_what_has_a_key_is_published_once(broker: Broker, reader: Reader) -> None:
    for key, text in [("1", "a"), ("2", "b"), ("1", "a again"), ("x" * 128, "c"), ("2", "b again")]:
        broker.publish(Publication("news", OPCODE_TEXT, text.encode()), KEPT, key)
    broker.publish(Publication("sport", OPCODE_TEXT, b"another topic's"), KEPT, "1")
    broker.publish(Publication("news", OPCODE_TEXT, b"not kept"), key="3")
    broker.publish(Publication("news", OPCODE_TEXT, b"nor this"), key="3")
    keep(broker, "end")
    reader.wait_for("a", "b", "c", "not kept", "end")
    assert texts_since(broker, None, 9) == (["b", "c", "end"], False)
    assert len(broker.history("sport", KEPT, last=9).publications) == 1


def test_histories_and_receivers_see_one_order_without_a_hole(broker: Broker, reader: Reader) -> None:
    retention = Retention(1000, 60.0)

    def keep_many() -> None:
        keep(broker, *"x" * 200, retention=retention)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for task in [start_thread(keep_many) for _ in range(4)]:
            task.result()
    finally:
        sys.setswitchinterval(interval)
    reader.wait_for_number(800)
    assert [each.position and each.position.offset for each in reader.got] == [*range(1, 801)]
    assert broker.history("news", retention, last=1000).publications == tuple(reader.got)


def test_who_subscribes_and_reads_then_misses_nothing(broker: Broker) -> None:
    """What comes after the position that was read is delivered."""
    ended = threading.Event()
    retention = Retention(10_000, 60.0)

    def publish_all() -> None:
        while not ended.is_set():
            keep(broker, "x", retention=retention)

    publisher = start_thread(publish_all)
    for _ in range(20):
        reader = Reader()
        broker.subscribe("news", reader)
        position = broker.history("news", retention).position
        reader.wait_until_after(position)
        offsets = [each.position.offset for each in list(reader.got) if each.position is not None]
        after = [offset for offset in offsets if offset > position.offset]  # before it some may be under way
        assert after == [*range(position.offset + 1, position.offset + 1 + len(after))]
        broker.unsubscribe("news", reader)
    ended.set()
    publisher.result()


# --- presence ---------------------------------------------------------------------------------------------------------


def events(name: str) -> tuple[Publication, Publication]:
    """What says that somebody has joined, and has left."""
    joined, left = (Publication("who", OPCODE_TEXT, f"{name} {verb}".encode()) for verb in ("joined", "left"))
    return joined, left


def test_who_has_entered_is_present_until_the_last_leave(broker: Broker) -> None:
    reader = Reader()
    broker.subscribe("who", reader)
    broker.enter("room", "ann", b"1", *events("ann"))
    broker.enter("room", "bob", b"", *events("bob"))
    assert broker.presence("room") == {"ann": b"1", "bob": b""}
    broker.enter("room", "ann", b"2", *events("ann"))
    assert broker.presence("room") == {"ann": b"2", "bob": b""}
    broker.leave("room", "ann")
    broker.leave("room", "bob")
    assert broker.presence("room") == {"ann": b"2"}
    broker.leave("room", "ann")
    broker.leave("room", "ann")
    broker.leave("another", "bob")
    assert broker.presence("room") == {}
    broker.enter("room", "ann", b"3", *events("ann"))
    assert broker.presence("room") == {"ann": b"3"}
    assert broker.presence("another") == {}
    reader.wait_for("ann joined", "bob joined", "bob left", "ann left", "ann joined")


def test_the_last_that_is_said_of_somebody_is_true(broker: Broker) -> None:
    reader = Reader()
    broker.subscribe("who", reader)

    def come_and_go() -> None:
        for _ in range(100):
            broker.enter("room", "ann", b"", *events("ann"))
            broker.leave("room", "ann")

    for task in [start_thread(come_and_go) for _ in range(4)]:
        task.result()
    broker.enter("room", "bob", b"", *events("bob"))
    reader.wait_for_last("bob joined")
    texts = [publication.payload.decode() for publication in reader.got[:-1]]
    assert texts == ["ann joined", "ann left"] * (len(texts) // 2)
    assert len(texts) > 1


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_closed_broker_carries_nothing(broker: Broker) -> None:
    reader = Reader()
    broker.subscribe("news", reader)
    broker.close()
    broker.close()
    with pytest.raises(BrokerError):
        publish(broker, "news", "x")
    with pytest.raises(BrokerError):
        broker.subscribe("news", reader)
    with pytest.raises(BrokerError):
        broker.history("news", KEPT)
    with pytest.raises(BrokerError):
        broker.presence("news")
    with pytest.raises(BrokerError):
        broker.enter("news", "ann", b"", *events("ann"))
    broker.leave("news", "ann")
    broker.unsubscribe("news", reader)
    assert reader.got == []


# --- managers that share one ------------------------------------------------------------------------------------------


def subscribed(stage: Stage, manager: WebSocketManager, *topics: str) -> tuple[Recorder, Peer]:
    websocket, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    for topic in topics:
        websocket.subscribe(topic)
    return websocket, peer


def test_managers_that_share_a_broker_share_their_topics(stage: Stage, broker: Broker) -> None:
    first, second = stage.manager(broker=broker), stage.manager(broker=broker, workers=0)
    alone = stage.manager()
    one, two = subscribed(stage, first, "news")[1], subscribed(stage, second, "news", "sport")[1]
    _, other = subscribed(stage, alone, "news")
    first.publish("news", "of the first")
    second.publish("news", b"\xff", binary=True)
    first.publish("sport", "goal")
    alone.publish("news", "of another one")
    for peer in (one, two):
        assert peer.receive_text() == "of the first"
        assert peer.receive_message() == b"\xff"
    assert two.receive_text() == "goal"
    assert other.receive_text() == "of another one"
    assert first.stats().publications == 2
    assert second.stats().publications == 1
    until(lambda: first.stats().publication_deliveries == 2)
    until(lambda: second.stats().publication_deliveries == 3)


def test_over_all_managers_there_is_one_order(stage: Stage, broker: Broker) -> None:
    managers = [stage.manager(broker=broker) for _ in range(3)]
    peers = [subscribed(stage, manager, "news")[1] for manager in managers for _ in range(3)]
    readers = [start_thread(lambda peer=peer: [peer.receive_text() for _ in range(450)]) for peer in peers]

    def publish_many(manager: WebSocketManager, name: str) -> None:
        for number in range(150):
            manager.publish("news", f"{name} {number}")

    for task in [start_thread(publish_many, manager, name) for manager, name in zip(managers, "abc", strict=True)]:
        task.result()
    results: list[Any] = [reader.result() for reader in readers]
    assert all(texts == results[0] for texts in results)


def test_a_manager_is_subscribed_while_somebody_is_on_the_topic(stage: Stage) -> None:
    calls: list[tuple[str, str]] = []

    class Watched(MemoryBroker):
        def subscribe(self, topic: str, receiver: Any) -> None:
            calls.append(("subscribe", topic))
            super().subscribe(topic, receiver)

        def unsubscribe(self, topic: str, receiver: Any) -> None:
            calls.append(("unsubscribe", topic))
            super().unsubscribe(topic, receiver)

    manager = stage.manager(broker=Watched())
    assert calls == [("subscribe", "")]  # to broadcasts
    calls.clear()
    one, _ = subscribed(stage, manager, "news")
    two, peer = subscribed(stage, manager, "news")
    assert calls == [("subscribe", "news")]
    one.unsubscribe("news")
    assert calls == [("subscribe", "news")]
    peer.say_goodbye()
    until(lambda: len(calls) > 1)
    one.subscribe("news")
    assert calls == [("subscribe", "news"), ("unsubscribe", "news"), ("subscribe", "news")]
    assert two.ends


def test_who_can_not_be_subscribed_is_on_no_topic(stage: Stage, broker: Broker) -> None:
    manager = stage.manager(broker=broker)
    websocket, peer = subscribed(stage, manager, "news")
    broker.close()
    with pytest.raises(BrokerError):
        websocket.subscribe("sport")
    with pytest.raises(BrokerError):
        manager.publish("news", "x")
    assert websocket.topics == {"news"}
    assert manager.stats().topics.subscriptions == 1
    websocket.unsubscribe("news")
    peer.send(peer.text("the websocket goes on"))
    assert peer.receive_text() == "the websocket goes on"


def test_subscriptions_of_many_threads_leave_nothing(broker: Broker) -> None:
    ended = threading.Event()

    def publish_all() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            publish(broker, str(number % 3), "x")

    def come_and_go() -> None:
        reader = Reader()
        for number in range(300):
            broker.subscribe(str(number % 3), reader)
            broker.unsubscribe(str(number % 3), reader)

    publisher = start_thread(publish_all)
    for task in [start_thread(come_and_go) for _ in range(4)]:
        task.result()
    ended.set()
    publisher.result()
    settle(broker)
    reader = Reader()
    broker.subscribe("0", reader)
    publish(broker, "0", "the last")
    reader.wait_for("the last")
