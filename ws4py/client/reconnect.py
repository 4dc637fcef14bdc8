"""When to connect again: exponential backoff with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from ws4py.exc import HandshakeError

__all__ = ["Backoff", "may_help"]

# Refusals that may pass: Request Timeout, Too Early, Too Many Requests.
_PASSING: Final = frozenset({408, 425, 429})
# Closes that say that the conversation is over, or would be closed the same way again.
_FINAL_CODES: Final = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 1010})


@dataclass(frozen=True)
class Backoff:
    """How a client waits before it connects again. Times are in seconds.

    :param initial: the first delay.
    :param maximum: the longest delay.
    :param factor: by which each delay is longer than the one before.
    :param jitter: which part of a delay is left to chance, from 0 to 1, so that a crowd does not come back at once.
    :param attempts: how often a lost connection is tried again before it is given up; None for ever.
    :param stable: how long a connection must have lasted for the delays to begin anew.
    :raises ValueError: for a value out of range.
    """

    initial: float = 1.0
    maximum: float = 60.0
    factor: float = 2.0
    jitter: float = 0.5
    attempts: int | None = None
    stable: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.maximum or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError("A backoff needs 0 <= initial <= maximum, factor >= 1 and 0 <= jitter <= 1")

    def delay(self, attempt: int, retry_after: float = 0.0) -> float | None:
        """Return how long to wait before an attempt, None to give up.

        :param attempt: its number since the connection was lost, from 0.
        :param retry_after: what the server has asked for, in seconds.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return None
        longest = min(self.maximum, self.initial * self.factor ** min(attempt, 64))
        return max(longest - random.random() * self.jitter * longest, retry_after)  # noqa: S311 - spreads, hides nothing


def may_help(cause: HandshakeError | int) -> bool:
    """Tell whether to connect again may help after a refused handshake, or a close with a code."""
    if isinstance(cause, int):
        return cause not in _FINAL_CODES and not 3000 <= cause <= 4999
    return cause.status in _PASSING or not 401 <= cause.status < 500


def retry_after(error: HandshakeError) -> float:
    """Return the seconds of a refusal's Retry-After, 0 without; an hour at most. A date counts as none."""
    value = next((value for name, value in error.headers if name.lower() == "retry-after"), "")
    return min(float(value), 3600.0) if value.isdecimal() else 0.0
