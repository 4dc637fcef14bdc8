"""The manager of websockets for gevent: the hub does what elsewhere a thread does.

The rules are those of :class:`~ws4py.manager.WebSocketManager`, whose code this is: the limits, the timers, the order
of callbacks, the counters. Only who waits differs. The hub watches the sockets; what has become ready in one round of
its loop is read as one batch, each connection's greenlet has its turn, and what they have sent leaves as another batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event

from ws4py.exc import ManagerError
from ws4py.manager.batch import BatchIO
from ws4py.manager.connection import Phase
from ws4py.manager.limits import Limits
from ws4py.manager.loop import FAILED, RUNNING, STOPPED, STOPPING
from ws4py.manager.pollers import LONGEST_WAIT, READ
from ws4py.manager.selector import WebSocketManager
from ws4py.manager.timers import TimerWheel
from ws4py.server.geventconnection import GreenletConnection, make_transport, native_lock
from ws4py.websocket import WebSocket

__all__ = ["GreenletManager"]

logger = logging.getLogger("ws4py")

LAST_CALLS = 0.5
"""How long, in seconds, the greenlets of a stopped manager have for their last callbacks before they are killed."""


SHORTEST_WAIT = 0.001
"""What a timer is set to at least, in seconds: libuv knows no shorter time, and gevent warns."""


class HubPoller:
    """Watches sockets with the hub's loop, and collects which are ready. See :class:`~ws4py.manager.Poller`."""

    def __init__(self, loop: Any, notify: Callable[[], None]) -> None:
        self._loop = loop
        self._notify = notify
        self._watchers: dict[int, Any] = {}
        self._events: list[tuple[int, int]] = []

    def register(self, fd: int, interest: int = READ) -> None:
        """Watch ``fd``."""
        watcher = self._watchers[fd] = self._loop.io(fd, interest)  # READ and WRITE are libev's numbers, too
        watcher.start(self._ready, fd, pass_events=True)

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

    def _ready(self, events: int, fd: int) -> None:
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


def _throw(error: BaseException) -> None:
    raise error


