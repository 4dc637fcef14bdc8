"""The broker of one process, where it has to do with processes."""

from __future__ import annotations

import os
import threading

import pytest

from tests.helpers import EchoRecorder, Peer, Stage, start_thread, unix_pair, wait_for
from tests.manager.test_fork import in_child
from ws4py.broker import MemoryBroker, Publication
from ws4py.framing import OPCODE_TEXT
from ws4py.manager import WebSocketManager
from ws4py.websocket import EchoWebSocket

NEWS = Publication("news", OPCODE_TEXT, b"x")


def test_it_is_delivered_when_publish_returns() -> None:
    """Also if another thread is in the midst of another one."""
    broker = MemoryBroker()
    entered, gate = threading.Event(), threading.Event()
    got: list[bytes] = []

    def receive(publication: Publication) -> None:
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_may_use_it_while_its_parent_delivers() -> None:
    broker = MemoryBroker()
    entered, gate = threading.Event(), threading.Event()

    def block(publication: Publication) -> None:
        entered.set()
        wait_for(gate)

    broker.subscribe("news", block)
    task = start_thread(broker.publish, NEWS)
    wait_for(entered)

    def child() -> None:
        got: list[bytes] = []
        broker.unsubscribe("news", block)
        broker.subscribe("news", lambda publication: got.append(publication.payload))
        broker.publish(NEWS)
        assert got == [b"x"]

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
