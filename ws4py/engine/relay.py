"""The relay: what forked processes send on connections that they have inherited goes to the engine, in the parent.

A child can't write by itself: its frames could land inside the parent's, and over TLS it would use the parent's keys
and record numbers again. So it hands messages to the engine, through a pair of sockets that is made before any fork,
and the parent encodes them. A packet is a piece of a message; a message counts when its last piece has come, and so
those of several processes and threads may come at once.

Which connections have no room is seen in memory that the processes share: a child waits for that before it sends, and
the peer that keeps it waiting keeps nobody else.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ws4py.closing import SLOW_CONSUMER
from ws4py.engine.connection import Connection, PureConnection
from ws4py.engine.outgoing import NO_SLOTS
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import OPCODE_BINARY, OPCODE_CLOSE, apply_mask
from ws4py.messaging import CloseControlMessage

__all__ = ["Errand", "Inherited", "InheritedConnection", "Relay", "carry_out", "has_room", "run_errands"]

PIECE: Final = 1 << 15
"""How many bytes of a message a packet has at most."""

BUFFER: Final = 1 << 20
"""How many bytes of packets the kernel is asked to keep; it may allow less."""

READS: Final = 64
"""How many packets are received in a cycle."""

PLACES: Final = 1 << 20
"""For how many descriptors there is a place that says whether their outboxes are full."""

PAUSES: Final = (0.001, 0.02)
"""How often, in seconds, a child looks whether there is room: at first, and after a while."""

REMEMBERED: Final = 10.0
"""How often, in seconds, it is looked whether the processes are still there of which half a message has come."""

GIVE_UP: Final = 0x10
"""In the place of an opcode, and out of their range: the peer has not read for as long as it may."""

HEADER: Final = struct.Struct("!iQQQiBB")
"""Descriptor, number of the connection, sender, number of the message, process, opcode, and which piece this is."""

MORE, LAST, ABANDONED = range(3)
"""Pieces: others follow; none does; none ever will."""


class Errand(NamedTuple):
    """What a child wants to be sent: on the connection with a descriptor and a number, which is its owner's."""

    fd: int
    number: int
    opcode: int
    payload: bytes


class Unfinished(NamedTuple):
    """A message of which pieces have come, and the process that they come from."""

    process: int
    pieces: list[bytes]


