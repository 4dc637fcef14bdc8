"""What a manager counts. One thread writes each counter, so none needs a lock."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from operator import add
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ws4py.manager.connection import Connection

__all__ = ["KEPT_VALUES", "TIME_BOUNDS", "Histogram", "ManagerCounters", "TrafficCounters", "WorkerCounters"]

TIME_BOUNDS: Final = (
    0.00001,
    0.000025,
    0.00005,
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


KEPT_VALUES: Final = 512
"""How many values a histogram keeps before it counts them."""


class Histogram:
    """Counts values by the bucket that they fall in. One thread observes; any thread may read.

    Values are kept as they come, and counted many at a time, which takes a third of the time. What is counted and what
    is kept change places in one assignment, so a reader never misses a value nor meets one twice.
    """

    __slots__ = ("_state",)

    def __init__(self, buckets: tuple[int, ...] = (0,) * (len(TIME_BOUNDS) + 1), total: float = 0.0) -> None:
        kept: list[float] = []
        self._state = buckets, total, kept  # the last bucket has no bound

    def observe(self, seconds: float) -> None:
        """Take in a value. The observing thread only."""
        kept = self._state[2]
        kept.append(seconds)
        if len(kept) >= KEPT_VALUES:
            self.settle()

    def settle(self) -> list[float]:
        """Count what is kept, and return the list that values may be appended to from now on, until there are
        ``KEPT_VALUES`` of them.

        The observing thread only.
        """
        kept: list[float] = []
        self._state = (*self.read(), kept)
        return kept

    def read(self) -> tuple[tuple[int, ...], float]:
        """Return how many values fell into each bucket, and their sum in seconds. Any thread may call."""
        buckets, total, kept = self._state
        if not kept:
            return buckets, total
        values = sorted(kept)
        counts = []
        start = 0
        for count, bound in zip(buckets, TIME_BOUNDS, strict=False):
            stop = bisect_right(values, bound, start)
            counts.append(count + stop - start)
            start = stop
        # Those below 0 count as 0: by the clock, a turn may begin a moment before it was asked for.
        return (*counts, buckets[-1] + len(values) - start), total + sum(values[bisect_right(values, 0.0) :])

    @property
    def count(self) -> int:
        """How many values there were."""
        buckets, _, kept = self._state
        return sum(buckets) + len(kept)

    def copy(self) -> Histogram:
        """Return these numbers, which count no further. Any thread may call."""
        return Histogram(*self.read())

    def merge(self, other: Histogram) -> None:
        """Add what another one has counted."""
        (mine, total), (theirs, their_total) = self.read(), other.read()
        self._state = tuple(map(add, mine, theirs)), total + their_total, []


class TrafficCounters:
    """What connections count for themselves, added up.

    :ivar bytes_received: as they came from the sockets.
    :ivar texts_received: text messages, counted when they are whole.
    :ivar text_bytes_received: their payloads, decoded.
    :ivar binaries_received: binary messages, likewise.
    :ivar binary_bytes_received: their payloads, likewise.
    :ivar bytes_sent: as the sockets took them.
    :ivar texts_sent: text messages, counted when they are whole.
    :ivar text_bytes_sent: their payloads, before any codec.
    :ivar binaries_sent: binary messages, likewise.
    :ivar binary_bytes_sent: their payloads, likewise.
    :ivar pings_sent: of the manager and of the application.
    :ivar pongs_sent: likewise.
    :ivar closes_sent: Close frames.
    :ivar encoded_from: bytes of payload that codecs have encoded.
    :ivar encoded_to: what they made of them.
    :ivar decoded_from: bytes of payload that they have decoded.
    :ivar decoded_to: what they made of those.
    """

    __slots__ = (
        "binaries_received",
        "binaries_sent",
        "binary_bytes_received",
        "binary_bytes_sent",
        "bytes_received",
        "bytes_sent",
        "closes_sent",
        "decoded_from",
        "decoded_to",
        "encoded_from",
        "encoded_to",
        "pings_sent",
        "pongs_sent",
        "text_bytes_received",
        "text_bytes_sent",
        "texts_received",
        "texts_sent",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.texts_received = 0
        self.text_bytes_received = 0
        self.binaries_received = 0
        self.binary_bytes_received = 0
        self.bytes_sent = 0
        self.texts_sent = 0
        self.text_bytes_sent = 0
        self.binaries_sent = 0
        self.binary_bytes_sent = 0
        self.pings_sent = 0
        self.pongs_sent = 0
        self.closes_sent = 0
        self.encoded_from = 0
        self.encoded_to = 0
        self.decoded_from = 0
        self.decoded_to = 0

    def add(self, connection: Connection) -> None:
        """Add what a connection has counted. Any thread may call; its own counting goes on meanwhile."""
        self.bytes_received += connection.bytes_received
        self.texts_received += connection.texts_received
        self.text_bytes_received += connection.text_bytes_received
        self.binaries_received += connection.binaries_received
        self.binary_bytes_received += connection.binary_bytes_received
        self.bytes_sent += connection.bytes_sent
        self.texts_sent += connection.texts_sent
        self.text_bytes_sent += connection.text_bytes_sent
        self.binaries_sent += connection.binaries_sent
        self.binary_bytes_sent += connection.binary_bytes_sent
        self.pings_sent += connection.pings_sent
        self.pongs_sent += connection.pongs_sent
        self.closes_sent += connection.closes_sent
        stream = connection.stream
        if stream.codec is not None:
            self.encoded_from += connection.encoded_from
            self.encoded_to += connection.encoded_to
            self.decoded_from += stream.decoded_from
            self.decoded_to += stream.decoded_to

    def copy(self) -> TrafficCounters:
        """Return these numbers, which count no further."""
        other = TrafficCounters()
        for name in self.__slots__:
            setattr(other, name, getattr(self, name))
        return other


class ManagerCounters:
    """Counted by the manager's thread, but for what is said to be otherwise.

    :ivar opened: connections that were added.
    :ivar removed: those that were let go, open.
    :ivar closed: those that ended, by the label of the code that ``closed()`` was given.
    :ivar controls_received: control frames, by opcode.
    :ivar gone: what connections have counted that are gone; the open ones count for themselves.
    :ivar limits: how often each limit or policy acted, by its name. Any thread adds to it, under the manager's lock.
    :ivar refused: handshakes that were refused, by the label of the HTTP status, likewise.
    :ivar broadcasts: calls of ``broadcast``, likewise.
    :ivar deliveries: messages that broadcasts gave to an outbox, likewise.
    :ivar faults: connections that were ended since something done for them raised, handlers aside; likewise.
    :ivar failures: how often the manager itself failed; likewise.
    :ivar round_trips: from a Ping of the manager to its Pong.
    :ivar loop_lag: how late timers went off.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.removed = 0
        self.closed: Counter[int | str] = Counter()
        self.controls_received: Counter[int] = Counter()
        self.gone = TrafficCounters()
        self.limits: Counter[str] = Counter()
        self.refused: Counter[int | str] = Counter()
        self.broadcasts = 0
        self.deliveries = 0
        self.faults = 0
        self.failures = 0
        self.round_trips = Histogram()
        self.loop_lag = Histogram()

    def copy(self) -> ManagerCounters:
        """Return these numbers, which count no further. Any thread may call, under the manager's lock."""
        other = ManagerCounters()
        for name, value in vars(self).items():
            setattr(other, name, value.copy() if hasattr(value, "copy") else value)
        return other


class WorkerCounters:
    """Counted by one worker's thread.

    :ivar turns: connections that it took from the run queue.
    :ivar messages: messages that it handed to handlers.
    :ivar errors: exceptions that handlers raised.
    :ivar queue_wait: from when a connection was put on the run queue to when it was taken.
    :ivar turn_time: how long a turn took.
    """

    def __init__(self) -> None:
        self.thread = 0  # whose they are, by its number
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
