"""Subscriptions with a history: what was missed comes once and in order, or it is said that it doesn't."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers import EchoRecorder, Peer, Recorder, Script, Stage, quiet, start_thread, until, wait_for
from ws4py.broker import History, Interruption, MemoryBroker, Position, Publication, Retention
from ws4py.exc import BrokerError, ConnectionClosed, ManagerError, TooManyTopics
from ws4py.framing import OPCODE_TEXT
from ws4py.manager import WebSocketManager
from ws4py.subscriptions import Recovery
from ws4py.websocket import WebSocket

HISTORY = {"news": (1000, 60.0), "few": (3, 60.0)}
GAP = (1013, "Publications were missed")


def numbered(publication: Publication) -> str:
    """Make a message that says its position."""
    offset = publication.position.offset if publication.position is not None else "-"
    return f"{offset} {publication.payload.decode()}"


def connected(stage: Stage, manager: WebSocketManager, small: bool = False) -> tuple[Recorder, Peer]:
    websocket, peer = stage.connect(manager, EchoRecorder, small=small)
    wait_for(websocket.was_opened)
    return websocket, peer


def resume(websocket: WebSocket, since: Position | None = None, topic: str = "news", **options: Any) -> Recovery:
    options.setdefault("last", 0)
    recovery = websocket.subscribe(topic, since=since, **options)
    assert recovery is not None
    return recovery


def texts(peer: Peer, number: int) -> list[str]:
    return [peer.receive_text() for _ in range(number)]


# --- what comes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 32])
def test_what_was_missed_comes_first_and_then_what_is_published(stage: Stage, workers: int) -> None:
    manager = stage.manager(history=HISTORY, workers=workers)
    websocket, peer = connected(stage, manager)
    start = resume(websocket)
    assert (start.recovered, start.position and start.position.offset) == (False, 0)
    manager.publish("news", "a")
    assert peer.receive_text() == "a"
    peer.close()
    websocket.end()
    for text in "bc":
        manager.publish("news", text)
    assert start.position is not None
    websocket, peer = connected(stage, manager)
    position = start.position._replace(offset=1)
    assert resume(websocket, position, encode=numbered) == (True, position._replace(offset=3), 2)
    manager.publish("news", "d")
    assert texts(peer, 3) == ["2 b", "3 c", "4 d"]
    assert manager.stats().publication_deliveries == 4
    assert websocket.topics == {"news"}


def test_what_is_not_kept_any_more_is_not_passed_over_in_silence(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    websocket, peer = connected(stage, manager)
    start = resume(websocket, topic="few").position
    websocket.unsubscribe("few")
    for text in "abcd":
        manager.publish("few", text)
    assert start is not None
    assert resume(websocket, start, topic="few", last=2, encode=numbered) == (False, start._replace(offset=4), 2)
    manager.publish("few", "e")
    assert texts(peer, 3) == ["3 c", "4 d", "5 e"]
    websocket.unsubscribe("few")
    assert resume(websocket, Position("another", 4), topic="few") == (False, start._replace(offset=5), 0)
    manager.publish("few", "f")
    assert peer.receive_text() == "f"


def test_a_new_one_may_begin_with_the_last_few(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    for text in "abc":
        manager.publish("news", text)
    websocket, peer = connected(stage, manager)
    assert not resume(websocket, last=2).recovered
    assert texts(peer, 2) == ["b", "c"]


def test_a_topic_without_a_history_can_not_be_resumed(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    websocket, peer = connected(stage, manager)
    assert resume(websocket, Position("x", 1), topic="sport", last=9, encode=numbered) == (False, None, 0)
    manager.publish("sport", "goal")
    assert peer.receive_text() == "- goal"


def test_it_is_told_before_anything_comes(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    manager.publish("news", "a")
    websocket, peer = connected(stage, manager)

    def begin(recovery: Recovery) -> None:
        manager.publish("news", "b")
        assert recovery.position is not None
        websocket.send(f"at {recovery.position.offset}")

    resume(websocket, last=1, begin=begin)
    manager.publish("news", "c")
    assert texts(peer, 4) == ["at 1", "a", "b", "c"]


def test_it_may_be_done_in_a_callback(stage: Stage) -> None:
    def opened(websocket: WebSocket) -> None:
        resume(websocket, last=1)
        manager.publish("news", "b")

    manager = stage.manager(history=HISTORY, workers=0)
    manager.publish("news", "a")
    _, peer = stage.connect(manager, Script.of(opened=opened))
    assert texts(peer, 2) == ["a", "b"]


def test_who_begins_anew_gets_it_again(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    websocket, peer = connected(stage, manager)
    start = resume(websocket).position
    manager.publish("news", "a")
    resume(websocket, start)
    manager.publish("news", "b")
    assert texts(peer, 3) == ["a", "a", "b"]
    websocket.subscribe("news")
    manager.publish("news", "c")
    assert peer.receive_text() == "c"
    assert manager.stats().topics.subscriptions == 1


def test_a_message_is_made_once_for_all(stage: Stage) -> None:
    made: list[Publication] = []

    def encode(publication: Publication) -> bytes:
        made.append(publication)
        return b"\xff" + publication.payload

    manager = stage.manager(history=HISTORY)
    peers = []
    for _ in range(5):
        websocket, peer = connected(stage, manager)
        resume(websocket, encode=encode)
        peers.append(peer)
    manager.publish("news", "a")
    assert [peer.receive_message() for peer in peers] == [b"\xffa"] * 5
    assert len(made) == 1


def test_what_can_not_be_encoded_keeps_it_from_nobody_else(stage: Stage) -> None:
    def encode(publication: Publication) -> str:
        if publication.payload == b"bad":
            raise ArithmeticError
        return numbered(publication)

    manager = stage.manager(history=HISTORY)
    one, first = connected(stage, manager)
    resume(one, encode=encode)
    two, second = connected(stage, manager)
    resume(two)
    with quiet() as records:
        manager.publish("news", "bad")
        manager.publish("news", "good")
        assert first.receive_text() == "2 good"
        assert texts(second, 2) == ["bad", "good"]
        third, last = connected(stage, manager)
        resume(third, last=2, encode=encode)
        assert last.receive_text() == "2 good"
    assert [record.levelname for record in records if record.levelname != "DEBUG"] == ["ERROR"] * 2


def test_many_functions_that_encode_are_not_kept(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY, max_topics=None)
    websocket, peer = connected(stage, manager)
    for number in range(200):
        resume(websocket, topic=str(number), encode=lambda publication, number=number: f"{number}")
    manager.publish("7", "x")
    manager.publish("199", "x")
    assert texts(peer, 2) == ["7", "199"]
    assert len(manager._registry.topics._pursuits) <= 64


# --- while the history is read ----------------------------------------------------------------------------------------


class Slow(MemoryBroker):
    """Its history takes as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.read, self.done, self.gate = (threading.Event() for _ in range(4))

    def history(self, topic: str, retention: Retention, since: Position | None = None, last: int = 0) -> History:
        self.entered.set()
        wait_for(self.read)
        history = super().history(topic, retention, since, last)
        self.done.set()
        wait_for(self.gate)
        return history


