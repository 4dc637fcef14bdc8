"""What a manager counts and how it is, at one moment: immutable, typed, and made without holding anybody up.

The counters are written by the threads that do the work, each by one thread or under a lock that is held anyway, and
are only read here. To read them of many connections takes a while: that is done in slices, between which others may
run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Final

from ws4py.broker import BrokerStats
from ws4py.engine import Engine
from ws4py.engine.counters import WorkerCounters
from ws4py.engine.histogram import TIME_BOUNDS, Histogram
from ws4py.framing import OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG
from ws4py.limits import ACTIONS
from ws4py.manager.member import Member
from ws4py.manager.registry import Registry
from ws4py.manager.scheduler import Scheduler
from ws4py.native import Build, build

__all__ = [
    "EVENTS",
    "LIMITS",
    "CompressionSnapshot",
    "ConnectionTotals",
    "HistogramSnapshot",
    "InboxTotals",
    "OutboxTotals",
    "Snapshot",
    "Source",
    "TopicTotals",
    "TrafficSnapshot",
    "WorkerSnapshot",
    "plain",
    "slices",
    "take_snapshot",
]

LIMITS: Final = tuple(ACTIONS)
"""The limits and policies that are counted when they act. ``inbox`` has stopped a socket from being read, ``outbox``
has made a sender wait, ``overflow_...`` has decided about a broadcast that found an outbox full.
"""

SLICE: Final = 250
"""How many connections are looked at without a rest."""


@dataclass(frozen=True)
class HistogramSnapshot:
    """How often a time was how long.

    :ivar bounds: the upper bounds of the buckets, in seconds; there is one more bucket, without a bound.
    :ivar buckets: how many values fell into each bucket.
    :ivar sum: of the values, in seconds.
    """

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.buckets)

    def quantile(self, fraction: float) -> float | None:
        """Return the time that this fraction of the values did not exceed, as well as the buckets can tell: in seconds,
        None without values. What is beyond the last bound counts as that bound.

        :param fraction: from 0 to 1.
        """
        rank = fraction * self.count
        if not self.count:
            return None
        below = 0
        for lower, upper, number in zip((0.0, *self.bounds), self.bounds, self.buckets, strict=False):
            if number and below + number >= rank:
                return lower + (upper - lower) * max(0.0, rank - below) / number
            below += number
        return self.bounds[-1]


@dataclass(frozen=True)
class ConnectionTotals:
    """How many connections there are and were.

    :ivar open: now.
    :ivar closing: whose end has begun, and whose ``closed()`` has not returned.
    :ivar opened: since the manager was made, like all that follows.
    :ivar removed: let go by ``remove()``.
    :ivar closed: by the code that ``closed()`` was given. Of the codes from 3000 on a peer may choose any, so these are
        counted together, under "3xxx" and "4xxx".
    :ivar refused: handshakes, by the HTTP status of the answer; a status without a name is counted as "4xx", say.
    """

    open: int
    closing: int
    opened: int
    removed: int
    closed: Mapping[int | str, int]
    refused: Mapping[int | str, int]


@dataclass(frozen=True)
class TrafficSnapshot:
    """What went one way.

    What was sent is what was put into outboxes; a connection may have ended before it left.

    :ivar messages: how many, by kind: text, binary, ping, pong, close.
    :ivar payload_bytes: of the text and binary messages, without framing and compression.
    :ivar bytes: as the sockets gave or took them (under TLS: before encryption).
    """

    messages: Mapping[str, int]
    payload_bytes: Mapping[str, int]
    bytes: int


@dataclass(frozen=True)
class CompressionSnapshot:
    """What compression did. All of it is 0 where none was negotiated.

    :ivar sent_before: bytes of payload that were compressed.
    :ivar sent_after: what became of them.
    :ivar received_before: bytes of payload that were inflated, as they were on the wire.
    :ivar received_after: what became of those.
    """

    sent_before: int
    sent_after: int
    received_before: int
    received_after: int

    @property
    def ratio(self) -> float | None:
        """How many bytes became one on the wire, both ways taken together; None if nothing was compressed."""
        wire = self.sent_after + self.received_before
        return (self.sent_before + self.received_after) / wire if wire else None


@dataclass(frozen=True)
class InboxTotals:
    """What waits for handlers now.

    :ivar messages: in all inboxes.
    :ivar bytes: their payloads, and what has come of messages that have not ended.
    :ivar largest_messages: in one inbox, the most.
    :ivar largest_bytes: likewise.
    """

    messages: int
    bytes: int
    largest_messages: int
    largest_bytes: int


@dataclass(frozen=True)
class OutboxTotals:
    """What waits to be written now.

    :ivar bytes: in all outboxes.
    :ivar largest_bytes: in one, the most.
    """

    bytes: int
    largest_bytes: int


@dataclass(frozen=True)
class WorkerSnapshot:
    """The threads that run callbacks; under gevent, the greenlets.

    :ivar limit: how many there may be; 0 if callbacks run on the manager's thread, or there is no limit.
    :ivar size: how many there are.
    :ivar idle: of those.
    :ivar busy: of those.
    :ivar waiting: connections that wait for a worker now.
    :ivar turns: connections that workers have taken up.
    :ivar in_place: of the turns, those that the thread took which had read what they are for.
    :ivar handed_over: the others.
    :ivar relieved: how often another worker was sent to poll since callbacks took long.
    :ivar slow_callbacks: callbacks that took longer than ``slow_callback``.
    :ivar messages: handed to handlers.
    :ivar errors: exceptions that handlers raised.
    :ivar queue_wait: from when a connection had something to do to when a worker took it up.
    :ivar handler_time: how long a turn took: the callbacks that were due for one connection.
    """

    limit: int
    size: int
    idle: int
    busy: int
    waiting: int
    turns: int
    in_place: int
    handed_over: int
    relieved: int
    slow_callbacks: int
    messages: int
    errors: int
    queue_wait: HistogramSnapshot
    handler_time: HistogramSnapshot


def event(metric: str, text: str) -> Any:
    """Return a field of :class:`Snapshot` for how often something happened.

    :param metric: its name among :data:`ws4py.manager.metrics.METRICS`.
    :param text: what it is, in a sentence.
    """
    return field(metadata={"metric": metric, "text": text})


@dataclass(frozen=True)
class TopicTotals:
    """The topics.

    :ivar open: those that somebody is on now.
    :ivar subscriptions: to them all.
    """

    open: int
    subscriptions: int


@dataclass(frozen=True)
class Snapshot:
    """A manager at one moment.

    :ivar time: of the snapshot, in seconds since 1970.
    :ivar uptime: for how many seconds the manager has run, 0 if it does not.
    :ivar state: new, running, stopping, stopped or failed.
    :ivar loop_lag: how late the manager's timers went off.
    :ivar round_trip: from a Ping of the manager to its Pong.
    :ivar limits: how often each limit or policy acted; see :data:`LIMITS`.

    What follows is counted where it happens, by its name here: ``engine.count("faults")``.
    """

    time: float
    uptime: float
    state: str
    build: Build
    connections: ConnectionTotals
    received: TrafficSnapshot
    sent: TrafficSnapshot
    compression: CompressionSnapshot
    inbox: InboxTotals
    outbox: OutboxTotals
    workers: WorkerSnapshot
    loop_lag: HistogramSnapshot
    round_trip: HistogramSnapshot
    limits: Mapping[str, int]
    topics: TopicTotals
    broker: BrokerStats
    broadcasts: int = event("broadcasts", "Broadcasts.")
    deliveries: int = event("broadcast_deliveries", "Messages that broadcasts put into an outbox.")
    publications: int = event("publications", "Publications to topics.")
    publication_deliveries: int = event("publication_deliveries", "Messages that publications put into an outbox.")
    publication_gaps: int = event(
        "publication_gaps", "Websockets that were closed to resume, since publications may be missing."
    )
    faults: int = event("connection_faults", "Connections ended since something done for them raised.")
    failures: int = event("manager_failures", "How often the manager itself failed.")

    def as_dict(self) -> dict[str, Any]:
        """Return the same as what JSON can express; its schema is docs/stats.schema.json."""
        result: dict[str, Any] = plain(self)
        return result


EVENTS: Final = {item.name: item.metadata for item in fields(Snapshot) if item.metadata}
"""What is counted where it happens, by its field: its metric, and what it is."""


def plain(value: Any) -> Any:
    """Return the same as what JSON can express."""
    if is_dataclass(value):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


# --- taking one -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """From what a snapshot is taken: one manager's parts.

    :ivar breathe: lets others run, in the midst of something that takes long.
    """

    registry: Registry
    engine: Engine
    scheduler: Scheduler | None
    breathe: Callable[[], None]
    uptime: float
    state: str
    retired: WorkerCounters

    def worker_counters(self) -> WorkerCounters:
        """Return what the workers of all runs of the manager have counted."""
        counters = WorkerCounters()
        counters.merge(self.retired)
        if self.scheduler is not None:
            counters.merge(self.scheduler.counters())
        return counters


def slices(source: Source, members: list[Member]) -> Iterator[list[Member]]:
    """Yield the members in slices, and let others run in between."""
    for start in range(0, len(members), SLICE):
        if start:
            source.breathe()
        yield members[start : start + SLICE]


def _histogram(histogram: Histogram) -> HistogramSnapshot:
    return HistogramSnapshot(TIME_BOUNDS, *histogram.read())


def _frozen(counts: Mapping[Any, int]) -> Mapping[Any, int]:
    return MappingProxyType(dict(sorted(counts.items(), key=lambda item: str(item[0]))))


def take_snapshot(source: Source) -> Snapshot:
    """See :meth:`ws4py.manager.WebSocketManager.stats`."""
    now = time.time()
    registry, scheduler = source.registry, source.scheduler
    topics = registry.topics
    members, traffic, closed, refused = registry.recorded()
    counters = source.engine.counters
    inbox_messages = inbox_bytes = largest_messages = largest_inbox = outbox_bytes = largest_outbox = 0
    for part in slices(source, members):
        for member in part:
            connection = member.connection
            if connection.traffic is not None:
                traffic.add(connection.counted())
            waiting, inbox_size, outbox_size = connection.inbox_length, connection.waiting_size, connection.buffered
            if waiting:
                inbox_messages += waiting
                largest_messages = max(largest_messages, waiting)
            if inbox_size:
                inbox_bytes += inbox_size
                largest_inbox = max(largest_inbox, inbox_size)
            if outbox_size:
                outbox_bytes += outbox_size
                largest_outbox = max(largest_outbox, outbox_size)
    open_now = min(len(registry), len(members))
    return Snapshot(
        time=now,
        uptime=source.uptime,
        state=source.state,
        build=build(),
        connections=ConnectionTotals(
            open=open_now,
            closing=len(members) - open_now,
            opened=counters.opened,
            removed=counters.removed,
            closed=_frozen(closed),
            refused=_frozen(refused),
        ),
        received=TrafficSnapshot(
            MappingProxyType(
                {
                    "text": traffic.texts_received,
                    "binary": traffic.binaries_received,
                    "ping": counters.controls_received[OPCODE_PING],
                    "pong": counters.controls_received[OPCODE_PONG],
                    "close": counters.controls_received[OPCODE_CLOSE],
                }
            ),
            MappingProxyType({"text": traffic.text_bytes_received, "binary": traffic.binary_bytes_received}),
            traffic.bytes_received,
        ),
        sent=TrafficSnapshot(
            MappingProxyType(
                {
                    "text": traffic.texts_sent,
                    "binary": traffic.binaries_sent,
                    "ping": traffic.pings_sent,
                    "pong": traffic.pongs_sent,
                    "close": traffic.closes_sent,
                }
            ),
            MappingProxyType({"text": traffic.text_bytes_sent, "binary": traffic.binary_bytes_sent}),
            traffic.bytes_sent,
        ),
        compression=CompressionSnapshot(
            traffic.encoded_from, traffic.encoded_to, traffic.decoded_from, traffic.decoded_to
        ),
        inbox=InboxTotals(inbox_messages, inbox_bytes, largest_messages, largest_inbox),
        outbox=OutboxTotals(outbox_bytes, largest_outbox),
        workers=_workers(source, scheduler),
        loop_lag=_histogram(counters.loop_lag),
        round_trip=_histogram(counters.round_trips),
        limits=MappingProxyType({**dict.fromkeys(LIMITS, 0), **counters.limits}),
        topics=TopicTotals(len(topics), topics.subscriptions),
        broker=topics.broker.stats(),
        **{name: counters.events[name] for name in EVENTS},
    )


def _workers(source: Source, scheduler: Scheduler | None) -> WorkerSnapshot:
    limit, size, idle, waiting = (0, 0, 0, 0) if scheduler is None else scheduler.state()
    counters = source.worker_counters()
    return WorkerSnapshot(
        limit=limit,
        size=size,
        idle=idle,
        busy=max(0, size - idle),
        waiting=waiting,
        turns=counters.turns,
        in_place=counters.in_place,
        handed_over=counters.turns - counters.in_place,
        relieved=0 if scheduler is None else scheduler.reliefs,
        slow_callbacks=source.engine.counters.events["slow_callbacks"],
        messages=counters.messages,
        errors=counters.errors,
        queue_wait=_histogram(counters.queue_wait),
        handler_time=_histogram(counters.turn_time),
    )
