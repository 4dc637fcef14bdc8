"""Accepts connections and has each of them opened: one thread waits for all, and a few workers do what takes time.

Whoever is mute costs a descriptor until its deadline, and no thread. The connections that are being opened are bounded:
with so many there, those that come wait in the system's queue, until one is done or one can be given up that has waited
for its client for a while.
"""

from __future__ import annotations

import errno
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from ws4py.engine.pollers import Poller, default_poller
from ws4py.engine.wakeup import Wakeup
from ws4py.manager.process import GRACE
from ws4py.server.opening import Opening, Want

__all__ = ["Acceptor"]

logger = logging.getLogger("ws4py")

ACCEPTS: Final = 64
"""How many connections are accepted before those that are being opened have their turn again."""

BATCH: Final = 16
"""How many websockets are handed over together at most."""

PATIENCE: Final = 1.0
"""For how many seconds a client may be waited for where its place is wanted; what the server takes is not counted."""

PAUSE: Final = 0.1
"""For how many seconds nothing is accepted when the system has no descriptor, or no memory, for one more."""

REPORT_INTERVAL: Final = 60.0
"""How often, in seconds, that is logged at most."""

# What accept() says of the connection that it would have returned; accept(2) has the list.
_GONE: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "EPROTO",
        "EPERM",
        "EINTR",
        "ENETDOWN",
        "ENOPROTOOPT",
        "EHOSTDOWN",
        "ENONET",
        "EHOSTUNREACH",
        "EOPNOTSUPP",
        "ENETUNREACH",
    )
    if hasattr(errno, name)
)


