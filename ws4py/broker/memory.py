"""The broker of one process: managers that share it share their topics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ws4py.broker.histories import Histories
from ws4py.broker.interface import BrokerStats, History, Position, Publication, Receiver, Retention
from ws4py.broker.process import brokers
from ws4py.exc import BrokerError

__all__ = ["MemoryBroker"]

logger = logging.getLogger("ws4py")

MAX_KEPT: Final = 64 << 20
"""How many bytes all histories take together by default."""

LANES: Final = 32
"""How many publications may be under way at once, of different topics."""


PATIENCE: Final = 0.1
"""How long, in seconds, the main thread waits for another one that delivers: it may be in a signal handler, which has
interrupted what that one waits for.
"""


Step = Callable[[], object]


class Lane:
    """Does one step after the other.

    :param lock: reentrant.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self, lock: Any) -> None:
        self._lock = lock  # of the thread that delivers
        self._waiting: list[Step] = []  # as many as there are threads that publish

    def put(self, step: Step) -> None:
        """Do a step behind those that were put before it; return when that is done.

        In a signal handler that has interrupted a step it is left to that; so it is in a step, and where the main
        thread has waited for :data:`PATIENCE`, to the one that it waits for.
        """
        lock, waiting = self._lock, self._waiting
        waiting.append(step)
        if lock._is_owned():
            return
        main = threading.current_thread() is threading.main_thread()
        try:
            while lock.acquire(timeout=PATIENCE if main else -1):
                while waiting:
                    waiting.pop(0)()
                lock.release()
                if not waiting:  # else one was put just before the lock was let go, and left to who had it
                    return
        except BaseException:  # KeyboardInterrupt, say: what a signal handler raises may come in at any call
            if lock._is_owned():
                lock.release()
            raise


class Presence:
    """A name that is present on a topic.

    :ivar count: how often it has entered, and has not left.
    :ivar info: what was said of it last.
    :ivar left: is published when it has left.
    """

    __slots__ = ("count", "info", "left")

    count: int
    info: bytes
    left: Publication

    def __init__(self) -> None:
        self.count = 0


