"""The broker over Redis: what it promises beyond the contract, and what becomes of it when Redis fails."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import redis

from tests.backends.test_patched import run
from tests.broker.test_contract import KEPT, Reader, events, keep
from tests.helpers import PATIENCE, EchoRecorder, Peer, Stage, quiet, start_thread, stays, until, wait_for
from tests.manager.test_fork import in_child
from tests.redis_server import BINARY, MakeBroker, RedisServer, broker_maker
from tests.serving import free_port
from ws4py.broker import Broker, Interruption, Publication, Retention
from ws4py.broker.envelope import pack_head
from ws4py.broker.redis import RedisBroker
from ws4py.exc import BrokerError
from ws4py.framing import OPCODE_TEXT
from ws4py.manager import WebSocketManager
from ws4py.server.threadedserver import WebSocketServer

URL = "redis://nobody.test/0"
"""Of a Redis that nobody needs."""

pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")


class Listener(Reader):
    """A receiver that expects to be interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.interruptions = 0

    def __call__(self, publication: Publication | Interruption) -> None:
        if isinstance(publication, Interruption):
            self.interruptions += 1
        else:
            super().__call__(publication)

    @property
    def texts(self) -> list[str]:
        return [publication.payload.decode() for publication in self.got]


def publish(broker: Broker, text: str, topic: str = "news") -> None:
    broker.publish(Publication(topic, OPCODE_TEXT, text.encode()))


def subscribed(broker: Broker, topic: str = "news") -> Listener:
    """Return a receiver whose subscription holds."""
    listener = Listener()
    broker.subscribe(topic, listener)
    assert broker.wait_subscribed(PATIENCE)
    return listener


# --- several brokers --------------------------------------------------------------------------------------------------


def test_brokers_publish_to_each_other_in_one_order(make: MakeBroker) -> None:
    brokers = [make() for _ in range(3)]
    listeners = [subscribed(broker) for broker in brokers]

    def publish_many(broker: Broker, name: str) -> None:
        for number in range(200):
            publish(broker, f"{name} {number}")

    for task in [start_thread(publish_many, broker, name) for broker, name in zip(brokers, "abc", strict=True)]:
        task.result()
    for listener in listeners:
        listener.wait_for_number(600)
        assert listener.texts == listeners[0].texts
    for name in "abc":
        assert [text for text in listeners[0].texts if text[0] == name] == [f"{name} {number}" for number in range(200)]
    assert brokers[0].stats().received == 600
    assert brokers[0].stats().sent == 200


def test_databases_and_prefixes_have_topics_of_their_own(make: MakeBroker, shared_redis: RedisServer) -> None:
    one = make()
    others = [make(shared_redis.url.replace("db=0", "db=1")), make(prefix="another")]
    listener = subscribed(one)
    for broker in others:
        publish(broker, "for others")
        broker.flush(PATIENCE)
    publish(one, "for it")
    listener.wait_for("for it")


def test_thousands_of_topics_come_and_go(make: MakeBroker, shared_redis: RedisServer) -> None:
    broker = make()
    listener = Listener()
    names = [f"topic {number}" for number in range(5000)]
    for name in names:
        broker.subscribe(name, listener)
    for name in names:
        publish(broker, name, name)
    listener.wait_for_number(len(names))
    for name in names:
        broker.unsubscribe(name, listener)
    assert broker.wait_subscribed(PATIENCE)
    with contextlib.closing(shared_redis.client()) as client:
        assert [name for name in client.pubsub_channels() if b"topic" in name] == []


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}])
def test_a_client_of_redis_py_in_place_of_a_url(own_redis: RedisServer, options: dict[str, object]) -> None:
    """In whatever protocol it speaks; its own connections are left to it."""
    client = redis.Redis.from_url(own_redis.url, **options)
    broker = RedisBroker(client=client)
    try:
        listener = subscribed(broker)
        keep(broker, "é")
        listener.wait_for("é")
        assert broker.history("news", KEPT, last=9).publications == tuple(listener.got)
        assert client.ping()
    finally:
        broker.close()
    assert client.ping()
    client.close()


# --- what others publish ----------------------------------------------------------------------------------------------