def test_what_is_published_meanwhile_waits_and_comes_once(stage: Stage) -> None:
    broker = Slow()
    manager = stage.manager(history=HISTORY, broker=broker)
    manager.publish("news", "a")
    websocket, peer = connected(stage, manager)
    task = start_thread(lambda: resume(websocket, last=10, encode=numbered))
    wait_for(broker.entered)
    for text in "bc":
        manager.publish("news", text)  # it is in the history, too
    broker.read.set()
    wait_for(broker.done)
    manager.publish("news", "d")
    broker.gate.set()
    task.result()
    manager.publish("news", "e")
    assert texts(peer, 5) == ["1 a", "2 b", "3 c", "4 d", "5 e"]


def test_what_waits_is_bounded(stage: Stage) -> None:
    broker = Slow()
    manager = stage.manager(history=HISTORY, broker=broker, max_outbox_size=20_000)
    websocket, peer = connected(stage, manager)
    task = start_thread(lambda: resume(websocket))
    wait_for(broker.entered)
    broker.read.set()
    for _ in range(30):
        manager.publish("news", "x" * 1000)
    broker.gate.set()
    with pytest.raises(ConnectionClosed, match="missed"):
        task.result()
    assert peer.receive_close() == GAP


def test_a_history_that_can_not_be_read_is_no_subscription(stage: Stage) -> None:
    class Broken(MemoryBroker):
        def history(self, *arguments: Any, **options: Any) -> History:
            raise BrokerError("It does not answer")

    manager = stage.manager(history=HISTORY, broker=Broken())
    websocket, peer = connected(stage, manager)
    with pytest.raises(BrokerError):
        resume(websocket)
    assert websocket.topics == frozenset()
    assert manager.stats().topics.subscriptions == 0
    peer.send(peer.text("it goes on"))
    assert peer.receive_text() == "it goes on"


