"""Subscriptions that catch up with the history of their topic, and then miss nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ws4py.broker import Position, Publication
from ws4py.messaging import CloseCode, CloseControlMessage

__all__ = ["MISSED", "Encode", "Gap", "Gate", "Pursuit", "follows"]

MISSED: Final = CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Publications were missed")
"""To a peer whose subscription has a gap: it is to connect again, and to resume."""

Encode = Callable[[Publication], str | bytes]
"""Makes the message of a publication: a text, or a binary one."""

OVERHEAD: Final = 100
"""How many bytes a publication that waits takes beside its payload, about."""


class Gap(Exception):
    """There are publications between two that were to be next to each other, or may be."""


def follows(before: Position | None, position: Position | None) -> bool:
    """Tell whether a publication comes next; it doesn't if it has come already.

    :param before: of the one before it; None if that is not known.
    :param position: None for one that is not kept.
    :raises Gap: if there is a gap between them.
    """
    if before is None or position is None:
        return True
    if position.epoch == before.epoch:
        if position.offset == before.offset + 1:
            return True
        if position.offset <= before.offset:
            return False
    raise Gap


class Pursuit:
    """How somebody gets the publications to a topic of which none may be missing.

    :param encode: makes the messages; None sends what was published.
    """

    __slots__ = ("encode",)

    def __init__(self, encode: Encode | None) -> None:
        self.encode = encode


class Gate:
    """Holds up what is published to a topic for one who gets its history first.

    All with the lock of the topics held.

    :param pursuit: what comes after it.
    :param limit: how many bytes may wait.
    :ivar last: of what was let through; None if there is no history.
    :ivar waiting: what has come meanwhile, in order; None if the gate is open, and only what was in the history is
        still to be kept out.
    :ivar broken: too much has come, or an interruption: there is a gap.
    """

    __slots__ = ("_limit", "_size", "broken", "last", "pursuit", "waiting")

    def __init__(self, pursuit: Pursuit, limit: int) -> None:
        self.pursuit = pursuit
        self._limit = limit
        self._size = 0
        self.last: Position | None = None
        self.waiting: list[Publication] | None = []
        self.broken = False

    def hold(self, publication: Publication) -> bool:
        """Have a publication wait; return False if the gate is open."""
        if self.waiting is None:
            return False
        self._size += len(publication.payload) + OVERHEAD
        if self._size > self._limit:
            self.broken = True
        if self.broken:
            self.waiting.clear()
        else:
            self.waiting.append(publication)
        return True

    def take(self) -> list[Publication]:
        """Return what waits; if nothing does, the gate is open from now on.

        :raises Gap: if something of it is missing.
        """
        if self.broken:
            raise Gap
        waiting = self.waiting or []
        if waiting:
            self.waiting = []
        else:
            self.waiting = None  # no call since it was looked at, so no signal handler has come between
        self._size = 0
        return waiting
