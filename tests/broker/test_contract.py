"""What every broker promises: each of them runs these tests."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Peer, Recorder, Stage, quiet, start_thread, until, wait_for
from tests.manager.test_faults import signals
from ws4py.broker import Broker, MemoryBroker, Publication
from ws4py.exc import BrokerError
from ws4py.framing import OPCODE_BINARY, OPCODE_TEXT
from ws4py.manager import WebSocketManager

BROKERS: dict[str, Callable[[], Broker]] = {"memory": MemoryBroker}


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    broker = BROKERS[request.param]()
    yield broker
    broker.close()


class Reader:
    """A receiver that keeps what it gets, and sees whether it gets two at once."""

    def __init__(self) -> None:
        self.got: list[Publication] = []
        self.overlapped = False
        self._inside = threading.Lock()

    def __call__(self, publication: Publication) -> None:
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

    def wait_for_last(self, text: str) -> None:
        until(lambda: self.got and self.got[-1].payload == text.encode())


def publish(broker: Broker, topic: str, text: str) -> None:
    broker.publish(Publication(topic, OPCODE_TEXT, text.encode()))


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
    publish(broker, "news", "for nobody")
    broker.subscribe("news", reader)
    publish(broker, "news", "5")
    reader.wait_for(*map(str, range(6)))


def test_a_receiver_that_raises_keeps_it_from_no_other_one(broker: Broker) -> None:
    def fail(publication: Publication) -> None:
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

    def answer(publication: Publication) -> None:
        if publication.payload == b"question":
            publish(broker, "news", "answer")

    reader = Reader()
    broker.subscribe("news", answer)
    broker.subscribe("news", reader)
    publish(broker, "news", "question")
    reader.wait_for("question", "answer")


def test_a_closed_broker_carries_nothing(broker: Broker) -> None:
    reader = Reader()
    broker.subscribe("news", reader)
    broker.close()
    broker.close()
    with pytest.raises(BrokerError):
        publish(broker, "news", "x")
    with pytest.raises(BrokerError):
        broker.subscribe("news", reader)
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
    assert first.stats().publication_deliveries == 2
    assert second.stats().publications == 1
    assert second.stats().publication_deliveries == 3


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
    reader = Reader()
    broker.subscribe("0", reader)
    publish(broker, "0", "the last")
    reader.wait_for("the last")
