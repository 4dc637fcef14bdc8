"""Who is open, who may come, and the one way out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from ws4py.broker import Broker, Retentions
from ws4py.engine import Connection, Engine
from ws4py.engine.traffic import Traffic
from ws4py.exc import HandshakeError
from ws4py.labels import code_label
from ws4py.limits import Limits
from ws4py.manager.member import Member
from ws4py.manager.topics import Topics
from ws4py.messaging import CloseCode

__all__ = ["Registry"]


class Registry:
    """The members of one manager. Any thread may call.

    A member counts for the limits from :meth:`enter` until its descriptor was given back; it is open until the end of
    its connection begins.

    :param limits: of the manager.
    :param engine: that has their connections.
    :param make_lock: makes a lock that is reentrant, since a signal handler may come between.
    :param broker: that carries publications, or its URL.
    :param retentions: of which topics how much is kept.
    :ivar lock: over what follows.
    :ivar open: the members whose end has not begun.
    :ivar closing: those whose end has begun, and whose descriptors are not given back yet.
    :ivar gone: what the connections have counted that are gone.
    :ivar closed: how many members have ended, by the code that ``closed()`` was given.
    :ivar topics: which a member is taken off when its end begins, or when it is let go.
    :ivar refused: handshakes that were refused, by the HTTP status of the answer.
    """

    def __init__(
        self,
        limits: Limits,
        engine: Engine,
        make_lock: Callable[[], Any] = threading.RLock,
        broker: Broker | str | None = None,
        retentions: Retentions | None = None,
    ) -> None:
        self.limits = limits
        self._count_limit = engine.count_limit
        self.topics = Topics(engine, make_lock, broker, retentions)
        self._make_lock = make_lock
        self.lock = make_lock()
        self._addresses: Counter[str] = Counter()
        self._number = 0
        self.open: dict[Member, None] = {}
        self.closing: dict[Member, None] = {}
        self.gone = Traffic()
        self.closed: Counter[int | str] = Counter()
        self.refused: Counter[int | str] = Counter()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self.open)

    def members(self) -> list[Member]:
        """Return those that are open now."""
        return list(self.open)  # one step under the interpreter's lock: a snapshot

    def recorded(self) -> tuple[list[Member], Traffic, Counter[int | str], Counter[int | str]]:
        """Return the members that are present, and what was counted of the others, as of one moment.

        :returns: the members; what their predecessors' connections have counted; how those have ended; what was
            refused.
        """
        with self.lock:
            present = [member for member in (*self.open, *self.closing) if member.connected]
            return present, self.gone.copy(), self.closed.copy(), self.refused.copy()

    def admit(self, address: str | None) -> None:
        """Say whether a handshake may be accepted now.

        :param address: of the peer.
        :raises HandshakeError: if not: 503 with ``max_connections`` present, 429 with too many from ``address``.
        """
        name = self._exceeded(address)
        if name is None:
            return
        self._count_limit(name)
        retry = self.limits.retry_headers
        if name == "max_connections":
            raise HandshakeError("Too many connections", 503, retry)
        raise HandshakeError("Too many connections from this address", 429, retry)

    def _exceeded(self, address: str | None) -> str | None:
        """Return the limit that one more would pass."""
        limits = self.limits
        if limits.max_connections is not None and len(self.open) + len(self.closing) >= limits.max_connections:
            return "max_connections"
        limit = limits.max_connections_per_ip
        if limit is not None and address is not None and self._addresses[address] >= limit:
            return "max_connections_per_ip"
        return None

    def number(self) -> int:
        """Return the number of the next member, counted from 1."""
        with self.lock:
            self._number += 1
            return self._number

    def enter(self, member: Member, address: str | None) -> str | None:
        """Take a member in; return the limit that it passes, since a crowd was admitted at the same time.

        :param address: of the peer; None for one that does not count.
        """
        with self.lock:
            exceeded = self._exceeded(address)
            if self.limits.max_connections_per_ip is not None and address is not None:
                member.counted_address = address
                self._addresses[address] += 1
            self.open[member] = None
        return exceeded

    def end(self, member: Member) -> None:
        """The end of a member's connection has begun."""
        with self.lock:
            if member in self.open:
                self.closing[member] = None  # first: an exception of a signal handler may come between
                del self.open[member]
        self.topics.drop(member)

    def leave(self, member: Member, connection: Connection, ended: bool = True) -> None:
        """A member is gone.

        :param ended: its connection has ended; else it was let go.
        """
        self.topics.drop(member)
        with self.lock:
            if not self._take_out(member):
                return
            self.gone.add(connection.counted())
            self._free_address(member)
            if ended:
                code = member.websocket.close_code
                self.closed[code_label(CloseCode.ABNORMAL_CLOSURE.value if code is None else code)] += 1
        websocket = member.websocket
        if websocket._connection is connection:  # closed() may have made it a new one's
            websocket._connection = None  # or each would keep the other until the garbage collector comes

    def forget(self, member: Member) -> None:
        """A member that was entered never got a connection."""
        with self.lock:
            self._take_out(member)
            self._free_address(member)
        self.topics.drop(member)

    def _take_out(self, member: Member) -> bool:
        """Have a member no more; return whether it was there."""
        there = member in self.open or member in self.closing
        self.open.pop(member, None)
        self.closing.pop(member, None)
        return there

    def _free_address(self, member: Member) -> None:
        address = member.counted_address
        if address is not None:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    def locks(self) -> list[Any]:
        """Return the locks, in the order in which several are taken."""
        return [self.lock, self.topics.lock]

    def after_fork_in_child(self) -> None:
        """Have a free lock, since its owner may be a thread of the parent's; whose affair the members are."""
        self.lock = self._make_lock()
        self.topics.after_fork_in_child()
        for member in (*self.open, *self.closing):
            member.abandoned = member.failed = True

    def count_refusal(self, status: int | str) -> None:
        """Count a handshake that was refused."""
        with self.lock:
            self.refused[status] += 1
