"""The manager: one thread that owns the sockets of many websockets."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ws4py.exc import HandshakeError, ManagerError
from ws4py.labels import address_of, path_of, status_label
from ws4py.manager.batch import BatchIO
from ws4py.manager.connection import Connection, Phase
from ws4py.manager.fanout import SharedMessage
from ws4py.manager.limits import Limits, OverflowPolicy
from ws4py.manager.loop import FAILED, NEW, RUNNING, STOPPED, STOPPING, Loop
from ws4py.manager.pollers import READ, Poller, default_poller
from ws4py.manager.process import managers
from ws4py.manager.snapshot import (
    ConnectionSnapshot,
    Snapshot,
    SortKey,
    take_connections,
    take_snapshot,
)
from ws4py.manager.statistics import ManagerCounters, WorkerCounters
from ws4py.manager.timers import TimerWheel
from ws4py.manager.transport import Transport, make_transport
from ws4py.manager.workers import WorkerPool
from ws4py.messaging import CloseCode, CloseControlMessage, Message
from ws4py.websocket import WebSocket, encode_payload

if TYPE_CHECKING:
    pass

__all__ = ["WebSocketManager"]

logger = logging.getLogger("ws4py")

DEFAULT_WORKERS: Final = 32
BREATH: Final = 0.0002
"""How long, in seconds, one who reads statistics rests between two slices."""

LAST_CALLS: Final = 0.5
"""How long, in seconds, the workers of a stopped manager may go without beginning a turn."""


class WebSocketManager(Loop):
    """Runs websockets: one thread does all their input and output, a pool of workers runs their callbacks.

    Every method may be called from any thread unless it says otherwise.

    A manager that has started keeps the process alive until it is stopped, as its thread did in 0.6, unless
    :attr:`daemon` was set. One that still runs when the process ends is stopped then, and waited for.

    :ivar lock: not used here; it is there for programs of 0.6 that hold it while they use the manager.
    :ivar on_failure: called when the manager has failed, with no arguments, by the thread that did, which ends then. It
        may start the manager again.
    :param poller: what to wait with; the system's best by default.
    :param workers: how many threads may run callbacks at once; they are started on demand. 0 runs callbacks on the
        manager's own thread, as 0.6 did: a callback that blocks then blocks all.
    :param limits: of the manager and, unless they are given their own, of its connections.
    :param clock: a monotonic clock, in seconds.
    :param options: single limits, by their names in :class:`~ws4py.manager.limits.Limits`.
    :raises ValueError: for a limit out of range.
    """

    # A manager of another kind of threads has its own.
    connection_class: type[Connection] = Connection
    make_transport: Callable[[Any], Transport] = staticmethod(make_transport)

    def __init__(
        self,
        poller: Poller | None = None,
        *,
        workers: int = DEFAULT_WORKERS,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> None:
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 0:
            raise ValueError(f"workers must be a whole number of at least 0, not {workers!r}")
        super().__init__((limits or Limits()).but(**options), clock)
        self.workers = workers
        self.lock = threading.RLock()
        self.on_failure: Callable[[], object] | None = None
        self._name = "WebSocketManager"
        self._daemon = False
        self._given_poller = poller
        self._thread: threading.Thread | None = None
        self._forked = False
        self._wake_writer = -1
        self._ids = itertools.count(1)
        self._started_at: float | None = None
        managers.add(self)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. A manager that has stopped, or failed, can be started again.

        If that fails, it is as it was, and may be tried again.

        :raises ManagerError: if it is running, or belongs to another process.
        :raises RuntimeError: if the system has no thread for it.
        :raises OSError: if the system has no descriptors for it.
        """
        with self._lock:  # over all of it: nobody is to see a manager that runs without a thread
            self._check_process()
            if self._state in (RUNNING, STOPPING):
                raise ManagerError("This manager is running already")
            before, self._state = self._state, RUNNING
            try:
                self._set_up()
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=self._daemon)
                self._thread.start()
            except BaseException:
                self._thread = None
                self._tear_down()
                self._state = before
                raise

    def _set_up(self) -> None:
        """Get what the thread needs."""
        self._io = BatchIO()
        self._wheel = TimerWheel()
        self._pool = WorkerPool(self.workers, max_waiting=self.limits.max_waiting_senders) if self.workers else None
        self._drain_queue = None
        self._started_at = self._clock()
        self.poller = self._given_poller or default_poller()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self.poller.register(self._wake_reader, READ)

    def _tear_down(self) -> None:
        """Give back what :meth:`_set_up` has got, all of it or a part. The lock is held."""
        reader, writer, self._wake_reader, self._wake_writer = self._wake_reader, self._wake_writer, -1, -1
        for fd in (reader, writer):
            if fd >= 0:
                with contextlib.suppress(Exception):
                    self.poller.unregister(fd)
                os.close(fd)
        if self._given_poller is None and (poller := self.__dict__.pop("poller", None)) is not None:
            poller.release()

    def stop(self) -> None:
        """Begin to stop: every websocket is closed with 1001, and what is still open after ``drain_timeout`` is
        dropped.

        It does not wait: see :meth:`join`. A manager that does not run is left as it is.
        """
        with self._lock:
            self._check_process()
            if self._state == NEW:
                self._state = STOPPED
            if self._state != RUNNING:
                return
            self._state = STOPPING
        self._wake()

    def join(self, timeout: float | None = None) -> None:
        """Wait until a manager that stops, or fails, has ended: its thread and its workers.

        :param timeout: in seconds; None for ever.
        """
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self._forked:
            thread.join(timeout)

    def is_alive(self) -> bool:
        """Tell whether the manager's thread is running."""
        return self._thread is not None and self._thread.is_alive() and not self._forked

    @property
    def running(self) -> bool:
        """Whether websockets can be added and are served: started, and not told to stop."""
        return self._state == RUNNING and not self._forked

    @property
    def failed(self) -> bool:
        """Whether the manager has ended by an error, which is in the log. Its websockets are closed."""
        return self._state == FAILED

    @property
    def daemon(self) -> bool:
        """Whether the process may end while the manager runs; False by default. To be set before :meth:`start`.

        :raises RuntimeError: if it is set while the manager runs.
        """
        return self._daemon

    @daemon.setter
    def daemon(self, flag: bool) -> None:
        if self.is_alive():
            raise RuntimeError("daemon can't be set while the manager runs")
        self._daemon = bool(flag)

    @property
    def name(self) -> str:
        """The name of the thread."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)
        if self._thread is not None:
            self._thread.name = self._name

    def __bool__(self) -> bool:
        """A manager is true, without websockets too."""
        return True

    def __enter__(self) -> WebSocketManager:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for the end."""
        self.stop()
        self.join()

    def _check_process(self) -> None:
        if self._forked:
            raise ManagerError(
                "This manager's thread runs in the parent process: a forked process may send on a websocket that it "
                "inherited, but needs a manager of its own for anything else"
            )

    def in_own_thread(self) -> bool:
        """Tell whether the caller is the manager's thread."""
        return threading.current_thread() is self._thread and not self._forked

    # --- the websockets -----------------------------------------------------------------------------------------------

    def admit(self, address: str | None = None) -> None:
        """Say whether a handshake may be accepted now.

        :param address: the peer's IP address. A word that is none counts for no limit.
        :raises HandshakeError: if not: 503 while stopping or with ``max_connections`` that have not given their
            descriptors back, 429 with too many from ``address``.
        """
        retry = [("Retry-After", str(max(1, round(self.limits.drain_timeout))))]
        if not self.running:
            raise HandshakeError("The server is shutting down", 503, retry)
        limit = self.limits.max_connections
        if limit is not None and len(self._connections) >= limit:
            self.count_limit("max_connections")
            raise HandshakeError("Too many connections", 503, retry)
        limit = self.limits.max_connections_per_ip
        if limit is not None and address and self._addresses[address_of(address) or ""] >= limit:
            self.count_limit("max_connections_per_ip")
            raise HandshakeError("Too many connections from this address", 429, retry)

    def add(self, websocket: WebSocket, limits: Limits | None = None, address: str | None = None) -> None:
        """Take a websocket over whose handshake is done: its ``opened()`` is called by a worker.

        :param websocket: with an open socket; bytes that were read already are in its ``buf``.
        :param limits: of this connection; the manager's by default.
        :param address: of the peer, for ``max_connections_per_ip``, if it is not the socket's: a proxy's word, say. A
            word that is no IP address is passed over.
        :raises ManagerError: if the manager was stopped, or belongs to another process; or if a callback is still
            running under another manager that has let the websocket go.
        :raises ValueError: if the websocket is terminated, has no open socket, or is run by somebody else; or for its
            ``heartbeat_freq``.
        :raises TypeError: if it is no websocket.
        """
        self._check_process()
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"{websocket!r} is not a WebSocket")
        with self._lock:  # another thread may just be adding it
            if websocket in self:
                return
            before = websocket._connection
        turn = websocket._last_turn
        if turn is not None and turn.in_turn:
            raise ManagerError(f"A callback of {websocket!r} is still running under the manager that has let it go")
        sock = websocket.sock
        fd = sock.fileno() if sock is not None and not websocket.terminated else -1
        if fd < 0:
            raise ValueError(f"{websocket!r} has no open socket")
        if isinstance(before, Connection) and not before.finished:
            raise ValueError(f"{websocket!r} is under another manager")
        frequency = websocket.heartbeat_freq
        if frequency is not None and not (isinstance(frequency, (int, float)) and 0 <= frequency < math.inf):
            raise ValueError(f"heartbeat_freq must be a number of seconds of at least 0 or None, not {frequency!r}")
        if limits is None:
            limits = self.limits.but(**websocket._limits) if websocket._limits else self.limits
        connection = self.connection_class(websocket, self.make_transport(sock), fd, self, limits)
        connection.stream.limit(limits.max_message_size, limits.max_fragments)
        connection.opened_at = connection.active_at = self._clock()
        connection.id = next(self._ids)
        try:
            peer = websocket.peer_address  # kept by the websocket, for a log line when the socket is gone
        except OSError:
            peer = None
        address = address_of(address) if address else None
        if address is None and isinstance(peer, tuple):
            address = address_of(str(peer[0]))
        if websocket.environ is not None:
            connection.path = path_of(websocket.environ)
        with self._lock:
            if self._state not in (NEW, RUNNING):
                raise ManagerError("This manager was stopped: a websocket can't be added")
            added = websocket._attach(connection, before)
            too_many = self._enter(connection, address) if added else None
        if not added:  # another thread was faster
            self.add(websocket, limits, address)
            return
        if too_many:  # a crowd of handshakes was admitted at the same time
            self.count_limit(too_many)
            connection.close(CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Too many connections"))
        self.attend(connection)

    def _enter(self, connection: Connection, address: str | None) -> str | None:
        """Put a connection down; return the name of the limit that it is beyond. The lock is held."""
        too_many = None
        if self.limits.max_connections is not None and len(self._connections) >= self.limits.max_connections:
            too_many = "max_connections"
        connection.remote = address or ""
        if self.limits.max_connections_per_ip is not None and address is not None:
            connection.address = address
            if self._addresses[connection.address] >= self.limits.max_connections_per_ip:
                too_many = "max_connections_per_ip"
            self._addresses[connection.address] += 1
        lost = self._connections.get(connection.fd)  # the application has closed its socket: the number is free again
        if lost is not None:
            self._dropped.append(lost)
            self._displaced.add(lost)
        self._connections[connection.fd] = connection
        self._open += 1
        return too_many

    def remove(self, websocket: WebSocket) -> None:
        """Let a websocket go, open: nothing is sent, ``closed()`` is not called, and its socket is blocking again.

        Returns when the manager's thread does not use the socket any more and no callback runs, the one that calls
        this excepted; or after twice the ``send_timeout``.
        """
        self._check_process()
        connection = self._connection_of(websocket)
        if connection is None:
            return
        if not self.is_alive() or self.in_own_thread():
            self._let_go(connection)
            return
        done = threading.Event()
        self._removed.append((connection, done))
        self._wake()
        done.wait(self.limits.send_timeout)
        connection.wait_for_turn(self.limits.send_timeout)

    def _connection_of(self, websocket: WebSocket) -> Connection | None:
        connection = websocket._connection
        if isinstance(connection, Connection) and self._connections.get(connection.fd) is connection:
            return connection
        return None

    def __len__(self) -> int:
        """Return how many websockets are open."""
        return self._open

    def __iter__(self) -> Iterator[WebSocket]:
        """Iterate over the websockets that are open now."""
        return iter(self.websockets.values())

    def __contains__(self, websocket: object) -> bool:
        """Tell whether a websocket is open here."""
        if not isinstance(websocket, WebSocket):
            return False
        connection = self._connection_of(websocket)
        return connection is not None and connection.phase < Phase.ENDED

    @property
    def websockets(self) -> dict[int, WebSocket]:
        """The websockets that are open now, by their sockets' descriptors: a copy."""
        return {connection.fd: connection.websocket for connection in self._open_connections()}

    def broadcast(
        self, message: str | bytes | bytearray | Message, binary: bool = False, overflow: OverflowPolicy | None = None
    ) -> int:
        """Send a message to every open websocket. Never waits for a peer.

        It is encoded once for all that it can be the same for: those without compression, and those that agreed on the
        same parameters of it without context takeover on this side.

        :param message: what ``send`` takes, but no generator.
        :param binary: send bytes as a binary message.
        :param overflow: what to do for a peer whose outbox is full; the connection's limit by default.
        :returns: how many accepted it.
        :raises ManagerError: in a forked process.
        """
        self._check_process()
        opcode, data = encode_payload(message, binary)
        shared = SharedMessage(opcode, data)
        accepted = 0
        for connection in self._open_connections():
            accepted += shared.offer(connection, overflow or connection.limits.overflow)
        with self._lock:
            self.counters.broadcasts += 1
            self.counters.deliveries += accepted
        return accepted

    def close_all(self, code: int = 1001, message: str | bytes = "Server is shutting down") -> None:
        """Send a Close to every open websocket. It does not wait for their answers.

        :raises InvalidCloseCode: for a code that may not be sent.
        """
        self._check_process()
        goodbye = CloseControlMessage(code, message)
        for connection in self._open_connections():
            connection.websocket.server_terminated = True
            connection.close(goodbye)

    def count_refusal(self, status: int) -> None:
        """Count a handshake that a server has refused, by the HTTP status of its answer."""
        with self._lock:
            self.counters.refused[status_label(status)] += 1

    def worker_counters(self) -> WorkerCounters:
        """Return what the workers have counted, added up."""
        return self._pool.counters() if self._pool else self._inline_counters

    def stats(self) -> Snapshot:
        """Return what the manager counts, and how it is now: immutable, and consistent enough to be subtracted from a
        later one.

        It takes some microseconds for each connection, in slices between which others may run. Any thread may call.
        """
        return take_snapshot(self)

    def connection_stats(self, top: int | None = 10, by: SortKey = "messages") -> tuple[ConnectionSnapshot, ...]:
        """Return figures of single connections, the largest first. Any thread may call.

        :param top: how many at most; None for all.
        :param by: the largest of what; see :data:`~ws4py.manager.snapshot.SORT_KEYS`.
        :raises ValueError: for another key, or a negative ``top``.
        """
        return take_connections(self, top, (by,))[0]

    def recorded_connections(self) -> tuple[list[Connection], ManagerCounters]:
        """Return the connections that there are, and what was counted beside them, as of one moment.

        What a connection has sent and received is counted by itself while it is among them, and by the counters from
        then on; but the control frames that came, by the counters always.
        """
        with self._lock:
            return [*self._connections.values(), *self._displaced], self.counters.copy()

    def open_connections(self) -> list[Connection]:
        """Return the records of the websockets that are open now."""
        return self._open_connections()

    def worker_state(self, connections: list[Connection]) -> tuple[int, int, int, int]:
        """Return how many workers there may be, are, and are idle, and how many connections wait for one.

        :param connections: all that there are.
        """
        pool = self._pool
        return (pool.limit, pool.size, pool.idle, pool.waiting) if pool is not None else (0, 0, 0, 0)

    def breathe(self) -> None:
        """Let other threads run, in the midst of something that takes long."""
        if not self.in_own_thread():
            time.sleep(BREATH)

    @property
    def uptime(self) -> float:
        """For how many seconds it has run; 0 if it does not."""
        return self._clock() - self._started_at if self._started_at is not None and self.is_alive() else 0.0

    @property
    def state(self) -> str:
        """Where it is in its life: new, running, stopping, stopped or failed."""
        return self._state

    def now(self) -> float:
        """Return the time of the manager's clock, in seconds."""
        return self._clock()

    # --- waking -------------------------------------------------------------------------------------------------------

    def attend(self, connection: Connection) -> None:
        """Have the manager's thread look at a connection: there is something to write, or its state has changed."""
        if self._forked:
            connection.write_here()
            return
        self._dirty.append(connection)
        if self._sleeping:
            self._wake()

    def drop(self, connection: Connection) -> None:
        """Have the manager's thread drop a connection's socket."""
        self._dropped.append(connection)
        self._wake()

    def later(self, act: Callable[[], object]) -> None:
        """Have the manager's thread do something that the calling one can't do now."""
        self._acts.append(act)
        self._wake()

    def fault(self, connection: Connection) -> None:
        """Count that something done for a connection raised, and have it dropped."""
        self._count_fault()
        self.drop(connection)

    def _wake(self) -> None:
        # A sleeper has said so before it looked for work a last time; so either it saw ours, or this is seen by it.
        self._sleeping = False
        with self._lock:  # which keeps the pipe from being closed meanwhile
            try:
                if self._wake_writer >= 0:
                    os.write(self._wake_writer, b"\0")
            except BlockingIOError:
                pass  # the pipe is full, and so wakes the sleeper

    # --- the manager's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._lock:  # start() has returned, or given this thread up
            if self._thread is not threading.current_thread():
                return
        failed = False
        try:
            while not self._stopped_all():
                self._cycle()
        except BaseException:
            failed = True
            logger.critical("The manager's thread failed; its connections are dropped", exc_info=True)
        try:
            self._end(failed)
        except BaseException:
            failed = True
            logger.critical("The manager's thread failed at its end", exc_info=True)
        self._close(failed)

    def _end(self, failed: bool) -> None:
        """Drop what is left, and end the workers.

        :param failed: by an error, so that nobody was told.
        """
        with self._lock:
            self._state = STOPPING
        self._drop_all(failed)
        if self._pool is not None:
            self._pool.stop()
            self._pool.run_here()
            turns = -1
            while not self._pool.join(LAST_CALLS) and turns != (turns := self._pool.counters().turns):
                pass  # the last callbacks are under way; a handler that blocks is left behind
        for connection in [*self._connections.values(), *self._displaced]:
            self._attempt(self._release, connection)

    def _drop_all(self, failed: bool) -> list[Connection]:
        """Drop what is left, and return it."""
        left = list(self._connections.values())
        for connection in left:
            if failed:
                self._attempt(self._dismiss_at_once, connection)
            else:
                self.count_limit("drain_timeout")
            self._attempt(self._drop, connection)
        self._schedule_ready()
        return left

    def _close(self, failed: bool) -> None:
        """Give back what the manager has, now that there is nothing left for it to do, and say how it ended."""
        with self._lock:
            self._state = FAILED if failed else STOPPED
            self.counters.failures += failed
            self._tear_down()
            self._dirty.clear()
            self._dropped.clear()
        while self._removed:
            self._removed.popleft()[1].set()
        if failed and self.on_failure is not None:
            try:
                self.on_failure()
            except BaseException:
                logger.critical("What was to be done about the manager's failure failed, too", exc_info=True)

    def after_fork_in_child(self) -> None:
        """Know that the thread stayed in the parent. Called in a forked process, by its only thread."""
        self._lock = threading.RLock()
        self.lock = threading.RLock()
        if self._pool is not None:
            self._pool.after_fork_in_child()
        if self._state in (NEW, STOPPED, FAILED):
            return
        self._forked = True
        self._sleeping = False
        for connection in list(self._connections.values()):
            connection.after_fork_in_child()