def test_another_version_is_counted_and_passed_over(make: MakeBroker, shared_redis: RedisServer) -> None:
    broker = make(prefix="versions")
    listener = subscribed(broker)
    with quiet() as records, contextlib.closing(shared_redis.client()) as client:
        for data in (b"\2\1" + b"x" * 40, b"", b"\1", b"\1\1", b"\1\7" + b"x" * 40):
            client.publish("versions:0:t:news", data)
        client.publish("versions:0:t:news", pack_head(1, b"somebody", 1) + b"known")
        listener.wait_for("known")
    assert broker.stats().unknown == 5
    assert [record.levelname for record in records] == ["WARNING"]


def test_what_comes_again_is_passed_over(make: MakeBroker, shared_redis: RedisServer) -> None:
    """A sender that has lost its connection can't know whether its last publications have come."""
    broker = make(prefix="repeated")
    listener = subscribed(broker)
    with contextlib.closing(shared_redis.client()) as client:
        for number, text in ((1, b"a"), (2, b"b"), (1, b"a"), (2, b"b"), (3, b"c")):
            client.publish("repeated:0:t:news", pack_head(1, b"somebody", number) + text)
        client.publish("repeated:0:t:news", pack_head(1, b"anybody_", 1) + b"d")
    listener.wait_for("a", "b", "c", "d")
    assert broker.stats().repeated == 2


# --- histories --------------------------------------------------------------------------------------------------------


def offsets(publications: Iterable[Publication]) -> list[int]:
    return [publication.position.offset for publication in publications if publication.position is not None]


def test_a_history_belongs_to_all_processes(make: MakeBroker) -> None:
    one, other = make(), make()
    listeners = [subscribed(one), subscribed(other)]
    start = one.history("news", KEPT).position
    keep(one, "a")
    keep(other, "b", "c")
    for listener in listeners:
        listener.wait_for_number(3)
        assert offsets(listener.got) == [1, 2, 3]
    history = make().history("news", KEPT, start)
    assert history == (tuple(listeners[0].got), start._replace(offset=3), True)


def test_what_has_had_its_time_is_not_recovered(make: MakeBroker) -> None:
    """But who has all has all."""
    broker = make()
    short = Retention(9, 0.05)
    start = broker.history("news", short).position
    keep(broker, "a", "b", retention=short)
    broker.flush(PATIENCE)
    until(lambda: broker.history("news", short, last=9).publications == ())
    assert not broker.history("news", short, start).recovered
    assert broker.history("news", short, start._replace(offset=2)) == ((), start._replace(offset=2), True)


def test_what_the_publisher_repeats_is_kept_once(own_redis: RedisServer, make_own: MakeBroker) -> None:
    """A script that was carried out, and whose reply got lost, is not carried out again."""
    publisher, other = make_own(), make_own()
    listener = subscribed(other)
    long = Retention(100_000, 60.0)
    start = other.history("news", long).position
    count = 0
    with quiet():
        for _ in range(20):
            for _ in range(300):
                keep(publisher, str(count), retention=long)
                count += 1
            own_redis.kill_clients("TYPE", "normal", "SKIPME", "yes")
        publisher.flush(PATIENCE)
        listener.wait_for_number(count)
        history = other.history("news", long, start)
    assert history.recovered
    assert offsets(listener.got) == offsets(history.publications) == [*range(1, count + 1)]
    assert [each.payload.decode() for each in history.publications] == [str(number) for number in range(count)]


def test_a_redis_that_has_forgotten_the_script_is_told_it(own_redis: RedisServer, make_own: MakeBroker) -> None:
    broker = make_own()
    listener = subscribed(broker)
    with contextlib.closing(own_redis.client()) as client:
        for text in "abc":
            keep(broker, text)
            broker.flush(PATIENCE)
            client.script_flush()
    listener.wait_for("a", "b", "c")
    assert broker.stats().lost == 0


