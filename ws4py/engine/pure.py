"""The pure engine: many sockets as one, read and written in cycles by whoever polls. See :mod:`ws4py.engine`."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ws4py.closing import CLOSED
from ws4py.engine.batch import BatchIO, Received
from ws4py.engine.connection import Connection, PureConnection
from ws4py.engine.counters import EngineCounters
from ws4py.engine.host import Backend, Callers, Owner
from ws4py.engine.lifecycle import Lifecycle
from ws4py.engine.pollers import READ, WRITE, Poller, default_poller
from ws4py.engine.reading import Reader
from ws4py.engine.relay import InheritedConnection, Relay, run_errands
from ws4py.engine.transport import Transport
from ws4py.engine.wakeup import Wakeup
from ws4py.limits import Limits
from ws4py.streaming import Stream

__all__ = ["Engine"]

logger = logging.getLogger("ws4py")


class Engine:
    """Sockets of one manager.

    What has no other note is for the thread that polls: whoever runs a cycle. One thread at a time does.

    :param backend: the kind of threads that use it.
    :param read_ended: called with the owner when the end of its connection has begun.
    :param released: called with the owner and its connection when that is gone.
    :param clock: a monotonic clock, in seconds.
    :ivar callers: knows the threads that call; None while nobody polls.
    :ivar draining: a cycle does not wait when no connection is left.
    :ivar connections: by descriptor, until that is given back.
    :ivar counters: what the engine has counted.
    """

    def __init__(
        self,
        backend: Backend,
        read_ended: Callable[[Any], object],
        released: Callable[[Any, Connection], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.make_lock = backend.make_lock
        self.make_condition = backend.make_condition
        self.holds = backend.holds
        self.read_ended = read_ended
        self.released = released
        self.clock = clock
        self.callers: Callers | None = None
        self.draining = False
        self.connections: dict[int, Connection] = {}
        self.displaced: set[Connection] = set()  # whose descriptors are others' before they have ended
        self.counters = EngineCounters()
        self.read_at = 0.0  # when what is being taken in was read
        self.ready: list[Any] = []  # owners that have something to do, for who called cycle()
        self.lock = backend.make_lock()  # over the counters of limits and the connections
        self.reader = Reader(self)
        self.lifecycle = Lifecycle(self)
        # Of what has come there is a rest that no poller shows: it is the next cycle's. An ordered set.
        self.unread: dict[Connection, None] = {}
        self._io = BatchIO()
        self._wakeup: Wakeup | None = None
        self._sleeping = False  # whoever polls waits, or is about to, and has yet to look for work a last time
        self._dirty: deque[Connection] = deque()  # what the next cycle is to look at
        self._dropped: deque[Connection] = deque()  # what it is to drop
        self._asked: deque[Callable[[], object]] = deque()  # what it is to do
        self._has_tls = False  # whether there ever was a connection with TLS
        self._writable: list[Connection] = []  # whose sockets can be written again
        self._given_poller = False
        self.poller: Poller | None = None
        self.relay: Relay | None = None  # of what forked processes send

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self, poller: Poller, wakeup: Wakeup, relay: Relay | None = None, given_poller: bool = False) -> None:
        """Begin to wait with something.

        :param poller: waits.
        :param wakeup: has it come back.
        :param relay: of what forked processes send.
        :param given_poller: the poller stays the caller's.
        """
        if wakeup.fileno() >= 0:
            poller.register(wakeup.fileno(), READ)
        if relay is not None:
            poller.register(relay.fileno(), READ)
        self.draining = False
        self.relay = relay
        self.poller = poller
        self._given_poller = given_poller
        self._wakeup = wakeup

    def forget_poller(self) -> None:
        """Wait with nothing any more: what :meth:`open` was given is the caller's again."""
        wakeup, relay, poller = self._wakeup, self.relay, self.poller
        self._wakeup = self.relay = self.poller = None
        for item in (wakeup, relay):
            if item is not None and poller is not None and item.fileno() >= 0:
                poller.unregister(item.fileno())

    def close(self) -> None:
        """Give back what it waits with, and the descriptors of connections that are left."""
        for connection in [*self.connections.values(), *self.displaced]:
            connection.closing.lose()
            self.attempt(partial(Connection.update, given_up=True), connection)
        wakeup, relay, poller = self._wakeup, self.relay, self.poller
        self.forget_poller()
        if relay is not None:
            relay.release()
        if wakeup is not None and poller is not None:
            wakeup.release()
            if not self._given_poller:
                poller.release()
        self._dirty.clear()
        self._dropped.clear()
        self._do_asked()
        self.unread.clear()

    def wake(self) -> None:
        """Have a cycle that waits come back. Any thread may call."""
        # A sleeper has said so before it looked for work a last time; so either it saw ours, or this is seen by it.
        self._sleeping = False
        wakeup = self._wakeup
        if wakeup is not None:
            wakeup.wake()

    # --- any thread ---------------------------------------------------------------------------------------------------

    def make_connection(self, owner: Owner, stream: Stream, limits: Limits, sock: Any) -> Connection:
        """Return a connection that is to be added; see there what it takes. The socket is the one that it will have."""
        return PureConnection(self, owner, stream, limits)

    def add(self, connection: Connection, transport: Transport, fd: int) -> None:
        """Take a connection over; the next cycle that it is marked dirty for begins to read it.

        :param transport: of its socket, non-blocking.
        :param fd: of its socket.
        """
        limits = connection.limits
        connection.stream.limit(limits.max_message_size, limits.max_fragments)
        connection.transport = transport
        self._has_tls = self._has_tls or transport.secure
        with self.lock:
            lost = self.connections.get(fd)  # the application has closed its socket: the number is free again
            if lost is not None:
                self._dropped.append(lost)
                self.displaced.add(lost)
            self.connections[fd] = connection
            self.counters.opened += 1
        connection.fd = fd

    def mark_dirty(self, connection: Connection) -> None:
        """Have the next cycle look at a connection: there is something to write, or its state has changed."""
        self._dirty.append(connection)
        if self._sleeping:
            self.wake()

    def forget(self, connection: Connection) -> bool:
        """Have a connection no more; tell whether its descriptor is still its own. For the thread that polls."""
        with self.lock:
            owned = self.connections.get(connection.fd) is connection
            if owned:
                del self.connections[connection.fd]
            self.displaced.discard(connection)
        self.unread.pop(connection, None)
        return owned

    def drop(self, connection: Connection) -> None:
        """Have the next cycle drop a connection's socket."""
        self._dropped.append(connection)
        self.wake()

    def ask(self, act: Callable[[], object]) -> None:
        """Have the next cycle call something."""
        self._asked.append(act)
        self.wake()

    def make_way(self, connection: Connection) -> None:
        """Write what a connection has to send, as far as the kernel takes it, if the caller may."""
        if self.callers is None or not self.callers.owns_engine() or not connection.watched:
            return
        if not connection.transport.blocked and connection.closing.state is not CLOSED:
            self.send([connection])

    @property
    def busy(self) -> bool:
        """Whether the next cycle has something to do at once."""
        return bool(self._dirty or self._dropped or self._asked or self._writable or self.unread or self.ready)

    def doze(self) -> bool:
        """Wait outside of a cycle, in the loop of somebody else, to be woken; return whether there is something to do
        at once.
        """
        self._sleeping = True
        return self.busy

    def time_to_wait(self) -> float | None:
        """Return in how many seconds a cycle has something to do, if nothing happens; None for never."""
        due = self.lifecycle.wheel.next_time()
        return None if due is None else max(0.0, due - self.clock())

    def in_own_thread(self) -> bool:
        """Tell whether the caller is the thread that polls and runs callbacks, too."""
        return self.callers is not None and self.callers.in_own_thread()

    def begin_wait(self) -> bool:
        """See :meth:`ws4py.engine.host.Callers.begin_wait`."""
        return self.callers is None or self.callers.begin_wait()

    def end_wait(self) -> None:
        """See :meth:`ws4py.engine.host.Callers.end_wait`."""
        if self.callers is not None:
            self.callers.end_wait()

    def count_limit(self, name: str) -> None:
        """Count that a limit or a policy acted."""
        with self.lock:
            self.counters.limits[name] += 1

    def count(self, name: str, number: int = 1) -> None:
        """Count that something happened, or ``number`` times; the name is that of a field of a snapshot."""
        with self.lock:
            self.counters.events[name] += number

    def fault(self, connection: Connection) -> None:
        """Count that something done for a connection raised, and have it dropped."""
        self.count("faults")
        self.drop(connection)

    # --- a cycle ------------------------------------------------------------------------------------------------------

    def cycle(self, timeout: float | None = None) -> list[Any]:
        """Do what is due, write what is dirty, wait, and read what is ready.

        :param timeout: how long to wait at most, in seconds; None for ever.
        :returns: the owners that have become ready: their callbacks are to be run.
        """
        now = self.clock()
        wheel = self.lifecycle.wheel
        due = wheel.next_time()
        if due is not None and due <= now:
            self.counters.loop_lag.observe(now - due)
            for connection in wheel.due(now):
                self.attempt(self.lifecycle.on_timer, connection)
        while self._dropped:
            self.attempt(self.lifecycle.drop, self._dropped.popleft())
        self._do_asked()
        self._write()
        relay = self.relay
        if relay is not None and relay.held:
            relay.let_go()
        if self.ready or self.unread:
            timeout = 0.0
        else:
            due = self.time_to_wait()
            if due is not None:
                timeout = due if timeout is None else min(due, timeout)
        self._sleeping = True
        if self._dirty or self._dropped or self._asked or (self.draining and not self.connections):
            timeout = 0.0
        assert self.poller is not None, "it was opened"
        events = self._io.poll(self.poller, timeout)
        self._sleeping = False
        self._read(events)
        ready, self.ready = self.ready, []
        return ready

    def _do_asked(self) -> None:
        """Do what was left to the thread that polls."""
        while self._asked:
            try:
                self._asked.popleft()()
            except BaseException as error:
                logger.exception("What was left to the thread that polls raised")
                self._throw(error)

    def attempt(self, act: Callable[[Connection], object], connection: Connection) -> None:
        """Do something for a connection; an exception ends it, and nobody else."""
        try:
            act(connection)
        except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
            self.fail(connection, error)

    def fail(self, connection: Connection, error: BaseException) -> None:
        """Something done for a connection has raised: that ends it, and nobody else."""
        logger.error("%s is ended: what was done for it raised", connection.owner, exc_info=error)
        self.count("faults")
        try:
            connection.end_reading(lost=True)
        except BaseException:
            logger.exception("%s is ended, but not in order", connection.owner)
        self._throw(error)

    def _throw(self, error: BaseException) -> None:
        if self.callers is not None:
            self.callers.throw(error)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write what is dirty, as one batch, and see to what else those connections need."""
        dirty = self._dirty
        connections, self._writable = self._writable, []
        for _ in range(len(dirty)):
            connection = dirty.popleft()
            try:
                if not connection.watched:
                    if connection.fd < 0:
                        continue  # it is just being added, and will be marked dirty after that
                    self.lifecycle.adopt(connection)
                if connection.transport.blocked or connection.closing.state is CLOSED:
                    connection.dirty = False
                    connection.update()
                else:
                    connections.append(connection)
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                self.fail(connection, error)
        if connections:
            self.send(connections)

    def send(self, connections: list[Connection]) -> None:
        """Write what connections have to send, as one batch, and see to what else they need."""
        jobs: list[tuple[Connection, bytes | memoryview]] = []
        now = self.clock()
        for connection in connections:
            data = connection.take_output()
            if data is None:
                self.attempt(Connection.update, connection)
                continue
            if data and not data[0] & 0x08:  # a Ping of ours is no sign of life
                connection.active_at = now
            jobs.append((connection, data))
        if not jobs:
            return
        for (connection, data), result in zip(jobs, self._io.send(jobs), strict=True):
            try:
                if result == len(data):
                    if data and connection.output_taken(len(data)):
                        self._dirty.append(connection)
                    if not connection.needs_update and connection.interest == READ and not connection.transport.blocked:
                        continue
                elif isinstance(result, OSError):
                    logger.debug("Could not write to %s: %s", connection.owner, result)
                    connection.end_reading(lost=True)
                    continue
                elif isinstance(result, BaseException):
                    self.fail(connection, result)
                    continue
                else:
                    connection.output_left(result)
                connection.update()
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                self.fail(connection, error)

    def write_until(self, connection: Connection, deadline: float) -> bool:
        """Write a connection's outbox, waiting for its peer, until there is room; return whether there is. Blocks all
        others: for a callback that runs on the thread that polls.
        """
        poller = default_poller()
        poller.register(connection.fd, WRITE)
        try:
            while connection.outbox_full and connection.closing.state is not CLOSED:
                self.send([connection])
                remaining = deadline - time.monotonic()
                if connection.outbox_full and (remaining <= 0 or not poller.poll(remaining)):
                    return False
        finally:
            poller.release()
        return True

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, events: list[tuple[int, int]]) -> None:
        """Read from all that is ready, as one batch; then go on with what the last cycles have left."""
        self.read_at = self.clock()
        readable: list[Connection] = []
        rests: list[Connection] = []
        unread, self.unread = self.unread, {}
        connections = self.connections
        for fd, event in events:
            connection = connections.get(fd)
            if connection is None:
                if self._wakeup is not None and fd == self._wakeup.fileno():
                    self._wakeup.drain()
                elif self.relay is not None and fd == self.relay.fileno():
                    run_errands(self.relay, self.connections, self.fail)
                continue
            to_read = event & READ
            if connection.interest & WRITE:
                self._writable.append(connection)  # on any readiness: TLS may have wanted the other direction
                to_read = to_read or (connection.transport.wants_write and self.may_read(connection))
            if to_read and not (unread and connection in unread):
                readable.append(connection)
        for connection in unread:
            if self.may_read(connection):
                (rests if connection.stream.more else readable).append(connection)
        if readable:
            take_in = self.reader.take_in
            for connection, data in zip(readable, self._io.receive(readable, time.monotonic()), strict=True):
                try:
                    if data is not None:
                        if isinstance(data, bytes):
                            take_in(connection, data)
                        else:
                            self._lose(connection, data)
                    if self._has_tls and connection.transport.secure:
                        self.watch(connection)  # there may be more that no poller shows, or TLS has to write first
                except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                    self.fail(connection, error)
        for connection in rests:
            try:
                self.reader.decode(connection, b"")
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                self.fail(connection, error)

    def _lose(self, connection: Connection, error: Received) -> None:
        """A read has raised."""
        if isinstance(error, OSError):
            logger.debug("Could not read from %s: %s", connection.owner, error)
            connection.end_reading(lost=True)
        elif isinstance(error, BaseException):
            self.fail(connection, error)

    # --- forks --------------------------------------------------------------------------------------------------------

    def locks(self) -> list[Any]:
        """Return the locks of the engine and of its connections, in the order in which several are taken."""
        locks = []
        for connection in list(self.connections.values()):
            sender = connection.sender
            if sender is not None and sender.ordered:
                locks.append(sender.encoding)
            locks.append(connection.lock)
        return [*locks, self.lock]

    def after_fork_in_child(self) -> None:
        """Know that whoever polls stayed in the parent. Called in a forked process, by its only thread."""
        self._wakeup = self.callers = None  # the pipe would wake the parent
        self.lock = self.make_lock()
        if self.relay is not None:
            self.relay.after_fork_in_child()
        for connection in [*self.connections.values(), *self.displaced]:
            self.bequeath(connection)

    def bequeath(self, connection: Connection) -> None:
        """Have a connection be what it is in a forked process."""
        connection.__class__ = InheritedConnection

    # --- what the poller watches --------------------------------------------------------------------------------------

    def may_read(self, connection: Connection) -> bool:
        """Tell whether anything is to be read of a connection now."""
        if connection.closing.state is CLOSED:
            return False
        return connection.read_ended or not (connection.reading_paused or connection.outbox_full)

    def watch(self, connection: Connection) -> None:
        """Have the poller watch for what the connection can use now; one that can't be watched is dropped."""
        transport = connection.transport
        interest = 0
        if self.may_read(connection):
            interest = WRITE if transport.wants_write else READ
            if connection.stream.more or (transport.secure and transport.pending()):
                self.unread[connection] = None
        if transport.blocked and connection.closing.state is not CLOSED:
            interest |= WRITE
        if interest == connection.interest:
            return
        if self.connections.get(connection.fd) is not connection:
            connection.interest = 0
            return  # the application has closed the socket, and its number is another one's
        assert self.poller is not None, "it was opened"
        try:
            if not interest:
                self.poller.unregister(connection.fd)
            elif not connection.interest:
                self.poller.register(connection.fd, interest)
            else:
                self.poller.modify(connection.fd, interest)
        except (OSError, ValueError) as error:
            logger.error("%s can't be watched: %s", connection.owner, error)
            connection.end_reading(lost=True)
            return
        connection.interest = interest

    def unwatch(self, connection: Connection) -> None:
        """Watch a connection no longer that stays open."""
        if connection.interest and self.poller is not None:
            self.poller.unregister(connection.fd)