def test_who_leaves_meanwhile_is_on_no_topic(stage: Stage) -> None:
    broker = Slow()
    manager = stage.manager(history=HISTORY, broker=broker)
    manager.publish("news", "a")
    websocket, peer = connected(stage, manager)
    task = start_thread(lambda: resume(websocket, last=1))
    wait_for(broker.entered)
    peer.close()
    websocket.end()
    broker.read.set()
    broker.gate.set()
    with pytest.raises(ConnectionClosed):
        task.result()
    assert manager.stats().topics.subscriptions == 0


def test_a_long_history_waits_for_its_reader(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY, max_outbox_size=20_000)
    for number in range(200):
        manager.publish("news", f"{number:03}" + "x" * 5000)
    websocket, peer = connected(stage, manager, small=True)
    task = start_thread(lambda: resume(websocket, last=1000))
    until(lambda: manager.stats().limits["outbox"])
    manager.publish("news", "end")
    received = [text[:3] for text in iter(peer.receive_text, "end")]
    assert received == [f"{number:03}" for number in range(200)]
    task.result()


@pytest.mark.parametrize("workers", [0, 8])
def test_under_way_nothing_is_lost_and_nothing_comes_twice(stage: Stage, workers: int) -> None:
    """While several publish, many come, leave in the midst of it, and resume where they were."""
    manager = stage.manager(history={"news": (100_000, 60.0)}, workers=workers)
    ended = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def publish() -> None:
        pause = threading.Event()
        while not ended.is_set():
            manager.publish("news", "x")
            pause.wait(0.0001)

    def follow() -> list[int]:
        offsets: list[int] = []
        position: Position | None = None
        for _ in range(8):
            websocket, peer = stage.connect(manager, WebSocket)
            recovery = resume(websocket, position, encode=numbered)
            assert recovery.recovered is (position is not None)
            assert recovery.position is not None
            if position is None:
                offsets.append(recovery.position.offset)
            offsets += [int(peer.receive_text().split()[0]) for _ in range(20)]
            position = recovery.position._replace(offset=offsets[-1])
            peer.close()
        return offsets

    try:
        publishers = [start_thread(publish) for _ in range(3)]
        followers = [start_thread(follow) for _ in range(6)]
        results: list[Any] = [follower.result() for follower in followers]
    finally:
        sys.setswitchinterval(interval)
        ended.set()
    for publisher in publishers:
        publisher.result()
    for offsets in results:
        assert offsets == list(range(offsets[0], offsets[0] + 161))


# --- gaps -------------------------------------------------------------------------------------------------------------


class Faulty(MemoryBroker):
    """Delivers what a test says of each offset: how often."""

    def __init__(self, times: Callable[[int], int]) -> None:
        super().__init__()
        self._times = times

    def subscribe(self, topic: str, receiver: Any) -> None:
        def receive(publication: Publication | Interruption) -> None:
            assert isinstance(publication, Publication)
            assert publication.position is not None
            for _ in range(self._times(publication.position.offset)):
                receiver(publication)

        super().subscribe(topic, receive)


@pytest.mark.parametrize("before", [0, 2], ids=["first", "later"])
def test_a_gap_ends_with_a_close_that_says_so(stage: Stage, before: int) -> None:
    """Who may miss something is left alone; who comes back has it all."""
    manager = stage.manager(history=HISTORY, broker=Faulty(lambda offset: offset != before + 1))
    websocket, peer = connected(stage, manager)
    position = resume(websocket).position
    plain, other = connected(stage, manager)
    plain.subscribe("news")
    for number in range(before + 2):
        manager.publish("news", str(number))
    assert texts(peer, before) == [str(number) for number in range(before)]
    assert peer.receive_close() == GAP
    assert manager.stats().publication_gaps == 1
    assert texts(other, before + 1) == [*map(str, range(before)), str(before + 1)]
    assert position is not None
    again, peer = connected(stage, manager)
    assert resume(again, position._replace(offset=before)).recovered
    assert texts(peer, 2) == [str(before), str(before + 1)]
    manager.publish("news", "and so on")
    assert peer.receive_text() == other.receive_text() == "and so on"


def test_another_epoch_is_a_gap(stage: Stage) -> None:
    broker = MemoryBroker()
    manager = stage.manager(history=HISTORY, broker=broker)
    websocket, peer = connected(stage, manager)
    resume(websocket)
    manager.publish("news", "a")
    broker.after_fork_in_child()  # it forgets what it knows
    manager.publish("news", "b")
    assert peer.receive_text() == "a"
    assert peer.receive_close() == GAP