class MemoryBroker:
    """Delivers in the thread that publishes. See :class:`~ws4py.broker.Broker`.

    A topic's lane is chosen by its name, not made with it: so a topic that has gone and come back has the same, and a
    topic needs no memory for it.

    Nothing of it waits but for what is just being delivered. A forked process begins with no history, and nobody
    present.

    :param make_lock: makes a reentrant lock.
    :param clock: monotonic, in seconds.
    :param max_kept: how many bytes all histories take together, about. Past it the messages of some topics go before
        their time, so who would resume there is told that it can't.
    """

    def __init__(
        self,
        make_lock: Callable[[], Any] = threading.RLock,
        clock: Callable[[], float] = time.monotonic,
        max_kept: int = MAX_KEPT,
    ) -> None:
        self._make_lock = make_lock
        self._max_kept = max_kept
        self._clock = clock
        self._receivers: dict[str, tuple[Receiver, ...]] = {}
        self._closed = False
        self.after_fork_in_child()
        brokers.add(self)

    def after_fork_in_child(self) -> None:
        """Have free locks, since their owners may be threads of the parent's, and nothing under way. What the parent
        goes on to publish is not known here: so its positions are none.
        """
        self._lock = self._make_lock()  # over the receivers, the histories, and who is present
        self._lanes = [Lane(self._make_lock()) for _ in range(LANES)]
        self._histories = Histories(self._lock, self._clock, self._has_receivers, self._max_kept)
        self._present: dict[str, dict[str, Presence]] = {}

    def subscribe(self, topic: str, receiver: Receiver) -> None:
        """See :meth:`ws4py.broker.Broker.subscribe`."""
        with self._lock:
            self._check_open()
            receivers = self._receivers.get(topic, ())
            if receiver not in receivers:
                self._receivers[topic] = (*receivers, receiver)

    def unsubscribe(self, topic: str, receiver: Receiver) -> None:
        """See :meth:`ws4py.broker.Broker.unsubscribe`."""
        with self._lock:
            receivers = tuple(other for other in self._receivers.pop(topic, ()) if other != receiver)
            if receivers:
                self._receivers[topic] = receivers
            else:
                self._histories.touch(topic)

    def wait_subscribed(self, timeout: float) -> bool:
        """See :meth:`ws4py.broker.Broker.wait_subscribed`. They hold at once."""
        return not self._closed

    def publish(self, publication: Publication, retention: Retention | None = None, key: str | None = None) -> None:
        """See :meth:`ws4py.broker.Broker.publish`. Returns when it is delivered, but in a signal handler and in a
        receiver.
        """
        self._check_open()
        if retention is not None or key is not None or publication.topic in self._receivers:
            self._lane(publication.topic).put(lambda: self._carry(publication, retention, key))

    def _carry(self, publication: Publication, retention: Retention | None, key: str | None) -> None:
        if key is not None and not self._histories.is_new(publication.topic, key):
            return
        if retention is not None:
            publication = self._histories.append(publication, retention)
        self._deliver(publication)

    def flush(self, timeout: float) -> None:
        """See :meth:`ws4py.broker.Broker.flush`. Nothing waits."""

    def stats(self) -> BrokerStats:
        """See :meth:`ws4py.broker.Broker.stats`. Nothing is counted."""
        return BrokerStats(connected=not self._closed)

    def _deliver(self, publication: Publication) -> None:
        for receiver in self._receivers.get(publication.topic, ()):
            try:
                receiver(publication)
            except Exception:
                logger.exception("A publication to the topic %r could not be delivered", publication.topic)

    def history(self, topic: str, retention: Retention, since: Position | None = None, last: int = 0) -> History:
        """See :meth:`ws4py.broker.Broker.history`. Does not wait."""
        self._check_open()
        return self._histories.read(topic, retention, since, last)

    def enter(self, topic: str, name: str, info: bytes, joined: Publication, left: Publication) -> None:
        """See :meth:`ws4py.broker.Broker.enter`."""
        self._check_open()
        self._lane(joined.topic).put(lambda: self._enter(topic, name, info, joined, left))

    def _enter(self, topic: str, name: str, info: bytes, joined: Publication, left: Publication) -> None:
        with self._lock:
            presence = self._present.setdefault(topic, {}).setdefault(name, Presence())
            presence.count += 1
            presence.info, presence.left = info, left
            came = presence.count == 1
        if came:
            self._deliver(joined)

    def leave(self, topic: str, name: str) -> None:
        """See :meth:`ws4py.broker.Broker.leave`."""
        presence = self._present.get(topic, {}).get(name)
        if presence is not None:
            self._lane(presence.left.topic).put(lambda: self._leave(topic, name))

    def _leave(self, topic: str, name: str) -> None:
        with self._lock:
            names = self._present.get(topic, {})
            presence = names.get(name)
            if presence is None:
                return
            presence.count -= 1
            gone = not presence.count
            if gone:
                del names[name]
                if not names:
                    del self._present[topic]
        if gone:
            self._deliver(presence.left)

    def presence(self, topic: str) -> dict[str, bytes]:
        """See :meth:`ws4py.broker.Broker.presence`. Does not wait."""
        self._check_open()
        with self._lock:
            return {name: presence.info for name, presence in self._present.get(topic, {}).items()}

    def close(self) -> None:
        """See :meth:`ws4py.broker.Broker.close`."""
        with self._lock:
            self._closed = True
            self._receivers.clear()
            self._present.clear()

    def _lane(self, topic: str) -> Lane:
        return self._lanes[hash(topic) % LANES]

    def _has_receivers(self, topic: str) -> bool:
        return topic in self._receivers

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("This broker is closed")
