"""Single connections at one moment, the largest first of what somebody wants to see."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal, get_args

from ws4py.engine.traffic import Traffic
from ws4py.labels import printable
from ws4py.manager.member import Member
from ws4py.manager.snapshot import Source, plain, slices

__all__ = ["SORT_KEYS", "ConnectionSnapshot", "SortKey", "take_connections"]

SortKey = Literal[
    "age",
    "idle",
    "messages",
    "messages_received",
    "messages_sent",
    "bytes",
    "bytes_received",
    "bytes_sent",
    "inbox",
    "outbox",
    "round_trip",
]
"""By what connections can be put in order, the largest first. ``inbox`` is in messages, ``outbox`` in bytes."""

SORT_KEYS: Final[tuple[SortKey, ...]] = get_args(SortKey)
"""All of them."""


@dataclass(frozen=True)
class ConnectionSnapshot:
    """One connection at one moment.

    :ivar id: its number, counted from 1 in each manager; log records have it, too.
    :ivar address: of the peer: the IP address of its socket, or the one that a proxy said it is; "" if that is unknown.
    :ivar path: of the request that it came from; what is not printable is "?" in it, and a long one is cut.
    :ivar subprotocol: that was negotiated, if one was.
    :ivar closing: whether a Close was sent or is to be.
    :ivar age: in seconds.
    :ivar idle: for how many seconds no message came or went.
    :ivar messages_received: text and binary messages.
    :ivar messages_sent: likewise.
    :ivar bytes_received: as they came from the socket.
    :ivar bytes_sent: as the socket took them.
    :ivar inbox_messages: how many wait for the handler.
    :ivar inbox_bytes: their payloads, and what has come of a message that has not ended.
    :ivar outbox_bytes: that wait to be written.
    :ivar round_trip: of the last Ping, in seconds; None before the first Pong.
    """

    id: int
    address: str
    path: str
    subprotocol: str | None
    closing: bool
    age: float
    idle: float
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    inbox_messages: int
    inbox_bytes: int
    outbox_bytes: int
    round_trip: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the same as what JSON can express."""
        result: dict[str, Any] = plain(self)
        return result


_NOTHING: Final = Traffic()


def _traffic(member: Member) -> Traffic:
    return member.connection.traffic or _NOTHING


def _bytes(member: Member) -> float:
    traffic = _traffic(member)
    return traffic.bytes_received + traffic.bytes_sent


def _messages(member: Member) -> float:
    traffic = _traffic(member)
    return traffic.messages_received + traffic.messages_sent


def _latency(member: Member) -> float | None:
    keepalive = member.connection.keepalive
    return None if keepalive is None else keepalive.latency


def _round_trip(member: Member) -> float:
    latency = _latency(member)
    return -1.0 if latency is None else latency


_VALUES: Final[Mapping[str, Callable[[Member], float]]] = {
    "age": lambda member: -member.connection.opened_at,
    "idle": lambda member: -member.connection.active_at,
    "messages": _messages,
    "messages_received": lambda member: _traffic(member).messages_received,
    "messages_sent": lambda member: _traffic(member).messages_sent,
    "bytes": _bytes,
    "bytes_received": lambda member: _traffic(member).bytes_received,
    "bytes_sent": lambda member: _traffic(member).bytes_sent,
    "inbox": attrgetter("connection.inbox_length"),
    "outbox": attrgetter("connection.buffered"),
    "round_trip": _round_trip,
}


def take_connections(source: Source, top: int | None, keys: Sequence[SortKey]) -> list[tuple[ConnectionSnapshot, ...]]:
    """Return for each key what :meth:`ws4py.manager.WebSocketManager.connection_stats` does."""
    for key in keys:
        if key not in _VALUES:
            raise ValueError(f"There is no key {key!r}: it is one of {', '.join(SORT_KEYS)}")
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or top < 0):
        raise ValueError(f"top must be a whole number of at least 0 or None, not {top!r}")
    members = source.registry.members()
    number = len(members) if top is None else min(top, len(members))
    # The number settles ties: the one that came first comes first.
    best: list[list[tuple[float, int, Member]]] = [[] for _ in keys]
    for part in slices(source, members):
        for index, key in enumerate(keys):
            value = _VALUES[key]
            ranked = ((value(member), -member.id, member) for member in part)
            if number == len(members):
                best[index].extend(ranked)
            else:
                best[index] = heapq.nlargest(number, itertools.chain(best[index], ranked))
    now = source.engine.clock()
    result = []
    for ranking in best:
        ranking.sort(reverse=True)
        picked = [member for _, _, member in ranking]
        result.append(tuple(_one(item, now) for part in slices(source, picked) for item in part))
    return result


def _one(member: Member, now: float) -> ConnectionSnapshot:
    protocols: Any = member.websocket.protocols
    connection, traffic = member.connection, _traffic(member)
    return ConnectionSnapshot(
        id=member.id,
        address=member.address,
        path=member.path,
        subprotocol=printable(str(protocols[0])) if protocols else None,
        closing=connection.closing.sent is not None or connection.send_ended,
        age=max(0.0, now - connection.opened_at),
        idle=max(0.0, now - connection.active_at),
        messages_received=traffic.messages_received,
        messages_sent=traffic.messages_sent,
        bytes_received=traffic.bytes_received,
        bytes_sent=traffic.bytes_sent,
        inbox_messages=connection.inbox_length,
        inbox_bytes=connection.waiting_size,
        outbox_bytes=connection.buffered,
        round_trip=_latency(member),
    )