@pytest.mark.parametrize("loss", ["flushed", "restarted"])
def test_a_redis_that_has_lost_its_memory_begins_new_epochs(
    own_redis: RedisServer, make_own: MakeBroker, loss: str
) -> None:
    broker = make_own()
    keep(broker, "a", "b")
    broker.flush(PATIENCE)
    before = broker.history("news", KEPT).position
    with quiet():
        if loss == "flushed":
            with contextlib.closing(own_redis.client()) as client:
                client.flushall()
        else:
            own_redis.stop()
            own_redis.start()
        keep(broker, "c")
        broker.flush(PATIENCE)
        history = broker.history("news", KEPT, before, last=9)
    assert [each.payload for each in history.publications] == [b"c"]
    assert not history.recovered
    assert history.position.offset == 1
    assert history.position.epoch != before.epoch


@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_a_redis_that_may_have_lost_the_end_begins_new_epochs(tmp_path: Path, appendonly: str) -> None:
    """Though it has all that there was, when it starts again from its disk, or was promoted: it can't know."""
    (tmp_path / "replica").mkdir()
    options = ("--appendonly", appendonly, "--repl-diskless-sync-delay", "0")
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet())
        first = stack.enter_context(RedisServer(tmp_path, free_port(), *options))
        make = stack.enter_context(broker_maker(first))
        broker = make()
        keep(broker, "a", "b")
        broker.flush(PATIENCE)
        before = broker.history("news", KEPT).position
        if appendonly == "yes":
            first.stop()
            first.start()
            after = first
        else:
            port = first.url.rpartition(":")[2].partition("/")[0]
            after = stack.enter_context(
                RedisServer(tmp_path / "replica", free_port(), "--replicaof", f"127.0.0.1 {port}")
            )
            with contextlib.closing(after.client()) as client:
                until(client.keys)
                first.stop()
                client.replicaof("NO", "ONE")
        history = make(after.url).history("news", KEPT, before)
    assert not history.recovered
    assert history.position.epoch != before.epoch


def test_a_replica_is_not_published_to_until_it_is_promoted(own_redis: RedisServer, make_own: MakeBroker) -> None:
    broker = make_own()
    with quiet(), contextlib.closing(own_redis.client()) as client:
        client.replicaof("127.0.0.1", str(free_port()))
        keep(broker, "a")
        until(lambda: not broker.stats().connected)
        client.replicaof("NO", "ONE")
        broker.flush(PATIENCE)
        assert [each.payload for each in broker.history("news", KEPT, last=9).publications] == [b"a"]
    assert broker.stats().lost == 0


def test_a_redis_that_is_away_tells_no_history(tmp_path: Path) -> None:
    with quiet():
        broker = RedisBroker(f"redis://127.0.0.1:{free_port()}/0", socket_timeout=0.1)
        with pytest.raises(BrokerError, match="does not tell"):
            broker.history("news", KEPT)
        broker.subscribe("news", Listener())
        with pytest.raises(BrokerError, match="does not confirm"):
            broker.history("news", KEPT)
        broker.close()


# --- Redis fails ------------------------------------------------------------------------------------------------------


def test_connections_that_are_killed_come_back(own_redis: RedisServer, make_own: MakeBroker) -> None:
    """With nothing under way nothing is lost, and all who may have missed something are told."""
    broker = make_own()
    listeners = {topic: subscribed(broker, topic) for topic in ("news", "sport")}
    publish(broker, "before")
    listeners["news"].wait_for("before")
    with quiet() as records:
        assert own_redis.kill_clients("TYPE", "normal", "SKIPME", "yes")
        assert own_redis.kill_clients("TYPE", "pubsub")
        until(lambda: broker.stats().reconnections)
        publish(broker, "after")
        listeners["news"].wait_for("before", "after")
    assert {listener.interruptions for listener in listeners.values()} == {1}
    assert broker.stats().lost == 0
    assert {record.levelname for record in records} == {"WARNING"}


