"""What a manager counts. One thread writes each counter, so none needs a lock; whoever reads sees a recent value."""

from __future__ import annotations

import bisect
from collections import Counter
from typing import Final

__all__ = ["Histogram", "ManagerCounters", "WorkerCounters"]

TIME_BOUNDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds of the buckets of a time, in seconds."""


class Histogram:
    """Counts values by the bucket that they fall in. One thread observes."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(TIME_BOUNDS) + 1)  # the last one has no bound
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count a value."""
        self.buckets[bisect.bisect_left(TIME_BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.buckets)

    def merge(self, other: Histogram) -> None:
        """Add what another one has counted."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.total += other.total


class ManagerCounters:
    """Counted by the manager's thread, but for what is said to be otherwise.

    :ivar opened: connections that were added.
    :ivar closed: those that ended, by the code that ``closed()`` was given.
    :ivar received: messages received, by opcode.
    :ivar controls_sent: control frames that the manager sent on its own, by opcode.
    :ivar messages_sent: data messages of connections that are gone; those of the open ones are counted there.
    :ivar bytes_received: as they came from the sockets.
    :ivar bytes_sent: as the sockets took them.
    :ivar limits: how often each limit or policy acted, by its name. Any thread adds to it, under the manager's lock.
    :ivar refused: handshakes that were refused, by the HTTP status, likewise.
    :ivar broadcasts: calls of ``broadcast``, likewise.
    :ivar deliveries: messages that broadcasts gave to an outbox, likewise.
    :ivar round_trips: from a Ping of the manager to its Pong.
    :ivar loop_lag: how late timers went off.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.closed: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self.controls_sent: Counter[int] = Counter()
        self.messages_sent = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.limits: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.broadcasts = 0
        self.deliveries = 0
        self.round_trips = Histogram()
        self.loop_lag = Histogram()


class WorkerCounters:
    """Counted by one worker's thread.

    :ivar turns: connections that it took from the run queue.
    :ivar messages: messages that it handed to handlers.
    :ivar errors: exceptions that handlers raised.
    :ivar queue_wait: from when a connection was put on the run queue to when it was taken.
    :ivar turn_time: how long a turn took.
    """

    def __init__(self) -> None:
        self.turns = 0
        self.messages = 0
        self.errors = 0
        self.queue_wait = Histogram()
        self.turn_time = Histogram()

    def merge(self, other: WorkerCounters) -> None:
        """Add what another one has counted."""
        self.turns += other.turns
        self.messages += other.messages
        self.errors += other.errors
        self.queue_wait.merge(other.queue_wait)
        self.turn_time.merge(other.turn_time)
