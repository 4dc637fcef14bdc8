"""How long a message may take to come. The time is passed in; it is in seconds."""

from __future__ import annotations

from typing import Final

__all__ = ["MessageDeadline"]

LEAST_RATE: Final = 1024
"""How many bytes of a message must come in a second for it to take longer than its deadline."""

LOOKS: Final = 4
"""How often a message is looked at until its deadline, and in as long a time after that."""


class MessageDeadline:
    """The deadline of one message that has begun and not ended. It holds only while the message comes slowly, so that
    a large one over a slow line passes.

    :param now: when the message was first seen to be unfinished.
    :param timeout: how long it may take.
    """

    __slots__ = ("_deadline", "_looked_at", "_size", "_step", "due")

    def __init__(self, now: float, timeout: float) -> None:
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