def test_nothing_is_lost_or_comes_twice_while_the_publisher_is_killed(
    own_redis: RedisServer, make_own: MakeBroker
) -> None:
    publisher, other = make_own(), make_own()
    listener = subscribed(other)
    ended = threading.Event()
    count = 0

    def publish_all() -> None:
        nonlocal count
        while not ended.is_set():
            publish(publisher, str(count))
            count += 1
            if not count % 100:
                publisher.flush(PATIENCE)

    with quiet():
        task = start_thread(publish_all)
        for _ in range(20):
            sent = publisher.stats().sent
            until(lambda sent=sent: publisher.stats().sent > sent)  # type: ignore[misc]
            own_redis.kill_clients("TYPE", "normal", "SKIPME", "yes")
        ended.set()
        task.result()
        publisher.flush(PATIENCE)
        listener.wait_for_number(count)
    assert listener.texts == [str(number) for number in range(count)]
    assert publisher.stats().lost == 0
    assert listener.interruptions == 0


def test_while_redis_stands_still_what_is_published_waits(own_redis: RedisServer, make_own: MakeBroker) -> None:
    broker = make_own(socket_timeout=0.2)
    listener = subscribed(broker)
    publish(broker, "before")
    listener.wait_for("before")
    with quiet():
        with own_redis.paused():
            publish(broker, "while")
            until(lambda: not broker.stats().connected)
            publish(broker, "away")
            with pytest.raises(BrokerError, match="2 wait"):
                broker.flush(0.01)
        broker.flush(PATIENCE)
        until(lambda: broker.stats().connected)
        publish(broker, "after")
        listener.wait_for("before", "while", "away", "after")
    assert broker.stats().lost == 0


def test_a_redis_that_is_started_again_has_all_subscriptions(own_redis: RedisServer, make_own: MakeBroker) -> None:
    broker, other = make_own(), make_own()
    listeners = [subscribed(broker), subscribed(other)]
    with quiet():
        own_redis.stop()
        until(lambda: not broker.stats().connected and not other.stats().connected)
        for number in range(3):
            publish(broker, str(number))
        own_redis.start()
        for listener in listeners:
            until(lambda listener=listener: listener.interruptions)  # type: ignore[misc]
        publish(other, "other")
        until(lambda: all("other" in listener.texts for listener in listeners))
        listeners[0].wait_for_number(4)  # its own are kept back until it is subscribed again
    assert [text for text in listeners[0].texts if text != "other"] == ["0", "1", "2"]


def test_a_redis_that_is_not_there_at_first(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, free_port())
    with broker_maker(server) as make, quiet():
        broker = make()
        listener = Listener()
        broker.subscribe("news", listener)
        publish(broker, "early")
        assert not broker.wait_subscribed(0.05)
        until(lambda: not broker.stats().connected)
        with server:
            assert broker.wait_subscribed(PATIENCE)
            listener.wait_for("early")
            broker.close()


@pytest.mark.parametrize("when_full", ["drop_oldest", "raise"])
def test_what_has_no_room_while_redis_is_away(tmp_path: Path, when_full: str) -> None:
    server = RedisServer(tmp_path, free_port())
    with broker_maker(server) as make, quiet():
        broker = make(max_buffered=10_000, when_full=when_full)
        published = 0
        with contextlib.suppress(BrokerError):
            for number in range(100):
                publish(broker, str(number))
                published += 1
        stats = broker.stats()
        assert stats.waiting_bytes <= 10_000
        assert stats.waiting + stats.lost == published
        assert (published < 100, stats.lost > 0) == (when_full == "raise", when_full == "drop_oldest")
        broker.close()
        assert broker.stats().lost == published


def test_a_refusal_is_counted_and_delays_nobody(own_redis: RedisServer, make_own: MakeBroker) -> None:
    with contextlib.closing(own_redis.client()) as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", "nopass", "resetchannels", "&app:0:t:open", "+@all")
    broker = make_own(own_redis.url.replace("//", "//poor:@"), prefix="app")
    with quiet() as records:
        publish(broker, "x", "secret")
        publish(broker, "y", "open")
        broker.flush(PATIENCE)
    assert (broker.stats().sent, broker.stats().lost) == (1, 1)
    assert [record.levelname for record in records] == ["ERROR"]


def test_who_subscribes_after_an_outage_is_not_interrupted(own_redis: RedisServer, make_own: MakeBroker) -> None:
    """Though another one was on the topic before it, and left during it."""
    broker = make_own()
    staying, leaving = subscribed(broker, "sport"), subscribed(broker)
    with quiet():
        own_redis.stop()
        until(lambda: not broker.stats().connected)
        broker.unsubscribe("news", leaving)
        own_redis.start()
        assert broker.wait_subscribed(PATIENCE)
    listener = subscribed(broker)
    publish(broker, "hello")
    listener.wait_for("hello")
    assert listener.interruptions == 0
    until(lambda: staying.interruptions)