class GreenletManager(WebSocketManager):
    """Runs websockets by one hub and a greenlet for each.

    To be used in the thread that started it; ``broadcast``, ``stop`` and ``remove`` may be called by others too.

    :param spawn: starts a greenlet, as :func:`gevent.spawn` does.
    :param limits: see :class:`~ws4py.manager.Limits`.
    :param options: single limits, by their names.
    :raises ValueError: for a limit out of range.
    """

    connection_class = GreenletConnection
    make_transport = staticmethod(make_transport)

    def __init__(
        self, spawn: Callable[..., gevent.Greenlet] = gevent.spawn, *, limits: Limits | None = None, **options: Any
    ) -> None:
        super().__init__(workers=0, limits=limits, **options)
        self.name = "GreenletManager"
        self._lock = native_lock()
        self._spawn = spawn
        self._hub: Any = None
        self._ended = Event()
        self._ending = False
        self._alarm: Any = None
        self._alarm_due = 0.0

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, in the hub of the calling thread. A manager that has stopped, or failed, can be started again.

        :raises ManagerError: if it is running, or belongs to another process.
        """
        with self._lock:
            self._check_process()
            if self._state in (RUNNING, STOPPING):
                raise ManagerError("This manager is running already")
            self._set_up()
            self._state = RUNNING
        self._wake()

    def _set_up(self) -> None:
        self._hub = gevent.get_hub()
        self.poller = HubPoller(self._hub.loop, self._wake)
        self._io = BatchIO()
        self._wheel: TimerWheel[Any] = TimerWheel()
        self._drain_queue = None
        self._started_at = self._clock()
        self._ended.clear()
        self._ending = False

    def _tear_down(self) -> None:
        self.poller.release()
        if self._alarm is not None:
            self._alarm.stop()
            self._alarm.close()
            self._alarm = None

    def join(self, timeout: float | None = None) -> None:
        """Wait until a stopping manager has ended; ``timeout`` is in seconds, None for ever."""
        if self._state in (RUNNING, STOPPING) and not self._forked and not self.in_own_thread():
            self._ended.wait(timeout)

    def is_alive(self) -> bool:
        """Tell whether the manager has started, and has not ended."""
        return self._state in (RUNNING, STOPPING) and not self._forked

    def in_own_thread(self) -> bool:
        """Tell whether the caller is the hub, which can't wait."""
        return gevent.getcurrent() is self._hub

    # --- the websockets -----------------------------------------------------------------------------------------------

    def add(self, websocket: WebSocket, limits: Limits | None = None, address: str | None = None) -> None:
        """Take a websocket over, with an open socket of gevent: its callbacks are run by a greenlet of its own.

        See :meth:`ws4py.manager.WebSocketManager.add`.
        """
        super().add(websocket, limits, address)
        connection = websocket._connection
        if isinstance(connection, GreenletConnection) and connection.greenlet is None:
            connection.greenlet = self._spawn(connection.serve, self._inline_counters)

    def remove(self, websocket: WebSocket) -> None:
        """Let a websocket go, open. See :meth:`ws4py.manager.WebSocketManager.remove`."""
        connection = self._connection_of(websocket)
        if connection is not None and gevent.get_hub() is self._hub:
            self._let_go(connection)
            greenlet = connection.greenlet if isinstance(connection, GreenletConnection) else None
            if greenlet is not None and greenlet is not gevent.getcurrent() and not self.in_own_thread():
                greenlet.join(self.limits.send_timeout)  # a callback may be running
        else:
            super().remove(websocket)

    def _let_go(self, connection: Any) -> None:
        super()._let_go(connection)
        if self._connections.get(connection.fd) is not connection:  # else it ends, and closed() is owed
            connection.finished = True
            connection.resume(False)

    # --- what is counted ----------------------------------------------------------------------------------------------

    def worker_state(self, connections: list[Any]) -> tuple[int, int, int, int]:
        """Return 0 for no limit, how many greenlets there are, how many are idle, and how many are to have a turn."""
        idle = sum(connection.parked for connection in connections)
        return 0, len(connections), idle, len(self._ready)

    def breathe(self) -> None:
        """Let other greenlets run, in the midst of something that takes long."""
        if gevent.get_hub() is not self._hub:
            super().breathe()
        elif not self.in_own_thread():
            gevent.sleep(0)

    # --- the hub ------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._sleeping = False
        hub = self._hub
        if hub is None or self._state in (STOPPED, FAILED):
            return
        if gevent.get_hub() is hub:
            hub.loop.run_callback(self._cycle)
        else:
            hub.loop.run_callback_threadsafe(self._cycle)

    def _cycle(self) -> None:
        """Do what is due, read what is ready, let the greenlets have their turns, write what they sent. In the hub."""
        if self._state not in (RUNNING, STOPPING):
            return
        try:
            self._sleeping = False
            self._work()
            if self._stopped_all():
                self._begin_end(False)
            self._set_alarm()
            self._sleeping = True
            if (
                self._dirty
                or self._dropped
                or self._removed
                or self._acts
                or self._ready
                or self._writable
                or self._unread
            ):
                self._wake()
        except Exception:
            logger.critical("The manager failed; its connections are dropped", exc_info=True)
            self._begin_end(True)
        except BaseException:
            self._wake()  # it is meant for the program, and met the hub by chance: both go on
            raise

    def _begin_end(self, failed: bool) -> None:
        if not self._ending:
            self._ending = True
            gevent.spawn(self._finish, failed)

    def _finish(self, failed: bool) -> None:
        try:
            self._end(failed)
        except Exception:
            failed = True
            logger.critical("The manager failed at its end", exc_info=True)
        finally:
            ended = self._ended
            self._close(failed)
            if not self.running:
                ended.set()

    def _work(self) -> None:
        self._do_what_is_due()
        events = self.poller.poll()
        if events or self._unread:
            self._read(events)
            self._schedule_ready()
        self._write()
        self._schedule_ready()

    def _fail(self, connection: Any, error: BaseException) -> None:
        super()._fail(connection, error)
        if isinstance(error, KeyboardInterrupt):
            # It is meant for the program, and met the hub by chance: so it goes on to where the hub sends it.
            self._hub.loop.run_callback(_throw, error)

    def write_now(self, connection: GreenletConnection) -> None:
        """Write what a connection has to send, as far as the kernel takes it. Any greenlet may call."""
        if gevent.get_hub() is not self._hub or not Phase.NEW < connection.phase < Phase.SHUT:
            return
        if connection.outbox_size:
            self._send([connection])
            if self._unread:
                self._wake()

    def _schedule_ready(self) -> None:
        """Let the greenlets of the connections that have something to do go on."""
        if not self._ready:
            return
        ready, self._ready = self._ready, []
        now = self._clock()
        in_hub = self.in_own_thread()
        connection: Any
        for connection in ready:
            connection.queued_at = now
            connection.resume(in_hub)

    def _set_alarm(self) -> None:
        """Have the hub come back for the next timer. One that rings too early does no harm, and is set anew then."""
        timeout = self._time_to_wait()
        if timeout is None:
            return
        due = self._clock() + timeout
        if self._alarm is not None:
            if self._alarm_due <= due:
                return
            self._alarm.stop()
            self._alarm.close()
        self._alarm = self._hub.loop.timer(min(max(timeout, SHORTEST_WAIT), LONGEST_WAIT))
        self._alarm_due = due
        self._alarm.start(self._ring, update=True)

    def _ring(self) -> None:
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.stop()
            alarm.close()
        self._cycle()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _end(self, failed: bool) -> None:
        """Drop what is left, wait for the last callbacks, and kill the greenlets that don't come to an end."""
        with self._lock:
            self._state = STOPPING
        left: list[Any] = self._drop_all(failed)
        greenlets = [item.greenlet for item in left if item.greenlet]
        gevent.joinall(greenlets, timeout=LAST_CALLS)
        gevent.killall([greenlet for greenlet in greenlets if not greenlet.dead], timeout=LAST_CALLS)
        for connection in [*self._connections.values(), *self._displaced]:
            self._attempt(self._release, connection)