def test_what_is_delivered_twice_comes_once(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY, broker=Faulty(lambda offset: 2))
    websocket, peer = connected(stage, manager)
    resume(websocket)
    plain, other = connected(stage, manager)
    plain.subscribe("news")
    for text in "abc":
        manager.publish("news", text)
    for each in (peer, other):
        assert texts(each, 3) == ["a", "b", "c"]
        each.send(each.text("no more"))
        assert each.receive_text() == "no more"


def test_an_interruption_closes_those_who_may_miss_nothing(stage: Stage) -> None:
    receivers: dict[str, Any] = {}

    class Held(MemoryBroker):
        def subscribe(self, topic: str, receiver: Any) -> None:
            receivers[topic] = receiver

    manager = stage.manager(history=HISTORY, broker=Held())
    peers = []
    for number in range(3):
        websocket, peer = connected(stage, manager)
        peers.append(peer)
        if number:
            resume(websocket)
        else:
            websocket.subscribe("news")
        if number == 1:
            receivers["news"](Publication("news", OPCODE_TEXT, b"a", Position("e", 0)))
    receivers["news"](Interruption("news"))
    receivers["news"](Interruption("sport"))
    plain, follower, gated = peers
    assert plain.receive_text() == "a"
    for peer in (follower, gated):
        assert peer.receive_close() == GAP
    plain.send(plain.text("it goes on"))
    assert plain.receive_text() == "it goes on"


def test_an_interruption_while_the_history_is_read_is_one(stage: Stage) -> None:
    broker = Slow()
    manager = stage.manager(history=HISTORY, broker=broker)
    websocket, peer = connected(stage, manager)
    task = start_thread(lambda: resume(websocket))
    wait_for(broker.entered)
    manager._registry.topics._receive(Interruption("news"))
    broker.read.set()
    broker.gate.set()
    with pytest.raises(ConnectionClosed, match="missed"):
        task.result()
    assert peer.receive_close() == GAP


def test_who_does_not_read_is_closed(stage: Stage) -> None:
    """Whatever the policy of broadcasts is."""
    manager = stage.manager(history=HISTORY, max_outbox_size=20_000, overflow="drop")
    websocket, peer = connected(stage, manager, small=True)
    resume(websocket)
    while not manager.stats().limits["overflow_close"]:
        manager.publish("news", "x" * 10_000)
    assert peer.receive_rest_until_close()[-1].payload[:2] == (1013).to_bytes(2, "big")


# --- what can't be ----------------------------------------------------------------------------------------------------


def test_arguments_that_can_not_be(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY, max_topics=1)
    websocket, _ = connected(stage, manager)
    wrong: list[dict[str, Any]] = [
        {"encode": numbered},
        {"begin": print},
        {"last": -1},
        {"last": 0, "overflow": "drop"},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=r"history|last|overflow"):
            websocket.subscribe("news", **options)
    with pytest.raises(ValueError, match="255 bytes"):
        websocket.subscribe("", last=0)
    assert websocket.topics == frozenset()
    resume(websocket)
    with pytest.raises(TooManyTopics):
        resume(websocket, topic="few")
    with pytest.raises(ValueError, match="128 characters"):
        manager.publish("news", "x", key="x" * 129)
    with pytest.raises(ValueError, match="128 characters"):
        manager.publish("news", "x", key="")
    with pytest.raises(ValueError, match="history of 'news'"):
        stage.manager(history={"news": (0, 1)})


def test_who_is_closed_or_has_no_manager_resumes_nothing(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    websocket, _ = connected(stage, manager)
    websocket.close()
    with pytest.raises(ConnectionClosed):
        resume(websocket)
    alone, _ = stage.connect(None, WebSocket)
    with pytest.raises(ManagerError):
        resume(alone)
    assert manager.stats().topics.subscriptions == 0


def test_what_is_published_again_with_its_key_comes_once(stage: Stage) -> None:
    manager = stage.manager(history=HISTORY)
    websocket, peer = connected(stage, manager)
    resume(websocket)
    for key in ("1", "1", "2", "1"):
        manager.publish("news", key, key=key)
    manager.publish("news", "end")
    assert list(itertools.takewhile(lambda text: text != "end", iter(peer.receive_text, None))) == ["1", "2"]