class Relay:
    """Hands on what comes from and for Redis. What says "pushed out" is the last that its connection would bring.

    :ivar flowing: is unset when that has come.
    :ivar subscribing: while it is unset, subscriptions are kept back.
    """

    def __init__(self, port: int) -> None:
        self._redis = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.flowing = threading.Event()
        self.flowing.set()
        self.subscribing = threading.Event()
        self.subscribing.set()
        self._socks: list[socket.socket] = []
        start_thread(self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._redis))
                self._socks += [near, far]
                start_thread(self._copy, near, far, False)
                start_thread(self._copy, far, near, True)

    def _copy(self, source: socket.socket, target: socket.socket, backward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if backward and b"pushed out" in data:
                    self.flowing.clear()
                    return
                if not backward and b"SUBSCRIBE" in data:
                    wait_for(self.subscribing)
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@pytest.fixture
def relay(own_redis: RedisServer) -> Iterator[Relay]:
    relay = Relay(int(own_redis.url.rpartition(":")[2].partition("/")[0]))
    yield relay
    relay.close()


def test_what_is_published_before_a_subscription_holds_waits_for_it(relay: Relay, make_own: MakeBroker) -> None:
    """What its own broker publishes is kept back; nothing of it is missed, however late the confirmation is."""
    broker = make_own(f"redis://127.0.0.1:{relay.port}/0")
    subscribed(broker, "sport")
    publish(broker, "both are connected")
    broker.flush(PATIENCE)
    listener = Listener()
    relay.subscribing.clear()
    broker.subscribe("news", listener)
    publish(broker, "first")
    stays(lambda: broker.stats().sent == 1 and not broker.wait_subscribed(0.0))
    relay.subscribing.set()
    listener.wait_for("first")
    broker.close()


def test_who_enters_before_a_subscription_holds_waits_for_it(relay: Relay, make_own: MakeBroker) -> None:
    """So this process hears that somebody has joined, and that somebody has left."""
    broker = make_own(f"redis://127.0.0.1:{relay.port}/0")
    subscribed(broker, "sport")
    relay.subscribing.clear()
    listener = Listener()
    broker.subscribe("who", listener)
    entering = start_thread(broker.enter, "room", "ann", b"", *events("ann"))
    stays(entering.is_alive)
    relay.subscribing.set()
    entering.result()
    broker.leave("room", "ann")
    listener.wait_for("ann joined", "ann left")
    broker.close()


@pytest.mark.parametrize("probing", [True, False])
def test_a_subscription_that_is_starved_is_made_again(relay: Relay, make_own: MakeBroker, probing: bool) -> None:
    """Without the probe it would look well for ever."""
    broker = make_own(f"redis://127.0.0.1:{relay.port}/0", probe_interval=0.2 if probing else 1000.0)
    listener = subscribed(broker)
    with quiet():
        publish(broker, "pushed out")
        broker.flush(PATIENCE)
        until(lambda: not relay.flowing.is_set())
        if probing:
            until(lambda: listener.interruptions)
            publish(broker, "after")
            listener.wait_for("after")
            assert broker.stats().starvations
        else:
            publish(broker, "after")
            stays(lambda: not listener.got, 0.5)
            assert broker.stats().connected
            assert broker.stats().starvations == 0
        broker.close()


def test_a_probe_that_comes_back_changes_nothing(make: MakeBroker, shared_redis: RedisServer) -> None:
    broker = make(probe_interval=1.0)
    listener = subscribed(broker)

    def commands() -> int:
        with contextlib.closing(shared_redis.client()) as client:
            return int(client.info("commandstats")["cmdstat_publish"]["calls"])

    publish(broker, "a")
    broker.flush(PATIENCE)
    first = commands()
    until(lambda: commands() >= first + 2)
    listener.wait_for("a")
    stats = broker.stats()
    assert (stats.reconnections, stats.starvations, stats.sent, stats.received) == (0, 0, 1, 1)


def test_no_receiver_ends_the_thread(make: MakeBroker) -> None:
    broker = make()

    def leave(publication: object) -> None:
        raise SystemExit

    broker.subscribe("news", leave)
    listener = subscribed(broker)
    with quiet() as records:
        publish(broker, "a")
        publish(broker, "b")
        listener.wait_for("a", "b")
    assert [record.levelname for record in records] == ["ERROR", "ERROR"]


# --- its end ----------------------------------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in ("RedisReader", "RedisWriter")]


def test_close_sends_what_waits(make: MakeBroker) -> None:
    publisher, other = make(), make()
    listener = subscribed(other)
    for number in range(1000):
        publish(publisher, str(number))
    publisher.close()
    listener.wait_for_number(1000)
    assert publisher.stats().lost == 0


def test_close_does_not_wait_for_a_redis_that_is_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, free_port())
    with broker_maker(server) as make, quiet():
        broker = make(close_timeout=1000.0)
        broker.subscribe("news", Listener())
        publish(broker, "lost")
        start_thread(broker.close).result()
        assert broker.stats().lost == 1


