"""The client in Python, against the server."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from tests.helpers import PATIENCE, quiet, start_thread, until
from tests.pubsub.site import Room, Site, publish_by
from ws4py.broker import MemoryBroker
from ws4py.client import Backoff
from ws4py.exc import ConnectionClosed
from ws4py.pubsub import Refused
from ws4py.pubsub.client import PubSubClient
from ws4py.subscriptions import Position, Recovery

QUICKLY = Backoff(initial=0.02, maximum=0.1)


class Follower:
    """Follows a topic, and keeps what happens."""

    def __init__(self, client: PubSubClient, topic: str = "room", **options: Any) -> None:
        self.messages: queue.Queue[str | bytes] = queue.Queue()
        self.recoveries: queue.Queue[Recovery] = queue.Queue()
        self.errors: queue.Queue[Refused] = queue.Queue()
        self.subscription = client.subscribe(
            topic, self.messages.put, on_subscribed=self.recoveries.put, on_error=self.errors.put, **options
        )

    def next(self, number: int = 1) -> list[str | bytes]:
        return [self.messages.get(timeout=PATIENCE) for _ in range(number)]

    def begun(self) -> Recovery:
        return self.recoveries.get(timeout=PATIENCE)


@pytest.fixture
def client(site: Site) -> Any:
    with PubSubClient(f"ws://127.0.0.1:{site.port}/ws", QUICKLY) as client:
        yield client


def test_it_gets_what_is_published(client: PubSubClient, site: Site) -> None:
    follower = Follower(client)
    recovery = follower.begun()
    assert (recovery.recovered, recovery.messages) == (False, 0)
    client.publish("room", "é")
    site.manager.publish("room", b"\0\xff", binary=True)
    assert follower.next(2) == ["é", b"\0\xff"]
    assert recovery.position is not None
    assert follower.subscription.position == Position(recovery.position.epoch, 2)
    client.unsubscribe("room")
    client.unsubscribe("room")
    client.publish("room", "x")
    again = Follower(client, last=2)
    assert again.begun().messages == 2
    assert again.next(2) == [b"\0\xff", "x"]
    assert follower.messages.empty()


def test_a_topic_without_a_history(client: PubSubClient) -> None:
    follower = Follower(client, "plain")
    assert follower.begun() == (False, None, 0)
    client.publish("plain", "x")
    assert follower.next() == ["x"]
    assert follower.subscription.position is None


def test_over_a_restart_nothing_is_lost_and_nothing_comes_twice(client: PubSubClient, site: Site) -> None:
    follower = Follower(client)
    follower.begun()
    client.publish("room", "before")
    site.stop()
    publish_by(site.broker, "published meanwhile")
    client.publish("room", "said meanwhile", timeout=0)
    task = start_thread(client.publish, "room", "and waited for")
    site.start()
    task.result()
    assert follower.next(2) == ["before", "published meanwhile"]
    assert sorted(map(str, follower.next(2))) == ["and waited for", "said meanwhile"]
    assert follower.begun().recovered
    client.publish("room", "after")
    assert follower.next() == ["after"]


def test_what_can_not_be_had_is_said(client: PubSubClient, site: Site) -> None:
    follower = Follower(client)
    follower.begun()
    client.publish("room", "before")
    site.stop()
    site.broker = MemoryBroker()
    site.start()
    assert follower.begun().recovered is False
    client.publish("room", "after")
    assert follower.next(2) == ["before", "after"]


def test_it_sees_who_is_there(client: PubSubClient, site: Site) -> None:
    seen: queue.Queue[int] = queue.Queue()
    client.subscribe("room", on_presence=lambda present: seen.put(len(present)))
    assert seen.get(timeout=PATIENCE) == 1
    with PubSubClient(f"ws://127.0.0.1:{site.port}/ws") as other:
        Follower(other).begun()
        while seen.get(timeout=PATIENCE) != 2:
            pass
    while seen.get(timeout=PATIENCE) != 1:
        pass


def test_what_is_refused_is_told(client: PubSubClient, site: Site) -> None:
    private = Follower(client, "private")
    assert private.errors.get(timeout=PATIENCE).code == "forbidden"
    with pytest.raises(Refused, match="may not publish") as caught:
        client.publish("private", "x")
    assert caught.value.code == "forbidden"
    room = Follower(client)
    room.begun()
    with pytest.raises(ValueError, match="There is a subscription"):
        client.subscribe("room")
    (websocket,) = list(site.manager)
    websocket.revoke("room")
    assert room.errors.get(timeout=PATIENCE).code == "forbidden"
    Follower(client).begun()


def test_who_waits_for_an_answer_hears_of_the_end(site: Site) -> None:
    client = PubSubClient(f"ws://127.0.0.1:{site.port}/ws", Backoff(initial=60.0), max_waiting=1)
    client.connect()
    Follower(client).begun()
    site.stop()
    with pytest.raises(TimeoutError):
        client.publish("room", "x", timeout=0.01)
    with pytest.raises(Refused, match="Too many"):
        client.publish("room", "y")
    waiting = next(iter(client._waiting.values()))
    client.close()
    client.join()
    assert isinstance(waiting.error, ConnectionClosed)
    with pytest.raises(ConnectionClosed):
        client.publish("room", "z")


def test_a_server_that_skips_a_message_is_left(client: PubSubClient, site: Site) -> None:
    """It can't happen; and if it does, the client resumes."""
    follower = Follower(client)
    position = follower.begun().position
    assert position is not None
    (websocket,) = list(site.manager)
    with quiet():
        site.manager.publish("room", "a")
        websocket.send_json({"type": "message", "topic": "room", "offset": 1, "data": "again"})
        websocket.send_json({"type": "message", "topic": "room", "offset": 3, "data": "c"})
        assert follower.begun().recovered
    site.manager.publish("room", "b")
    assert follower.next(2) == ["a", "b"]


def test_a_greeting_comes_first(site: Site) -> None:
    greeted: list[str] = []

    class Guarded(Room):
        def received_request(self, request: dict[str, Any]) -> None:
            greeted.append(request["type"])

        def may_subscribe(self, topic: str) -> bool:
            return len(greeted) > 0

    site.stop()
    site.kind = Guarded
    site.start()
    client = PubSubClient(f"ws://127.0.0.1:{site.port}/ws", QUICKLY, greeting={"type": "hello"})
    follower = Follower(client)
    with client:
        follower.begun()
    assert greeted == ["hello"]


def test_a_callback_may_publish(client: PubSubClient) -> None:
    got: queue.Queue[str | bytes] = queue.Queue()

    def answer(data: str | bytes) -> None:
        got.put(data)
        if data == "question":
            client.publish("room", "answer", timeout=0)

    client.subscribe("room", answer)
    client.publish("room", "question")
    assert [got.get(timeout=PATIENCE) for _ in range(2)] == ["question", "answer"]
    until(lambda: not client._waiting)
