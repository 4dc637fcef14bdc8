"""Resuming by way of any process: through Redis, and while its connections are killed."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

from tests.helpers import Peer, Stage, quiet, start_thread, until
from tests.redis_server import MakeBroker, RedisServer
from ws4py.broker import MemoryBroker, Position, Publication
from ws4py.exc import BrokerError, ConnectionClosed
from ws4py.framing import OPCODE_CLOSE
from ws4py.manager import WebSocketManager
from ws4py.subscriptions import Recovery
from ws4py.websocket import WebSocket

HISTORY = {"news": (100_000, 60.0)}
ENOUGH = 150


def encode(publication: Publication) -> str:
    assert publication.position is not None
    return f"{publication.position.offset} {publication.payload.decode()}"


class Follower:
    """Follows a topic over one manager after the other, and keeps what it gets.

    :ivar got: the messages: an offset and a text.
    :ivar recoveries: of each attempt but the first, whether it was recovered.
    """

    def __init__(self, stage: Stage, managers: list[WebSocketManager], seed: int) -> None:
        self.got: list[tuple[int, str]] = []
        self.recoveries: list[bool] = []
        self._stage = stage
        self._managers = managers
        self._random = random.Random(seed)
        self._position: Position | None = None

    def follow(self) -> None:
        while len(self.got) < ENOUGH:
            websocket, peer = self._stage.connect(self._random.choice(self._managers), WebSocket)
            with contextlib.suppress(BrokerError, ConnectionClosed):
                recovery = websocket.subscribe("news", since=self._position, last=0, encode=encode)
                assert recovery is not None
                self._begin(recovery)
                self._read(peer, self._random.randrange(1, 30))
            peer.close()

    def _begin(self, recovery: Recovery) -> None:
        if self._position is None:
            self._position = recovery.position
        else:
            self.recoveries.append(recovery.recovered)
            if not recovery.recovered:
                self._position = recovery.position

    def _read(self, peer: Peer, number: int) -> None:
        """Get some messages, unless the server closes before."""
        for _ in range(number):
            frame = peer.receive_data()
            if frame.opcode == OPCODE_CLOSE:
                assert frame.payload[:2] == (1013).to_bytes(2, "big")
                return
            offset, _, text = frame.payload.decode().partition(" ")
            self.got.append((int(offset), text))
            assert self._position is not None
            self._position = self._position._replace(offset=int(offset))


def run(stage: Stage, managers: list[WebSocketManager], disturb: Callable[[], object]) -> list[Follower]:
    """Publish by all managers, while several follow and somebody disturbs them."""
    ended = threading.Event()
    followers = [Follower(stage, managers, seed) for seed in range(4)]

    def publish(manager: WebSocketManager, name: int) -> None:
        pause = threading.Event()
        for number in range(100_000):
            if ended.is_set():
                return
            with contextlib.suppress(BrokerError):
                manager.publish("news", f"{name} {number}")
            pause.wait(0.001)

    publishers = [start_thread(publish, manager, name) for name, manager in enumerate(managers)]
    tasks = [start_thread(follower.follow) for follower in followers]
    try:
        while any(task.is_alive() for task in tasks):
            disturb()
    finally:
        ended.set()
    for task in (*tasks, *publishers):
        task.result()
    return followers


def check(followers: list[Follower]) -> None:
    """Nothing is missing, nothing comes twice, all have one order, and each publisher's is its own."""
    texts: dict[int, str] = {}
    for follower in followers:
        assert all(follower.recoveries)
        offsets = [offset for offset, _ in follower.got]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        for offset, text in follower.got:
            assert texts.setdefault(offset, text) == text
    in_order = [texts[offset].split() for offset in sorted(texts)]
    for name in {name for name, _ in in_order}:
        numbers = [int(number) for each, number in in_order if each == name]
        assert numbers == sorted(set(numbers))


def wait_a_moment() -> None:
    threading.Event().wait(0.01)


def test_who_goes_from_one_process_to_another_misses_nothing(stage: Stage, make_own: MakeBroker) -> None:
    managers = [stage.manager(history=HISTORY, broker=make_own()) for _ in range(2)]
    check(run(stage, managers, wait_a_moment))


def test_connections_to_redis_that_are_killed_are_no_gap(
    stage: Stage, make_own: MakeBroker, own_redis: RedisServer
) -> None:
    """Who is subscribed is closed, and resumes: with all that was kept."""
    managers = [stage.manager(history=HISTORY, broker=make_own()) for _ in range(2)]
    kills = 0

    def kill() -> None:
        nonlocal kills
        until(lambda: all(manager._registry.topics.broker.stats().connected for manager in managers))
        threading.Event().wait(0.05)
        kills += own_redis.kill_clients("TYPE", "pubsub")
        own_redis.kill_clients("TYPE", "normal", "SKIPME", "yes")

    with quiet():
        check(run(stage, managers, kill))
    assert kills > 1


class Forgetful(MemoryBroker):
    """Delivers not all, and says so never: a broker as it must not be."""

    def subscribe(self, topic: str, receiver: Any) -> None:
        count = 0

        def receive(publication: Any) -> None:
            nonlocal count
            count += 1
            if count % 50:
                receiver(publication)

        super().subscribe(topic, receive)


def test_a_broker_that_loses_publications_is_seen_through() -> None:
    """Whoever misses one is closed, and gets it when it comes back."""
    stage = Stage()
    manager = stage.manager(history=HISTORY, broker=Forgetful())
    check(run(stage, [manager], wait_a_moment))
    stage.close()