def test_a_receiver_may_close_it(make: MakeBroker) -> None:
    broker = make()
    closed = threading.Event()

    def close(publication: object) -> None:
        broker.close()
        closed.set()

    broker.subscribe("news", close)
    publish(broker, "x")
    wait_for(closed)


def test_one_that_is_forgotten_ends_and_sends_first(make: MakeBroker, shared_redis: RedisServer) -> None:
    listener = subscribed(make(prefix="forgotten"))
    before = len(threads())
    broker = RedisBroker(shared_redis.url, prefix="forgotten")
    reference = weakref.ref(broker)
    for number in range(100):
        publish(broker, str(number))
    del broker
    gc.collect()
    assert reference() is None
    until(lambda: len(threads()) == before)
    listener.wait_for_number(100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_publishes_by_a_connection_of_its_own(make: MakeBroker) -> None:
    broker, other = make(), make()
    listener, elsewhere = subscribed(broker), subscribed(other)
    publish(broker, "before")
    listener.wait_for("before")

    def child() -> None:
        publish(broker, "of the child")
        own = subscribed(broker, "sport")
        publish(broker, "goal", "sport")
        own.wait_for("goal")
        assert listener.texts == ["before"]
        broker.close()

    in_child(child)
    publish(broker, "of the parent")
    listener.wait_for("before", "of the child", "of the parent")
    elsewhere.wait_for("before", "of the child", "of the parent")
    assert broker.stats().reconnections == 0


# --- what can't be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://localhost"},
        {"url": "redis://localhost/0?colour=blue"},
        {"url": "redis://localhost/0?socket_timeout=soon"},
        {"probe_interval": 0},
        {"max_buffered": 0},
        {"when_full": "panic"},
    ],
)
def test_arguments_that_can_not_be(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        RedisBroker(**options)  # type: ignore[arg-type]


# --- managers ---------------------------------------------------------------------------------------------------------


def on_topic(stage: Stage, manager: object) -> Peer:
    websocket, peer = stage.connect(manager, EchoRecorder)  # type: ignore[arg-type]
    wait_for(websocket.was_opened)
    websocket.subscribe("news")
    return peer


def test_managers_by_url_share_topics_and_broadcasts(stage: Stage, shared_redis: RedisServer) -> None:
    first, second = stage.manager(broker=shared_redis.url), stage.manager(broker=shared_redis.url, workers=0)
    peers = [on_topic(stage, first), on_topic(stage, second)]
    for manager in (first, second):
        assert manager.broker.wait_subscribed(PATIENCE)
    first.publish("news", "é")
    second.broadcast(b"\xff", binary=True)
    for peer in peers:
        assert {peer.receive_message(), peer.receive_message()} == {"é".encode(), b"\xff"}
    assert second.stats().broadcasts == 1
    for manager in (first, second):
        until(lambda manager=manager: manager.stats().deliveries == 1)  # type: ignore[misc]
        assert manager.stats().broker.received == 2


@pytest.mark.parametrize("door", ["plugin", "server", "cheroot", "gevent"])
def test_each_door_takes_a_url(door: str) -> None:
    manager: WebSocketManager
    if door == "plugin":
        cherrypyserver = pytest.importorskip("ws4py.server.cherrypyserver")
        process = pytest.importorskip("cherrypy.process.wspbus")
        manager = cherrypyserver.WebSocketPlugin(process.Bus(), broker=URL).manager
    elif door == "server":
        server = WebSocketServer(("127.0.0.1", 0), EchoRecorder, broker=URL)
        manager = server.manager
        server.shutdown()
    elif door == "cheroot":
        cheroot = pytest.importorskip("ws4py.server.cherootserver")
        manager = cheroot.attach(pytest.importorskip("cheroot.wsgi").Server(("127.0.0.1", 0), print), broker=URL)
    else:
        manager = pytest.importorskip("ws4py.server.geventmanager").GreenletManager(broker=URL)
    assert isinstance(manager.broker, RedisBroker)
    assert manager.stats().broker.connected


def test_a_manager_that_is_started_again_has_a_broker_again(stage: Stage, shared_redis: RedisServer) -> None:
    manager = stage.manager(broker=shared_redis.url)
    before = manager.broker
    manager.stop()
    manager.join(PATIENCE)
    with pytest.raises(BrokerError):
        before.publish(Publication("news", OPCODE_TEXT, b"x"))
    manager.start()
    peer = on_topic(stage, manager)
    manager.publish("news", "again")
    assert peer.receive_text() == "again"
    manager.broadcast("to all")
    assert peer.receive_text() == "to all"


def test_a_manager_starts_and_stops_without_redis(stage: Stage, tmp_path: Path) -> None:
    with quiet():
        manager = stage.manager(broker=f"redis://127.0.0.1:{free_port()}/0")
        peer = on_topic(stage, manager)
        manager.publish("news", "waits")
        peer.send(peer.text("the websocket is served"))
        assert peer.receive_text() == "the websocket is served"
        until(lambda: not manager.stats().broker.connected)
        assert manager.stats().broker.waiting == 1
        stage.close()


@pytest.mark.parametrize("how", ["patched", "unpatched"])
def test_managers_of_greenlets(how: str, shared_redis: RedisServer) -> None:
    """The broker's threads are greenlets where gevent has patched the process, and threads where it has not."""
    pytest.importorskip("gevent")
    texts = ["publication 0", "broadcast 0", "publication 1", "broadcast 1"]
    assert json.loads(run("gevent_redis.py", how, shared_redis.url)) == {
        "got": [[text, text] for text in texts],
        "left": [],
        "states": ["stopped", "stopped"],
    }


def test_tls_and_a_password(tmp_path: Path) -> None:
    """Both are redis-py's affair, which has them from the URL. The subscriptions are read to the end under TLS, too."""
    trustme = pytest.importorskip("trustme", reason="certificates are made with the package trustme")
    authority = trustme.CA()
    server_key = authority.issue_cert("localhost", "127.0.0.1")
    names = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    authority.cert_pem.write_to_path(names["ca"])
    server_key.cert_chain_pems[0].write_to_path(names["certificate"])
    server_key.private_key_pem.write_to_path(names["key"])
    port = free_port()
    options = [
        *("--tls-port", str(port), "--tls-auth-clients", "no", "--requirepass", "secret é"),
        *("--tls-cert-file", names["certificate"], "--tls-key-file", names["key"], "--tls-ca-cert-file", names["ca"]),
    ]
    server = RedisServer(tmp_path, None, *options)
    server.url = f"rediss://:secret%20%C3%A9@127.0.0.1:{port}/0?ssl_ca_certs={names['ca']}"
    with server, broker_maker(server) as make:
        one, other = make(), make()
        listener = subscribed(other)
        for number in range(2000):
            publish(one, f"{number} {'x' * 500}")
        listener.wait_for_number(2000)
        assert [text.split()[0] for text in listener.texts] == [str(number) for number in range(2000)]
        with quiet(), pytest.raises(BrokerError):
            make(server.url.replace("secret", "wrong")).history("news", KEPT)
