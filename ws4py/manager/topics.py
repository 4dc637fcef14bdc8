"""Topics: who is on which, and what is published to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, get_args

from ws4py.broker import Broker, Interruption, MemoryBroker, Publication
from ws4py.engine import Connection, Engine
from ws4py.exc import ConnectionClosed, ManagerError, TooManyTopics
from ws4py.framing import OPCODE_BINARY
from ws4py.limits import OverflowPolicy
from ws4py.manager.fanout import SharedMessage

__all__ = ["MAX_TOPIC_SIZE", "Subscriber", "Topic", "Topics"]

MAX_TOPIC_SIZE: Final = 255
"""How many bytes of UTF-8 the name of a topic has at most."""


class Topic:
    """A topic that somebody is on.

    :param name: of it.
    :ivar subscribers: who is on it, with what to do where an outbox is full.
    """

    __slots__ = ("name", "subscribers")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[Subscriber, OverflowPolicy] = {}


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
    :param broker: that carries publications; by default one of its own.
    :ivar lock: over who is on what; held for a few assignments only.
    :ivar subscriptions: how many there are.
    """

    def __init__(self, engine: Engine, make_lock: Callable[[], Any], broker: Broker | None = None) -> None:
        self._engine = engine
        self._broker = MemoryBroker(make_lock) if broker is None else broker
        self._receiver = self._receive  # one object for all topics
        self._make_lock = make_lock
        self._topics: dict[str, Topic] = {}
        self._forked = False
        self.subscriptions = 0
        self.lock = self._make_lock()

    def __len__(self) -> int:
        """Return how many topics somebody is on."""
        return len(self._topics)

    def subscribe(self, subscriber: Subscriber, name: str, overflow: OverflowPolicy | None) -> None:
        """See :meth:`ws4py.websocket.WebSocket.subscribe`."""
        self._check_process()
        _check_name(name)
        if overflow is not None and overflow not in get_args(OverflowPolicy):
            raise ValueError(f"overflow must be one of {', '.join(get_args(OverflowPolicy))}, not {overflow!r}")
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
                    self._broker.subscribe(name, self._receiver)
                    topic = self._topics[name] = Topic(name)
                if subscriptions is None:
                    subscriber.subscriptions = [topic]
                else:
                    subscriptions.append(topic)
                self.subscriptions += 1
            topic.subscribers[subscriber] = overflow or limits.overflow

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
            self._broker.unsubscribe(topic.name, self._receiver)

    def publish(self, name: str, opcode: int, payload: bytes) -> None:
        """See :meth:`ws4py.manager.WebSocketManager.publish`."""
        _check_name(name)
        if opcode > OPCODE_BINARY:
            raise ValueError("A control frame can't be published")
        self._engine.count("publications")
        self._broker.publish(Publication(name, opcode, payload))

    def _receive(self, publication: Publication | Interruption) -> None:
        """Offer a message to all that are on its topic. The broker calls this, by one thread at a time for a topic."""
        if isinstance(publication, Interruption):
            return
        name, opcode, payload, _ = publication
        topic = self._topics.get(name)
        if topic is None:
            return
        message = SharedMessage(opcode, payload)
        subscribers, accepted = topic.subscribers, 0
        for subscriber in list(subscribers):  # one step under the interpreter's lock: a snapshot
            overflow = subscribers.get(subscriber)
            if overflow is not None:  # else it has left meanwhile
                accepted += message.offer(subscriber.connection, overflow, name)
        self._engine.count("publication_deliveries", accepted)

    def after_fork_in_child(self) -> None:
        """Have a free lock, since its owner may be a thread of the parent's; whose affair the subscribers are."""
        self._forked = True
        self.lock = self._make_lock()
        self._topics = {}
        self.subscriptions = 0

    def _check_process(self) -> None:
        if self._forked:
            raise ManagerError("The topics are the parent process's: a forked process needs a manager of its own")


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"The name of a topic is a str, not {type(name)}")
    if not 0 < len(name.encode()) <= MAX_TOPIC_SIZE:
        raise ValueError(f"The name of a topic has 1 to {MAX_TOPIC_SIZE} bytes in UTF-8, not {len(name.encode())}")
