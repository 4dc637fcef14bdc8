"""What a websocket has to do with topics, which are its manager's: see :mod:`ws4py.manager.topics`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ws4py.computed import computed
from ws4py.exc import ConnectionClosed, ManagerError
from ws4py.limits import OverflowPolicy
from ws4py.messaging import Message, encode_payload

__all__ = ["Position", "Publication", "Recovery", "Subscribing"]


class Position(NamedTuple):
    """A place in the history of a topic.

    :ivar epoch: of the history; it says nothing, but that it is another one if the history is.
    :ivar offset: of a message, counted from 1; 0 is before the first one.
    """

    epoch: str
    offset: int


class Publication(NamedTuple):
    """A message that is published.

    :ivar topic: its name.
    :ivar opcode: of the message: text or binary.
    :ivar payload: a text's is its UTF-8.
    :ivar position: in the history of its topic, which the broker has given it; None if the topic has none.
    """

    topic: str
    opcode: int
    payload: bytes
    position: Position | None = None


class Recovery(NamedTuple):
    """What has become of a subscription to a topic with a history.

    :ivar recovered: whether it goes on after the position that was given, with nothing missing.
    :ivar position: that it has caught up with when the history was read; None if the topic has no history.
    :ivar messages: how many are sent of before, the newest of which is at that position.
    """

    recovered: bool
    position: Position | None
    messages: int


class Subscribing:
    """The part of a :class:`~ws4py.websocket.WebSocket` that gets on topics and off them."""

    __slots__ = ()

    _connection: Any
    close_code: int | None
    sock: Any

    def subscribe(
        self,
        topic: str,
        overflow: OverflowPolicy | None = None,
        *,
        since: Position | None = None,
        last: int | None = None,
        encode: Callable[[Publication], str | bytes] | None = None,
        begin: Callable[[Recovery], object] | None = None,
    ) -> Recovery | None:
        """Get what is published to a topic from now on. Any thread may call. For a websocket under a manager.

        In :meth:`~ws4py.websocket.WebSocket.opened` it misses nothing that is published after it. Subscribing again
        changes ``overflow`` only. A subscription ends with :meth:`unsubscribe`, or when the end of the connection
        begins.

        With ``since`` or ``last`` it begins in the history of the topic, and misses nothing from there on: what was
        kept is sent first, in order, and what is published meanwhile waits, until so much waits as may wait in the
        outbox. Where a gap can't be avoided later on, the websocket is closed with 1013; its peer is to come back, and
        to give its position. A second such call for a topic begins anew; it waits, for the history and for room in the
        outbox, so it is not for a signal handler.

        :param topic: its name: 1 to 255 bytes in UTF-8.
        :param overflow: what to do with a publication when the outbox is full; by default the limit ``overflow`` of the
            connection. ``"close"`` suits events, none of which may be missing; ``"latest"`` suits a state, whose newest
            value is what matters. With a history it is ``"close"``.
        :param since: after which position to begin.
        :param last: how many of the newest to begin with, at most, if there is no position, or not all that came after
            it was kept.
        :param encode: makes the message of a publication, once for all who have the same function: a str becomes a
            text, bytes a binary message. It is called by the thread that publishes, and must not wait; what it raises
            is logged, and that message left out. For a subscription with a history; by default what was published is
            sent.
        :param begin: called when the history was read, before anything of it is sent. What it sends comes first.
        :returns: what has become of it, with a history; else None.
        :raises ConnectionClosed: if the websocket is closing or closed.
        :raises ManagerError: if no manager runs it, or in a forked process.
        :raises TooManyTopics: if it is on ``max_topics`` already.
        :raises BrokerError: if the history can't be read: it is not subscribed then.
        :raises ValueError: for a name, a policy, or a number, that can't be.
        :raises TypeError: for a name that is no str.
        """
        member = self._member()
        if member is None:
            raise ConnectionClosed("Cannot subscribe a websocket that is closed")
        if since is None and last is None:
            if encode is not None or begin is not None:
                raise ValueError("encode and begin are for a subscription with a history: give since, or last")
            member.topics.subscribe(member, topic, overflow)
            return None
        if overflow not in (None, "close"):
            raise ValueError(f"Of a history nothing may be missing: overflow can't be {overflow!r}")
        recovery: Recovery = member.topics.resume(member, topic, since, last or 0, encode, begin)
        return recovery

    def unsubscribe(self, topic: str) -> None:
        """Get nothing of a topic any more. Any thread may call. That it is not on the topic, or closed, is no error.

        :raises ManagerError: if no manager runs it, or in a forked process.
        """
        member = self._member()
        if member is not None:
            member.topics.unsubscribe(member, topic)

    def publish(
        self, topic: str, message: str | bytes | bytearray | Message, binary: bool = False, key: str | None = None
    ) -> None:
        """Send a message to every websocket on a topic of its manager's; see
        :meth:`ws4py.manager.WebSocketManager.publish`. Any thread may call.

        :raises ConnectionClosed: if the websocket is closed.
        :raises ManagerError: if no manager runs it, or in a forked process.
        """
        member = self._member()
        if member is None:
            raise ConnectionClosed("Cannot publish by a websocket that is closed")
        member.topics.publish(topic, *encode_payload(message, binary), key)

    def wait_subscribed(self, timeout: float) -> bool:
        """Wait until the subscriptions of this process hold: from then on what anybody publishes, in whatever process,
        is missed by none of them. Tell whether they do.

        Without a broker of several processes they hold at once.

        :param timeout: for how many seconds at most.
        :raises ManagerError: if no manager runs it.
        """
        member = self._member()
        return member is not None and bool(member.topics.broker.wait_subscribed(timeout))

    @computed
    def topics(self) -> frozenset[str]:
        """The topics that it is on; in :meth:`~ws4py.websocket.WebSocket.closed`, those that it was on at its end."""
        subscriptions = getattr(getattr(self._connection, "owner", None), "subscriptions", None)
        return frozenset(topic.name for topic in list(subscriptions or ()))

    def _member(self) -> Any:
        """Return what a manager knows this websocket by; None if it is closed.

        :raises ManagerError: if no manager runs it.
        """
        owner = getattr(self._connection, "owner", None)
        if hasattr(owner, "subscriptions"):
            return owner
        if owner is None and self.close_code is None and self.sock is not None:
            raise ManagerError("A websocket that no manager runs can't be on a topic")
        return None
