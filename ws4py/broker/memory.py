"""The broker of one process: managers that share it share their topics."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from ws4py.broker.interface import Publication, Receiver
from ws4py.exc import BrokerError

__all__ = ["MemoryBroker"]

logger = logging.getLogger("ws4py")

LANES: Final = 32
"""How many publications may be under way at once, of different topics."""


class Lane:
    """Delivers publications one after the other.

    :param lock: reentrant.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self, lock: Any) -> None:
        self._lock = lock  # of the thread that delivers
        self._waiting: list[Publication] = []  # as many as there are threads that publish

    def put(self, publication: Publication, deliver: Callable[[Publication], object]) -> None:
        """Deliver a publication behind those that were put before it; return when that is done.

        In a signal handler that has interrupted a delivery it is left to that.
        """
        waiting = self._waiting
        waiting.append(publication)
        if self._lock._is_owned():
            return
        while True:
            with self._lock:
                while waiting:
                    deliver(waiting.pop(0))
            if not waiting:  # else a signal handler has put one just before the lock was let go
                return


class MemoryBroker:
    """Delivers in the thread that publishes. See :class:`~ws4py.broker.Broker`.

    A topic's lane is chosen by its name, not made with it: so a topic that has gone and come back has the same, and a
    topic needs no memory for it.

    :param make_lock: makes a reentrant lock.
    """

    def __init__(self, make_lock: Callable[[], Any] = threading.RLock) -> None:
        self._make_lock = make_lock
        self._receivers: dict[str, tuple[Receiver, ...]] = {}
        self._closed = False
        self.after_fork_in_child()
        brokers.add(self)

    def after_fork_in_child(self) -> None:
        """Have free locks, since their owners may be threads of the parent's, and nothing under way."""
        self._lock = self._make_lock()  # over the receivers
        self._lanes = [Lane(self._make_lock()) for _ in range(LANES)]

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

    def publish(self, publication: Publication) -> None:
        """See :meth:`ws4py.broker.Broker.publish`. Returns when it is delivered, but in a signal handler."""
        self._check_open()
        if publication.topic in self._receivers:
            self._lanes[hash(publication.topic) % LANES].put(publication, self._deliver)

    def _deliver(self, publication: Publication) -> None:
        for receiver in self._receivers.get(publication.topic, ()):
            try:
                receiver(publication)
            except Exception:
                logger.exception("A publication to the topic %r could not be delivered", publication.topic)

    def close(self) -> None:
        """See :meth:`ws4py.broker.Broker.close`."""
        with self._lock:
            self._closed = True
            self._receivers.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError("This broker is closed")


brokers: weakref.WeakSet[MemoryBroker] = weakref.WeakSet()
"""The brokers of this process."""


def _after_fork_in_child() -> None:
    for broker in list(brokers):
        broker.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
