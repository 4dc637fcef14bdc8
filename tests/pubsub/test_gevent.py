"""Publish and subscribe under gevent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers import PATIENCE, Peer
from tests.pubsub.test_websocket import Client, called

gevent = pytest.importorskip("gevent")

from gevent import socket  # noqa: E402

from ws4py.limits import Limits  # noqa: E402
from ws4py.server.geventserver import GEventWebSocketPool  # noqa: E402


@pytest.fixture
def pool() -> Iterator[Any]:
    pool = GEventWebSocketPool(limits=Limits(drain_timeout=0.5), history={"room/*": (1000, 60.0)})
    yield pool
    pool.manager.stop()
    pool.manager.join(PATIENCE)
    pool.join(PATIENCE)


def connect(pool: GEventWebSocketPool, name: str, grace: float = 0.0) -> Client:
    ours, theirs = socket.socketpair()
    pool.track(called(name, grace)(ours))
    return Client(Peer(theirs))


def test_pages_talk_see_each_other_and_resume(pool: GEventWebSocketPool) -> None:
    ann, bob = connect(pool, "ann"), connect(pool, "bob")
    assert ann.ask(type="presence", topic="room/1")["present"] == []
    position = ann.ask(type="subscribe", topic="room/1")["position"]
    assert ann.hear()["name"] == "ann"
    bob.ask(type="subscribe", topic="room/1")
    assert ann.hear()["name"] == "bob"
    bob.tell(type="publish", topic="room/1", data="hello")
    for each in (ann, bob):
        assert each.hear()["data"] == "bob: hello"
    assert bob.hear()["type"] == "published"
    bob.peer.sock.close()  # whose leave is then of a thread
    assert ann.hear() == {"type": "left", "topic": "room/1", "name": "bob"}
    pool.manager.publish("room/1", "more")
    again = connect(pool, "bob")
    answer = again.ask(type="subscribe", topic="room/1", since=position)
    assert (answer["recovered"], answer["messages"]) == (True, 2)
    assert [again.hear()["data"] for _ in range(2)] == ["bob: hello", "more"]
    for each in (ann, again):
        each.peer.sock.close()


def test_what_is_published_meanwhile_comes_once(pool: GEventWebSocketPool) -> None:
    def publish(name: str) -> None:
        for number in range(100):
            pool.manager.publish("room/1", f"{name} {number}")
            gevent.sleep(0)

    first = connect(pool, "ann")
    position = first.ask(type="subscribe", topic="room/1")["position"]
    greenlets = [gevent.spawn(publish, name) for name in "ab"]
    threads = [gevent.get_hub().threadpool.spawn(pool.manager.publish, "room/1", f"c {number}") for number in range(50)]
    clients = []
    for _ in range(5):
        gevent.sleep(0)
        client = connect(pool, "bob")
        client.tell(type="subscribe", topic="room/1", since=position)
        clients.append(client)
    gevent.joinall([*greenlets, *threads], PATIENCE, raise_error=True)
    for client in clients:
        assert json.loads(client.peer.receive_text())["recovered"] is True
    for client in (first, *clients):
        assert [client.hear()["offset"] for _ in range(250)] == [*range(1, 251)]
        client.peer.sock.close()
