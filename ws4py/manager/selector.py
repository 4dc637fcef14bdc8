"""The manager: one thread that owns the sockets of many websockets."""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ws4py.exc import HandshakeError, ManagerError
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_PING, OPCODE_PONG
from ws4py.manager.batch import BatchIO, Received, Sent
from ws4py.manager.connection import ENDED, Connection, Phase
from ws4py.manager.fanout import SharedMessage
from ws4py.manager.limits import Limits, OverflowPolicy
from ws4py.manager.pollers import READ, WRITE, Poller, default_poller
from ws4py.manager.snapshot import (
    ConnectionSnapshot,
    Snapshot,
    SortKey,
    path_of,
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
    from collections.abc import Iterable

__all__ = ["WebSocketManager"]

logger = logging.getLogger("ws4py")

DEFAULT_WORKERS: Final = 32
DRAIN_STEP: Final = 0.05
"""How far apart, in seconds, the steps are in which a stopping manager says goodbye."""

REST: Final = 0.0005
"""How long, in seconds, the thread lets the workers have the interpreter to themselves after giving them work."""

BREATH: Final = 0.0002
"""How long, in seconds, one who reads statistics rests between two slices."""

LAST_CALLS: Final = 0.5
"""How long, in seconds, the workers of a stopped manager may go without beginning a turn."""

NEW, RUNNING, STOPPING, STOPPED = "new", "running", "stopping", "stopped"

_managers: weakref.WeakSet[WebSocketManager] = weakref.WeakSet()


class WebSocketManager:
    """Runs websockets: one thread does all their input and output, a pool of workers runs their callbacks.

    Every method may be called from any thread unless it says otherwise.

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
        self.limits = (limits or Limits()).but(**options)
        self.workers = workers
        self.name = "WebSocketManager"
        self.counters = ManagerCounters()
        self._given_poller = poller
        self._clock = clock
        self._lock = (
            threading.Lock()
        )  # over the state, the addresses and the shared counters; never held over a call that waits
        self._state = NEW
        self._thread: threading.Thread | None = None
        self._forked = False
        self._connections: dict[int, Connection] = {}  # by descriptor, until that is given back
        self._displaced: set[Connection] = set()  # whose descriptors are others' before they have ended
        self._open = 0  # of those, the ones whose end has not begun
        self._addresses: Counter[str] = Counter()
        self._dirty: deque[Connection] = deque()  # what the thread is to look at
        self._writable: list[Connection] = []  # whose sockets can be written again
        self._dropped: deque[Connection] = deque()  # what it is to drop
        self._removed: deque[tuple[Connection, threading.Event]] = deque()  # what it is to let go
        self._ready: list[Connection] = []  # what goes to the run queue at the end of a cycle
        self._sleeping = False
        self._wake_reader = self._wake_writer = -1
        self._now = 0.0  # when the batch that is being read began
        self._pool: WorkerPool | None = None
        self._inline_counters = WorkerCounters()
        self._pings = 0
        self._ids = itertools.count(1)
        self._started_at: float | None = None
        self._drain_deadline = 0.0
        self._drain_queue: deque[Connection] | None = None
        self._drain_next = 0.0
        self._drain_quota = 0
        _managers.add(self)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. A manager that has stopped can be started again.

        :raises ManagerError: if it is running, or belongs to another process.
        """
        with self._lock:
            self._check_process()
            if self._state in (RUNNING, STOPPING):
                raise ManagerError("This manager is running already")
            self.poller: Poller = self._given_poller or default_poller()
            self._wake_reader, self._wake_writer = os.pipe()
            os.set_blocking(self._wake_reader, False)
            os.set_blocking(self._wake_writer, False)
            self.poller.register(self._wake_reader, READ)
            self._io = BatchIO()
            self._wheel: TimerWheel[Connection] = TimerWheel()
            self._pool = WorkerPool(self.workers) if self.workers else None
            self._drain_queue = None
            self._started_at = self._clock()
            self._state = RUNNING
            self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

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
        """Wait until a stopping manager's thread and its workers have ended; ``timeout`` is in seconds, None for
        ever.
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
        return threading.current_thread() is self._thread

    # --- the websockets -----------------------------------------------------------------------------------------------

    def admit(self, address: str | None = None) -> None:
        """Say whether a handshake may be accepted now.

        :param address: the peer's IP address.
        :raises HandshakeError: if not: 503 while stopping or with ``max_connections`` open, 429 with too many from
            ``address``.
        """
        retry = [("Retry-After", str(max(1, round(self.limits.drain_timeout))))]
        if not self.running:
            raise HandshakeError("The server is shutting down", 503, retry)
        limit = self.limits.max_connections
        if limit is not None and self._open >= limit:
            self.count_limit("max_connections")
            raise HandshakeError("Too many connections", 503, retry)
        limit = self.limits.max_connections_per_ip
        if limit is not None and address is not None and self._addresses[address] >= limit:
            self.count_limit("max_connections_per_ip")
            raise HandshakeError("Too many connections from this address", 429, retry)

    def add(self, websocket: WebSocket, limits: Limits | None = None, address: str | None = None) -> None:
        """Take a websocket over whose handshake is done: its ``opened()`` is called by a worker.

        :param websocket: with an open socket; bytes that were read already are in its ``buf``.
        :param limits: of this connection; the manager's by default.
        :param address: of the peer, for ``max_connections_per_ip``, if it is not the socket's: a proxy's word, say.
        :raises ManagerError: if the manager was stopped, or belongs to another process.
        :raises ValueError: if the websocket is terminated, has no open socket, or is run by somebody else; or for its
            ``heartbeat_freq``.
        :raises TypeError: if it is no websocket.
        """
        self._check_process()
        if not isinstance(websocket, WebSocket):
            raise TypeError(f"{websocket!r} is not a WebSocket")
        if websocket in self:
            return
        sock = websocket.sock
        fd = sock.fileno() if sock is not None and not websocket.terminated else -1
        if fd < 0:
            raise ValueError(f"{websocket!r} has no open socket")
        if isinstance(websocket._connection, Connection) and not websocket._connection.finished:
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
        if websocket.environ is not None:
            connection.path = path_of(websocket.environ)
        with self._lock:
            if self._state not in (NEW, RUNNING):
                raise ManagerError("This manager was stopped: a websocket can't be added")
            too_many = None
            if self.limits.max_connections is not None and self._open >= self.limits.max_connections:
                too_many = "max_connections"
            if address is None and isinstance(peer, tuple):
                address = str(peer[0])
            connection.remote = address or ""
            if self.limits.max_connections_per_ip is not None and address is not None:
                connection.address = address
                if self._addresses[connection.address] >= self.limits.max_connections_per_ip:
                    too_many = "max_connections_per_ip"
                self._addresses[connection.address] += 1
            lost = self._connections.get(fd)  # the application has closed its socket: the number is free again
            if lost is not None:
                self._dropped.append(lost)
                self._displaced.add(lost)
            self._connections[fd] = connection
            self._open += 1
            websocket._attach(connection)
        if too_many:  # a crowd of handshakes was admitted at the same time
            self.count_limit(too_many)
            connection.close(CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Too many connections"))
        self.attend(connection)

    def remove(self, websocket: WebSocket) -> None:
        """Let a websocket go, open: nothing is sent, ``closed()`` is not called, and its socket is blocking again.

        Returns when the manager's thread does not use the socket any more.
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

    def _open_connections(self) -> list[Connection]:
        # list() of a dictionary's values is one step under the interpreter's lock: a snapshot.
        return [item for item in list(self._connections.values()) if item.phase < Phase.ENDED]

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

    def count_limit(self, name: str) -> None:
        """Count that a limit or a policy acted."""
        with self._lock:
            self.counters.limits[name] += 1

    def count_refusal(self, status: int) -> None:
        """Count a handshake that a server has refused, by the HTTP status of its answer."""
        with self._lock:
            self.counters.refused[status] += 1

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

        What a connection has sent is counted by itself while it is among them, and by the counters from then on.
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
        """Where it is in its life: new, running, stopping or stopped."""
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

    def _wake(self) -> None:
        # A sleeper has said so before it looked for work a last time; so either it saw ours, or this is seen by it.
        self._sleeping = False
        try:
            os.write(self._wake_writer, b"\0")
        except (BlockingIOError, OSError):
            pass  # the pipe is full, and so wakes the sleeper; or the thread has ended

    # --- the manager's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopped_all():
                self._cycle()
        except BaseException:
            logger.critical("The manager's thread failed; its connections are dropped", exc_info=True)
        finally:
            self._end()

    def _cycle(self) -> None:
        """Do what is due, write what is dirty, wait, and read what is ready."""
        now = self._clock()
        wheel = self._wheel
        due = wheel.next_time()
        if due is not None and due <= now:
            self.counters.loop_lag.observe(now - due)
            for connection in wheel.due(now):
                self._on_timer(connection, now)
        self._obey()
        if self._state == STOPPING:
            self._drain(now)
        self._write()
        self._schedule_ready()
        timeout = self._time_to_wait()
        self._sleeping = True
        if self._dirty or self._dropped or self._removed or (self._state == STOPPING and self._drain_queue is None):
            timeout = 0.0
        if self._stopped_all():
            return
        events = self.poller.poll(timeout)
        self._sleeping = False
        self._read(events)
        self._schedule_ready()

    def _time_to_wait(self) -> float | None:
        times = [self._wheel.next_time()]
        if self._state == STOPPING:
            times.append(min(self._drain_deadline, self._drain_next) if self._drain_queue else self._drain_deadline)
        due = min((time for time in times if time is not None), default=None)
        timeout = None if due is None else max(0.0, due - self._clock())
        if self._pool is not None:
            again = self._pool.help()
            if again is not None and (timeout is None or again < timeout):
                timeout = again
        return timeout

    def _schedule_ready(self) -> None:
        """Put the connections of this cycle that have something to do on the run queue."""
        if not self._ready:
            return
        ready, self._ready = self._ready, []
        if self._pool is not None:
            self._pool.submit(ready)
            self._pool.rest(REST)
            return
        queue = deque(ready)
        counters, clock = self._inline_counters, self._clock
        while queue:
            connection = queue.popleft()
            counters.turns += 1
            began = clock()
            if connection.run_turn(counters):
                queue.append(connection)
            counters.turn_time.observe(clock() - began)

    def _obey(self) -> None:
        """Carry out what other threads have asked for."""
        while self._dropped:
            self._drop(self._dropped.popleft())
        while self._removed:
            connection, done = self._removed.popleft()
            self._let_go(connection)
            done.set()

    def _write(self) -> None:
        """Write what is dirty, as one batch, and see to what else those connections need."""
        dirty = self._dirty
        connections, self._writable = self._writable, []
        for _ in range(len(dirty)):
            connection = dirty.popleft()
            if connection.phase == Phase.NEW:
                self._adopt(connection)
            if connection.transport.blocked or connection.phase == Phase.SHUT:
                connection.leave_output()
                self._settle(connection)
            else:
                connections.append(connection)
        if not connections:
            return
        written: list[Connection] = []
        jobs: list[tuple[Transport, bytes | memoryview]] = []
        now = self._clock() if connections else 0.0
        for connection in connections:
            data = connection.take_output()
            if data is None:
                self._settle(connection)
            else:
                if data and not data[0] & 0x08:  # a Ping of ours is no sign of life
                    connection.active_at = now
                written.append(connection)
                jobs.append((connection.transport, data))
        if jobs:
            for connection, job, result in zip(written, jobs, self._io.send(jobs), strict=True):
                self._written(connection, len(job[1]), result)

    def _written(self, connection: Connection, size: int, result: Sent) -> None:
        if isinstance(result, OSError):
            logger.debug("Could not write to %r: %s", connection.websocket, result)
            self._lose(connection)
            return
        self.counters.bytes_sent += result
        if result == size:
            if connection.output_taken(size):
                self._dirty.append(connection)
            if not connection.unsettled and connection.interest == READ:
                return
        else:
            connection.output_left(result)
        self._settle(connection)

    def write_until(self, connection: Connection, deadline: float) -> bool:
        """Write a connection's outbox, waiting for its peer, until there is room; return whether there is. Blocks all
        others.

        Called by the manager's thread only, for a callback that runs on it.
        """
        poller = default_poller()
        poller.register(connection.fd, WRITE)
        try:
            while connection.outbox_full and connection.phase < Phase.SHUT:
                data = connection.take_output()
                if data is not None:
                    self._written(connection, len(data), self._io.send([(connection.transport, data)])[0])
                remaining = deadline - time.monotonic()
                if connection.outbox_full and (remaining <= 0 or not poller.poll(remaining)):
                    return False
        finally:
            poller.release()
        return True

    def _read(self, events: Iterable[tuple[int, int]]) -> None:
        """Read from all that is ready, as one batch."""
        readable: list[Connection] = []
        for fd, event in events:
            connection = self._connections.get(fd)
            if connection is None:
                if fd == self._wake_reader:
                    self._drain_wake_pipe()
                continue
            if connection.interest & WRITE:
                self._writable.append(connection)  # on any readiness: TLS may have wanted the other direction
            if event & READ:
                readable.append(connection)
        if readable:
            self._receive(readable)

    def _drain_wake_pipe(self) -> None:
        try:
            while len(os.read(self._wake_reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def _receive(self, connections: list[Connection]) -> None:
        self._now = self._clock()
        while connections:
            pending: list[Connection] = []
            results = self._io.receive([connection.transport for connection in connections])
            for connection, data in zip(connections, results, strict=True):
                self._received(connection, data)
                if connection.transport.secure and connection.interest & READ and connection.transport.pending():
                    pending.append(connection)
            connections = pending

    def _received(self, connection: Connection, data: Received) -> None:
        if data is None:
            return
        if not data or isinstance(data, OSError):
            if data:
                logger.debug("Could not read from %r: %s", connection.websocket, data)
            self._lose(connection)
            return
        size = len(data)
        self.counters.bytes_received += size
        connection.bytes_received += size
        if connection.phase >= Phase.ENDED:
            return  # what comes behind a Close or an error is read only to be thrown away
        stream = connection.stream
        messages = stream.receive(data)
        if messages:
            self._parsed(connection, messages)
        if stream.ended:
            self._end_of_stream(connection)

    def _parsed(self, connection: Connection, messages: list[Message]) -> None:
        """Answer the control messages, and hand the others to the connection's inbox."""
        received, payloads = self.counters.received, self.counters.payload_received
        items: list[Message] = []
        size = 0
        for message in messages:
            opcode = message.opcode
            length = len(message.data)
            received[opcode] += 1
            payloads[opcode] += length
            if opcode <= OPCODE_BINARY:
                items.append(message)
                size += length
            elif opcode == OPCODE_PING:
                self._send_control(connection, OPCODE_PONG, message.data)
            elif opcode == OPCODE_PONG:
                self._ponged(connection, message, items)
        if not items:
            return
        connection.messages_received += len(items)
        connection.active_at = self._now
        if connection.limits.max_messages_per_second is not None and self._too_fast(connection, len(items)):
            return
        if connection.deliver(items, size):
            self._ready.append(connection)
        if connection.starved:
            self.count_limit("inbox")
            self._watch(connection)

    def _end_of_stream(self, connection: Connection) -> None:
        """The peer has sent its Close, or broken a rule."""
        error = connection.stream.error
        if error is None:
            connection.websocket.client_terminated = True
        else:
            logger.debug("%r is closed with %s: %s", connection.websocket, error.code, error)
            if error.code == CloseCode.MESSAGE_TOO_BIG:
                self.count_limit("max_fragments" if b"fragments" in error.data else "max_message_size")
        self._end_reading(connection)

    def _send_control(self, connection: Connection, opcode: int, data: bytes) -> None:
        """Put a control frame of our own into the outbox; it is written with the next batch."""
        connection.offer_control(connection.stream.encode(FIN | opcode, data))
        self._dirty.append(connection)

    def _ponged(self, connection: Connection, pong: Message, items: list[Message]) -> None:
        if connection.ping_payload is not None and pong.data == connection.ping_payload:
            connection.ping_payload = None
            now = self._clock()
            connection.round_trip = now - connection.ping_sent_at
            self.counters.round_trips.observe(connection.round_trip)
            if connection.phase == Phase.OPEN:
                self._set_timer(connection, connection.ping_sent_at + (self._ping_interval(connection) or 0.0))
        elif type(connection.websocket).ponged is not WebSocket.ponged:
            items.append(pong)

    def _too_fast(self, connection: Connection, count: int) -> bool:
        """Apply ``max_messages_per_second``, by seconds of the clock."""
        window = int(self._clock())
        if connection.rate_window != window:
            connection.rate_window = window
            connection.rate_count = 0
        connection.rate_count += count
        if connection.rate_count <= (connection.limits.max_messages_per_second or 0):
            return False
        self.count_limit("max_messages_per_second")
        connection.give_up(CloseControlMessage(CloseCode.POLICY_VIOLATION, "Too many messages a second"))
        self._end_reading(connection)
        return True

    # --- a connection's stations --------------------------------------------------------------------------------------

    def _adopt(self, connection: Connection) -> None:
        """Begin to watch a new connection, and read what came before that."""
        connection.phase = Phase.OPEN
        self.counters.opened += 1
        if connection.schedule():
            self._ready.append(connection)
        interval = self._ping_interval(connection)
        if interval is not None:
            self._set_timer(connection, self._clock() + interval)
        early, connection.websocket.buf = connection.websocket.buf, b""
        if early:  # first, for to watch is to read on if a TLS object has more
            self._received(connection, bytes(early))
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Have the poller watch for what the connection can use now; one that can't be watched is lost."""
        phase = connection.phase
        if phase == Phase.SHUT:
            interest = 0
        else:
            readable = phase >= Phase.ENDED or not (connection.starved or connection.outbox_full)
            interest = (READ if readable else 0) | (WRITE if connection.transport.blocked else 0)
        if interest == connection.interest:
            return
        if self._connections.get(connection.fd) is not connection:
            return  # the application has closed the socket, and its number is another one's
        fresh = interest & READ and not connection.interest & READ
        try:
            if not interest:
                self.poller.unregister(connection.fd)
            elif not connection.interest:
                self.poller.register(connection.fd, interest)
            else:
                self.poller.modify(connection.fd, interest)
        except (OSError, ValueError) as error:
            logger.error("%r can't be watched: %s", connection.websocket, error)
            self._lose(connection)
            return
        connection.interest = interest
        if fresh and connection.transport.secure and connection.transport.pending():
            self._receive([connection])  # what OpenSSL has decrypted already, no poller shows

    def _settle(self, connection: Connection) -> None:
        """See what a connection needs after something was written or its state has changed."""
        connection.unsettled = False
        phase = connection.phase
        if phase == Phase.OPEN and connection.close_queued:
            connection.phase = phase = Phase.CLOSING
            connection.deadline = self._clock() + connection.limits.close_timeout
            self._set_timer(connection, connection.deadline)
        if phase == Phase.ENDED:
            if connection.sent_all:
                self._say_goodbye(connection)
            else:
                connection.unsettled = True  # until the last is written
        phase = connection.phase
        if phase < Phase.SHUT:
            if connection.starved:
                connection.unsettled = connection.refresh_starved()
            if connection.schedule():
                self._ready.append(connection)
            self._watch(connection)
        elif connection.schedule():
            self._ready.append(connection)
        if phase == Phase.SHUT and connection.finished:
            self._release(connection)

    def _end_reading(self, connection: Connection) -> None:
        """Nothing more comes of this connection: let its last callbacks run, and the answer to a Close be sent."""
        if connection.phase >= Phase.ENDED:
            return
        idle = connection.idle
        connection.phase = Phase.ENDED
        connection.deadline = self._clock() + connection.limits.close_timeout
        self._set_timer(connection, connection.deadline)
        self._count_out(connection)
        if idle:  # else the answers to the messages before the Close go first
            connection.reply_to_close()
        if connection.deliver([ENDED], 0):
            self._ready.append(connection)
        self._dirty.append(connection)

    def _say_goodbye(self, connection: Connection) -> None:
        """All is written: end our direction, and the peer's if it has nothing more to say."""
        connection.transport.finish()
        stream = connection.stream
        if stream.closing is not None and not stream.always_mask:
            self._shut(connection)  # a server ends TCP first (RFC 6455, section 7.1.1)
        else:
            # To shut the whole socket while the peer still sends could destroy the Close on its way to it.
            connection.phase = Phase.LINGERING

    def _shut(self, connection: Connection) -> None:
        connection.transport.shutdown()
        connection.phase = Phase.SHUT
        self._watch(connection)
        self._wheel.cancel(connection)
        self._dirty.append(connection)

    def _lose(self, connection: Connection) -> None:
        """The socket is at its end, or broken."""
        if connection.phase == Phase.SHUT:
            return
        connection.discard_output()
        self._end_reading(connection)
        self._shut(connection)

    def _drop(self, connection: Connection) -> None:
        """Give a connection up, whatever its peer does."""
        if connection.phase == Phase.NEW:
            self._adopt(connection)
        self._lose(connection)

    def _release(self, connection: Connection) -> None:
        """closed() has returned: give the descriptor back."""
        owned = self._connections.get(connection.fd) is connection
        if not owned and connection not in self._displaced:
            return
        code = connection.websocket.close_code
        with self._lock:
            if owned:
                del self._connections[connection.fd]
            self._displaced.discard(connection)
            self.counters.gone.add(connection)
            self.counters.closed[CloseCode.ABNORMAL_CLOSURE.value if code is None else code] += 1
        if owned:
            connection.transport.close()
        websocket = connection.websocket
        if websocket._connection is connection:  # closed() may have made it a new one's
            websocket._connection = None  # or each would keep the other until the garbage collector comes

    def _let_go(self, connection: Connection) -> None:
        """Forget a connection without ending it."""
        if self._connections.get(connection.fd) is not connection or connection.phase >= Phase.ENDED:
            return
        if connection.interest:
            self.poller.unregister(connection.fd)
        if connection.phase != Phase.NEW:
            self._wheel.cancel(connection)
        with self._lock:
            del self._connections[connection.fd]
            self.counters.gone.add(connection)
            self.counters.removed += 1
        connection.phase = Phase.SHUT
        connection.abandon()
        self._count_out(connection)
        connection.websocket._detach()

    def _count_out(self, connection: Connection) -> None:
        """Count a connection as open no longer."""
        with self._lock:
            self._open -= 1
            if connection.address is not None:
                self._addresses[connection.address] -= 1
                if not self._addresses[connection.address]:
                    del self._addresses[connection.address]

    # --- timers -------------------------------------------------------------------------------------------------------

    def _set_timer(self, connection: Connection, when: float) -> None:
        self._wheel.set(connection, when)

    def _ping_interval(self, connection: Connection) -> float | None:
        frequency = connection.websocket.heartbeat_freq
        if frequency is None:
            return connection.limits.ping_interval
        return frequency or None  # 0 sends none

    def _on_timer(self, connection: Connection, now: float) -> None:
        if connection.phase == Phase.OPEN:
            self._keep_alive(connection, now)
        elif connection.phase < Phase.SHUT and now < connection.deadline:
            self._set_timer(connection, connection.deadline)
        elif connection.phase == Phase.ENDED and not connection.sent_all and not connection.outbox_size:
            # A handler still blocks, so the peer's Close is not answered yet: that is due now.
            connection.reply_to_close()
            connection.deadline = now + connection.limits.close_timeout
            self._set_timer(connection, connection.deadline)
            self._dirty.append(connection)
        elif connection.phase < Phase.SHUT:
            self.count_limit("close_timeout")
            self._lose(connection)

    def _keep_alive(self, connection: Connection, now: float) -> None:
        """Send the Ping that is due, or give up a peer whose Pong is overdue."""
        interval = self._ping_interval(connection)
        if interval is None:
            return
        timeout = connection.limits.ping_timeout
        if connection.ping_payload is None:
            self._pings = (self._pings + 1) & 0xFFFFFFFF
            connection.ping_payload = self._pings.to_bytes(4, "big")
            connection.ping_sent_at = now
            self._send_control(connection, OPCODE_PING, connection.ping_payload)
            if timeout is not None:
                self._set_timer(connection, now + timeout)
        elif connection.starved and timeout is not None:
            self._set_timer(connection, now + timeout)  # it is we who don't read
        elif timeout is not None and now >= connection.ping_sent_at + timeout:
            self.count_limit("ping_timeout")
            connection.give_up(CloseControlMessage(CloseCode.INTERNAL_ERROR, "Keepalive ping timeout"))
            data = connection.take_output()
            if data:
                sent = self._io.send([(connection.transport, data)])[0]
                if isinstance(sent, int):
                    self.counters.bytes_sent += sent
            self._lose(connection)
        elif timeout is not None:
            self._set_timer(connection, connection.ping_sent_at + timeout)

    # --- the end ------------------------------------------------------------------------------------------------------

    def _drain(self, now: float) -> None:
        """Say goodbye to all, at a pace that spreads their return over half the time there is."""
        if self._drain_queue is None:
            drain = self.limits.drain_timeout
            self._drain_deadline = now + drain
            self._drain_queue = deque(self._open_connections())
            steps = max(1, int(drain / 2 / DRAIN_STEP))
            self._drain_quota = max(100, -(-len(self._drain_queue) // steps))
            self._drain_next = now
        if now >= self._drain_next and self._drain_queue:
            goodbye = CloseControlMessage(CloseCode.GOING_AWAY, "Server is shutting down")
            for _ in range(min(self._drain_quota, len(self._drain_queue))):
                connection = self._drain_queue.popleft()
                if connection.phase < Phase.ENDED:
                    connection.websocket.server_terminated = True
                    connection.close(goodbye)
            self._drain_next = now + DRAIN_STEP

    def _stopped_all(self) -> bool:
        if self._state != STOPPING or self._drain_queue is None:
            return False
        return not self._connections or self._clock() >= self._drain_deadline

    def _end(self) -> None:
        """Drop what is left, and end the workers."""
        with self._lock:
            self._state = STOPPING
        for connection in list(self._connections.values()):
            self.count_limit("drain_timeout")
            self._drop(connection)
        self._schedule_ready()
        if self._pool is not None:
            self._pool.stop()
            turns = -1
            while not self._pool.join(LAST_CALLS) and turns != (turns := self._pool.counters().turns):
                pass  # the last callbacks are under way; a handler that blocks is left behind
        for connection in [*self._connections.values(), *self._displaced]:
            self._release(connection)
        with self._lock:
            self._state = STOPPED
            self.poller.unregister(self._wake_reader)
            if self._given_poller is None:
                self.poller.release()
            os.close(self._wake_reader)
            os.close(self._wake_writer)
            self._wake_reader = self._wake_writer = -1
            self._dirty.clear()

    def after_fork_in_child(self) -> None:
        """Know that the thread stayed in the parent. Called in a forked process, by its only thread."""
        self._lock = threading.Lock()
        if self._state in (NEW, STOPPED):
            return
        self._forked = True
        self._sleeping = False
        for connection in list(self._connections.values()):
            connection.after_fork_in_child()


def _after_fork_in_child() -> None:
    for manager in list(_managers):
        manager.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
