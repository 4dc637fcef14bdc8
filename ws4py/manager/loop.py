"""The cycle of a manager's thread: do what is due, write what is dirty, wait, read what is ready."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ws4py.exc import TooManyFragmentsException
from ws4py.framing import OPCODE_BINARY, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
from ws4py.manager.batch import Received
from ws4py.manager.connection import Connection, Phase
from ws4py.manager.lifecycle import Lifecycle
from ws4py.manager.limits import Limits
from ws4py.manager.pollers import READ, WRITE, default_poller
from ws4py.manager.statistics import WorkerCounters
from ws4py.manager.transport import Transport
from ws4py.manager.workers import WorkerPool, give_up
from ws4py.messaging import CloseCode, CloseControlMessage, Message
from ws4py.websocket import WebSocket

__all__ = ["FAILED", "NEW", "RUNNING", "STOPPED", "STOPPING", "Loop"]

logger = logging.getLogger("ws4py")

NEW, RUNNING, STOPPING, STOPPED, FAILED = "new", "running", "stopping", "stopped", "failed"
"""The states of a manager."""

DRAIN_STEP: Final = 0.05
"""How far apart, in seconds, the steps are in which a stopping manager says goodbye."""

TURN_FRAMES: Final = 256
"""How many frames are taken in of one connection in a cycle."""

TURN_SIZE: Final = 1 << 18
"""After how many bytes of decoded payload the rest of what has come of a connection waits for the next cycle."""

LARGEST_PONG: Final = 131
"""How many bytes the frame of a Pong may have."""

REST: Final = 0.0005
"""How long, in seconds, the thread lets the workers have the interpreter to themselves after giving them work."""


GOODBYE: Final = CloseControlMessage(CloseCode.GOING_AWAY, "Server is shutting down")


class Loop(Lifecycle):
    """The work of one manager's thread.

    :param limits: of the manager.
    :param clock: a monotonic clock, in seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        super().__init__(limits, clock)
        self._state = NEW
        self._writable: list[Connection] = []  # whose sockets can be written again
        self._dropped: deque[Connection] = deque()  # what the thread is to drop
        self._acts: deque[Callable[[], object]] = deque()  # what else it is to do
        self._removed: deque[tuple[Connection, threading.Event]] = deque()  # what it is to let go
        self._sleeping = False
        self._wake_reader = -1
        self._pool: WorkerPool | None = None
        self._inline_counters = WorkerCounters()
        self._drain_deadline = 0.0
        self._drain_queue: deque[Connection] | None = None
        self._drain_next = 0.0
        self._drain_quota = 0

    def _open_connections(self) -> list[Connection]:
        # list() of a dictionary's values is one step under the interpreter's lock: a snapshot.
        return [item for item in list(self._connections.values()) if item.phase < Phase.ENDED]

    def _cycle(self) -> None:
        """Do what is due, write what is dirty, wait, and read what is ready."""
        self._do_what_is_due()
        self._write()
        self._schedule_ready()
        timeout = 0.0 if self._unread else self._time_to_wait()
        self._sleeping = True
        if (
            self._dirty
            or self._dropped
            or self._removed
            or self._acts
            or (self._state == STOPPING and self._drain_queue is None)
        ):
            timeout = 0.0
        if self._stopped_all():
            return
        events = self.poller.poll(timeout)
        self._sleeping = False
        self._read(events)
        self._schedule_ready()

    def _do_what_is_due(self) -> None:
        """Let the timers go off whose time has come, do what others have asked for, and go on with a drain."""
        now = self._clock()
        due = self._wheel.next_time()
        if due is not None and due <= now:
            self.counters.loop_lag.observe(now - due)
            for connection in self._wheel.due(now):
                try:
                    self._on_timer(connection, now)
                except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                    self._fail(connection, error)
        if self._look_at is not None and self._look_at <= now:
            self._look()
        self._obey()
        if self._state == STOPPING:
            self._drain(now)

    def _time_to_wait(self) -> float | None:
        times = [self._wheel.next_time(), self._look_at]
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
            if self._state == STOPPING:
                self._pool.run_here()
            self._pool.rest(REST)
            return
        queue = deque(ready)
        counters, clock = self._inline_counters, self._clock
        while queue:
            connection = queue.popleft()
            counters.turns += 1
            began = clock()
            try:
                if connection.run_turn(counters):
                    queue.append(connection)
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                give_up(connection, error)
            counters.turn_time.observe(clock() - began)

    def _obey(self) -> None:
        """Carry out what other threads have asked for."""
        while self._acts:
            try:
                self._acts.popleft()()
            except BaseException:
                logger.exception("What was left to the manager's thread raised")
        while self._dropped:
            self._attempt(self._drop, self._dropped.popleft())
        while self._removed:
            connection, done = self._removed.popleft()
            self._attempt(self._let_go, connection)
            done.set()

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write what is dirty, as one batch, and see to what else those connections need."""
        dirty = self._dirty
        new, shut = Phase.NEW, Phase.SHUT
        connections, self._writable = self._writable, []
        for _ in range(len(dirty)):
            connection = dirty.popleft()
            try:
                if connection.phase == new:
                    self._adopt(connection)
                if connection.transport.blocked or connection.phase == shut:
                    connection.leave_output()
                    self._settle(connection)
                else:
                    connections.append(connection)
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                self._fail(connection, error)
        if connections:
            self._send(connections)

    def _send(self, connections: Sequence[Connection]) -> None:
        """Write what connections have to send, as one batch, and see to what else they need."""
        senders: list[Connection] = []
        jobs: list[tuple[Transport, bytes | memoryview]] = []
        now = self._clock()
        for connection in connections:
            try:
                data = connection.take_output()
                if data is None:
                    self._settle(connection)
                else:
                    if data and not data[0] & 0x08:  # a Ping of ours is no sign of life
                        connection.active_at = now
                    senders.append(connection)
                    jobs.append((connection.transport, data))
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                self._fail(connection, error)
        if not jobs:
            return
        for connection, (_, data), result in zip(senders, jobs, self._io.send(jobs), strict=True):
            try:
                if result == len(data):
                    if connection.output_taken(len(data)):
                        self._dirty.append(connection)
                    if not connection.unsettled and connection.interest == READ and not connection.transport.blocked:
                        continue
                elif isinstance(result, OSError):
                    logger.debug("Could not write to %s: %s", connection, result)
                    self._lose(connection)
                    continue
                elif isinstance(result, BaseException):
                    self._fail(connection, result)
                    continue
                else:
                    connection.output_left(result)
                self._settle(connection)
            except BaseException as error:  # noqa: BLE001 - as above
                self._fail(connection, error)

    def write_until(self, connection: Connection, deadline: float) -> bool:
        """Write a connection's outbox, waiting for its peer, until there is room; return whether there is. Blocks all
        others.

        Called by the manager's thread only, for a callback that runs on it.
        """
        poller = default_poller()
        poller.register(connection.fd, WRITE)
        try:
            while connection.outbox_full and connection.phase < Phase.SHUT:
                self._send([connection])
                remaining = deadline - time.monotonic()
                if connection.outbox_full and (remaining <= 0 or not poller.poll(remaining)):
                    return False
        finally:
            poller.release()
        return True

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self, events: Iterable[tuple[int, int]]) -> None:
        """Read from all that is ready, as one batch; then go on with what the last cycles have left."""
        self._read_at = self._clock()
        readable: list[Connection] = []
        rests: list[Connection] = []
        unread, self._unread = self._unread, {}
        for fd, event in events:
            connection = self._connections.get(fd)
            if connection is None:
                if fd == self._wake_reader:
                    self._drain_wake_pipe()
                continue
            to_read = event & READ
            if connection.interest & WRITE:
                self._writable.append(connection)  # on any readiness: TLS may have wanted the other direction
                to_read = to_read or (connection.transport.wants_write and self._may_read(connection))
            if to_read and not (unread and connection in unread):
                readable.append(connection)
        for connection in unread:
            if self._may_read(connection):
                (rests if connection.stream.more else readable).append(connection)
        if readable:
            self._take_in(readable, self._io.receive([connection.transport for connection in readable]))
        for connection in rests:
            self._attempt(self._decode, connection)

    def _drain_wake_pipe(self) -> None:
        try:
            while len(os.read(self._wake_reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def _take_in(self, connections: Sequence[Connection], results: Sequence[Received]) -> None:
        """Parse what was read, answer the control messages, and put the others into the inboxes, for the workers."""
        ready = self._ready
        for connection, data in zip(connections, results, strict=True):
            try:
                if data is not None:
                    if not data or isinstance(data, BaseException):
                        self._end_of_bytes(connection, data)
                        continue
                    connection.bytes_received += len(data)
                    # What comes behind a Close or an error is read only to be thrown away.
                    message = connection.stream.take_message(data) if connection.phase < Phase.ENDED else None
                    if message is None or connection.limits.max_messages_per_second is not None:
                        self._decode(connection, data)
                    else:  # the most usual batch, without the sorting
                        size = len(message.data)
                        if message.opcode == OPCODE_TEXT:
                            connection.texts_received += 1
                            connection.text_bytes_received += size
                        else:
                            connection.binaries_received += 1
                            connection.binary_bytes_received += size
                        connection.active_at = self._read_at
                        if connection.deliver([message], size):
                            ready.append(connection)
                        if connection.starved:
                            self.count_limit("inbox")
                            self._watch(connection)
                if self._has_tls and connection.transport.secure:
                    self._watch(connection)  # there may be more that no poller shows, or TLS has to write first
            except BaseException as error:  # noqa: BLE001 - this thread is there for all connections
                self._fail(connection, error)

    def _end_of_bytes(self, connection: Connection, error: bytes | BaseException) -> None:
        """The socket is at its end, or can't be read."""
        if error and not isinstance(error, OSError):
            assert isinstance(error, BaseException)
            self._fail(connection, error)
            return
        if error:
            logger.debug("Could not read from %s: %s", connection, error)
        self._lose(connection)

    def _decode(self, connection: Connection, data: bytes = b"") -> None:
        """Take in as much as is one cycle's share, and as limits allow, of what has come of a connection.

        :param data: that was just read; or nothing, to go on with what was left.
        """
        if connection.phase >= Phase.ENDED:
            return
        stream, rate = connection.stream, connection.limits.max_messages_per_second
        # No more than there is room for their answers in the outbox, if all are Pings.
        frames = min(TURN_FRAMES, (connection.limits.max_outbox_size - connection.outbox_size) // LARGEST_PONG + 1)
        if rate is not None:
            frames = min(frames, self._frames_left(connection, rate))
        begun = stream.frames_received
        most, room = connection.inbox_room
        messages, size = self._sort(connection, stream.receive_some(data, frames, most, min(room, TURN_SIZE)))
        if messages:
            connection.active_at = self._read_at
            if connection.deliver(messages, size):
                self._ready.append(connection)
        if stream.ended:
            self._end_of_stream(connection)
            return
        if rate is not None:
            connection.rate_count += stream.frames_received - begun
            if connection.rate_count >= rate and stream.held_back:
                self.count_limit("max_messages_per_second")
                connection.give_up(CloseControlMessage(CloseCode.POLICY_VIOLATION, "Too many messages a second"))
                self._end_reading(connection)
                return
        if stream.unfinished:
            connection.count_unfinished()
        if stream.unfinished or connection.message_deadline is not None:
            self._watch_message(connection)
        if connection.starved:
            self.count_limit("inbox")
        if stream.more or connection.starved or connection.outbox_full:
            self._watch(connection)

    def _frames_left(self, connection: Connection, rate: int) -> int:
        """Return how many frames a connection may still send, by seconds of the clock."""
        window = int(self._clock())
        if connection.rate_window != window:
            connection.rate_window = window
            connection.rate_count = 0
        return max(0, rate - connection.rate_count)

    def _sort(self, connection: Connection, messages: list[Message]) -> tuple[list[Message], int]:
        """Count messages and answer those that are the manager's business; return the others, and the bytes of payload
        in them.
        """
        items: list[Message] = []
        size = texts = binary_size = 0
        for message in messages:
            opcode = message.opcode
            if opcode == OPCODE_TEXT:  # the usual ones are counted together, below
                items.append(message)
                size += len(message.data)
                texts += 1
            elif opcode == OPCODE_BINARY:
                items.append(message)
                length = len(message.data)
                size += length
                binary_size += length
                connection.binaries_received += 1
            else:
                self.counters.controls_received[opcode] += 1
                if opcode == OPCODE_PING:
                    self._send_control(connection, OPCODE_PONG, message.data)
                elif opcode == OPCODE_PONG:
                    self._ponged(connection, message, items)
        if texts:
            connection.texts_received += texts
            connection.text_bytes_received += size - binary_size
        connection.binary_bytes_received += binary_size
        return items, size

    def _end_of_stream(self, connection: Connection) -> None:
        """The peer has sent its Close, or broken a rule."""
        error = connection.stream.error
        if error is None:
            connection.websocket.client_terminated = True
        else:
            logger.debug("%s is closed with %s: %s", connection, error.code, error)
            if connection.stream.failure is TooManyFragmentsException:
                self.count_limit("max_fragments")
            elif error.code == CloseCode.MESSAGE_TOO_BIG:
                self.count_limit("max_message_size")
        self._end_reading(connection)

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

    # --- stopping -----------------------------------------------------------------------------------------------------

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
            for _ in range(min(self._drain_quota, len(self._drain_queue))):
                self._attempt(self._dismiss, self._drain_queue.popleft())
            self._drain_next = now + DRAIN_STEP

    def _dismiss(self, connection: Connection) -> None:
        """Say goodbye to one."""
        if connection.phase < Phase.ENDED:
            connection.websocket.server_terminated = True
            connection.close(GOODBYE)

    def _dismiss_at_once(self, connection: Connection) -> None:
        """Say goodbye to one as far as its socket takes it now: there will be no other time."""
        if connection.phase == Phase.NEW:
            self._adopt(connection)
        self._dismiss(connection)
        if not connection.transport.blocked:
            self._send([connection])

    def _stopped_all(self) -> bool:
        if self._state != STOPPING or self._drain_queue is None:
            return False
        return not self._connections or self._clock() >= self._drain_deadline
