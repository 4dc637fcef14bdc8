"""What a manager counts. One thread writes each counter, so none needs a lock."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from operator import add
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ws4py.manager.connection import Connection

__all__ = ["MANY", "TIME_BOUNDS", "Histogram", "ManagerCounters", "TrafficCounters", "WorkerCounters"]

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


MANY: Final = 512
"""So many values a histogram keeps before it counts them."""


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
        if len(kept) >= MANY:
            self.settle()

    def settle(self) -> list[float]:
        """Count what is kept, and return the list that values may be appended to from now on, until it has ``MANY``.

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
        # A turn may begin, by the clock, a moment before it was asked for.
        return (*counts, buckets[-1] + len(values) - start), total + max(0.0, sum(values))

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
    :ivar bytes_sent: as the sockets took them.
    :ivar texts: text messages, counted when they are whole.
    :ivar text_bytes: their payloads, before any codec.
    :ivar binaries: binary messages, likewise.
    :ivar binary_bytes: their payloads, likewise.
    :ivar pings: of the manager and of the application.
    :ivar pongs: likewise.
    :ivar closes: Close frames.
    :ivar encoded_from: bytes of payload that codecs have encoded.
    :ivar encoded_to: what they made of them.
    :ivar decoded_from: bytes of payload that they have decoded.
    :ivar decoded_to: what they made of those.
    """

    __slots__ = (
        "binaries",
        "binary_bytes",
        "bytes_received",
        "bytes_sent",
        "closes",
        "decoded_from",
        "decoded_to",
        "encoded_from",
        "encoded_to",
        "pings",
        "pongs",
        "text_bytes",
        "texts",
    )

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.texts = 0
        self.text_bytes = 0
        self.binaries = 0
        self.binary_bytes = 0
        self.pings = 0
        self.pongs = 0
        self.closes = 0
        self.encoded_from = 0
        self.encoded_to = 0
        self.decoded_from = 0
        self.decoded_to = 0

    def add(self, connection: Connection) -> None:
        """Add what a connection has counted. Any thread may call; its own counting goes on meanwhile."""
        self.bytes_received += connection.bytes_received
        self.bytes_sent += connection.bytes_sent
        self.texts += connection.texts_sent
        self.text_bytes += connection.text_bytes_sent
        self.binaries += connection.binaries_sent
        self.binary_bytes += connection.binary_bytes_sent
        self.pings += connection.pings_sent
        self.pongs += connection.pongs_sent
        self.closes += connection.closes_sent
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
    :ivar closed: those that ended, by the code that ``closed()`` was given.
    :ivar received_by_opcode: messages received; an opcode is an index.
    :ivar payload_by_opcode: the bytes of their payloads, decoded; likewise.
    :ivar gone: what connections have counted that are gone; the open ones count for themselves.
    :ivar limits: how often each limit or policy acted, by its name. Any thread adds to it, under the manager's lock.
    :ivar refused: handshakes that were refused, by the HTTP status, likewise.
    :ivar broadcasts: calls of ``broadcast``, likewise.
    :ivar deliveries: messages that broadcasts gave to an outbox, likewise.
    :ivar round_trips: from a Ping of the manager to its Pong.
    :ivar loop_lag: how late timers went off.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.removed = 0
        self.closed: Counter[int] = Counter()
        # Lists, for these are counted with every message.
        self.received_by_opcode = [0] * 16
        self.payload_by_opcode = [0] * 16
        self.gone = TrafficCounters()
        self.limits: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.broadcasts = 0
        self.deliveries = 0
        self.round_trips = Histogram()
        self.loop_lag = Histogram()

    @property
    def received(self) -> Counter[int]:
        """Messages received, by opcode."""
        return Counter({opcode: count for opcode, count in enumerate(self.received_by_opcode) if count})

    @property
    def bytes_received(self) -> int:
        """From connections that are gone."""
        return self.gone.bytes_received

    @property
    def bytes_sent(self) -> int:
        """To connections that are gone."""
        return self.gone.bytes_sent

    @property
    def messages_sent(self) -> int:
        """Data messages of connections that are gone."""
        return self.gone.texts + self.gone.binaries

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
