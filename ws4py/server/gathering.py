"""What one of several processes asks all of them: the questions that are not answered yet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ws4py.server.joined import PATIENCE

__all__ = ["Gathering"]


class Asked(Protocol):
    """A process that can be asked."""

    number: int

    def send(self, message: dict[str, Any]) -> bool:
        """Send it a message; return False if it takes none now."""
        ...


class _Question:
    """One, until it is answered by all."""

    def __init__(self, asker: Asked, name: int, deadline: float) -> None:
        self.asker = asker
        self.name = name
        self.deadline = deadline
        self.waiting: set[Asked] = set()
        self.found: dict[str, Any] = {}


class Gathering:
    """Passes questions on, and their answers. By one thread.

    :param clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ids = itertools.count()
        self._questions: dict[int, _Question] = {}

    def begin(self, asker: Asked, message: dict[str, Any], processes: Sequence[Asked]) -> None:
        """Ask some processes what one of them wants to know."""
        number = next(self._ids)
        question = self._questions[number] = _Question(asker, message["gather"], self._clock() + PATIENCE)
        for process in processes:
            if process.send({"ask": number, "question": message["question"]}):
                question.waiting.add(process)
        self._finish(number)

    def answer(self, process: Asked, message: dict[str, Any]) -> None:
        """One has answered."""
        question = self._questions.get(message["answer"])
        if question is not None and process in question.waiting:
            question.waiting.remove(process)
            question.found[str(process.number)] = message["found"]
            self._finish(message["answer"])

    def forget(self, process: Asked) -> None:
        """One has ended."""
        for number, question in list(self._questions.items()):
            question.waiting.discard(process)
            self._finish(number)

    def give_up_late_ones(self) -> None:
        """Answer the questions whose time is over."""
        now = self._clock()
        for number, question in list(self._questions.items()):
            if question.deadline <= now:
                question.waiting.clear()
                self._finish(number)

    @property
    def deadline(self) -> float | None:
        """When the first of them is given up; None without any."""
        return next((question.deadline for question in self._questions.values()), None)

    def _finish(self, number: int) -> None:
        question = self._questions[number]
        if not question.waiting:
            del self._questions[number]
            question.asker.send({"gathered": question.name, "found": question.found})
