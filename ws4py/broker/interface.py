"""What a manager asks of a broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["Broker", "Publication", "Receiver"]


class Publication(NamedTuple):
    """A message that is published.

    :ivar topic: its name.
    :ivar opcode: of the message: text or binary.
    :ivar payload: a text's is its UTF-8.
    """

    topic: str
    opcode: int
    payload: bytes


Receiver = Callable[[Publication], object]
"""Is called with the publications to a topic. It must not wait for what publishes or subscribes."""


class Broker(Protocol):
    """Carries publications to who has subscribed to their topic. Any thread may call; a signal handler may publish.

    The receivers of a topic get what is published to it in one order, one publication at a time, each once. The order
    of one thread's publications is theirs.
    """

    def subscribe(self, topic: str, receiver: Receiver) -> None:
        """Have ``receiver`` called with what is published to a topic from now on. Twice is as good as once.

        A manager calls this, and :meth:`unsubscribe`, while it holds a lock: neither may wait for anybody.

        :raises BrokerError: if the broker is closed.
        """

    def unsubscribe(self, topic: str, receiver: Receiver) -> None:
        """Have ``receiver`` called no more, but with what is just being delivered. That it is not subscribed, or the
        broker closed, is no error.
        """

    def publish(self, publication: Publication) -> None:
        """Have a publication delivered. A receiver that raises keeps it from no other one.

        :raises BrokerError: if the broker is closed.
        """

    def close(self) -> None:
        """Deliver nothing more. A second call does nothing."""
