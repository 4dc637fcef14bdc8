"""The histories of topics, in the memory of one process."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ws4py.broker.interface import KEY_SECONDS, History, Position, Publication, Retention

__all__ = ["Histories"]

RECORD_SIZE: Final = 600
"""How many bytes a topic takes beside its messages, about."""

PUBLICATION_SIZE: Final = 250
"""How many bytes a message takes beside its payload, about."""

MAX_KEYS: Final = 100_000
"""How many keys of publications are known at once; past it the oldest are forgotten."""


class Record:
    """The history of a topic.

    :ivar publications: with their positions.
    :ivar size: of them, in bytes, about.
    :ivar newest_at: when the newest one came.
    :ivar used_at: when anybody has published to it, or has read it.
    """

    __slots__ = ("epoch", "newest_at", "offset", "publications", "seconds", "size", "used_at")

    def __init__(self, seconds: float, now: float) -> None:
        self.epoch = secrets.token_urlsafe(9)
        self.offset = 0
        self.publications: deque[Publication] = deque()
        self.size = 0
        self.seconds = seconds
        self.newest_at = self.used_at = now


class Histories:
    """What a broker keeps of its topics, and the keys of what was published lately. Any thread may call; a signal
    handler may come between.

    What has had its time goes when others come: each call looks at two histories. If all together are too large, so do
    the messages of those that were looked at longest ago; and then, where nobody is subscribed, their positions.

    :param lock: reentrant; held for a few assignments only.
    :param clock: monotonic, in seconds.
    :param in_use: tells whether anybody is subscribed to a topic.
    :param max_size: how many bytes they may take together, about.
    """

    def __init__(self, lock: Any, clock: Callable[[], float], in_use: Callable[[str], bool], max_size: int) -> None:
        self._lock = lock
        self._clock = clock
        self._in_use = in_use
        self._max_size = max_size
        self.size = 0
        self._records: dict[str, Record] = {}
        self._round: deque[str] = deque()  # the names of the records, in the order in which they are looked at
        self._keys: dict[tuple[str, str], float] = {}  # when each ends; the oldest one first

    def __len__(self) -> int:
        """Return how many topics have one."""
        return len(self._records)

    def is_new(self, topic: str, key: str) -> bool:
        """Tell whether a key is not known, and know it from now on."""
        now = self._clock()
        with self._lock:
            while self._keys:
                oldest = next(iter(self._keys))
                if self._keys[oldest] > now and len(self._keys) < MAX_KEYS:
                    break
                del self._keys[oldest]
            if (topic, key) in self._keys:
                return False
            self._keys[topic, key] = now + KEY_SECONDS
            return True

    def append(self, publication: Publication, retention: Retention) -> Publication:
        """Put a publication into the history of its topic; return it with its position there.

        One thread at a time for a topic.
        """
        now = self._clock()
        with self._lock:
            record = self._record(publication.topic, retention, now)
            self._expire(record, now)
            record.offset += 1
            positioned = publication._replace(position=Position(record.epoch, record.offset))
            record.publications.append(positioned)
            self._grow(record, _size(positioned))
            while len(record.publications) > retention.size:
                self._grow(record, -_size(record.publications.popleft()))
            record.newest_at = now
            if self.size > self._max_size:
                self._make_room()
        return positioned

    def read(self, topic: str, retention: Retention, since: Position | None, last: int) -> History:
        """See :meth:`ws4py.broker.Broker.history`."""
        now = self._clock()
        with self._lock:
            record = self._record(topic, retention, now)
            self._expire(record, now)
            # A signal handler may publish between any two of these: the position is never after what was read.
            offset = record.offset
            kept = tuple(record.publications)
        if kept:
            offset = _offset(kept[-1])
        position = Position(record.epoch, offset)
        oldest = _offset(kept[0]) if kept else offset + 1
        if since is not None and since.epoch == record.epoch and oldest - 1 <= since.offset <= offset:
            return History(kept[since.offset - oldest + 1 :], position, True)
        return History(kept[-last:] if last > 0 else (), position, False)

    def touch(self, topic: str) -> None:
        """Know that a topic was in use until now."""
        record = self._records.get(topic)
        if record is not None:
            record.used_at = self._clock()

    def _record(self, topic: str, retention: Retention, now: float) -> Record:
        self._forget(now)
        record = self._records.get(topic)
        if record is None:
            record = self._records.setdefault(topic, Record(retention.seconds, now))
            self._round.append(topic)  # twice if a signal handler came between
            self.size += RECORD_SIZE
        record.seconds = retention.seconds
        record.used_at = now
        return record

    def _forget(self, now: float) -> None:
        """Look at two histories: forget what was not used for its time, and what has had its time in the others."""
        for _ in range(min(2, len(self._round))):
            topic = self._round.popleft()
            record = self._records.get(topic)
            if record is None:
                continue
            if self._in_use(topic):
                record.used_at = now
            if now - record.used_at > record.seconds:
                self._drop(topic, record)
            else:
                self._expire(record, now)
                self._round.append(topic)

    def _make_room(self) -> None:
        """Have the histories that were looked at longest ago take less. The others come first another time."""
        for _ in range(2 * len(self._round)):
            if self.size <= self._max_size:
                return
            topic = self._round.popleft()
            record = self._records.get(topic)
            if record is None:
                continue
            if not record.publications and not self._in_use(topic):
                self._drop(topic, record)
            else:
                self._clear(record)
                self._round.append(topic)

    def _expire(self, record: Record, now: float) -> None:
        if now - record.newest_at > record.seconds:
            self._clear(record)

    def _clear(self, record: Record) -> None:
        """Keep no message of a topic; its positions go on."""
        self._grow(record, -record.size)
        record.publications.clear()

    def _drop(self, topic: str, record: Record) -> None:
        self._clear(record)
        del self._records[topic]
        self.size -= RECORD_SIZE

    def _grow(self, record: Record, size: int) -> None:
        record.size += size
        self.size += size


def _size(publication: Publication) -> int:
    return len(publication.payload) + PUBLICATION_SIZE


def _offset(publication: Publication) -> int:
    assert publication.position is not None, "what is kept has a position"
    return publication.position.offset
