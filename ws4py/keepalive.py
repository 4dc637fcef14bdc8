"""Keepalive: when a Ping is due, and when a peer counts as dead (RFC 6455, section 5.5.2). The time is passed in.

A Ping goes out ``interval`` seconds after the last one, or after the beginning. Then the peer has ``timeout`` seconds
for its Pong. If other bytes came meanwhile it has as long again: a long message on a slow line lets no Pong through
before its end. A Ping's payload is random, so who has not read it can't answer it.
"""

from __future__ import annotations

import enum
import os
from typing import Final

__all__ = ["DEAD", "Keepalive", "Verdict"]


class Verdict(enum.Enum):
    """What is to be done."""

    NOTHING = enum.auto()
    PING = enum.auto()
    DEAD = enum.auto()


NOTHING: Final = Verdict.NOTHING
PING: Final = Verdict.PING
DEAD: Final = Verdict.DEAD

PAYLOAD_SIZE: Final = 4


class Keepalive:
    """The keepalive of one connection. Times are in seconds, of one monotonic clock. Not thread-safe.

    :param now: when it begins.
    :ivar payload: of the last Ping; None before the first.
    :ivar waiting: whether its Pong is waited for.
    :ivar latency: from a Ping to its Pong, of the last that was answered so; None before.
    """

    __slots__ = ("_sent_at", "_since", "latency", "payload", "waiting")

    def __init__(self, now: float) -> None:
        self._sent_at = now  # when the last Ping was sent
        self._since = now  # from when on what is waited for has its time
        self.payload: bytes | None = None
        self.waiting = False
        self.latency: float | None = None

    def due(self, interval: float | None, timeout: float | None) -> float | None:
        """Return when :meth:`act` has something to do; None for never.

        :param interval: after how long a Ping is due; None for never.
        :param timeout: how long the peer has for its Pong; None for ever.
        """
        wait = timeout if self.waiting else interval
        return None if wait is None else self._since + wait

    def act(self, now: float, interval: float | None, timeout: float | None, heard_at: float) -> Verdict:
        """Tell what is to be done now. After ``PING`` a Ping with :attr:`payload` is to be sent.

        :param heard_at: when bytes last came from the peer; ``now`` if it is this side that does not read.
        """
        due = self.due(interval, timeout)
        if due is None or now < due:
            return NOTHING
        if self.waiting:
            if heard_at < self._since:
                return DEAD
            self._since = now
            return NOTHING
        self._since = self._sent_at = now
        self.waiting = True
        self.payload = os.urandom(PAYLOAD_SIZE)
        return PING

    def ponged(self, now: float, payload: bytes) -> bool:
        """Take in a Pong; return whether it answers the last Ping of :meth:`act`, not one of the application's."""
        if payload != self.payload:
            return False
        if self.waiting:
            self.waiting = False
            self._since = self._sent_at
            self.latency = now - self._sent_at
        return True
