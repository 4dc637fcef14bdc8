"""Publish and subscribe for browsers, by managers that share a Redis."""

from __future__ import annotations

import pytest

from tests.helpers import Stage, until
from tests.pubsub.test_websocket import HISTORY, Client, Room, called
from tests.redis_server import BINARY, RedisServer
from ws4py.manager import WebSocketManager

pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


@pytest.fixture
def managers(stage: Stage, shared_redis: RedisServer) -> list[WebSocketManager]:
    return [stage.manager(history=HISTORY, broker=shared_redis.url) for _ in range(2)]


@pytest.fixture
def clients(managers: list[WebSocketManager], stage: Stage) -> list[Client]:
    """One of each manager, who are called after its number."""
    return [Client(stage.connect(manager, called(str(number)))[1]) for number, manager in enumerate(managers)]


def test_who_comes_back_to_another_process_resumes(
    stage: Stage, managers: list[WebSocketManager], clients: list[Client]
) -> None:
    one, other = clients
    epoch, offset = one.ask(type="subscribe", topic="room/of two")["position"]
    one.peer.close()
    for text in "abc":
        other.ask(type="publish", topic="room/of two", data=text)
    until(lambda: managers[1].broker.stats().waiting == 0)
    back = Client(stage.connect(managers[1], Room)[1])
    answer = back.ask(type="subscribe", topic="room/of two", since=[epoch, offset + 1])
    assert (answer["recovered"], answer["position"], answer["messages"]) == (True, [epoch, offset + 3], 2)
    assert [back.hear()["data"] for _ in range(2)] == ["1: b", "1: c"]
    managers[0].publish("room/of two", "live")
    assert back.hear()["data"] == "live"


def test_a_client_sees_who_is_there_by_other_processes(clients: list[Client]) -> None:
    one, other = clients
    one.ask(type="subscribe", topic="room/of two")
    until(lambda: one.ask(type="presence", topic="room/of two")["count"] == 1)
    answer = other.ask(type="presence", topic="room/of two")
    assert [each["name"] for each in answer["present"]] == ["0"]
    one.peer.close()
    left = other.hear()
    assert (left["type"], left["name"]) == ("left", "0")
    assert other.ask(type="presence", topic="room/of two")["count"] == 0


def test_who_is_told_that_it_is_subscribed_misses_nothing_of_other_processes(
    managers: list[WebSocketManager], clients: list[Client]
) -> None:
    for number in range(50):
        topic = f"plain/{number}"
        assert clients[0].ask(type="subscribe", topic=topic)["type"] == "subscribed"
        managers[1].publish(topic, "x")
        assert clients[0].hear()["data"] == "x"
