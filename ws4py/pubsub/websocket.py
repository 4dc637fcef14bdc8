"""The server's end of the protocol: :class:`PubSubWebSocket`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from ws4py.broker import Broker, Publication
from ws4py.exc import BrokerError, TooManyTopics
from ws4py.framing import OPCODE_TEXT
from ws4py.messaging import CloseCode, Message
from ws4py.pubsub.departures import Departures
from ws4py.pubsub.protocol import (
    BadRequest,
    Refused,
    Request,
    checked_text,
    encode,
    encode_publication,
    parse,
    presence_topic,
    read_id,
    read_key,
    read_last,
    read_since,
    read_topic,
)
from ws4py.subscriptions import Recovery
from ws4py.websocket import WebSocket

__all__ = ["PubSubWebSocket"]

logger = logging.getLogger("ws4py")

departures = Departures()
"""The leaves of websockets that have ended, while somebody may come back."""


class PubSubWebSocket(WebSocket):
    """A websocket whose client subscribes, publishes, and sees who is there, as far as the application lets it.

    A client may do nothing by default: override :meth:`may_subscribe`, :meth:`may_publish` and :meth:`may_see`. They
    are asked each time, so also when a client comes back and resumes. They, and the others that are to be overridden,
    are called as a callback is, and may block; what they raise ends the connection, but for :class:`Refused`.

    Who overrides :meth:`received_message` or :meth:`terminate` calls these.
    """

    max_request: int = 65536
    """How many bytes a request has at most."""
    max_data: int = 32768
    """How many bytes of UTF-8 a client may publish at once."""
    max_last: int = 1000
    """How many messages of a history a client gets at most that does not resume."""
    max_present: int = 1000
    """How many of those who are present a client is told when it asks."""
    grace: float = 10.0
    """For how many seconds a name stays present whose connection has ended, but by a Close with 1000: a page that is
    loaded again is back by then, and nobody is told."""

    _entered: dict[str, Callable[[], object]] | None = None  # by topic, what has its name leave

    # --- for the application ------------------------------------------------------------------------------------------

    def may_subscribe(self, topic: str) -> bool:
        """Say whether the client may get what is published to a topic, and its history."""
        return False

    def may_publish(self, topic: str) -> bool:
        """Say whether the client may publish to a topic."""
        return False

    def may_see(self, topic: str) -> bool:
        """Say whether the client may see who is present on a topic."""
        return False

    def identify(self, topic: str) -> tuple[str, Any] | None:
        """Return who is present on a topic with this websocket: a name, and what JSON has of the person. Several
        websockets of one name are one. None, the default, is nobody.

        It is asked when the client has subscribed.
        """
        return None

    def compose(self, topic: str, data: str) -> str:
        """Return what is published when the client publishes ``data``: that by default. What others are to believe,
        such as who says it, has to be put in here.

        :raises Refused: if it is not to be published.
        """
        return data

    def received_request(self, request: Request) -> None:
        """Called for a request that the protocol does not have.

        :param request: the JSON object; its type is a str.
        :raises Refused: if it is not done, as by default.
        """
        raise Refused("There is no such type of request", "bad-request")

    def revoke(self, topic: str) -> None:
        """Take the client off a topic, and off its presence, and tell it so. Any thread may call."""
        self._forsake(topic)
        self._answer("unsubscribed", None, topic)

    # --- requests -----------------------------------------------------------------------------------------------------

    def received_message(self, message: Message) -> None:
        """Do what the client asks, or tell it why not."""
        request: Request = {}
        number: int | str | None = None
        try:
            if len(message.data) > self.max_request:
                raise Refused(f"A request has at most {self.max_request} bytes", "too-big")
            if not message.is_text:
                raise BadRequest("A request is a text message")
            request = parse(message.data)
            number = read_id(request)
            handle = _REQUESTS.get(request["type"])
            if handle is None:
                self.received_request(request)
            else:
                handle(self, request, number)
        except BadRequest as error:
            self._refuse(request, number, "bad-request", str(error))
        except Refused as error:
            self._refuse(request, number, error.code, str(error))
        except TooManyTopics as error:
            self._refuse(request, number, "too-many", str(error))
        except BrokerError as error:
            logger.warning("A request of %r could not be done: %s", self, error)
            self._refuse(request, number, "unavailable", "This can't be done at the moment")

    def _subscribe(self, request: Request, number: int | str | None) -> None:
        topic, since, last = read_topic(request), read_since(request), read_last(request, self.max_last)
        if not self.may_subscribe(topic):
            raise Refused("You may not subscribe to this topic", "forbidden")

        def begin(recovery: Recovery) -> None:
            self._answer("subscribed", number, topic, **recovery._asdict())

        self.subscribe(topic, since=since, last=last, encode=encode_publication, begin=begin)
        try:
            self._enter(topic)
        except BrokerError as error:
            logger.warning("%r is subscribed to %r, but not present there: %s", self, topic, error)

    def _unsubscribe(self, request: Request, number: int | str | None) -> None:
        topic = read_topic(request)
        self._forsake(topic)
        self._answer("unsubscribed", number, topic)

    def _publish(self, request: Request, number: int | str | None) -> None:
        topic, key, data = read_topic(request), read_key(request), checked_text("data", request.get("data"))
        if len(data.encode()) > self.max_data:
            raise Refused(f"data has at most {self.max_data} bytes", "too-big")
        if not self.may_publish(topic):
            raise Refused("You may not publish to this topic", "forbidden")
        self.publish(topic, self.compose(topic, data), key=key)
        self._answer("published", number, topic)

    def _presence(self, request: Request, number: int | str | None) -> None:
        topic = read_topic(request)
        if not self.may_see(topic):
            raise Refused("You may not see who is on this topic", "forbidden")

        def begin(_: Recovery) -> None:
            present = self._broker().presence(topic)
            names = list(present)[: self.max_present]
            self._answer(
                "presence",
                number,
                topic,
                count=len(present),
                present=[{"name": name, "info": json.loads(present[name])} for name in names],
            )

        self.subscribe(presence_topic(topic), last=0, begin=begin)

    def _ping(self, request: Request, number: int | str | None) -> None:
        self._answer("pong", number)

    def _answer(self, kind: str, number: int | str | None, topic: str | None = None, **values: Any) -> None:
        answer: dict[str, Any] = {"type": kind}
        if number is not None:
            answer["id"] = number
        if topic is not None:
            answer["topic"] = topic
        self.send(encode({**answer, **values}))

    def _refuse(self, request: Request, number: int | str | None, code: str, text: str) -> None:
        topic = request.get("topic")
        try:
            named = read_topic(request) if topic is not None else None
        except BadRequest:
            named = None
        self._answer("error", number, named, code=code, text=text)

    def _forsake(self, topic: str) -> None:
        """Be on a topic no more, nor on its presence."""
        self.unsubscribe(topic)
        self.unsubscribe(presence_topic(topic))
        leave = None if self._entered is None else self._entered.pop(topic, None)
        if leave is not None:
            leave()

    # --- presence -----------------------------------------------------------------------------------------------------

    def _broker(self) -> Broker:
        broker: Broker = self._member().topics.broker
        return broker

    def _enter(self, topic: str) -> None:
        """Be present on a topic, if this websocket is somebody there."""
        if self._entered is not None and topic in self._entered:
            return
        identity = self.identify(topic)
        if identity is None:
            return
        name, info = identity
        broker, events = self._broker(), presence_topic(topic)
        joined = encode({"type": "joined", "topic": topic, "name": name, "info": info})
        left = encode({"type": "left", "topic": topic, "name": name})
        broker.enter(
            topic,
            name,
            encode(info).encode(),
            Publication(events, OPCODE_TEXT, joined.encode()),
            Publication(events, OPCODE_TEXT, left.encode()),
        )
        if self._entered is None:
            self._entered = {}
        self._entered[topic] = lambda: broker.leave(topic, name)
        if topic not in self.topics:  # it was revoked meanwhile
            self._forsake(topic)

    def terminate(self) -> None:
        """End the websocket: see :meth:`ws4py.websocket.WebSocket.terminate`. Its names leave, a while later unless the
        client has closed with 1000: then it has left for good.
        """
        try:
            super().terminate()
        finally:
            if self.close_code is not None:
                entered, self._entered = self._entered or {}, None
                for leave in entered.values():
                    if self.close_code == CloseCode.NORMAL_CLOSURE:
                        leave()
                    else:
                        departures.after(self.grace, leave)


_REQUESTS: dict[str, Callable[[PubSubWebSocket, Request, int | str | None], None]] = {
    "subscribe": PubSubWebSocket._subscribe,
    "unsubscribe": PubSubWebSocket._unsubscribe,
    "publish": PubSubWebSocket._publish,
    "presence": PubSubWebSocket._presence,
    "ping": PubSubWebSocket._ping,
}
