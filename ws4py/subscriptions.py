"""What a websocket has to do with topics, which are its manager's: see :mod:`ws4py.manager.topics`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ws4py.computed import computed
from ws4py.exc import ConnectionClosed, ManagerError
from ws4py.limits import OverflowPolicy

__all__ = ["Position", "Subscribing"]


class Position(NamedTuple):
    """A place in the history of a topic.

    :ivar epoch: of the history; it says nothing, but that it is another one if the history is.
    :ivar offset: of a message, counted from 1; 0 is before the first one.
    """

    epoch: str
    offset: int


class Subscribing:
    """The part of a :class:`~ws4py.websocket.WebSocket` that gets on topics and off them."""

    __slots__ = ()

    _connection: Any
    close_code: int | None
    sock: Any

    def subscribe(self, topic: str, overflow: OverflowPolicy | None = None) -> None:
        """Get what is published to a topic from now on. Any thread may call. For a websocket under a manager.

        In :meth:`~ws4py.websocket.WebSocket.opened` it misses nothing that is published after it. Subscribing again
        changes ``overflow`` only. A subscription ends with :meth:`unsubscribe`, or when the end of the connection
        begins.

        :param topic: its name: 1 to 255 bytes in UTF-8.
        :param overflow: what to do with a publication when the outbox is full; by default the limit ``overflow`` of the
            connection. ``"close"`` suits events, none of which may be missing; ``"latest"`` suits a state, whose newest
            value is what matters.
        :raises ConnectionClosed: if the websocket is closing or closed.
        :raises ManagerError: if no manager runs it, or in a forked process.
        :raises TooManyTopics: if it is on ``max_topics`` already.
        :raises ValueError: for a name, or a policy, that can't be.
        :raises TypeError: for a name that is no str.
        """
        member = self._member()
        if member is None:
            raise ConnectionClosed("Cannot subscribe a websocket that is closed")
        member.topics.subscribe(member, topic, overflow)

    def unsubscribe(self, topic: str) -> None:
        """Get nothing of a topic any more. Any thread may call. That it is not on the topic, or closed, is no error.

        :raises ManagerError: if no manager runs it, or in a forked process.
        """
        member = self._member()
        if member is not None:
            member.topics.unsubscribe(member, topic)

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
