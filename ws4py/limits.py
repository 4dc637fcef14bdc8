"""The limits of a manager and of each connection, in one validated, immutable object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, get_args

from ws4py.streaming import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE

__all__ = ["ACTIONS", "RULES", "Limits", "OverflowPolicy", "Rule"]

OverflowPolicy = Literal["close", "drop", "latest"]
"""What a broadcast, or a publication, does for a peer whose outbox is full: close it with 1013, leave this message out,
or keep the newest only.
"""


Kind = Literal["number", "bytes", "seconds", "policy"]


@dataclass(frozen=True)
class Rule:
    """What there is to a limit beside its default.

    :ivar kind: what its value is.
    :ivar past: what happens past it, in a few words.
    :ivar actions: as what it is counted when it acts, with words for people who read that.
    :ivar optional: whether it may be None.
    :ivar unset: what None means.
    :ivar of_manager: whether it is one of the manager as a whole, and so of no single endpoint.
    """

    kind: Kind
    past: str
    actions: Mapping[str, str]
    optional: bool
    unset: str
    of_manager: bool

    def check(self, name: str, value: Any) -> None:
        """See whether a value is in range.

        :raises ValueError: if it is not.
        """
        if value is None and self.optional:
            return
        or_none = " or None" if self.optional else ""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.kind == "policy":
            if value not in get_args(OverflowPolicy):
                raise ValueError(f"{name} must be one of {', '.join(get_args(OverflowPolicy))}, not {value!r}")
        elif self.kind == "seconds":
            if not number or not 0 <= value < math.inf or (value == 0 and self.optional):
                least = "over 0" if self.optional else "of at least 0"
                raise ValueError(f"{name} must be a number of seconds {least}{or_none}, not {value!r}")
        elif not number or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1{or_none}, not {value!r}")


def _rule(
    kind: Kind, past: str, *, optional: bool = False, unset: str = "none", of_manager: bool = False, **actions: str
) -> dict[str, Rule]:
    """Return the metadata of a limit's field.

    :param actions: as what it is counted when it acts, with words for it.
    """
    return {"rule": Rule(kind, past, actions, optional, unset, of_manager)}


@dataclass(frozen=True)
class Limits:
    """What a connection may use. Sizes are bytes, times are seconds; None means no limit where it is allowed.

    :ivar max_message_size: payload of a received message, past which the connection is closed with 1009.
    :ivar max_fragments: frames of a received message, likewise.
    :ivar max_inbox_messages: messages that wait for their handler, past which the socket is not read.
    :ivar max_inbox_size: their payloads, likewise.
    :ivar max_outbox_size: what waits to be written, past which ``send`` waits and the connection is neither read nor
        scheduled.
    :ivar send_timeout: how long ``send`` waits at most, before the peer is given up as a slow consumer.
    :ivar max_waiting_senders: workers that may wait in ``send`` at once, past which the next one's peer is given up as
        a slow consumer; None is half of the workers, and at least one. It is looked at when the manager starts.
    :ivar max_workers: callbacks of websockets of this one's class that may run at once, so that slow handlers leave
        workers to others; None is as many as there are. Not under gevent, where there is no pool to use up.
    :ivar overflow: what a broadcast does where it would have to wait; and a publication, unless its topic has a policy.
    :ivar max_connections: of the manager at once, until their descriptors are given back; further handshakes are
        refused with 503.
    :ivar max_connections_per_ip: likewise, from one address; further handshakes are refused with 429.
    :ivar max_messages_per_second: received on one connection, past which it is closed with 1008. Control frames and
        fragments count, too.
    :ivar message_timeout: how long a message may take to come, past which the connection is closed with 1008; not while
        it comes faster than 1 KiB a second. None waits for ever.
    :ivar ping_interval: after how long a Ping is sent; None sends none.
    :ivar ping_timeout: how long nothing may come after it, before the peer counts as dead; None waits for ever.
    :ivar close_timeout: how long the peer's Close may take, before the socket is dropped.
    :ivar max_topics: of one websocket at once, past which ``subscribe`` raises.
    :ivar drain_timeout: how long a stopping manager waits for its connections to close.
    :ivar drain_pace: how many of them it closes in a second, so that not all come back at once; None closes 2000, or as
        many as it takes to have closed all in half of ``drain_timeout``. What is still open after ``drain_timeout`` is
        dropped in any case.
    :raises ValueError: if one is out of range; the message names it.
    """

    max_message_size: int | None = field(
        default=DEFAULT_MAX_MESSAGE_SIZE,
        metadata=_rule(
            "bytes",
            "the connection is closed with 1009, before the rest is buffered",
            optional=True,
            max_message_size="closed: message too big",
        ),
    )
    max_fragments: int | None = field(
        default=DEFAULT_MAX_FRAGMENTS,
        metadata=_rule("number", "closed with 1009", optional=True, max_fragments="closed: too many fragments"),
    )
    max_inbox_messages: int = field(
        default=64,
        metadata=_rule("number", "the socket is not read until the handlers have caught up: TCP pushes back"),
    )
    max_inbox_size: int = field(
        default=1 << 20, metadata=_rule("bytes", "the same", inbox="stopped reading: inbox full")
    )
    max_outbox_size: int = field(
        default=1 << 20,
        metadata=_rule(
            "bytes",
            "``send`` waits, and the connection is neither read nor scheduled",
            outbox="made a sender wait: outbox full",
        ),
    )
    send_timeout: float = field(
        default=10.0,
        metadata=_rule(
            "seconds",
            "``send`` raises ``SlowConsumer``, and the connection is given up",
            send_timeout="closed: slow consumer",
        ),
    )
    max_waiting_senders: int | None = field(
        default=None,
        metadata=_rule(
            "number",
            "of the manager: the next worker that would wait in ``send`` gives its peer up",
            optional=True,
            unset="workers/2",
            of_manager=True,
            max_waiting_senders="closed: too many senders wait",
        ),
    )
    max_workers: int | None = field(
        default=None,
        metadata=_rule("number", "other callbacks of the same class of websockets wait for these", optional=True),
    )
    overflow: OverflowPolicy = field(
        default="close",
        metadata=_rule(
            "policy",
            "of a broadcast: ``close`` (1013), ``drop`` the message, or keep the ``latest``",
            overflow_close="closed for a broadcast",
            overflow_drop="dropped a broadcast",
            overflow_latest="kept the latest broadcast",
        ),
    )
    max_connections: int | None = field(
        default=None,
        metadata=_rule(
            "number",
            "the handshake is answered 503, with Retry-After",
            optional=True,
            of_manager=True,
            max_connections="refused: too many connections",
        ),
    )
    max_connections_per_ip: int | None = field(
        default=None,
        metadata=_rule(
            "number",
            "the handshake is answered 429",
            optional=True,
            of_manager=True,
            max_connections_per_ip="refused: too many from an address",
        ),
    )
    max_messages_per_second: int | None = field(
        default=None,
        metadata=_rule(
            "number",
            "closed with 1008; control frames and fragments count, too",
            optional=True,
            max_messages_per_second="closed: too many messages",
        ),
    )
    message_timeout: float | None = field(
        default=120.0,
        metadata=_rule(
            "seconds",
            "an unfinished message: closed with 1008, unless it comes faster than 1 KiB/s",
            optional=True,
            message_timeout="closed: message not finished",
        ),
    )
    ping_interval: float | None = field(default=30.0, metadata=_rule("seconds", "a Ping is sent", optional=True))
    ping_timeout: float | None = field(
        default=30.0,
        metadata=_rule(
            "seconds",
            "nothing came in that time: closed with 1011; ``closed(1006)``",
            optional=True,
            ping_timeout="closed: no Pong",
        ),
    )
    close_timeout: float = field(
        default=5.0,
        metadata=_rule("seconds", "the socket is dropped", close_timeout="dropped: Close not answered"),
    )
    max_topics: int | None = field(
        default=100,
        metadata=_rule(
            "number",
            "of one websocket: ``subscribe`` raises ``TooManyTopics``",
            optional=True,
            max_topics="refused: too many topics",
        ),
    )
    drain_timeout: float = field(
        default=10.0,
        metadata=_rule(
            "seconds",
            "of a stop: what is still open is dropped",
            of_manager=True,
            drain_timeout="dropped at the end",
        ),
    )
    drain_pace: int | None = field(
        default=None,
        metadata=_rule(
            "number",
            "of a stop: the other websockets are closed in the seconds that follow",
            optional=True,
            unset="2000/s",
            of_manager=True,
        ),
    )

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            rule.check(name, getattr(self, name))

    @property
    def retry_headers(self) -> list[tuple[str, str]]:
        """What a handshake is refused with when there is no room for it: Retry-After, in the seconds of a drain."""
        return [("Retry-After", str(max(1, round(self.drain_timeout))))]

    @classmethod
    def check_endpoint(cls, limits: Mapping[str, Any]) -> None:
        """Check what is set for one endpoint of a server, by name.

        :raises TypeError: for a name that is no limit, or one that only the manager as a whole can have.
        :raises ValueError: for a value out of range.
        """
        cls().but(**limits)
        names = sorted(name for name in limits if RULES[name].of_manager)
        if names:
            raise TypeError(
                f"{', '.join(names)} can't be set for an endpoint: give it to the manager, or to WebSocketPlugin"
            )

    def but(self, **changes: Any) -> Limits:
        """Return a copy with some changed.

        :raises TypeError: for a name that is no limit.
        :raises ValueError: for a value out of range.
        """
        unknown = set(changes) - set(RULES)
        if unknown:
            raise TypeError(f"There is no limit named {', '.join(sorted(unknown))}")
        return replace(self, **changes) if changes else self


RULES: Final[Mapping[str, Rule]] = {item.name: item.metadata["rule"] for item in fields(Limits)}
"""Of all limits, by their names."""

ACTIONS: Final[Mapping[str, str]] = {name: words for rule in RULES.values() for name, words in rule.actions.items()}
"""What is counted when a limit or a policy acts, and words for it."""
