"""What one of several processes asks all of them."""

from __future__ import annotations

from typing import Any

from tests.helpers import FakeClock
from ws4py.server.gathering import Gathering
from ws4py.server.joined import PATIENCE


class Process:
    def __init__(self, number: int, takes: bool = True) -> None:
        self.number = number
        self.got: list[dict[str, Any]] = []
        self._takes = takes

    def send(self, message: dict[str, Any]) -> bool:
        if self._takes:
            self.got.append(message)
        return self._takes

    def answers(self, gathering: Gathering, found: Any, at: int = -1) -> None:
        gathering.answer(self, {"answer": self.got[at]["ask"], "found": found})


def test_all_are_asked_and_the_answers_come_together() -> None:
    gathering, one, two = Gathering(FakeClock()), Process(1), Process(2)
    assert gathering.deadline is None
    gathering.begin(one, {"gather": 7, "question": "how"}, [one, two])
    assert [process.got[-1]["question"] for process in (one, two)] == ["how", "how"]
    two.answers(gathering, "well")
    assert len(one.got) == 1
    one.answers(gathering, "badly")
    assert one.got[1:] == [{"gathered": 7, "found": {"2": "well", "1": "badly"}}]
    assert gathering.deadline is None


def test_questions_are_not_mixed_up() -> None:
    gathering, one, two = Gathering(FakeClock()), Process(1), Process(2)
    gathering.begin(one, {"gather": 7, "question": "a"}, [two])
    gathering.begin(two, {"gather": 7, "question": "b"}, [one])
    two.answers(gathering, "A")
    one.answers(gathering, "B", 0)
    assert one.got[-1] == {"gathered": 7, "found": {"2": "A"}}
    assert two.got[-1] == {"gathered": 7, "found": {"1": "B"}}


def test_one_that_is_late_or_has_ended_or_takes_nothing_is_left_out() -> None:
    clock = FakeClock()
    gathering, one, late, gone, full = Gathering(clock), Process(1), Process(2), Process(3), Process(4, takes=False)
    gathering.begin(one, {"gather": 7, "question": ""}, [one, late, gone, full])
    one.answers(gathering, 1)
    gathering.forget(gone)
    clock.advance(PATIENCE - 0.1)
    gathering.give_up_late_ones()
    assert len(one.got) == 1
    clock.advance(0.2)
    assert gathering.deadline is not None
    assert gathering.deadline < clock()
    gathering.give_up_late_ones()
    assert one.got[1:] == [{"gathered": 7, "found": {"1": 1}}]
    late.answers(gathering, 2)
    assert len(one.got) == 2


def test_nobody_is_there() -> None:
    gathering, one = Gathering(FakeClock()), Process(1)
    gathering.begin(one, {"gather": 7, "question": ""}, [])
    assert one.got == [{"gathered": 7, "found": {}}]
