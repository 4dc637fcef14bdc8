"""Timers for many connections: a wheel whose slots are made when needed."""

from __future__ import annotations

import heapq
import math
from typing import Final, Generic, Protocol, TypeVar

__all__ = ["TimerWheel"]


class Timed(Protocol):
    """What can be put on the wheel: it remembers its slot, and so is on it only once."""

    timer_slot: int


_T = TypeVar("_T", bound=Timed)

UNSET: Final = -1


class TimerWheel(Generic[_T]):
    """Sets one timer for each item. All of a slot go off together, so a crowd of idle connections wakes the thread
    seldom.

    An item moved or taken off leaves nothing behind but an empty slot, which wakes nobody: all is O(1) but the making
    of a slot. Not thread-safe.

    :param resolution: the width of a slot in seconds. A timer goes off up to so much late, never early.
    """

    def __init__(self, resolution: float = 0.05) -> None:
        self.resolution = resolution
        self._slots: dict[int, _T | dict[_T, None] | None] = {}  # one item, several, or none any more
        self._order: list[int] = []  # the heap of the slots that exist, and of those that have become empty

    def set(self, item: _T, when: float) -> None:
        """Let ``item`` go off at ``when``, and no longer at the time set before."""
        slot = math.ceil(when / self.resolution)
        if slot == item.timer_slot:
            return
        self.cancel(item)
        if slot not in self._slots:
            self._slots[slot] = None
            heapq.heappush(self._order, slot)
        there = self._slots[slot]
        if isinstance(there, dict):
            slot = next((other.timer_slot for other in there), slot)  # one number for all of them
            there[item] = None
        elif there is None:
            self._slots[slot] = item
        else:
            slot = there.timer_slot
            self._slots[slot] = {there: None, item: None}
        item.timer_slot = slot

    def cancel(self, item: _T) -> None:
        """Take ``item`` off."""
        slot = item.timer_slot
        if slot != UNSET:
            there = self._slots[slot]
            if isinstance(there, dict):
                del there[item]
            else:
                self._slots[slot] = None
            item.timer_slot = UNSET

    def next_time(self) -> float | None:
        """Return when the next slot is due, None if there is none."""
        while self._order and not self._slots[self._order[0]]:
            del self._slots[heapq.heappop(self._order)]
        return self._order[0] * self.resolution if self._order else None

    def due(self, now: float) -> list[_T]:
        """Take off and return the items whose time has come."""
        items: list[_T] = []
        while self._order and self._order[0] * self.resolution <= now:
            slot = heapq.heappop(self._order)
            there = self._slots.pop(slot)
            if there is not None:
                items += there if isinstance(there, dict) else [there]
        for item in items:
            item.timer_slot = UNSET
        return items
