"""A part of the workers for the callbacks of one class: never more, and nobody is forgotten by any interleaving."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers import PATIENCE, start_thread
from ws4py.manager import member as module

Bulkhead: Any = module.Bulkhead  # of members that are anything


def members(count: int) -> list[Any]:
    return [object() for _ in range(count)]


def test_as_many_come_in_as_there_are_places() -> None:
    bulkhead = Bulkhead(2)
    a, b, c, d = members(4)
    assert [bulkhead.enter(member) for member in (a, b, c, d)] == [True, True, False, False]


def test_who_waits_is_returned_in_order_by_those_who_leave() -> None:
    bulkhead = Bulkhead(1)
    a, b, c = members(3)
    for member in (a, b, c):
        bulkhead.enter(member)
    assert bulkhead.leave() is b
    assert bulkhead.enter(b)
    assert bulkhead.leave() is c
    assert bulkhead.enter(c)
    assert bulkhead.leave() is None


def test_places_are_used_again() -> None:
    bulkhead = Bulkhead(3)
    for _ in range(10):
        three = members(3)
        assert all(bulkhead.enter(member) for member in three)
        assert [bulkhead.leave() for _ in three] == [None] * 3


def test_who_was_returned_may_have_to_wait_again() -> None:
    """His place is not kept: another one may be faster."""
    bulkhead = Bulkhead(1)
    a, b, c = members(3)
    bulkhead.enter(a)
    bulkhead.enter(b)
    assert bulkhead.leave() is b
    assert bulkhead.enter(c)
    assert not bulkhead.enter(b)
    assert bulkhead.leave() is b


# --- workers, one step at a time --------------------------------------------------------------------------------------


class Crew:
    """Workers that run members of one bulkhead, as a scheduler's do.

    :ivar turns: how many turns each member is to have yet.
    """

    def __init__(self, limit: int, turns: list[int]) -> None:
        self.bulkhead = Bulkhead(limit)
        self.limit = limit
        self.turns = turns
        self.queue: deque[Any] = deque(range(len(turns)))
        self.inside: list[Any] = []
        self.most = 0

    def work(self) -> None:
        while True:
            try:
                member = self.queue.popleft()
            except IndexError:
                return
            if not self.bulkhead.enter(member):
                continue
            self.inside.append(member)
            self.most = max(self.most, len(self.inside))
            self.turns[member] -= 1
            self.inside.remove(member)
            other = self.bulkhead.leave()
            if other is not None:
                self.queue.append(other)
            if self.turns[member]:
                self.queue.append(member)

    def check(self) -> None:
        assert self.most <= self.limit
        assert self.inside == []
        assert self.turns == [0] * len(self.turns), "nobody is left waiting"
        newcomers = range(100, 100 + self.limit)
        assert all(self.bulkhead.enter(member) for member in newcomers), "no place is lost"
        assert not self.bulkhead.enter(-1), "and none is made"


class Steps:
    """Runs a function in several threads, line by line, one thread at a time.

    :param codes: the functions whose lines are steps.
    :param holding: tells whether the thread that runs has a lock: the others would wait for it then, so it goes on.
    """

    def __init__(self, codes: list[CodeType], work: Any, workers: int, holding: Callable[[], bool]) -> None:
        self._codes = codes
        self._holding = holding
        self._work = work
        self._gates = [threading.Semaphore(0) for _ in range(workers)]
        self._back = threading.Semaphore(0)
        self._ended: set[int] = set()
        self._tasks = [start_thread(self._run, number) for number in range(workers)]

    def _run(self, number: int) -> None:
        def pause() -> None:
            self._back.release()
            assert self._gates[number].acquire(timeout=PATIENCE)

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_code not in self._codes:
                return None
            if event == "line" and not self._holding():
                pause()
            return trace

        try:
            assert self._gates[number].acquire(timeout=PATIENCE)
            sys.settrace(trace)
            self._work()
        finally:
            sys.settrace(None)
            self._ended.add(number)
            self._back.release()

    def play(self, choices: list[int]) -> None:
        """Let one thread after the other have a step, by the choices, and by turns when they are used up."""
        turn = 0
        while len(self._ended) < len(self._gates):
            living = [number for number in range(len(self._gates)) if number not in self._ended]
            choice = choices[turn] if turn < len(choices) else turn
            turn += 1
            self._gates[living[choice % len(living)]].release()
            assert self._back.acquire(timeout=PATIENCE)
        for task in self._tasks:
            task.result()


@pytest.mark.skipif(sys.gettrace() is not None, reason="another one traces")
@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(1, 2),
    turns=st.lists(st.integers(1, 2), min_size=2, max_size=4),
    workers=st.integers(2, 3),
    choices=st.lists(st.integers(0, 2), min_size=40, max_size=120),
)
@example(
    limit=1,
    turns=[1, 1, 1],
    workers=2,  # one takes a place for a moment, and gives it back when the other one has just found none
    choices=[0] * 13 + [1] * 7 + [0] * 2 + [1] * 2 + [0] * 9 + [1] * 2 + [0] * 15 + [1] * 2 + [0] * 2,
)
def test_however_workers_interleave(limit: int, turns: list[int], workers: int, choices: list[int]) -> None:
    crew = Crew(limit, turns)
    codes = [Crew.work.__code__, Bulkhead.enter.__code__, Bulkhead.leave.__code__]
    lock = getattr(crew.bulkhead, "_lock", None)
    Steps(codes, crew.work, workers, lambda: lock is not None and lock.locked()).play(choices)
    crew.check()


def test_workers_that_hurry() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for limit in (1, 3):
            crew = Crew(limit, [20] * 30)
            for task in [start_thread(crew.work) for _ in range(6)]:
                task.result()
            crew.check()
    finally:
        sys.setswitchinterval(interval)
