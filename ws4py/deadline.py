"""How long a message may take to come. The time is passed in; it is in seconds."""

from __future__ import annotations

from typing import Final, Protocol

__all__ = ["MessageDeadline", "watch_message"]

LEAST_RATE: Final = 1024
"""How many bytes of a message must come in a second for it to take longer than its deadline."""

LOOKS: Final = 4
"""How often a message is looked at until its deadline, and in as long a time after that."""


class MessageDeadline:
    """The deadline of one message that has begun and not ended. It holds only while the message comes slowly, so that
    a large one over a slow line passes.

    :param now: when the message was first seen to be unfinished.
    :param timeout: how long it may take.
    :param message: which one of its connection it is.
    """

    __slots__ = ("_deadline", "_looked_at", "_size", "_step", "due", "message")

    def __init__(self, now: float, timeout: float, message: int) -> None:
        self.message = message
        self._deadline = now + timeout
        self._step = timeout / LOOKS
        self._looked_at = now
        self._size = 0
        self.due = now + self._step
        """When :meth:`is_late` is to be asked next."""

    def is_late(self, now: float, size: int) -> bool:
        """Tell whether the message is to be given up.

        :param size: how many bytes of it have come.
        """
        slow = size - self._size < LEAST_RATE * (now - self._looked_at)
        self._size, self._looked_at = size, now
        self.due = now + self._step
        if now < self._deadline:
            self.due = min(self.due, self._deadline)
            return False
        return slow

    def postpone(self, seconds: float) -> None:
        """Take no account of a time in which nothing was read."""
        self._deadline += seconds
        self._looked_at += seconds
        self.due += seconds


class Incoming(Protocol):
    """A stream, as far as it says what has come of a message. :class:`ws4py.streaming.Stream` has the words."""

    messages_begun: int
    more: bool

    @property
    def unfinished(self) -> bool: ...


def watch_message(
    stream: Incoming, before: MessageDeadline | None, now: float, timeout: float | None
) -> MessageDeadline | None:
    """Return the deadline of the message that has begun and not ended; None if there is none, or no ``timeout``.

    :param before: what was returned last, which is returned again for the same message.
    """
    if timeout is None or not stream.unfinished or stream.more:  # if there is more, it is we who take their time
        return None
    if before is None or before.message != stream.messages_begun:
        return MessageDeadline(now, timeout, stream.messages_begun)
    return before
