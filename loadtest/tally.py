"""What locust has no statistics for: how many websockets are open, and whether each broadcast has reached all.

Each process of locust has a tally; those of the workers go to the master with locust's own reports.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Tally", "merged", "tally_of"]


@dataclass
class News:
    """One broadcast.

    :ivar at: when it was sent, by the sender's clock.
    :ivar reached: to how many the server says it has sent it; None where that is not known.
    :ivar delivered: how many have it.
    :ivar last: milliseconds until the last one had it.
    """

    at: float = 0.0
    reached: int | None = None
    delivered: int = 0
    last: float = 0.0


@dataclass
class Tally:
    """What one process of locust has seen; or, merged, all of them.

    :ivar open: websockets that are open now.
    :ivar lost: that ended although they were to stay.
    :ivar at_end: how many were open when the run was told to stop.
    :ivar ended_at: when that was, 0 before.
    :ivar grace: seconds before the end in which a broadcast is not judged: its receivers are leaving.
    """

    open: int = 0
    peak: int = 0
    lost: int = 0
    at_end: int = 0
    ended_at: float = 0.0
    grace: float = 3.0
    news: dict[str, News] = field(default_factory=dict)

    def opened(self) -> None:
        """A websocket is open."""
        self.open += 1
        self.peak = max(self.peak, self.open)

    def closed(self, lost: bool) -> None:
        """A websocket has ended."""
        self.open -= 1
        self.lost += lost

    def sent(self, number: str, at: float, reached: int) -> None:
        """A broadcast was sent to so many."""
        news = self.news.setdefault(number, News())
        news.at, news.reached = at, reached

    def delivered(self, number: str, delay: float, at: float) -> None:
        """A broadcast has arrived, after ``delay`` milliseconds."""
        news = self.news.setdefault(number, News())
        news.at = at
        news.delivered += 1
        news.last = max(news.last, delay)

    def stopping(self) -> None:
        """The run is told to stop. Locust may say so again while users are leaving: the first time counts."""
        if not self.ended_at:
            self.at_end, self.ended_at = self.open, time.time()

    @property
    def judged(self) -> list[News]:
        """The broadcasts that must have reached all."""
        until = (self.ended_at or time.time()) - self.grace
        return [news for news in self.news.values() if news.reached is not None and news.at <= until]

    @property
    def missed(self) -> int:
        """How many deliveries are missing."""
        return sum(max(0, (news.reached or 0) - news.delivered) for news in self.judged)

    def as_dict(self) -> dict[str, Any]:
        """Return all, as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tally:
        """Return what :meth:`as_dict` was called on."""
        news = {number: News(**one) for number, one in values["news"].items()}
        return cls(**{**values, "news": news})


def merged(tallies: list[Tally]) -> Tally:
    """Return the sum of several."""
    total = Tally()
    for tally in tallies:
        total.open += tally.open
        total.peak += tally.peak
        total.lost += tally.lost
        total.at_end += tally.at_end
        total.ended_at = max(total.ended_at, tally.ended_at)
        total.grace = tally.grace
        for number, one in tally.news.items():
            news = total.news.setdefault(number, News())
            news.at = one.at or news.at
            news.reached = one.reached if one.reached is not None else news.reached
            news.delivered += one.delivered
            news.last = max(news.last, one.last)
    return total


def tally_of(environment: Any) -> Tally:
    """Return the tally of this process."""
    tally: Tally | None = getattr(environment, "websocket_tally", None)
    if tally is None:
        tally = environment.websocket_tally = Tally()
    return tally
