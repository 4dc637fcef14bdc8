"""A client for the protocol in Python: :class:`PubSubClient`."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from ws4py.client.reconnect import Backoff
from ws4py.client.threadedclient import WebSocketClient
from ws4py.exc import ConnectionClosed
from ws4py.messaging import Message
from ws4py.pubsub.protocol import Refused, encode
from ws4py.subscriptions import Position, Recovery

__all__ = ["PubSubClient", "Subscription"]

logger = logging.getLogger("ws4py")


class Subscription:
    """What a client is on. Its callbacks are called on the client's thread, one at a time.

    :param topic: its name.
    :param on_message: called with the text, or the bytes, of each message.
    :param since: the position to begin after; then that of the last message, None as long as it has none.
    :param last: with how many messages to begin where there is no position, or not all after it is kept.
    :param on_subscribed: called with a :class:`~ws4py.subscriptions.Recovery` when it begins, and each time it goes on.
        If it is not recovered, what was there before is not to be relied on.
    :param on_presence: called with :attr:`present` when somebody has come or gone; without it nobody is asked.
    :param on_error: called with a :class:`~ws4py.pubsub.Refused`: it is not subscribed, or no more.
    :ivar position: see ``since``.
    :ivar present: who is there: what is known of each name.
    """

    def __init__(
        self,
        topic: str,
        on_message: Callable[[str | bytes], object] | None = None,
        *,
        since: Position | None = None,
        last: int = 0,
        on_subscribed: Callable[[Recovery], object] | None = None,
        on_presence: Callable[[dict[str, Any]], object] | None = None,
        on_error: Callable[[Refused], object] | None = None,
    ) -> None:
        self.topic = topic
        self.position = since
        self.present: dict[str, Any] = {}
        self.last = last
        self.on_message = on_message or (lambda data: None)
        self.on_subscribed = on_subscribed or (lambda recovery: None)
        self.on_presence = on_presence
        self.on_error = on_error or (lambda error: logger.warning("No subscription to %r: %s", topic, error))
        self.request = ""  # the id of what has begun it
        self.begun = False  # whether that was answered: what comes before is another one's


class Waiting:
    """A publication that is not answered yet.

    :param request: to be sent again with each connection.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.done = threading.Event()
        self.error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        """It is published, or can't be."""
        self.error = error
        self.done.set()


