"""The server's end of publish and subscribe: what a client may do, what it is told, and who is there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers import FakeClock, Peer, Stage, quiet, start_thread, until, wait_for
from ws4py.broker import History, MemoryBroker
from ws4py.exc import BrokerError
from ws4py.manager import WebSocketManager
from ws4py.pubsub import PubSubWebSocket, Refused
from ws4py.pubsub.departures import Departures
from ws4py.pubsub.protocol import Request

HISTORY = {"room/*": (100, 60.0)}


class Room(PubSubWebSocket):
    """Anything may be done in rooms; who it is says the websocket."""

    name: str | None = None
    grace = 0.0

    def may_subscribe(self, topic: str) -> bool:
        return topic.startswith(("room/", "plain/"))

    may_publish = may_see = may_subscribe

    def identify(self, topic: str) -> tuple[str, Any] | None:
        return None if self.name is None else (self.name, {"of": topic})

    def compose(self, topic: str, data: str) -> str:
        if data == "bad":
            raise Refused("Not so", "rude")
        return f"{self.name}: {data}" if self.name is not None else data


def called(name: str, grace: float = 0.0) -> type[Room]:
    return type("Called", (Room,), {"name": name, "grace": grace})


class Client:
    """A client, message by message."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.events: list[dict[str, Any]] = []

    def tell(self, **request: Any) -> None:
        self.peer.send(self.peer.text(json.dumps(request)))

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.peer.receive_text())
        return message

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer, which comes next."""
        self.tell(id=7, **request)
        answer = self.hear()
        assert answer.pop("id") == 7
        return answer

    def fails(self, **request: Any) -> str:
        """Return the code of the error that comes next."""
        answer = self.ask(**request)
        assert answer["type"] == "error"
        assert answer["text"]
        code: str = answer["code"]
        return code


@pytest.fixture
def manager(stage: Stage) -> WebSocketManager:
    return stage.manager(history=HISTORY)


Connect = Callable[..., Client]


@pytest.fixture
def connect(stage: Stage, manager: WebSocketManager) -> Connect:
    def connect(kind: type[PubSubWebSocket] = Room) -> Client:
        return Client(stage.connect(manager, kind)[1])

    return connect


# --- what is published ------------------------------------------------------------------------------------------------


def test_who_has_subscribed_gets_what_is_published(connect: Connect, manager: WebSocketManager) -> None:
    one, two = connect(), connect()
    answer = one.ask(type="subscribe", topic="room/é")
    epoch = answer["position"][0]
    assert answer == {
        "type": "subscribed",
        "topic": "room/é",
        "recovered": False,
        "position": [epoch, 0],
        "messages": 0,
    }
    assert two.ask(type="publish", topic="room/é", data='say "é"\n') == {"type": "published", "topic": "room/é"}
    assert one.hear() == {"type": "message", "topic": "room/é", "offset": 1, "data": 'say "é"\n'}
    manager.publish("room/é", b"\0\xff", binary=True)
    assert one.hear() == {"type": "message", "topic": "room/é", "offset": 2, "binary": "AP8="}
    assert one.ask(type="unsubscribe", topic="room/é") == {"type": "unsubscribed", "topic": "room/é"}
    manager.publish("room/é", "x")
    assert one.ask(type="ping") == {"type": "pong"}


def test_a_topic_without_a_history_has_no_positions(connect: Connect, manager: WebSocketManager) -> None:
    client = connect()
    answer = client.ask(type="subscribe", topic="plain/1", since=["x", 1], last=5)
    assert answer == {"type": "subscribed", "topic": "plain/1", "recovered": False, "position": None, "messages": 0}
    manager.publish("plain/1", "x")
    assert client.hear() == {"type": "message", "topic": "plain/1", "data": "x"}


def test_who_comes_back_resumes(connect: Connect, manager: WebSocketManager) -> None:
    client = connect()
    epoch, offset = client.ask(type="subscribe", topic="room/1")["position"]
    client.peer.close()
    for text in "abc":
        manager.publish("room/1", text)
    client = connect()
    answer = client.ask(type="subscribe", topic="room/1", since=[epoch, offset + 1])
    assert (answer["recovered"], answer["position"], answer["messages"]) == (True, [epoch, 3], 2)
    assert [client.hear()["data"] for _ in range(2)] == ["b", "c"]
    answer = connect().ask(type="subscribe", topic="room/1", since=["another", 1])
    assert (answer["recovered"], answer["position"]) == (False, [epoch, 3])


def test_who_is_new_begins_with_the_last(connect: Connect, manager: WebSocketManager) -> None:
    class Brief(Room):
        max_last = 2

    for text in "abcd":
        manager.publish("room/1", text)
    for kind, last in ((Room, 2), (Brief, 100)):
        client = connect(kind)
        assert client.ask(type="subscribe", topic="room/1", last=last)["type"] == "subscribed"
        assert [client.hear()["offset"] for _ in range(2)] == [3, 4]


def test_what_is_published_again_with_its_key_comes_once(connect: Connect) -> None:
    client = connect()
    client.ask(type="subscribe", topic="room/1")
    for data, key in (("a", "1"), ("a", "1"), ("b", "2")):
        client.tell(type="publish", topic="room/1", data=data, key=key)
    heard = [client.hear() for _ in range(5)]
    assert [each["data"] for each in heard if each["type"] == "message"] == ["a", "b"]
    assert [each["type"] for each in heard].count("published") == 3


def test_the_application_says_what_is_published(connect: Connect) -> None:
    client = connect(called("ann"))
    client.ask(type="subscribe", topic="room/1")
    client.tell(type="publish", topic="room/1", data="hello")
    assert {"type": "message", "topic": "room/1", "offset": 1, "data": "ann: hello"} in (client.hear(), client.hear())
    answer = client.ask(type="publish", topic="room/1", data="bad")
    assert answer == {"type": "error", "topic": "room/1", "code": "rude", "text": "Not so"}


# --- what a client may do ---------------------------------------------------------------------------------------------


def test_by_default_a_client_may_do_nothing(connect: Connect, manager: WebSocketManager) -> None:
    client = connect(PubSubWebSocket)
    for request in ({"type": "subscribe"}, {"type": "publish", "data": "x"}, {"type": "presence"}):
        assert client.fails(topic="room/1", **request) == "forbidden"
    stats = manager.stats()
    assert (stats.topics.open, stats.publications) == (0, 0)


def test_each_is_allowed_by_itself(connect: Connect) -> None:
    requests: dict[str, dict[str, Any]] = {
        "may_subscribe": {"type": "subscribe"},
        "may_publish": {"type": "publish", "data": "x"},
        "may_see": {"type": "presence"},
    }
    for allowed in requests:
        asked: list[str] = []

        def may(websocket: PubSubWebSocket, topic: str, asked: list[str] = asked) -> bool:
            asked.append(topic)
            return True

        client = connect(type("One", (PubSubWebSocket,), {allowed: may}))
        for name, request in requests.items():
            client.tell(topic="room/1", **request)
            assert (client.hear()["type"] == "error") is (name != allowed)
        assert asked == ["room/1"]


def test_who_resumes_is_asked_again(connect: Connect) -> None:
    allowed = True

    class Guarded(Room):
        def may_subscribe(self, topic: str) -> bool:
            return allowed

    position = connect(Guarded).ask(type="subscribe", topic="room/1")["position"]
    allowed = False
    assert connect(Guarded).fails(type="subscribe", topic="room/1", since=position) == "forbidden"


def test_what_was_allowed_can_be_taken_back(stage: Stage, manager: WebSocketManager, connect: Connect) -> None:
    websocket, peer = stage.connect(manager, called("ann"))
    client, other = Client(peer), connect()
    client.ask(type="subscribe", topic="room/1")
    client.ask(type="presence", topic="room/1")
    other.ask(type="presence", topic="room/1")
    websocket.revoke("room/1")
    assert client.hear() == {"type": "unsubscribed", "topic": "room/1"}
    assert other.hear()["type"] == "left"
    manager.publish("room/1", "x")
    assert client.ask(type="ping") == {"type": "pong"}


def test_the_presence_of_a_topic_can_not_be_named(connect: Connect) -> None:
    class Anything(PubSubWebSocket):
        def may_subscribe(self, topic: str) -> bool:
            return True

        may_publish = may_see = may_subscribe

    client = connect(Anything)
    for request in ({"type": "subscribe"}, {"type": "publish", "data": "x"}, {"type": "presence"}):
        assert client.fails(topic="\x01room/1", **request) == "bad-request"


BAD: list[Any] = [
    "",
    "{",
    "[" * 100_000,
    "null",
    "[]",
    {},
    {"type": 1},
    {"type": "dance"},
    {"type": "subscribe"},
    {"type": "subscribe", "topic": 1},
    {"type": "subscribe", "topic": ""},
    {"type": "subscribe", "topic": "x" * 201},
    {"type": "subscribe", "topic": "é" * 101},
    {"type": "subscribe", "topic": "a\nb"},
    {"type": "subscribe", "topic": "\ud800"},
    {"type": "subscribe", "topic": "room/1", "since": "x"},
    {"type": "subscribe", "topic": "room/1", "since": []},
    {"type": "subscribe", "topic": "room/1", "since": ["x", -1]},
    {"type": "subscribe", "topic": "room/1", "since": ["x", True]},
    {"type": "subscribe", "topic": "room/1", "since": ["x", 1.5]},
    {"type": "subscribe", "topic": "room/1", "since": ["x", 2**53]},
    {"type": "subscribe", "topic": "room/1", "since": ["x" * 65, 1]},
    {"type": "subscribe", "topic": "room/1", "since": [None, 1]},
    {"type": "subscribe", "topic": "room/1", "last": -1},
    {"type": "subscribe", "topic": "room/1", "last": "1"},
    {"type": "subscribe", "topic": "room/1", "id": []},
    {"type": "subscribe", "topic": "room/1", "id": "x" * 65},
    {"type": "subscribe", "topic": "room/1", "id": 2**60},
    {"type": "publish", "topic": "room/1"},
    {"type": "publish", "topic": "room/1", "data": {}},
    {"type": "publish", "topic": "room/1", "data": "\udfff"},
    {"type": "publish", "topic": "room/1", "data": "x", "key": ""},
    {"type": "publish", "topic": "room/1", "data": "x", "key": "x" * 129},
    {"type": "publish", "topic": "room/1", "data": "x", "key": 1},
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: str(bad)[:60])
def test_a_bad_request_is_answered_and_the_connection_stays(connect: Connect, bad: Any) -> None:
    class Large(Room):
        max_request = 1 << 20

    client = connect(Large)
    client.peer.send(client.peer.text(bad if isinstance(bad, str) else json.dumps(bad)))
    answer = client.hear()
    assert (answer["type"], answer["code"]) == ("error", "bad-request")
    assert client.ask(type="ping") == {"type": "pong"}


def test_a_binary_message_is_no_request(connect: Connect) -> None:
    client = connect()
    client.peer.send(client.peer.binary(b'{"type": "ping"}'))
    assert client.hear()["code"] == "bad-request"


def test_sizes_and_numbers_are_bounded(stage: Stage) -> None:
    class Small(Room):
        max_request, max_data = 300, 10

    manager = stage.manager(history=HISTORY, max_topics=2)
    client = Client(stage.connect(manager, Small)[1])
    client.tell(type="publish", topic="room/1", data="x" * 300)
    assert client.hear()["code"] == "too-big"
    assert client.fails(type="publish", topic="room/1", data="é" * 6) == "too-big"
    assert client.ask(type="publish", topic="room/1", data="é" * 5)["type"] == "published"
    client.ask(type="subscribe", topic="room/1")
    client.ask(type="subscribe", topic="room/2")
    assert client.fails(type="subscribe", topic="room/3") == "too-many"
    assert client.fails(type="presence", topic="room/1") == "too-many"


def test_a_request_of_the_applications_own(connect: Connect) -> None:
    class Own(Room):
        def received_request(self, request: Request) -> None:
            if request["type"] != "shout":
                return super().received_request(request)
            return self.send_json({"type": "heard", "what": request["what"].upper()})

    client = connect(Own)
    client.tell(type="shout", what="hey")
    assert client.hear() == {"type": "heard", "what": "HEY"}
    assert client.fails(type="dance") == "bad-request"


def test_a_broker_that_does_not_answer_is_said_so(stage: Stage) -> None:
    class Broken(MemoryBroker):
        def history(self, *arguments: Any, **options: Any) -> History:
            raise BrokerError("It is away")

    client = Client(stage.connect(stage.manager(history=HISTORY, broker=Broken()), Room)[1])
    with quiet():
        assert client.fails(type="subscribe", topic="room/1") == "unavailable"
    assert client.ask(type="subscribe", topic="plain/1")["type"] == "subscribed"


# --- presence ---------------------------------------------------------------------------------------------------------


def test_a_client_sees_who_is_there(connect: Connect) -> None:
    ann, bob, watcher = connect(called("ann")), connect(called("bob")), connect()
    ann.ask(type="subscribe", topic="room/1")
    answer = watcher.ask(type="presence", topic="room/1")
    ann_is_there = [{"name": "ann", "info": {"of": "room/1"}}]
    assert answer == {"type": "presence", "topic": "room/1", "count": 1, "present": ann_is_there}
    bob.ask(type="subscribe", topic="room/1")
    bob.ask(type="subscribe", topic="room/1")
    assert watcher.hear() == {"type": "joined", "topic": "room/1", "name": "bob", "info": {"of": "room/1"}}
    bob.ask(type="subscribe", topic="room/2")
    bob.ask(type="unsubscribe", topic="room/1")
    assert watcher.hear() == {"type": "left", "topic": "room/1", "name": "bob"}
    assert watcher.ask(type="presence", topic="room/1")["present"] == ann_is_there
    watcher.ask(type="unsubscribe", topic="room/1")
    bob.ask(type="subscribe", topic="room/1")
    assert watcher.ask(type="ping") == {"type": "pong"}


def test_of_many_a_client_is_told_some_and_their_number(connect: Connect) -> None:
    class Few(Room):
        max_present = 2

    for name in "abc":
        connect(called(name)).ask(type="subscribe", topic="room/1")
    answer = connect(Few).ask(type="presence", topic="room/1")
    assert (answer["count"], len(answer["present"])) == (3, 2)


def test_who_comes_back_in_time_has_not_left(
    manager: WebSocketManager, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    departures = Departures(clock)
    monkeypatch.setattr("ws4py.pubsub.websocket.departures", departures)
    watcher = connect()
    watcher.ask(type="presence", topic="room/1")

    def come() -> Client:
        client = connect(called("ann", 10.0))
        client.ask(type="subscribe", topic="room/1")
        return client

    def go(client: Client) -> None:
        before = len(departures)
        client.peer.close()
        until(lambda: len(departures) > before)

    def pass_by(seconds: float) -> None:
        """Have it seen what is due so much later."""
        clock.advance(seconds)
        done = threading.Event()
        departures.after(0.0, done.set)
        wait_for(done)

    ann = come()
    assert watcher.hear()["type"] == "joined"
    for _ in range(3):  # as a page does that is loaded again
        go(ann)
        pass_by(9.9)
        ann = come()
        pass_by(0.2)
    assert watcher.ask(type="presence", topic="room/1")["count"] == 1
    go(ann)
    pass_by(9.9)
    assert watcher.ask(type="presence", topic="room/1")["count"] == 1
    pass_by(0.2)
    assert watcher.hear() == {"type": "left", "topic": "room/1", "name": "ann"}


def test_who_says_goodbye_leaves_at_once(connect: Connect) -> None:
    watcher, ann = connect(), connect(called("ann", 1000.0))
    watcher.ask(type="presence", topic="room/1")
    ann.ask(type="subscribe", topic="room/1")
    ann.peer.send(ann.peer.goodbye(1000))
    assert [watcher.hear()["type"] for _ in range(2)] == ["joined", "left"]


def test_two_pages_of_one_name_are_one(connect: Connect) -> None:
    watcher, one, two = connect(), connect(called("ann")), connect(called("ann"))
    watcher.ask(type="presence", topic="room/1")
    one.ask(type="subscribe", topic="room/1")
    two.ask(type="subscribe", topic="room/1")
    one.ask(type="unsubscribe", topic="room/1")
    two.ask(type="unsubscribe", topic="room/1")
    assert [watcher.hear()["type"] for _ in range(2)] == ["joined", "left"]
    assert watcher.ask(type="presence", topic="room/1")["present"] == []


def test_a_list_and_what_comes_after_it_fit_together(connect: Connect) -> None:
    """While others come and go."""
    ended = threading.Event()
    names = [connect(called(name)) for name in "abcd"]

    def come_and_go(client: Client) -> None:
        while not ended.is_set():
            client.ask(type="subscribe", topic="room/1")
            client.ask(type="unsubscribe", topic="room/1")

    tasks = [start_thread(come_and_go, client) for client in names]
    watcher = connect()
    for _ in range(30):
        watcher.tell(type="presence", topic="room/1", id=1)
        while (message := watcher.hear())["type"] != "presence":
            pass
        there = {each["name"] for each in message["present"]}
        for _ in range(10):
            event = watcher.hear()
            (there.add if event["type"] == "joined" else there.discard)(event["name"])
    ended.set()
    for task in tasks:
        task.result()
    last = connect(called("last"))
    last.ask(type="subscribe", topic="room/1")
    while (event := watcher.hear())["name"] != "last":
        (there.add if event["type"] == "joined" else there.discard)(event["name"])
    assert there == set()


def test_presence_on_a_broker_that_does_not_answer(stage: Stage) -> None:
    class Broken(MemoryBroker):
        def presence(self, topic: str) -> dict[str, bytes]:
            raise BrokerError("It is away")

        def enter(self, *arguments: Any) -> None:
            raise BrokerError("It is away")

    client = Client(stage.connect(stage.manager(broker=Broken()), called("ann"))[1])
    with quiet():
        assert client.fails(type="presence", topic="room/1") == "unavailable"
        assert client.ask(type="subscribe", topic="room/1")["type"] == "subscribed"
        assert client.ask(type="ping") == {"type": "pong"}


# --- later ------------------------------------------------------------------------------------------------------------


def test_what_is_due_is_done_in_its_order_and_the_thread_ends() -> None:
    departures = Departures()
    done: list[str] = []
    departures.after(0.02, lambda: done.append("later"))
    departures.after(0.0, lambda: done.append("soon"))

    def fail() -> None:
        raise ArithmeticError

    with quiet() as records:
        departures.after(0.0, fail)
        until(lambda: done == ["soon", "later"])
    assert [record.levelname for record in records] == ["ERROR"]
    until(lambda: "ws4py-departures" not in [thread.name for thread in threading.enumerate()])
    departures.after(0.0, lambda: done.append("again"))
    until(lambda: done[-1] == "again")