class Acceptor:
    """Accepts connections until it is stopped. :meth:`close` must follow.

    :param listener: a socket that listens. It is closed in the end.
    :param make_opening: is called with a connection, not blocking, and its address.
    :param timeout: for how many seconds a connection may be being opened.
    :param max_openings: how many may be at once.
    :param max_workers: how many threads there are for what takes time.
    :param clock: a monotonic clock, in seconds.
    :raises OSError: if the system has no descriptors for it.
    """

    def __init__(
        self,
        listener: Any,
        make_opening: Callable[[Any, Any], Opening],
        *,
        timeout: float,
        max_openings: int,
        max_workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._make_opening = make_opening
        self._timeout = timeout
        self._max_openings = max_openings
        self._clock = clock
        self._openings: dict[Opening, None] = {}  # the oldest first, so in the order of their deadlines
        self._watched: dict[int, Opening] = {}
        self._opened: list[Opening] = []  # websockets by now
        self._workers = Workers(max_workers, self._advance, self._wake)
        self._listening = False  # is the listener watched?
        self._paused_until = 0.0
        self._reported_at: float | None = None
        self._stopping = False
        self._wakeup = Wakeup()
        try:
            self._poller: Poller = default_poller()
        except BaseException:
            self._wakeup.release()
            raise
        self._poller.register(self._wakeup.fileno())

    def stop(self) -> None:
        """Have :meth:`run` return. Any thread may call, and a signal handler."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        self._wakeup.wake()

    def run(self) -> None:
        """Accept connections. Returns when it was told to stop."""
        while not self._stopping:
            self._turn()

    def _turn(self) -> None:
        now = self._clock()
        self._listen(self._may_accept(now))
        waiting = False
        for fd, _ in self._poller.poll(self._time_to_wait(now)):
            if fd in self._watched:
                self._go_on(self._watched[fd])
            elif fd == self._wakeup.fileno():
                self._wakeup.drain()
            else:
                waiting = True
        for opening, want in self._workers.results():
            opening.patience_ends += self._clock()
            self._place(opening, want)
        if waiting:
            self._accept()
        self._finish()
        self._give_up_late_ones()

    # --- accepting ----------------------------------------------------------------------------------------------------

    def _may_accept(self, now: float) -> bool:
        if now < self._paused_until:
            return False
        idler = self._idler() if self._is_full else None
        return not self._is_full or (idler is not None and idler.patience_ends <= now)

    @property
    def _is_full(self) -> bool:
        return len(self._openings) >= self._max_openings

    def _idler(self) -> Opening | None:
        """Return the opening that is the first to be given up for another one; None if no client is waited for."""
        return min(self._watched.values(), key=lambda opening: opening.patience_ends, default=None)

    def _listen(self, listening: bool) -> None:
        if listening != self._listening:
            if listening:
                self._poller.register(self._listener.fileno())
            else:
                self._poller.unregister(self._listener.fileno())
            self._listening = listening

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            now = self._clock()
            if not self._may_accept(now):
                return
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._pause(error, now)
                return
            if self._is_full and (idler := self._idler()) is not None:
                self._drop(idler)
            sock.setblocking(False)
            opening = self._make_opening(sock, address)
            opening.deadline = now + self._timeout
            opening.patience_ends = now + PATIENCE
            self._openings[opening] = None
            self._place(opening, self._advance(opening, False))

    def _pause(self, error: Exception, now: float) -> None:
        """Accept nothing for a moment: the system would say the same again at once."""
        self._paused_until = now + PAUSE
        if self._reported_at is None or now - self._reported_at >= REPORT_INTERVAL:
            self._reported_at = now
            logger.error("No connection can be accepted at the moment: %s", error)

    # --- the connections that are being opened ------------------------------------------------------------------------

    def _advance(self, opening: Opening, in_worker: bool) -> Want:
        """Let one go on; never raises."""
        try:
            return opening.advance(in_worker)
        except BaseException:
            logger.exception("A connection could not be opened")
            return Want.NOTHING

    def _finish(self) -> None:
        """Give those that are websockets to their manager; several at once, since each by itself would wake it."""
        for opening in self._opened:
            try:
                opening.finish()
            except BaseException:
                logger.exception("A websocket could not be handed over")
                opening.abort()
        self._opened.clear()

    def _go_on(self, opening: Opening) -> None:
        """Let one go on whose client was waited for."""
        self._unwatch(opening)
        self._place(opening, self._advance(opening, False))

    def _place(self, opening: Opening, want: Want) -> None:
        """Give an opening what it needs, or forget it."""
        if want in (Want.READ, Want.WRITE):
            try:
                self._poller.register(opening.fd, int(want))
            except (OSError, ValueError) as error:  # of the system's limits, or select()'s
                logger.debug("A connection can't be waited for: %s", error)
                self._drop(opening)
            else:
                self._watched[opening.fd] = opening
                opening.watched = True
        elif want is Want.WORKER:
            now = self._clock()
            opening.patience_ends -= now  # until it is back
            try:
                self._workers.submit(opening)
            except RuntimeError as error:  # the system has no thread
                self._pause(error, now)
                self._drop(opening)
        elif want is Want.MANAGER:
            del self._openings[opening]
            self._opened.append(opening)
            if len(self._opened) >= BATCH:
                self._finish()
        else:
            del self._openings[opening]

    def _unwatch(self, opening: Opening) -> None:
        self._poller.unregister(opening.fd)
        del self._watched[opening.fd]
        opening.watched = False

    def _drop(self, opening: Opening) -> None:
        if opening.watched:
            self._unwatch(opening)
        del self._openings[opening]
        opening.abort()

    def _give_up_late_ones(self) -> None:
        """Drop those whose deadline has passed; one that a worker has is dropped when it comes back."""
        now = self._clock()
        late = []
        for opening in self._openings:
            if opening.deadline > now:
                break
            if opening.watched or self._workers.withdraw(opening):
                late.append(opening)
        for opening in late:
            self._drop(opening)

    def _time_to_wait(self, now: float) -> float | None:
        """Return for how long nothing has to be done but for what the poller shows, in seconds; None for ever."""
        oldest = next((each for each in self._openings if each.watched or self._workers.queues(each)), None)
        due = [] if oldest is None else [oldest.deadline]
        if not self._listening:
            if now < self._paused_until:
                due.append(self._paused_until)
            elif (idler := self._idler()) is not None:
                due.append(idler.patience_ends)
        return max(0.0, min(due) - now) if due else None

    def close(self) -> None:
        """Close the listener, and drop what is left. For one that does not run any more, or never did. Waits for its
        workers, :data:`GRACE` seconds at most.
        """
        self._listen(False)
        self._listener.close()
        for opening in self._workers.end():
            opening.abort()
        for opening in list(self._watched.values()):
            self._drop(opening)
        for opening in self._opened:
            opening.abort()
        self._openings.clear()
        self._poller.release()
        self._wakeup.release()


class Workers:
    """Threads that let openings go on which may take their time; started on demand.

    :param size: how many there are at most.
    :param advance: lets one go on, and never raises.
    :param done: is called by a worker when it has a result.
    """

    def __init__(self, size: int, advance: Callable[[Opening, bool], Want], done: Callable[[], object]) -> None:
        self._size = size
        self._advance = advance
        self._done = done
        self._jobs: queue.SimpleQueue[Opening | None] = queue.SimpleQueue()
        self._queued: dict[Opening, bool] = {}  # who takes an opening out of it, whose that is
        self._results: deque[tuple[Opening, Want]] = deque()
        self._threads: list[threading.Thread] = []
        self._ended = False
        self._busy = 0  # those that are waited for. By the acceptor's thread only

    def submit(self, opening: Opening) -> None:
        """Let an opening go on.

        :raises RuntimeError: if there is no thread, and none is to be had.
        """
        if self._busy >= len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"WebSocketHandshake-{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not self._threads:
                    raise
                logger.debug("There is no further thread for handshakes: %s", error)
            else:
                self._threads.append(thread)
        self._busy += 1
        self._queued[opening] = True
        self._jobs.put(opening)

    def queues(self, opening: Opening) -> bool:
        """Tell whether an opening waits for a thread."""
        return opening in self._queued

    def withdraw(self, opening: Opening) -> bool:
        """Take an opening back; return False if it does not wait for a thread any more, or never did."""
        withdrawn = self._queued.pop(opening, False)
        self._busy -= withdrawn
        return withdrawn

    def results(self) -> Iterator[tuple[Opening, Want]]:
        """Return what has come of those that are done, each once."""
        while self._results:
            self._busy -= 1
            yield self._results.popleft()

    def _work(self) -> None:
        while (opening := self._jobs.get()) is not None:
            if not self._queued.pop(opening, False):  # it was withdrawn
                continue
            want = self._advance(opening, True)
            if not self._ended:
                self._results.append((opening, want))
                self._done()
            elif want is not Want.NOTHING:
                opening.abort()

    def end(self) -> list[Opening]:
        """Take no more, end the threads, and return the openings that are left. What a thread has that is not done in
        time is dropped by that thread.
        """
        self._ended = True
        left = [opening for opening in list(self._queued) if self.withdraw(opening)]
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return left + [opening for opening, want in self.results() if want is not Want.NOTHING]
