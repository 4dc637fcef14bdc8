"""The relay: what forked processes send on connections that they have inherited goes to the engine, in the parent.

A child can't write by itself: its frames could land inside the parent's, and over TLS it would use the parent's keys
and record numbers again. So it hands messages to the engine, through a pair of sockets that is made before any fork.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import time
from typing import Any, Final, NamedTuple

from ws4py.engine.connection import Connection
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CLOSE, apply_mask
from ws4py.messaging import CloseCode, CloseControlMessage

__all__ = ["Errand", "InheritedConnection", "Relay", "carry_out"]

PIECE: Final = 1 << 15
"""How many bytes of a message a packet has at most."""

UNFINISHED: Final = 1024
"""How many messages may be half received at once; the oldest is forgotten then, since its process has died."""

READS: Final = 64
"""How many packets are received in a cycle."""

HEADER: Final = struct.Struct("!iQQQBB")  # descriptor, number, process, message, opcode, whether this is the last piece


class Errand(NamedTuple):
    """What a child wants to be sent: on the connection with a descriptor and a number, which is its owner's."""

    fd: int
    number: int
    opcode: int
    payload: bytes


class Relay:
    """Carries errands from forked processes to their parent.

    :raises OSError: if the system has no descriptors left.
    """

    def __init__(self) -> None:
        kind = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_DGRAM)
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, kind)
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._messages = itertools.count()
        self._unfinished: dict[tuple[int, int], list[bytes]] = {}

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._reader.fileno()

    def release(self) -> None:
        """Give the descriptors back."""
        self._reader.close()
        self._writer.close()

    # --- in a forked process ------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Leave receiving to the parent: once that is gone, sending fails.

        The descriptor's number stays taken, since a copy of the parent's event loop may be watching it.
        """
        os.dup2(self._writer.fileno(), self._reader.fileno(), inheritable=False)

    def send(self, fd: int, number: int, opcode: int, payload: bytes, timeout: float) -> None:
        """Hand a message to the parent. Any thread of the child may call.

        :param timeout: how long to wait at most until the parent has taken it, in seconds.
        :raises ConnectionClosed: if the parent is gone.
        :raises SlowConsumer: if it did not take it in time.
        """
        deadline = time.monotonic() + timeout
        process, message = os.getpid(), next(self._messages)
        for start in range(0, len(payload) or 1, PIECE):
            piece = payload[start : start + PIECE]
            last = start + PIECE >= len(payload)
            packet = HEADER.pack(fd, number, process, message, opcode, last) + piece
            while not self._try_to_send(packet):
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not select.select([], [self._writer], [], remaining)[1]:
                    raise SlowConsumer(f"The parent process did not take a message in {timeout} seconds")

    def _try_to_send(self, packet: bytes) -> bool:
        try:
            self._writer.send(packet, getattr(socket, "MSG_NOSIGNAL", 0))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise ConnectionClosed(f"The parent process, which has the connection, is gone: {error}") from error
        return True

    # --- in the parent ------------------------------------------------------------------------------------------------

    def receive(self) -> list[Errand]:
        """Return what has come. For the thread that polls."""
        errands: list[Errand] = []
        for _ in range(READS):
            try:
                packet = self._reader.recv(HEADER.size + PIECE)
            except (BlockingIOError, InterruptedError):
                break
            if len(packet) < HEADER.size:
                break
            fd, number, process, message, opcode, last = HEADER.unpack_from(packet)
            pieces = self._unfinished.setdefault((process, message), [])
            pieces.append(packet[HEADER.size :])
            if last:
                del self._unfinished[process, message]
                errands.append(Errand(fd, number, opcode, b"".join(pieces)))
            elif len(self._unfinished) > UNFINISHED:
                del self._unfinished[next(iter(self._unfinished))]
        return errands


def carry_out(connection: Connection, opcode: int, payload: bytes, overdue: bool) -> bool:
    """Send for a child, without ever waiting; return False if there is no room yet.

    What children send may take as much room again as what is sent here, or it would wait for ever beside a thread that
    keeps the outbox full.

    :param overdue: there was none for ``send_timeout`` seconds: the peer is given up if there is none now.
    """
    try:
        if opcode == OPCODE_CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else None
            connection.close(CloseControlMessage(code, payload[2:]))
        elif not overdue and connection.buffered >= 2 * connection.limits.max_outbox_size:
            return False
        elif opcode > OPCODE_BINARY or (connection.sender is not None and connection.sender.ordered):
            if opcode > OPCODE_BINARY:
                connection.send_control(connection.stream.encode(FIN | opcode, payload), 0.0)
            else:
                connection.send_message(opcode, payload, 0.0)
        elif overdue:
            connection.send_message(opcode, payload, 0.0)
        else:
            connection.append_message(opcode, payload)
    except SlowConsumer:
        if not overdue:
            return False
        connection.give_up(CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Slow consumer"))
        connection.engine.mark_dirty(connection)
    except WebSocketException:
        pass  # it is closing, or gone: the child does not know that yet
    return True


class InheritedConnection(Connection):
    """What becomes of a connection in a forked process. It takes no lock: its owner may be a thread of the parent's."""

    __slots__ = ()

    def _relay(self, opcode: int, payload: bytes, timeout: float | None) -> None:
        if self.closing.sent is not None or self.send_ended:
            raise ConnectionClosed("Cannot send on a terminated websocket")
        relay: Relay | None = self.engine.relay
        if relay is None:
            raise ConnectionClosed("The manager of this connection has stopped")
        number = getattr(self.owner, "id", 0)
        relay.send(self.fd, number, opcode, payload, self.limits.send_timeout if timeout is None else timeout)

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

    @property
    def buffered(self) -> int:
        """Nothing waits here."""
        return 0
