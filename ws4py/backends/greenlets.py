"""Greenlets of gevent: the hub polls, and a greenlet for each websocket runs its callbacks.

All of it happens in the thread of one hub; another thread may send. The hub watches the sockets; what has become ready
in one round of its loop is read as one batch, each connection's greenlet has its turn, and what they have sent leaves
as another batch.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import gevent
from gevent import monkey, socket
from gevent.event import Event

from ws4py.engine.counters import WorkerCounters
from ws4py.engine.pollers import LONGEST_WAIT, READ
from ws4py.engine.relay import Relay
from ws4py.engine.transport import PlainTransport, TLSTransport, Transport

__all__ = [
    "GreenletCondition",
    "GreenletScheduler",
    "Greenlets",
    "HubPoller",
    "close_socket",
    "make_transport",
    "native_lock",
    "take_socket",
]

logger = logging.getLogger("ws4py")

LAST_CALLS: Final = 0.5
"""How long, in seconds, the greenlets of a stopped manager have for their last callbacks before they are killed."""

SHORTEST_WAIT: Final = 0.001
"""What a timer is set to at least, in seconds: libuv knows no shorter time, and gevent warns."""

native_lock: Callable[[], Any] = monkey.get_original("_thread", "RLock")
"""Makes a reentrant lock of the system's threads, whatever is patched. Greenlets of one thread never meet at it, since
none gives way while it holds one.
"""


# --- sockets ----------------------------------------------------------------------------------------------------------


def take_socket(sock: Any) -> Any:
    """Return a socket for the connection of ``sock``, which the server that has it may close without ending the
    connection.

    :param sock: of gevent, plain or TLS.
    """
    if getattr(sock, "_sslobj", None) is not None:
        # The TLS object can't change its socket; so the server is given a close() that does nothing.
        sock.close = _keep_open
        return sock
    return socket.socket(sock.family, sock.type, sock.proto, fileno=sock.detach())


def close_socket(sock: Any) -> None:
    """Close what :func:`take_socket` has returned."""
    getattr(sock, "__dict__", {}).pop("close", None)
    sock.close()


def _keep_open() -> None:
    """Stand in for the ``close`` of a socket that has a new owner."""


class _PlainTransport(PlainTransport):
    """TCP, on what gevent's socket wraps: its own methods would only add a frame, since nothing may wait here."""

    __slots__ = ("_owner",)

    def __init__(self, sock: Any) -> None:
        super().__init__(sock._sock)
        self._owner = sock

    @property
    def closed(self) -> bool:
        """See :attr:`Transport.closed`. What is wrapped may be closed later, by the hub."""
        return bool(self._owner.fileno() < 0)

    def close(self) -> None:
        """Give the descriptor back."""
        self._owner.close()


class _TLSObject:
    """The TLS object inside gevent's socket, with the methods that :class:`~ws4py.engine.transport.TLSTransport`
    calls.

    gevent's own return 0 from a ``send`` that would have to wait, and do not say for what.
    """

    __slots__ = ("_owner", "pending", "recv", "send", "shutdown")

    def __init__(self, sock: Any) -> None:
        self._owner = sock
        self.recv = sock._sslobj.read
        self.send = sock._sslobj.write
        self.pending = sock._sslobj.pending
        self.shutdown = sock._sslobj.shutdown

    def fileno(self) -> int:
        return int(self._owner.fileno())

    def close(self) -> None:
        close_socket(self._owner)


class _TLSTransport(TLSTransport):
    """TLS as gevent wraps it."""

    __slots__ = ()

    def __init__(self, sock: Any) -> None:
        super().__init__(sock)
        self._sock = _TLSObject(sock)


def make_transport(sock: Any) -> Transport:
    """Return the transport of a connected socket of gevent, which is made non-blocking."""
    sock.setblocking(False)
    return _TLSTransport(sock) if getattr(sock, "_sslobj", None) is not None else _PlainTransport(sock)


# --- waiting ---------------------------------------------------------------------------------------------------------