class Relay:
    """Carries errands from forked processes to their parent.

    :ivar held: the connections, by descriptor, for which children have to wait: their outboxes are full.
    :raises OSError: if the system has no descriptors left.
    """

    def __init__(self) -> None:
        kind = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, kind)
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._full = mmap.mmap(-1, PLACES)
        self.held: dict[int, Connection] = {}
        self._unfinished: dict[tuple[int, int], Unfinished] = {}
        self._look_at = 0.0  # when to look after their processes
        self._sender = 0
        self._messages = itertools.count()
        self._abandoned: deque[int] = deque()  # messages that the parent is to forget

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def release(self) -> None:
        """Give the descriptors back."""
        self._reader.close()
        self._writer.close()
        self._full.close()

    # --- in a forked process: any thread, and no lock -----------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Leave receiving to the parent: once that is gone, sending fails.

        The descriptor's number stays taken, since a copy of the parent's event loop may be watching it.
        """
        os.dup2(self._writer.fileno(), self._reader.fileno(), inheritable=False)
        self._sender = int.from_bytes(os.urandom(8), "big")  # the number of a process may be another one's later
        self._abandoned.clear()

    def await_room(self, fd: int, timeout: float) -> bool:
        """Wait until the connection with a descriptor has room; return whether it has.

        :param timeout: for how many seconds at most.
        :raises ConnectionClosed: if the parent is gone.
        """
        deadline, pause = time.monotonic() + timeout, PAUSES[0]
        while self._full[fd % PLACES]:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            if self._poll(0, min(pause, remaining)):
                raise ConnectionClosed("The parent process, which has the connection, is gone")
            pause = min(2 * pause, PAUSES[1])
        return True

    def send(self, errand: Errand, timeout: float) -> None:
        """Hand an errand to the parent.

        :param timeout: how long to wait at most until the parent has taken it, in seconds.
        :raises ConnectionClosed: if the parent is gone.
        :raises SlowConsumer: if it did not take it in time.
        """
        self._tell_abandoned()
        fd, number, opcode, payload = errand
        deadline = time.monotonic() + timeout
        message = next(self._messages)
        size = len(payload)
        whole = False
        try:
            for start in range(0, size or 1, PIECE):
                end = start + PIECE
                which = LAST if end >= size else MORE
                packet = self._pack(message, which, fd, number, opcode) + payload[start:end]
                while not self._try_to_send(packet):
                    remaining = deadline - time.monotonic()
                    if remaining <= 0:
                        raise SlowConsumer(f"The parent process did not take a message in {timeout} seconds")
                    self._poll(select.POLLOUT, remaining)
            whole = True
        finally:
            if not whole and size > PIECE:
                self._abandoned.append(message)

    def _tell_abandoned(self) -> None:
        while self._abandoned:
            try:
                message = self._abandoned.popleft()
            except IndexError:
                return  # another thread has told the last one
            if not self._try_to_send(self._pack(message, ABANDONED)):
                self._abandoned.append(message)
                return

    def _pack(self, message: int, which: int, fd: int = 0, number: int = 0, opcode: int = 0) -> bytes:
        return HEADER.pack(fd, number, self._sender, message, os.getpid(), opcode, which)

    def _try_to_send(self, packet: bytes) -> bool:
        try:
            self._writer.send(packet, getattr(socket, "MSG_NOSIGNAL", 0))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ConnectionClosed(f"The parent process, which has the connection, is gone: {error}") from error
        return True

    def _poll(self, events: int, timeout: float) -> bool:
        """Wait until the socket can be written, or only until the parent is gone; return whether that has happened."""
        poller = select.poll()
        poller.register(self._writer, events)
        return bool(poller.poll(timeout * 1000))

    # --- in the parent: the thread that polls -------------------------------------------------------------------------

    def receive(self) -> list[Errand]:
        """Return what has come."""
        errands: list[Errand] = []
        gone = self._gone() if self._unfinished else ()
        for _ in range(READS):
            try:
                packet = self._reader.recv(HEADER.size + PIECE)
            except (BlockingIOError, InterruptedError):
                for key in gone:  # all that they have sent was received
                    self._unfinished.pop(key, None)
                break
            fd, number, sender, message, process, opcode, which = HEADER.unpack_from(packet)
            piece = packet[HEADER.size :]
            if which == MORE:
                self._unfinished.setdefault((sender, message), Unfinished(process, [])).pieces.append(piece)
                continue
            begun = self._unfinished.pop((sender, message), None)
            if which == LAST:
                payload = piece if begun is None else b"".join([*begun.pieces, piece])
                errands.append(Errand(fd, number, opcode, payload))
        return errands

    def _gone(self) -> Sequence[tuple[int, int]]:
        """Return the messages whose processes have ended."""
        now = time.monotonic()
        if now < self._look_at:
            return ()
        self._look_at = now + REMEMBERED
        return [key for key, message in self._unfinished.items() if not _is_there(message.process)]

    def hold(self, connection: Connection) -> None:
        """Have children wait for a connection that has no room for them."""
        if connection.fd not in self.held:
            connection.engine.count_limit("outbox")
        self.held[connection.fd] = connection
        self._full[connection.fd % PLACES] = 1

    def let_go(self) -> None:
        """Have children wait no more for the connections that have room again."""
        for fd, connection in list(self.held.items()):
            if has_room(connection):
                del self.held[fd]
                self._full[fd % PLACES] = 0


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


def has_room(connection: Connection) -> bool:
    """Tell whether children may send on a connection.

    What they send may take as much room again as what is sent here, or it would wait for ever beside a thread that
    keeps the outbox full.
    """
    return connection.buffered < 2 * connection.limits.max_outbox_size


def carry_out(connection: Connection, opcode: int, payload: bytes) -> None:
    """Send for a child, without ever waiting. There was room when the child began to send."""
    try:
        if opcode == OPCODE_CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else None
            connection.close(CloseControlMessage(code, payload[2:]))
        elif opcode == GIVE_UP:
            if not has_room(connection):
                connection.engine.count_limit("send_timeout")
                connection.give_up(SLOW_CONSUMER)
                connection.engine.mark_dirty(connection)
        elif opcode > OPCODE_BINARY:
            connection.send_control_now(opcode, payload)
        else:
            connection.append_message(opcode, payload)
    except WebSocketException:
        pass  # it is closing, or gone: the child does not know that yet


def run_errands(
    relay: Relay, connections: Mapping[int, Connection], fail: Callable[[Connection, BaseException], object]
) -> None:
    """Send what forked processes have asked for. For the thread that polls.

    :param connections: by descriptor.
    :param fail: is told which connection's errand has raised, and what.
    """
    for fd, number, opcode, payload in relay.receive():
        connection = connections.get(fd)
        if connection is None or connection.owner.id != number:
            continue  # it is gone
        try:
            carry_out(connection, opcode, payload)
            if not has_room(connection):
                relay.hold(connection)
        except BaseException as error:  # noqa: BLE001 - one connection's, and the others have errands, too
            fail(connection, error)


class Inherited(Connection):
    """What becomes of a connection in a forked process. It takes no lock: its owner may be a thread of the parent's."""

    __slots__ = NO_SLOTS

    def _relay(self, opcode: int, payload: bytes, timeout: float | None) -> None:
        if not self.may_append:
            raise ConnectionClosed("Cannot send on a terminated websocket")
        relay: Relay | None = self.engine.relay
        if relay is None:
            raise ConnectionClosed("The manager of this connection has stopped")
        number = self.owner.id
        patience = self.limits.send_timeout if timeout is None else timeout
        if opcode != OPCODE_CLOSE and not relay.await_room(self.fd, patience):
            if not patience:
                raise SlowConsumer("There is no room in the outbox")
            self.send_ended = True
            relay.send(Errand(self.fd, number, GIVE_UP, b""), patience)
            raise SlowConsumer(f"The peer did not read for {patience} seconds")
        relay.send(Errand(self.fd, number, opcode, payload), patience)

    def send_message(self, opcode: int, payload: bytes, timeout: float | None = None) -> None:
        """Have the parent send a message."""
        self._relay(opcode, payload, timeout)

    def send_fragments(self, opcode: int, parts: Any, timeout: float | None = None) -> None:
        """Have the parent send a message, which is collected first, in one piece."""
        self._relay(opcode, b"".join(parts), timeout)

    def send_control(self, frame: bytes, timeout: float | None = None) -> None:
        """Have the parent send a Ping or a Pong."""
        masked = frame[1] & 0x80
        self._relay(frame[0] & 0x0F, apply_mask(frame[6:], frame[2:6]) if masked else frame[2:], timeout)

    def close(self, message: CloseControlMessage) -> None:
        """Have the parent send a Close."""
        with contextlib.suppress(ConnectionClosed):
            self._relay(OPCODE_CLOSE, message.data, None)
            self.closing.send(message)

    def offer(self, frame: bytes, opcode: int, size: int, policy: Any, key: Any = None) -> bool:
        """A broadcast is for the parent to make."""
        return False

    def terminate(self) -> None:
        """The socket is the parent's: nothing more is sent from here."""
        self.send_ended = True

    def close_by_application(self) -> None:
        """See :meth:`terminate`."""
        self.send_ended = True

    def take(self) -> None:
        """No callback is run here: if one has forked, and returns in the child, it was the last one."""

    def rest(self) -> bool:
        """See :meth:`take`."""
        return False

    @property
    def buffered(self) -> int:
        """Nothing waits here."""
        return 0


class InheritedConnection(Inherited, PureConnection):
    """That of the pure engine."""

    __slots__ = ()
