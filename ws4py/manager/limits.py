"""The limits of a manager and of each connection, in one validated, immutable object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args

from ws4py.streaming import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE

__all__ = ["Limits", "OverflowPolicy"]

_OF_A_MANAGER: Final = frozenset({"max_connections", "max_connections_per_ip", "max_waiting_senders", "drain_timeout"})

OverflowPolicy = Literal["close", "drop", "latest"]
"""What a broadcast does for a peer whose outbox is full: close it with 1013, leave this message out, or keep the
newest only.
"""


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
        a slow consumer; None is half of the workers, and at least one.
    :ivar overflow: what a broadcast does where it would have to wait.
    :ivar max_connections: open at once in the manager; further handshakes are refused with 503.
    :ivar max_connections_per_ip: open at once from one address; further handshakes are refused with 429.
    :ivar max_messages_per_second: received on one connection, past which it is closed with 1008. Control frames and
        fragments count, too.
    :ivar message_timeout: how long a message may take to come, past which the connection is closed with 1008; not while
        it comes faster than 1 KiB a second. None waits for ever.
    :ivar ping_interval: after how long a Ping is sent; None sends none.
    :ivar ping_timeout: how long nothing may come after it, before the peer counts as dead; None waits for ever.
    :ivar close_timeout: how long the peer's Close may take, before the socket is dropped.
    :ivar drain_timeout: how long a stopping manager waits for its connections to close.
    :raises ValueError: if one is out of range; the message names it.
    """

    max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE
    max_fragments: int | None = DEFAULT_MAX_FRAGMENTS
    max_inbox_messages: int = 64
    max_inbox_size: int = 1 << 20
    max_outbox_size: int = 1 << 20
    send_timeout: float = 10.0
    max_waiting_senders: int | None = None
    overflow: OverflowPolicy = "close"
    max_connections: int | None = None
    max_connections_per_ip: int | None = None
    max_messages_per_second: int | None = None
    message_timeout: float | None = 120.0
    ping_interval: float | None = 30.0
    ping_timeout: float | None = 30.0
    close_timeout: float = 5.0
    drain_timeout: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_message_size", "max_fragments", "max_connections", "max_connections_per_ip"):
            self._check_count(name, optional=True)
        for name in ("max_messages_per_second", "max_waiting_senders"):
            self._check_count(name, optional=True)
        for name in ("max_inbox_messages", "max_inbox_size", "max_outbox_size"):
            self._check_count(name, optional=False)
        for name in ("message_timeout", "ping_interval", "ping_timeout"):
            self._check_time(name, optional=True)
        for name in ("send_timeout", "close_timeout", "drain_timeout"):
            self._check_time(name, optional=False)
        if self.overflow not in get_args(OverflowPolicy):
            raise ValueError(f"overflow must be one of {', '.join(get_args(OverflowPolicy))}, not {self.overflow!r}")

    def _check_count(self, name: str, optional: bool) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1{_or_none(optional)}, not {value!r}")

    def _check_time(self, name: str, optional: bool) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or (value == 0 and optional):
            least = "over 0" if optional else "of at least 0"
            raise ValueError(f"{name} must be a number of seconds {least}{_or_none(optional)}, not {value!r}")

    @classmethod
    def check_endpoint(cls, limits: Mapping[str, Any]) -> None:
        """Check what is set for one endpoint of a server, by name.

        :raises TypeError: for a name that is no limit, or one that only the manager as a whole can have.
        :raises ValueError: for a value out of range.
        """
        cls().but(**limits)
        names = sorted(_OF_A_MANAGER & limits.keys())
        if names:
            raise TypeError(
                f"{', '.join(names)} can't be set for an endpoint: give it to the manager, or to WebSocketPlugin"
            )

    def but(self, **changes: Any) -> Limits:
        """Return a copy with some changed.

        :raises TypeError: for a name that is no limit.
        :raises ValueError: for a value out of range.
        """
        unknown = set(changes) - {field.name for field in fields(self)}
        if unknown:
            raise TypeError(f"There is no limit named {', '.join(sorted(unknown))}")
        return replace(self, **changes) if changes else self


def _or_none(optional: bool) -> str:
    return " or None" if optional else ""
