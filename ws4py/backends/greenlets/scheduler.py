"""Who runs callbacks on gevent: a greenlet for each websocket."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import gevent
from gevent.event import Event

from ws4py.backends.greenlets.hub import HubPoller
from ws4py.engine.counters import WorkerCounters
from ws4py.engine.pollers import LONGEST_WAIT

__all__ = ["GreenletScheduler"]

logger = logging.getLogger("ws4py")

LAST_CALLS: Final = 0.5
"""How long, in seconds, the greenlets of a stopped manager have for their last callbacks before they are killed."""

SHORTEST_WAIT: Final = 0.001
"""What a timer is set to at least, in seconds: libuv knows no shorter time, and gevent warns."""


class GreenletScheduler:
    """The hub polls, and each job has a greenlet. See :class:`ws4py.manager.scheduler.Scheduler`.

    Of a job that has nothing to do no more is kept than its greenlet, since there are many.

    :param reactor: what polls.
    :param spawn: starts a greenlet; it may wait for a place in a pool.
    :param hub: that polls.
    :param poller: of that hub.
    """

    def __init__(self, reactor: Any, spawn: Callable[..., gevent.Greenlet], hub: Any, poller: HubPoller) -> None:
        self.reliefs = 0
        self._poller = poller
        self._reactor = reactor
        self._spawn = spawn
        self._hub = hub
        self._counters = WorkerCounters()
        self._greenlets: dict[Any, gevent.Greenlet | None] = {}  # None: it has yet to be spawned
        self._awake: set[Any] = set()  # jobs whose greenlets do not wait for something to do
        self._due: set[Any] = set()  # jobs that have something to do
        self._joining: set[Any] = set()  # jobs whose callbacks wait in join()
        self._interrupts: dict[Any, KeyboardInterrupt] = {}  # what goes on when the jobs have ended
        self._run = self._serve  # one bound method for all
        self._ended = Event()
        self._ending = False
        self._alarm: Any = None
        self._alarm_due = 0.0

    def start(self) -> None:
        """Begin."""
        self._reactor.wake()

    def rename(self, name: str) -> None:
        """See :meth:`Scheduler.rename`: there is nothing that has a name."""

    def join(self, timeout: float | None = None) -> bool:
        """See :meth:`Scheduler.join`. The hub can't wait."""
        if self.in_own_thread():
            return False
        current = gevent.getcurrent()
        job = next((job for job, greenlet in list(self._greenlets.items()) if greenlet is current), None)
        if job is None:
            return bool(self._ended.wait(timeout))
        self._joining.add(job)
        try:
            self._reactor.wake()
            return bool(self._ended.wait(timeout))
        finally:
            self._joining.discard(job)

    def is_alive(self) -> bool:
        """See :meth:`Scheduler.is_alive`."""
        return not self._ended.is_set()

    def after_fork_in_child(self) -> None:
        """See :meth:`Scheduler.after_fork_in_child`: the hub is a copy of the parent's, and leaves all to it."""
        self._ending = True
        self._poller.leave()

    def in_own_thread(self) -> bool:
        """See :meth:`Scheduler.in_own_thread`: whether the caller is the hub."""
        return gevent.getcurrent() is self._hub

    def owns_engine(self) -> bool:
        """See :meth:`Scheduler.owns_engine`: greenlets of the hub's thread, none of which runs meanwhile."""
        return gevent.get_hub() is self._hub

    def runs(self, job: Any) -> bool:
        """See :meth:`Scheduler.runs`."""
        return self._greenlets.get(job) is gevent.getcurrent()

    def relieve(self) -> None:
        """See :meth:`Scheduler.relieve`: the hub does, when the caller gives way."""

    def begin_wait(self) -> bool:
        """See :meth:`Scheduler.begin_wait`: a greenlet that waits keeps nobody else from running."""
        return True

    def end_wait(self) -> None:
        """See :meth:`Scheduler.end_wait`."""

    def joining(self) -> Sequence[Any]:
        """See :meth:`Scheduler.joining`."""
        return list(self._joining)

    def counters(self) -> WorkerCounters:
        """See :meth:`Scheduler.counters`."""
        return self._counters

    def state(self) -> tuple[int, int, int, int]:
        """Return 0 for no limit, how many greenlets there are, how many are idle, and how many are to have a turn."""
        count = len(self._greenlets)
        return 0, count, count - len(self._awake), len(self._due)

    # --- the hub ------------------------------------------------------------------------------------------------------

    def cycle(self) -> None:
        """Do what is due, read what is ready, let the greenlets have their turns, write what they sent. In the hub."""
        reactor = self._reactor
        if reactor.finished or self._ending:
            return
        try:
            self._resume(reactor.cycle(0.0))
            if reactor.busy:  # what the greenlets have sent leaves in the same round of the loop
                self._resume(reactor.cycle(0.0))
            if reactor.finished:
                self._begin_end()
                return
            self._set_alarm(reactor.time_to_wait())
            if reactor.doze():
                reactor.wake()
        except Exception as error:  # noqa: BLE001 - whoever waits for this reactor must learn of its end
            self._resume(reactor.fail(error))
            self._begin_end()
        except BaseException:
            reactor.wake()  # it is meant for the program, and met the hub by chance: both go on
            raise

    def enter(self, job: Any) -> None:
        """See :meth:`Scheduler.enter`: its greenlet is spawned, which may wait for a place in a pool."""
        self._expect(job)
        self._begin(job)

    def _expect(self, job: Any) -> None:
        self._greenlets[job] = None
        self._awake.add(job)

    def _begin(self, job: Any) -> None:
        try:
            self._greenlets[job] = self._spawn(self._run, job)
        except BaseException:
            # Thrown into who waits, say: the websocket ends, and its last callback is owed all the same.
            job.connection.terminate()
            self._greenlets[job] = gevent.spawn(self._run, job)
            raise

    def _resume(self, ready: Sequence[Any]) -> None:
        """Let the greenlets of the jobs that have something to do go on."""
        now = time.monotonic()
        in_hub = self.in_own_thread()
        for job in ready:
            job.queued_at = now
            self._due.add(job)
            if job not in self._greenlets:
                # It was added before the start, or who added it could not wait. The hub can't either.
                self._expect(job)
                gevent.spawn(self._begin, job)
                continue
            greenlet = self._greenlets[job]
            if job not in self._awake:
                self._awake.add(job)
                assert greenlet is not None, "it has parked"
                if in_hub:
                    greenlet.switch()
                else:
                    gevent.get_hub().loop.run_callback(greenlet.switch)
            elif greenlet is not None and greenlet.dead and not job.finished:
                # Killed before it had begun: closed() is owed all the same.
                self._greenlets[job] = gevent.spawn(self._run, job)

    def _serve(self, job: Any) -> None:
        """Run the callbacks, a turn whenever there is something to do, until closed() has returned. The greenlet's
        function.

        There is one frame on the stack while the connection is idle, since each one costs memory.
        """
        switch = gevent.get_hub().switch
        clock = time.monotonic
        due, awake, counters = self._due, self._awake, self._counters
        while not job.finished and not job.abandoned:
            try:
                if job not in due:
                    awake.discard(job)
                    switch()
                due.discard(job)
                began = clock()
                counters.turns += 1
                counters.queue_wait.observe(began - job.queued_at)
                while job.run_turn(counters):
                    pass
                counters.turn_time.observe(clock() - began)
            except BaseException as error:
                # Killed, or met by a timeout that a callback has left behind: closed() is still to be called.
                awake.add(job)
                if not self.is_kill(error):
                    logger.error("Something was thrown into the greenlet of %s", job, exc_info=error)
                self.pass_on(job, error)
                job.connection.terminate()
        self._greenlets.pop(job, None)
        awake.discard(job)
        due.discard(job)
        interrupt = self._interrupts.pop(job, None)
        if interrupt is not None:
            raise interrupt

    def forget(self, job: Any) -> None:
        """See :meth:`Scheduler.forget`: its greenlet ends."""
        if job in self._greenlets:
            self._resume([job])

    def pass_on(self, job: Any, error: BaseException) -> None:
        """See :meth:`Scheduler.pass_on`."""
        if isinstance(error, KeyboardInterrupt):
            # It is meant for the program, and met a handler by chance: the peer is told, and it goes on.
            self._interrupts[job] = error
            job.connection.engine.make_way(job.connection)
            job.connection.terminate()

    def is_kill(self, error: BaseException) -> bool:
        """See :meth:`Scheduler.is_kill`."""
        return isinstance(error, gevent.GreenletExit)

    def throw(self, error: BaseException) -> None:
        """See :meth:`Scheduler.throw`."""
        if isinstance(error, KeyboardInterrupt):
            self._hub.loop.run_callback(_throw, error)

    def _set_alarm(self, timeout: float | None) -> None:
        """Have the hub come back for the next timer. One that rings too early does no harm, and is set anew then."""
        if timeout is None:
            return
        due = time.monotonic() + timeout
        if self._alarm is not None:
            if self._alarm_due <= due:
                return
            self._alarm.stop()
            self._alarm.close()
        self._alarm = self._hub.loop.timer(min(max(timeout, SHORTEST_WAIT), LONGEST_WAIT))
        self._alarm_due = due
        self._alarm.start(self._ring, update=True)

    def _ring(self) -> None:
        self._stop_alarm()
        self.cycle()

    def _stop_alarm(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.stop()
            alarm.close()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _begin_end(self) -> None:
        if not self._ending:
            self._ending = True
            gevent.spawn(self._finish)

    def _finish(self) -> None:
        """Wait for the last callbacks, kill the greenlets that don't come to an end, and give all back. Those that wait
        for this in a callback go on after it.
        """
        try:
            self._stop_alarm()
            greenlets = [
                greenlet
                for job, greenlet in self._greenlets.items()
                if greenlet is not None and job not in self._joining
            ]
            gevent.joinall(greenlets, timeout=LAST_CALLS)
            gevent.killall([greenlet for greenlet in greenlets if not greenlet.dead], timeout=LAST_CALLS)
        finally:
            try:
                self._reactor.release()
            finally:
                self._ended.set()


def _throw(error: BaseException) -> None:
    raise error
