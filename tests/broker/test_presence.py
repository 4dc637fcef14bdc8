"""Who is present over all processes that share a Redis."""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from tests.broker.test_contract import Reader, events
from tests.broker.test_redis import subscribed
from tests.helpers import PATIENCE, quiet, start_thread, stays, until
from tests.manager.test_fork import in_child
from tests.redis_server import BINARY, MakeBroker, RedisServer
from ws4py.broker import Broker
from ws4py.broker.redis import RedisBroker
from ws4py.exc import BrokerError

pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")

BOUND = 0.3
PATIENT = 1.5
"""As long as no process stands still, however busy the machine is."""


def enter(broker: Broker, name: str, info: bytes = b"") -> None:
    broker.enter("room", name, info, *events(name))


def test_it_is_known_to_all_brokers(make: MakeBroker) -> None:
    one, other, third = make(), make(), make()
    listeners = [subscribed(broker, "who") for broker in (one, third)]
    enter(one, "ann", b"1")
    enter(other, "ann", b"2")
    enter(other, "bob é", b"\0\xff")
    for broker in (one, other, third):
        assert broker.presence("room").keys() == {"ann", "bob é"}
        assert broker.presence("room")["bob é"] == b"\0\xff"
    one.leave("room", "ann")
    assert third.presence("room")["ann"] == b"2"
    third.leave("room", "ann")  # it has not entered there
    other.leave("room", "bob é")
    other.leave("room", "ann")
    assert third.presence("room") == {}
    for listener in listeners:
        listener.wait_for("ann joined", "bob é joined", "bob é left", "ann left")


def test_who_has_entered_by_a_broker_leaves_when_it_closes(make: MakeBroker) -> None:
    one, other = make(), make()
    listener = subscribed(other, "who")
    for name in ("ann", "bob"):
        enter(one, name)
    enter(other, "bob")
    one.close()
    assert other.presence("room").keys() == {"bob"}
    listener.wait_for("ann joined", "bob joined", "ann left")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_who_has_entered_by_a_process_that_has_died_leaves_within_the_bound(make: MakeBroker) -> None:
    other = make(presence_seconds=PATIENT)
    listener = subscribed(other, "who")
    assert other.presence("room") == {}  # so it looks after the dead

    def child() -> None:
        own = make(presence_seconds=PATIENT)
        for number in range(1200):
            enter(own, f"name {number}")
        assert len(own.presence("room")) == 1200

    in_child(child)
    listener.wait_for_number(2400)
    assert sorted(listener.texts[1200:]) == sorted(f"name {number} left" for number in range(1200))
    assert other.presence("room") == {}


def test_nobody_leaves_while_a_process_lives(make: MakeBroker) -> None:
    one, other = make(presence_seconds=PATIENT), make(presence_seconds=PATIENT)
    enter(one, "ann")
    stays(lambda: other.presence("room").keys() == {"ann"}, 1.5 * PATIENT)


@pytest.mark.parametrize("loss", ["flushed", "restarted"])
def test_a_redis_that_has_lost_its_memory_is_told_again(
    own_redis: RedisServer, make_own: MakeBroker, loss: str
) -> None:
    one, other = make_own(presence_seconds=BOUND), make_own(presence_seconds=BOUND)
    enter(one, "ann", b"1")
    enter(one, "bob")
    one.leave("room", "bob")
    with quiet():
        if loss == "flushed":
            with contextlib.closing(own_redis.client()) as client:
                client.flushall()
        else:
            own_redis.stop()
            own_redis.start()

        def present() -> dict[str, bytes]:
            with contextlib.suppress(BrokerError):
                return other.presence("room")
            return {}

        until(lambda: present() == {"ann": b"1"})


def test_who_enters_a_redis_that_has_lost_its_memory_does_not_hide_that(
    own_redis: RedisServer, make_own: MakeBroker
) -> None:
    broker = make_own(presence_seconds=PATIENT)
    enter(broker, "ann")
    with contextlib.closing(own_redis.client()) as client:
        client.flushall()
    enter(broker, "eve")
    until(lambda: broker.presence("room").keys() == {"ann", "eve"})


def test_who_leaves_or_enters_while_redis_is_away(own_redis: RedisServer, make_own: MakeBroker) -> None:
    """A leave is told later. Who could not enter is not present, whatever has become of the command."""
    broker = make_own(socket_timeout=0.1, presence_seconds=BOUND)
    enter(broker, "ann")
    with quiet():
        with own_redis.paused():
            broker.leave("room", "ann")
            with pytest.raises(BrokerError):
                enter(broker, "bob")
        listener = Reader()
        broker.subscribe("who", listener)
        until(lambda: broker.wait_subscribed(PATIENCE))

        def present() -> object:
            with contextlib.suppress(BrokerError):
                return broker.presence("room")
            return None

        until(lambda: present() == {})


def test_many_enter_and_leave_at_once(make: MakeBroker) -> None:
    """The last that is said of each is true."""
    brokers = [make() for _ in range(3)]
    listener = subscribed(make(), "who")

    def come_and_go(broker: RedisBroker, stays_there: bool) -> None:
        for _ in range(50):
            for name in ("ann", "bob"):
                enter(broker, name)
                broker.leave("room", name)
        if stays_there:
            enter(broker, "ann")

    tasks = [start_thread(come_and_go, broker, broker is brokers[0]) for broker in brokers for _ in range(2)]
    for task in tasks:
        task.result()
    enter(brokers[1], "end")
    listener.wait_for_last("end joined")
    for name, last in (("ann", "joined"), ("bob", "left")):
        said = [text.split()[1] for text in listener.texts if text.startswith(name)]
        assert said[-1] == last
        assert said == ["joined", "left"] * (len(said) // 2) + ["joined"] * (len(said) % 2)
    assert brokers[2].presence("room").keys() == {"ann", "end"}


def test_a_broker_that_has_told_nothing_has_no_thread(make: MakeBroker) -> None:
    subscribed(make())
    assert not [thread for thread in threading.enumerate() if thread.name == "RedisPresence"]