class GreenletCondition(threading.Condition):
    """A condition over a native lock that greenlets wait on, of one thread or several."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self._guard = lock
        self._changed = Event()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true, for ``timeout`` seconds at most; return what it said last.

        The lock is held by the caller, but not while it waits.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            changed = self._changed
            self._guard.release()
            try:
                changed.wait(remaining)
            finally:
                self._guard.acquire()
        return result

    def notify_all(self) -> None:
        """Let all that wait look again. The lock is held."""
        changed, self._changed = self._changed, Event()
        changed.set()


class HubPoller:
    """Watches sockets with the hub's loop, and collects which are ready. See :class:`~ws4py.manager.Poller`."""

    def __init__(self, loop: Any, notify: Callable[[], None]) -> None:
        self._loop = loop
        self._notify = notify
        self._watchers: dict[int, Any] = {}
        self._events: list[tuple[int, int]] = []
        self._left = False
        self._on_event = self._ready  # one bound method for all

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``."""
        watcher = self._watchers[fd] = self._loop.io(fd, interest)  # READ and WRITE are libev's numbers, too
        watcher.start(self._on_event, fd, pass_events=True)

    def modify(self, fd: int, interest: int) -> None:
        """Change what ``fd`` is watched for."""
        self.unregister(fd)
        self.register(fd, interest)

    def unregister(self, fd: int) -> None:
        """Watch ``fd`` no longer."""
        watcher = self._watchers.pop(fd, None)
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def leave(self) -> None:
        """Leave what is watched to the parent process: each is watched no longer when the hub meets it here. To stop
        them now, before gevent has given this process a loop of its own, could stop the parent's.
        """
        self._left = True

    def _ready(self, events: int, fd: int) -> None:
        if self._left:
            self.unregister(fd)
            return
        self._events.append((fd, events))
        if len(self._events) == 1:
            self._notify()

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Return what has become ready since the last call. It does not wait: the hub does."""
        events, self._events = self._events, []
        return events

    def release(self) -> None:
        """Watch nothing any more."""
        for fd in list(self._watchers):
            self.unregister(fd)


class _HubWakeup:
    """Has the hub come back to its engine. See :class:`ws4py.engine.wakeup.Wakeup`."""

    def __init__(self, hub: Any, cycle: Callable[[], None]) -> None:
        self._hub = hub
        self._cycle = cycle

    def fileno(self) -> int:
        """There is no descriptor."""
        return -1

    def wake(self) -> None:
        """Have the hub run a cycle. Any thread may call."""
        loop = self._hub.loop
        if gevent.get_hub() is self._hub:
            loop.run_callback(self._cycle)
        else:
            loop.run_callback_threadsafe(self._cycle)

    def drain(self) -> None:
        """There is nothing to be drained."""

    def release(self) -> None:
        """There is nothing to be given back."""


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


class Greenlets:
    """What a manager of greenlets waits with.

    :param spawn: starts a greenlet, as :func:`gevent.spawn` does.
    """

    greenlets = True
    given_poller = False

    def __init__(self, spawn: Callable[..., gevent.Greenlet] = gevent.spawn) -> None:
        self._spawn = spawn
        self._hub: Any = None
        self._poller: Any = None
        self._scheduler: GreenletScheduler | None = None

    def make_lock(self) -> Any:
        """Return a lock."""
        return native_lock()

    def holds(self, lock: Any) -> bool:
        """Tell whether the calling thread holds a lock."""
        return bool(lock._is_owned())

    def make_condition(self, lock: Any) -> GreenletCondition:
        """Return a condition over a lock."""
        return GreenletCondition(lock)

    def make_event(self) -> Any:
        """Return an event."""
        return Event()

    def make_poller(self, wake: Callable[[], None]) -> HubPoller:
        """Return what waits for sockets, in the hub of the calling thread."""
        self._hub = gevent.get_hub()
        poller = self._poller = HubPoller(self._hub.loop, wake)
        return poller

    def make_relay(self) -> Relay | None:
        """Return what carries the messages of forked processes; None where there are none."""
        return Relay() if hasattr(os, "fork") else None

    def make_wakeup(self) -> _HubWakeup:
        """Return what wakes the hub."""
        return _HubWakeup(self._hub, self._cycle)

    def _cycle(self) -> None:
        if self._scheduler is not None:
            self._scheduler.cycle()

    def make_scheduler(self, reactor: Any) -> GreenletScheduler:
        """Return what runs callbacks."""
        self._scheduler = GreenletScheduler(reactor, self._spawn, self._hub, self._poller)
        return self._scheduler

    def make_transport(self, sock: Any, on_close: Callable[[], object]) -> tuple[Transport, Any]:
        """Return the transport of a connected socket of gevent, which is made non-blocking, and the socket."""
        return make_transport(sock), sock

    def breathe(self) -> None:
        """Let other greenlets run, in the midst of something that takes long."""
        if gevent.get_hub() is not self._hub:
            time.sleep(0.0002)
        elif gevent.getcurrent() is not self._hub:
            gevent.sleep(0)