class Connection(WebSocketClient):
    """The connection of a client, which is made again when it is lost.

    :param client: whose it is.
    """

    def __init__(self, client: PubSubClient, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.client = client

    def opened(self) -> None:
        """Begin, or go on."""
        self.client._begin_all()

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        """Have nothing sent until there is another connection."""
        self.client._open = False

    def received_message(self, message: Message) -> None:
        """Do what the server says."""
        self.client._received(json.loads(message.data))

    def run(self) -> None:
        """Run until there is to be no connection any more."""
        try:
            super().run()
        finally:
            self.client._end()


class PubSubClient:
    """A client that subscribes and publishes; a context manager, which connects and closes. Any thread may call.

    When the connection is lost it is made again; subscriptions then go on where they were, each message once and in
    order, or are told that this can't be.

    :param url: of the websocket.
    :param reconnect: how long to wait before the connection is made again.
    :param max_waiting: how many publications may wait for their answers.
    :param greeting: a request of the application's own, which is sent first on each connection.
    :param options: see :class:`~ws4py.client.WebSocketBaseClient`.
    """

    def __init__(
        self,
        url: str,
        reconnect: Backoff | None = None,
        max_waiting: int = 100,
        greeting: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._greeting = greeting
        self._connection = Connection(self, url, reconnect=reconnect or Backoff(), **options)
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._subscriptions: dict[str, Subscription] = {}
        self._waiting: dict[int, Waiting] = {}
        self._open = False  # what there is was begun on this connection; set under the lock
        self._ended = False

    def connect(self) -> None:
        """Connect; the first time must succeed.

        :raises HandshakeError: if the server refuses.
        :raises OSError: if it can't be reached.
        """
        self._ended = False
        self._connection.connect()

    def close(self) -> None:
        """Close for good. It does not wait; see :meth:`join`."""
        self._connection.close()

    def join(self) -> None:
        """Wait until the connection has ended, and is not to be made again."""
        self._connection.run_forever()

    def __enter__(self) -> PubSubClient:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join()

    def subscribe(
        self, topic: str, on_message: Callable[[str | bytes], object] | None = None, **options: Any
    ) -> Subscription:
        """Get what is published to a topic, from now on or from when there is a connection.

        :param options: see :class:`Subscription`.
        :raises ValueError: if there is a subscription to this topic.
        """
        subscription = Subscription(topic, on_message, **options)
        with self._lock:
            if topic in self._subscriptions:
                raise ValueError(f"There is a subscription to {topic!r}")
            self._subscriptions[topic] = subscription
            now = self._open
        if now:
            self._begin(subscription)
        return subscription

    def unsubscribe(self, topic: str) -> None:
        """Get nothing of a topic any more; without a subscription, do nothing."""
        with self._lock:
            there = self._subscriptions.pop(topic, None) is not None
        if there:
            self._send({"type": "unsubscribe", "topic": topic, "id": self._name("unsubscribe")})

    def publish(self, topic: str, data: str, timeout: float = 30.0) -> None:
        """Publish a text: once, however often the connection is lost meanwhile.

        :param timeout: how long to wait for the answer, in seconds. 0 does not wait, as in a callback: it is sent then
            until it is answered, and nobody is told what the answer was.
        :raises Refused: if it is not to be published, or too many wait.
        :raises ConnectionClosed: if there is no connection any more.
        :raises TimeoutError: if there was no answer in time. It may be published yet.
        """
        number = next(self._numbers)
        request = {"type": "publish", "id": number, "topic": topic, "data": data, "key": secrets.token_hex(16)}
        with self._lock:
            if self._ended:
                raise ConnectionClosed("This client is closed")
            if len(self._waiting) >= self._max_waiting:
                raise Refused("Too many publications wait for their answers", "too-many")
            waiting = self._waiting[number] = Waiting(request)
            now = self._open
        if now:
            self._send(request)
        if timeout <= 0.0:
            return
        if not waiting.done.wait(timeout):
            raise TimeoutError(f"The server has not answered in {timeout} seconds")
        if waiting.error is not None:
            raise waiting.error

    # --- the connection's thread, but for what is sent ----------------------------------------------------------------

    def _name(self, kind: str) -> str:
        """Return the id of a request that is made anew with each connection."""
        return f"{kind} {next(self._numbers)}"

    def _send(self, request: dict[str, Any]) -> None:
        """Send a request if there is a connection; each new one begins with what is to be sent then."""
        try:
            self._connection.send(encode(request))
        except ConnectionClosed:
            logger.debug("A request waits for a connection")

    def _begin_all(self) -> None:
        with self._lock:
            self._open = True
            subscriptions = list(self._subscriptions.values())
            waiting = list(self._waiting.values())
        if self._greeting is not None:
            self._send(self._greeting)
        for subscription in subscriptions:
            self._begin(subscription)
        for each in waiting:
            self._send(each.request)

    def _begin(self, subscription: Subscription) -> None:
        topic = subscription.topic
        subscription.begun = False
        subscription.request = self._name("subscribe")
        self._send(
            {
                "type": "subscribe",
                "id": subscription.request,
                "topic": topic,
                "since": subscription.position,
                "last": subscription.last,
            }
        )
        if subscription.on_presence is not None:
            self._send({"type": "presence", "id": self._name("presence"), "topic": topic})

    def _received(self, message: dict[str, Any]) -> None:
        kind, number = message["type"], message.get("id")
        subscription = self._subscriptions.get(message.get("topic", ""))
        with self._lock:
            waiting = self._waiting.pop(number, None) if isinstance(number, int) else None
        if waiting is not None:
            waiting.end(Refused(message["text"], message["code"]) if kind == "error" else None)
        elif subscription is None:
            return
        elif kind == "error":
            self._failed(subscription, number, Refused(message["text"], message["code"]))
        elif kind == "unsubscribed":
            if number is None:
                self._stop(subscription, Refused("The server has ended it", "forbidden"))
        elif kind == "subscribed":
            if number == subscription.request:
                self._subscribed(subscription, message)
        elif kind == "message":
            self._message(subscription, message)
        elif kind in ("presence", "joined", "left"):
            self._present(subscription, message)

    def _subscribed(self, subscription: Subscription, message: dict[str, Any]) -> None:
        position, messages = message["position"], message["messages"]
        newest = None if position is None else Position(*position)
        subscription.position = newest and newest._replace(offset=newest.offset - messages)
        subscription.begun = True
        subscription.on_subscribed(Recovery(message["recovered"], newest, messages))

    def _message(self, subscription: Subscription, message: dict[str, Any]) -> None:
        position, offset = subscription.position, message.get("offset")
        if not subscription.begun:
            return
        if position is not None and offset is not None:
            if offset <= position.offset:
                return
            if offset != position.offset + 1:
                logger.warning("Messages of %r were missed: the connection is made again", subscription.topic)
                self._connection.close_connection()
                return
            subscription.position = position._replace(offset=offset)
        subscription.on_message(message["data"] if "data" in message else base64.b64decode(message["binary"]))

    def _present(self, subscription: Subscription, message: dict[str, Any]) -> None:
        if message["type"] == "presence":
            subscription.present = {each["name"]: each["info"] for each in message["present"]}
        elif message["type"] == "joined":
            subscription.present[message["name"]] = message["info"]
        else:
            subscription.present.pop(message["name"], None)
        if subscription.on_presence is not None:
            subscription.on_presence(subscription.present)

    def _failed(self, subscription: Subscription, number: object, error: Refused) -> None:
        if number != subscription.request:
            subscription.on_error(error)
        elif error.code == "unavailable":
            self._connection.close_connection()  # it may be done later, with another connection
        else:
            self._stop(subscription, error)

    def _stop(self, subscription: Subscription, error: Refused) -> None:
        with self._lock:
            self._subscriptions.pop(subscription.topic, None)
        subscription.on_error(error)

    def _end(self) -> None:
        """There is to be no connection any more."""
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.end(ConnectionClosed("There is no connection any more"))
