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
        self._slots: dict[int, dict[_T, None]] = {}
        self._order: list[int] = []  # the heap of the slots that exist, and of those that have become empty

    def set(self, item: _T, when: float) -> None:
        """Let ``item`` go off at ``when``, and no longer at the time set before."""
        slot = math.ceil(when / self.resolution)
        if slot == item.timer_slot:
            return
        self.cancel(item)
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = entries = {}
            heapq.heappush(self._order, slot)
        for other in entries:
            slot = other.timer_slot  # one number for all of them
            break
        item.timer_slot = slot
        entries[item] = None

    def cancel(self, item: _T) -> None:
        """Take ``item`` off."""
        if item.timer_slot != UNSET:
            del self._slots[item.timer_slot][item]
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
            for item in self._slots.pop(slot):
                item.timer_slot = UNSET
                items.append(item)
        return items
