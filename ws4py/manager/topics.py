"""Topics: who is on which, and what is published to them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, get_args

from ws4py.broker import (
    MAX_TOPIC_SIZE,
    Broker,
    Interruption,
    MemoryBroker,
    Position,
    Publication,
    Retentions,
    check_name,
    check_publication,
    make_broker,
)
from ws4py.engine import Connection, Engine
from ws4py.exc import BrokerError, ConnectionClosed, ManagerError, TooManyTopics
from ws4py.limits import OverflowPolicy
from ws4py.manager.catching import MISSED, Encode, Gap, Gate, Pursuit, follows
from ws4py.manager.fanout import SharedMessage
from ws4py.messaging import encode_payload
from ws4py.subscriptions import Recovery

__all__ = ["MAX_TOPIC_SIZE", "Subscriber", "Topic", "Topics"]

logger = logging.getLogger("ws4py")

SUBSCRIBE_SECONDS: Final = 5.0
"""How long a broker may take to confirm a subscription to one who waits for that."""
MAX_PURSUITS: Final = 64
"""How many functions that encode are known at once."""


class Topic:
    """A topic that somebody is on.

    :param name: of it.
    :ivar subscribers: who is on it, with what to do where an outbox is full; or how it follows the history.
    :ivar position: of the last publication that all have got; None before the first one, and if some may be missing.
    """

    __slots__ = ("name", "position", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.position: Position | None = None
        self.subscribers: dict[Subscriber, OverflowPolicy | Pursuit | Gate] = {}


class Subscriber(Protocol):
    """Who can be on topics.

    :ivar subscriptions: None before the first one, a list while there may be more; a tuple when its end has begun, of
        what there was then.
    """

    connection: Connection
    subscriptions: list[Topic] | tuple[Topic, ...] | None


class Topics:
    """The topics of one manager. Any thread may call.

    A publication goes to the broker. When that hands it back, it is offered to those who are on the topic then, in one
    pass and without waiting for a peer. So the broker's order is that of every subscriber.

    :param engine: whose connections the subscribers have.
    :param make_lock: makes a reentrant lock.
    :param broker: that carries publications, or its URL; by default one of its own.
    :param retentions: of which topics how much is kept.
    :ivar broker: that carries publications.
    :ivar lock: over who is on what, and the gates; held for a few assignments only.
    :ivar subscriptions: how many there are.
    """

    def __init__(
        self,
        engine: Engine,
        make_lock: Callable[[], Any],
        broker: Broker | str | None = None,
        retentions: Retentions | None = None,
    ) -> None:
        self._engine = engine
        self._make_lock = make_lock
        self._retentions = retentions or Retentions()
        self._url = broker if isinstance(broker, str) else None
        self._closed = False
        self.broker = self._make(broker)
        self._receiver = self._receive  # one object for all topics
        self._topics: dict[str, Topic] = {}
        self._pursuits: dict[Encode | None, Pursuit] = {}
        self._forked = False
        self.subscriptions = 0
        self.lock = self._make_lock()

    def _make(self, broker: Broker | str | None) -> Broker:
        if isinstance(broker, str):
            return make_broker(broker)
        return MemoryBroker(self._make_lock) if broker is None else broker

    def open(self) -> None:
        """The manager starts: a broker that was closed with it is made anew."""
        if self._closed:
            self._closed = False
            self.broker = self._make(self._url)

    def close(self) -> None:
        """The manager has ended: close a broker that was made for it."""
        if self._url is not None:
            self._closed = True
            self.broker.close()

    def __len__(self) -> int:
        """Return how many topics somebody is on."""
        return len(self._topics)

    def subscribe(self, subscriber: Subscriber, name: str, overflow: OverflowPolicy | None) -> None:
        """See :meth:`ws4py.websocket.WebSocket.subscribe`."""
        self._check_process()
        check_name(name)
        if overflow is not None and overflow not in get_args(OverflowPolicy):
            raise ValueError(f"overflow must be one of {', '.join(get_args(OverflowPolicy))}, not {overflow!r}")
        self._enter(subscriber, name, overflow or subscriber.connection.limits.overflow)

    def _enter(self, subscriber: Subscriber, name: str, how: OverflowPolicy | Gate) -> Topic:
        """Have one be on a topic, or be on it in another way; return the topic."""
        connection = subscriber.connection
        limits = connection.limits
        with self.lock:
            subscriptions = subscriber.subscriptions
            if isinstance(subscriptions, tuple) or not connection.may_append:
                raise ConnectionClosed("Cannot subscribe a websocket that is closing or closed")
            topic = self._topics.get(name)
            if topic is None or subscriber not in topic.subscribers:
                if limits.max_topics is not None and len(subscriptions or ()) >= limits.max_topics:
                    self._engine.count_limit("max_topics")
                    raise TooManyTopics(f"A websocket may be on {limits.max_topics} topics: see the limit max_topics")
                if topic is None:
                    self.broker.subscribe(name, self._receiver)
                    topic = self._topics[name] = Topic(name)
                if subscriptions is None:
                    subscriber.subscriptions = [topic]
                else:
                    subscriptions.append(topic)
                self.subscriptions += 1
            topic.subscribers[subscriber] = how
        return topic

    def resume(
        self,
        subscriber: Subscriber,
        name: str,
        since: Position | None,
        last: int,
        encode: Encode | None,
        begin: Callable[[Recovery], object] | None,
    ) -> Recovery:
        """Subscribe with a history: see :meth:`ws4py.websocket.WebSocket.subscribe`."""
        self._check_process()
        check_name(name)
        if last < 0:
            raise ValueError(f"last can't be {last}")
        gate = Gate(self._pursuit(encode), subscriber.connection.limits.max_outbox_size)
        topic = self._enter(subscriber, name, gate)
        try:
            recovery, kept = self._read(name, since, last)
            gate.last = recovery.position
            if begin is not None:
                begin(recovery)
            for publication in kept:
                self._send(subscriber, gate, publication)
            self._open(subscriber, topic, gate)
        except Gap:
            self._end_with_gap(subscriber)
            raise ConnectionClosed(str(MISSED)) from None
        except BaseException:
            if topic.subscribers.get(subscriber) is gate:
                self.unsubscribe(subscriber, name)
            raise
        return recovery

    def _pursuit(self, encode: Encode | None) -> Pursuit:
        """Return the way of those who have the same function: one for all, as long as there are few."""
        pursuit = self._pursuits.get(encode)
        if pursuit is None:
            if len(self._pursuits) >= MAX_PURSUITS:
                self._pursuits.clear()
            pursuit = self._pursuits[encode] = Pursuit(encode)
        return pursuit

    def _read(self, name: str, since: Position | None, last: int) -> tuple[Recovery, tuple[Publication, ...]]:
        retention = self._retentions.find(name)
        if retention is None:
            if not self.broker.wait_subscribed(SUBSCRIBE_SECONDS):
                raise BrokerError("The broker does not confirm the subscription")
            return Recovery(False, None, 0), ()
        history = self.broker.history(name, retention, since, last)
        kept = history.publications
        return Recovery(history.recovered, history.position, len(kept)), kept

    def _open(self, subscriber: Subscriber, topic: Topic, gate: Gate) -> None:
        """Let through what waits at a gate, until nothing does.

        :raises Gap: if something is missing.
        """
        while True:
            with self.lock:
                waiting = gate.take()
                if not waiting:
                    if topic.position == gate.last and topic.subscribers.get(subscriber) is gate:
                        topic.subscribers[subscriber] = gate.pursuit
                    return
            for publication in waiting:
                if follows(gate.last, publication.position):
                    self._send(subscriber, gate, publication)
                    gate.last = publication.position or gate.last

    def _send(self, subscriber: Subscriber, gate: Gate, publication: Publication) -> None:
        """Send a publication of before; wait for room."""
        encoded = _encoded(gate.pursuit, publication)
        if encoded is not None:
            subscriber.connection.send_message(*encoded)
            self._engine.count("publication_deliveries")

    def unsubscribe(self, subscriber: Subscriber, name: str) -> None:
        """See :meth:`ws4py.websocket.WebSocket.unsubscribe`."""
        self._check_process()
        with self.lock:
            topic = self._topics.get(name)
            subscriptions = subscriber.subscriptions
            if topic is not None and isinstance(subscriptions, list) and subscriber in topic.subscribers:
                self._take_off(subscriber, topic)
                subscriptions.remove(topic)
                if not subscriptions:
                    subscriber.subscriptions = None

    def drop(self, subscriber: Subscriber) -> None:
        """Take one whose end has begun off all topics; it gets on none any more."""
        with self.lock:
            subscriptions = subscriber.subscriptions
            if isinstance(subscriptions, tuple):
                return
            subscriber.subscriptions = tuple(subscriptions or ())
            for topic in subscriber.subscriptions:
                self._take_off(subscriber, topic)

    def _take_off(self, subscriber: Subscriber, topic: Topic) -> None:
        """Take a subscriber off a topic, which goes with the last one. The lock is held."""
        del topic.subscribers[subscriber]
        self.subscriptions -= 1
        if not topic.subscribers:
            del self._topics[topic.name]
            self.broker.unsubscribe(topic.name, self._receiver)

    def publish(self, name: str, opcode: int, payload: bytes, key: str | None = None) -> None:
        """See :meth:`ws4py.manager.WebSocketManager.publish`."""
        self._check_process()
        check_publication(name, opcode, key)
        self._engine.count("publications")
        self.broker.publish(Publication(name, opcode, payload), self._retentions.find(name), key)

    # --- what comes from the broker, by one thread at a time for a topic ----------------------------------------------

    def _receive(self, publication: Publication | Interruption) -> None:
        """Offer a message to all that are on its topic."""
        topic = self._topics.get(publication.topic)
        if topic is None:
            return
        if isinstance(publication, Interruption):
            self._interrupt(topic)
            return
        if publication.position is not None:
            try:
                if not follows(topic.position, publication.position):
                    return
            except Gap:
                self._interrupt(topic)
        _, opcode, payload, _ = publication
        name, subscribers, accepted = topic.name, topic.subscribers, 0
        message: SharedMessage | None = None
        encoded: dict[Pursuit, SharedMessage | None] = {}
        for subscriber in list(subscribers):  # one step under the interpreter's lock: a snapshot
            how = subscribers.get(subscriber)
            if how is None:  # it has left meanwhile
                continue
            if isinstance(how, str):
                if message is None:
                    message = SharedMessage(opcode, payload)
                accepted += message.offer(subscriber.connection, how, name)
                continue
            if isinstance(how, Gate):
                if not self._passes(topic, subscriber, how, publication):
                    continue
                how = how.pursuit
            if how not in encoded:
                encoded[how] = _shared(how, publication)
            mine = encoded[how]
            if mine is not None:
                accepted += mine.offer(subscriber.connection, "close", name)
        if publication.position is not None:
            topic.position = publication.position  # only now: whose gate opens then has this one from the history
        self._engine.count("publication_deliveries", accepted)

    def _passes(self, topic: Topic, subscriber: Subscriber, gate: Gate, publication: Publication) -> bool:
        """Tell whether a publication is to be sent to one whose gate it comes to."""
        with self.lock:
            if gate.hold(publication):
                return False
            try:
                if not follows(gate.last, publication.position):
                    return False
            except Gap:
                missed = True
            else:
                missed = False
            if publication.position is not None and topic.subscribers.get(subscriber) is gate:
                topic.subscribers[subscriber] = gate.pursuit
        if missed:
            self._end_with_gap(subscriber)
        return not missed

    def _interrupt(self, topic: Topic) -> None:
        """Publications may be missing: close those who may miss none, so that they come back and resume."""
        topic.position = None
        for subscriber, how in list(topic.subscribers.items()):
            if isinstance(how, Gate):
                with self.lock:
                    how.broken = True
                    if how.waiting is not None:
                        continue  # who reads the history sees it
            if not isinstance(how, str):
                self._end_with_gap(subscriber)

    def _end_with_gap(self, subscriber: Subscriber) -> None:
        """Close one who may have missed something, so that the peer comes back and resumes."""
        self._engine.count("publication_gaps")
        subscriber.connection.close(MISSED)

    # --- a fork -------------------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Have a free lock, since its owner may be a thread of the parent's; whose affair the subscribers are."""
        self._forked = True
        self.lock = self._make_lock()
        self._topics = {}
        self.subscriptions = 0

    def _check_process(self) -> None:
        if self._forked:
            raise ManagerError("The topics are the parent process's: a forked process needs a manager of its own")


def _encoded(pursuit: Pursuit, publication: Publication) -> tuple[int, bytes] | None:
    """Return the opcode and the payload of a publication as those get it who have the same function; None if that
    raises.
    """
    if pursuit.encode is None:
        return publication.opcode, publication.payload
    try:
        message = pursuit.encode(publication)
        return encode_payload(message, isinstance(message, bytes))
    except Exception:
        logger.exception("A publication to the topic %r could not be encoded", publication.topic)
        return None


def _shared(pursuit: Pursuit, publication: Publication) -> SharedMessage | None:
    """Return the same, to be sent to many."""
    encoded = _encoded(pursuit, publication)
    return None if encoded is None else SharedMessage(*encoded)
