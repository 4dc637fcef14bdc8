"""The outbox of a connection under a manager: what was sent, and is not written yet.

Any thread sends and closes; the manager's thread takes what waits and writes it. What they share is guarded by the
connection's lock, which is held for a few assignments only: never over a callback, a system call or a wait.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from ws4py.exc import ConnectionClosed, ManagerError, SlowConsumer, WebSocketException
from ws4py.framing import (
    FIN,
    OPCODE_BINARY,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    RSV1,
    frame_end,
    payload_size,
)
from ws4py.logs import Named
from ws4py.manager.limits import Limits, OverflowPolicy
from ws4py.manager.transport import Transport
from ws4py.manager.workers import current_pool
from ws4py.messaging import CloseCode, CloseControlMessage
from ws4py.ports import INHERITED_TLS

if TYPE_CHECKING:
    from ws4py.websocket import WebSocket

__all__ = ["SENDING", "SENDING_ENDED", "Outbox", "Owner"]

WRITE_SIZE: Final = 1 << 18
"""Frames are joined up to about so many bytes for one write."""

# Whether something may still be sent.
SENDING: Final = 0
CLOSE_QUEUED: Final = 1  # only what was begun before the Close
SENDING_ENDED: Final = 2
INHERITED: Final = 3  # nothing, in this process: TLS is the affair of the one that it was forked from


class Owner(Protocol):
    """What a connection asks of the manager that owns its transport."""

    def attend(self, connection: Any) -> None:
        """Have the manager's thread look at a connection."""

    def drop(self, connection: Any) -> None:
        """Have the manager's thread drop a connection's socket."""

    def later(self, act: Callable[[], object]) -> None:
        """Have the manager's thread do something that the calling one can't do now."""

    def fault(self, connection: Any) -> None:
        """Count that something done for a connection raised, and have it dropped."""

    def count_limit(self, name: str) -> None:
        """Count that a limit or a policy acted."""

    def in_own_thread(self) -> bool:
        """Tell whether the caller is the manager's thread."""

    def write_until(self, connection: Any, deadline: float) -> bool:
        """Write a connection's outbox until there is room, on the manager's own thread."""


class Outbox(Named):
    """The half of a connection that sends.

    :param websocket: that sends.
    :param transport: of its socket, non-blocking.
    :param fd: of its socket.
    :param manager: that owns the transport.
    :param limits: of this connection.
    """

    __slots__ = (
        "_close_message",
        "_deferred",
        "_deferred_size",
        "_dirty",
        "_encoding",
        "_fragmenting",
        "_given_up",
        "_latest",
        "_lock",
        "_manager",
        "_outbox",
        "_outbox_size",
        "_piece",
        "_room",
        "_sending",
        "_turn",
        "_writing",
        "_written",
        "binaries_sent",
        "binary_bytes_sent",
        "bytes_sent",
        "closes_sent",
        "encoded_from",
        "encoded_to",
        "fd",
        "limits",
        "parts_opcode",
        "pings_sent",
        "pongs_sent",
        "stream",
        "text_bytes_sent",
        "texts_sent",
        "transport",
        "unsettled",
        "websocket",
    )

    def __init__(self, websocket: WebSocket, transport: Transport, fd: int, manager: Owner, limits: Limits) -> None:
        self.websocket = websocket
        self.stream = websocket.stream
        self.transport = transport
        self.fd = fd
        self.limits = limits
        self._manager = manager
        self._lock: Any = self._make_lock()
        self.unsettled = False  # the manager is to see to more than the outbox when something was written
        self._outbox: list[bytes] | deque[bytes] | None = None  # a deque once it is too much for one write
        self._outbox_size = 0
        self._piece: bytes | None = None  # whole frames, joined, of which a part is written
        self._written = 0  # how many bytes
        self._writing = False  # the manager is just handing what is left of it to the transport
        self._dirty = False  # the manager has been told to look
        self._sending = SENDING
        self._fragmenting = False  # a generator is being sent
        self._deferred: list[bytes] | None = None  # whole messages that wait for the generator's end
        self._deferred_size = 0  # of the outbox's size, their part
        self._latest: tuple[bytes, int | None] | None = None  # the newest broadcast that found no room, and its size
        self._given_up = False  # what waited was thrown away for a last Close while some of it was being written
        self._room: threading.Condition | None = None  # where senders wait for room
        self._close_message: CloseControlMessage | None = None
        # Held while a message is encoded and put into the outbox, if the order of the two must be the same: never over
        # a wait, and never needed for a control frame.
        codec = self.stream.codec
        self._encoding: Any = self._make_lock() if codec is not None and codec.ordered else None
        # What was put into the outbox; guarded by the lock. Sizes are those of payloads before any codec.
        self.texts_sent = 0
        self.text_bytes_sent = 0
        self.binaries_sent = 0
        self.binary_bytes_sent = 0
        self.parts_opcode = 0  # of the message that a generator makes
        self.pings_sent = 0
        self.pongs_sent = 0
        self.closes_sent = 0
        self.encoded_from = 0  # bytes of payload that a codec has encoded,
        self.encoded_to = 0  # and what it made of them
        self.bytes_sent = 0

    # --- any thread ---------------------------------------------------------------------------------------------------

    def send_message(self, opcode: int, payload: bytes, timeout: float | None = None) -> None:
        """Send a whole message.

        :param timeout: how long to wait for room, in seconds; ``send_timeout`` by default.
        :raises ConnectionClosed: if the connection is closing or closed.
        :raises SlowConsumer: if there was no room in time, or too many workers wait for some already: the connection is
            then given up, but for a ``timeout`` of 0.
        """
        if self._encoding is not None:
            self._put_in_order(opcode, payload, timeout)
            return
        frame = self.stream.encode_message(opcode, payload)
        size = len(frame)  # before the lock, as in _append()
        lock = self._lock
        lock.acquire()  # by hand, as wherever every message comes by: "with" takes more than twice the time
        try:
            # The usual case of _put() and _append(), without their calls: nearly every message takes this way.
            usual = (
                self._sending == SENDING and self._outbox_size < self.limits.max_outbox_size and not self._fragmenting
            )
            if usual:
                if self._outbox is None:
                    self._outbox = [frame]
                else:
                    self._outbox.append(frame)
                self._outbox_size += size
                if opcode == OPCODE_TEXT:
                    self.texts_sent += 1
                    self.text_bytes_sent += len(payload)
                else:
                    self.binaries_sent += 1
                    self.binary_bytes_sent += len(payload)
                if frame[0] & RSV1:
                    self._count_encoded(frame, len(payload))
                if self._dirty:
                    return
                self._dirty = True
        finally:
            lock.release()
        if usual:
            self._manager.attend(self)
        else:
            self._put(frame, True, size=len(payload), timeout=timeout)

    def send_fragments(self, opcode: int, parts: Iterator[bytes], timeout: float | None = None) -> None:
        """Send a message whose parts are made while it is sent. Other messages wait for its end; control frames don't.

        :param timeout: how long to wait for room for a part, in seconds; ``send_timeout`` by default.
        :raises ConnectionClosed: see :meth:`send_message`; with a ``timeout`` of 0, a part after the first for which
            there is no room closes the connection with 1011, since half a message is sent.
        :raises Exception: whatever ``parts`` raises: the connection is then closed with 1011, since half a message is
            sent.
        """
        self._begin_fragments(timeout)
        try:
            frame = self.stream.begin_fragments()
            if self._encoding is not None:
                with self._encoding:
                    pass  # from here on others leave the codec alone: see _put_in_order
            self.parts_opcode = opcode
            first, last = opcode, next(parts, b"")
            for part in parts:
                self._put(frame(first, last), False, own=True, size=len(last), timeout=timeout)
                first, last = OPCODE_CONTINUATION, part
            self._put(frame(FIN | first, last), True, own=True, size=len(last), timeout=timeout)
        except BaseException:
            self.close(CloseControlMessage(CloseCode.INTERNAL_ERROR))
            with self._lock:
                self._drop_deferred()  # there is no place for them behind half a message
            raise
        finally:
            self._end_fragments()

    def send_control(self, frame: bytes, timeout: float | None = None) -> None:
        """Send a Ping or a Pong for the application; it may overtake messages. Waits like :meth:`send_message`."""
        self._put(frame, False, own=True, timeout=timeout)

    def _put(
        self, frame: bytes, whole: bool, own: bool = False, size: int | None = None, timeout: float | None = None
    ) -> None:
        """Append a frame to the outbox.

        :param whole: it is, or it ends, a message, and is counted as one.
        :param own: it may go between the fragments of a message that is being sent.
        :param size: of its payload before a codec had it; None if none did.
        """
        with self._lock:
            if self._sending != SENDING and not (own and self._may_finish_fragments()):
                raise self._refusal("Cannot send on a terminated websocket")
            if self._has_room(own):
                dirty = self._append(frame, whole, own, size)
            else:
                self._wait_for_room(own, timeout)
                dirty = self._append(frame, whole, own, size)
        if dirty:
            self._manager.attend(self)

    def _put_in_order(self, opcode: int, payload: bytes, timeout: float | None) -> None:
        """Encode a message that must be encoded in the order of the wire, and append it to the outbox.

        So there must be room before it is encoded, and nothing may come between. While a generator is being sent the
        codec is the generator's: other messages wait for its end, not encoded.
        """
        if self._encoding._is_owned():  # this is a signal handler, and the codec is in the midst of another message
            self._manager.later(lambda: self._put_in_order(opcode, payload, 0.0))
            return
        with self._lock:
            if self._sending != SENDING:
                raise self._refusal("Cannot send on a terminated websocket")
            if not self._has_room(False):
                self._wait_for_room(False, timeout)
        with self._encoding:
            own = not self._fragmenting
            stream = self.stream
            frame = stream.encode_message(opcode, payload) if own else stream.encode(FIN | opcode, payload)
            with self._lock:
                if self._sending != SENDING and not (own and self._may_finish_fragments()):
                    raise self._refusal("Cannot send on a terminated websocket")
                dirty = self._append(frame, True, own, len(payload))
        if dirty:
            self._manager.attend(self)

    def _has_room(self, own: bool) -> bool:
        """Tell whether the outbox may grow. What waits for a generator's end is not in that generator's way.

        The lock is held.
        """
        size = self._outbox_size
        limit = self.limits.max_outbox_size
        return size < limit or (own and size - self._deferred_size < limit)

    def _append(self, frame: bytes, whole: bool, own: bool, size: int | None = None) -> bool:
        """Append, and tell whether the manager has to be told. The lock is held."""
        length = len(frame)  # first: a signal handler that sends may come in at any call
        if self._fragmenting and not own:
            if self._deferred is None:
                self._deferred = []
            self._deferred.append(frame)
            self._deferred_size += length
        elif self._outbox is None:
            self._outbox = [frame]
        else:
            self._outbox.append(frame)
        self._outbox_size += length
        self._count_sent(frame, whole, payload_size(frame) if size is None else size)
        if self._dirty:
            return False
        self._dirty = True
        return True

    def _count_sent(self, frame: bytes, whole: bool, size: int) -> None:
        """Count what was put into the outbox. The lock is held."""
        opcode = frame[0] & 0x0F or self.parts_opcode
        if opcode == OPCODE_TEXT:
            self.texts_sent += whole
            self.text_bytes_sent += size
        elif opcode == OPCODE_BINARY:
            self.binaries_sent += whole
            self.binary_bytes_sent += size
        elif opcode == OPCODE_PING:
            self.pings_sent += 1
        elif opcode == OPCODE_PONG:
            self.pongs_sent += 1
        else:
            self.closes_sent = 1
        # Of a message in fragments, the first one says for all that they are encoded.
        if frame[0] & RSV1 or (not frame[0] & 0x0F and self.stream.codec is not None):
            self._count_encoded(frame, size)

    def _count_encoded(self, frame: bytes, size: int) -> None:
        """Count what a codec did to a payload of ``size`` bytes. The lock is held."""
        self.encoded_from += size
        self.encoded_to += payload_size(frame)

    @property
    def messages_sent(self) -> int:
        """How many data messages were put into the outbox."""
        return self.texts_sent + self.binaries_sent

    def _wait_for_room(self, own: bool, timeout: float | None) -> None:
        """Wait for room. The lock is held, but not while it waits."""
        self._manager.count_limit("outbox")
        if timeout is None:
            timeout = self.limits.send_timeout
        elif timeout <= 0.0:
            raise SlowConsumer("There is no room in the outbox")
        limit, reason = "send_timeout", f"The peer did not read for {timeout} seconds"
        if self._manager.in_own_thread():
            self._lock.release()
            try:
                roomy = self._manager.write_until(self, time.monotonic() + timeout)
            finally:
                self._lock.acquire()
        else:
            waited = self._wait(lambda: self._has_room(own) or self._sending == SENDING_ENDED, timeout)
            roomy = waited is True
            if waited is None:
                limit, reason = "max_waiting_senders", "The peer does not read, and enough workers wait for such peers"
        if self._sending != SENDING and not (own and self._may_finish_fragments()):
            raise self._refusal("The connection ended while a message waited to be sent")
        if not roomy:
            self._manager.count_limit(limit)
            self._give_up(CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Slow consumer"))
            self._lock.release()
            try:
                self._manager.attend(self)
            finally:
                self._lock.acquire()
            raise SlowConsumer(reason)

    def _wait(self, ready: Callable[[], bool], timeout: float) -> bool | None:
        """Wait for the manager's thread or another sender; tell whether ``ready()`` has come true in time.

        The lock is held, but not while it waits.

        :returns: None if the caller is a worker, and so many workers wait that it may not.
        """
        room = self._room = self._room or self._make_room()
        pool = current_pool()
        if pool is None:
            return room.wait_for(ready, timeout)
        if not pool.begin_waiting():
            return None
        try:
            return room.wait_for(ready, timeout)
        finally:
            pool.end_waiting()

    @property
    def _interrupted(self) -> bool:
        """Whether the calling thread is in the midst of changing the outbox: so this is a signal handler, or a
        ``__del__``, and must not.
        """
        owned: bool = self._lock._is_owned()
        return owned

    def _make_lock(self) -> Any:
        """Return a lock such as the connection's. It is reentrant, for signal handlers."""
        return threading.RLock()

    def _make_room(self) -> threading.Condition:
        """Return what senders wait on, over the connection's lock; greenlets wait on another kind."""
        return threading.Condition(self._lock)

    def _refusal(self, reason: str) -> WebSocketException:
        """Return what is raised where nothing may be sent."""
        return ManagerError(INHERITED_TLS) if self._sending == INHERITED else ConnectionClosed(reason)

    def _may_finish_fragments(self) -> bool:
        """Tell whether a message that was begun before the Close may go on: the Close waits for its end."""
        return self._sending == CLOSE_QUEUED and self._fragmenting and self._close_message is not None

    def _begin_fragments(self, timeout: float | None) -> None:
        with self._lock:
            if timeout is not None and timeout <= 0.0 and self._sending == SENDING:
                # Before the first part is encoded: a codec can't take that back.
                if self._fragmenting or not self._has_room(True):
                    raise SlowConsumer("There is no room in the outbox")
            elif self._fragmenting:
                patience = self.limits.send_timeout if timeout is None else timeout
                waited = self._wait(lambda: not self._fragmenting or self._sending != SENDING, patience)
                if waited is None:
                    self._manager.count_limit("max_waiting_senders")
                    raise SlowConsumer("Another message is being sent in fragments, and enough workers wait")
                if not waited:
                    raise WebSocketException("Another message is being sent in fragments, and does not end")
            if self._sending != SENDING:
                raise self._refusal("Cannot send on a terminated websocket")
            self._fragmenting = True

    def _end_fragments(self) -> None:
        with self._lock:
            self._fragmenting = False
            deferred, self._deferred, self._deferred_size = self._deferred, None, 0
            message, self._close_message = self._close_message, None
            if self._sending != SENDING_ENDED:
                frames = deferred or []
                if message is not None:
                    frames.append(self.stream.encode(FIN | message.opcode, message.data))
                    self._outbox_size += len(frames[-1])
                    self.closes_sent = 1
                if self._outbox is None:
                    self._outbox = frames or None
                else:
                    self._outbox.extend(frames)
            if self._room is not None:
                self._room.notify_all()
            self._dirty = True
        self._manager.attend(self)

    def _drop_deferred(self) -> None:
        self._outbox_size -= self._deferred_size
        self._deferred, self._deferred_size = None, 0

    def offer(self, frame: bytes, overflow: OverflowPolicy, size: int | None = None) -> bool:
        """Send a broadcast if there is room, without ever waiting; return whether it was accepted.

        :param frame: a whole message, as this connection's stream would encode it.
        :param size: of its payload before a codec had it; None if none did.
        """
        if self._lock._is_owned():  # as _interrupted, without the call
            self._manager.later(lambda: self.offer(frame, overflow, size))
            return True
        with self._lock:
            if self._sending != SENDING:
                return False
            if self._outbox_size < self.limits.max_outbox_size:
                accepted = True
                dirty = self._append(frame, True, False, size)
            else:
                self._manager.count_limit(f"overflow_{overflow}")
                accepted = overflow == "latest"
                dirty = False
                if overflow == "latest":
                    self._latest = frame, size
                elif overflow == "close":
                    self._give_up(CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Slow consumer"))
                    dirty = True
        if dirty:
            self._manager.attend(self)
        return accepted

    def offer_in_order(self, opcode: int, payload: bytes, frame: bytes, overflow: OverflowPolicy) -> bool:
        """Send a broadcast that this connection's codec has to encode for itself; see :meth:`offer`.

        :param frame: the message as it is without a codec, for when there is no room now.
        """
        encoding = self._encoding
        if encoding is None:
            return self.offer(frame, overflow)
        if self._interrupted or encoding._is_owned():
            self._manager.later(lambda: self.offer_in_order(opcode, payload, frame, overflow))
            return True
        with encoding:
            with self._lock:
                now = self._sending == SENDING and not self._fragmenting and self._has_room(False)
            if now:
                frame = self.stream.encode_message(opcode, payload)
                with self._lock:
                    accepted = self._sending == SENDING or self._may_finish_fragments()
                    dirty = accepted and self._append(frame, True, True, len(payload))
        if not now:
            return self.offer(frame, overflow)
        if dirty:
            self._manager.attend(self)
        return accepted

    def offer_control(self, frame: bytes) -> bool:
        """Put a Ping or a Pong of the manager's own into the outbox, however full that is; tell whether the manager is
        to look at the connection because of it.
        """
        with self._lock:
            if self._sending == SENDING or self._may_finish_fragments():
                return self._append(frame, False, True)
        return False

    def close(self, message: CloseControlMessage) -> None:
        """Send a Close after all that was sent before, if none was sent yet. Never waits."""
        if self._interrupted:
            self._manager.later(lambda: self.close(message))
            return
        with self._lock:
            if self._sending == INHERITED:
                raise ManagerError(INHERITED_TLS)
            if self._sending != SENDING:
                return
            self._sending = CLOSE_QUEUED
            self.unsettled = True
            self.websocket.server_terminated = True
            if self._fragmenting:
                self._close_message = message
            else:
                self._append(self.stream.encode(FIN | message.opcode, message.data), False, True)
            self._dirty = True
        self._manager.attend(self)

    def _give_up(self, message: CloseControlMessage) -> None:
        """Throw away what the peer does not read, and put a Close in its place. The lock is held."""
        if self._sending == SENDING_ENDED:
            return
        self._sending = SENDING_ENDED
        self.unsettled = True
        self.websocket.server_terminated = True
        self._given_up = self._writing  # then what is left of a frame is known only when that is done
        self._outbox = [self.stream.encode(FIN | message.opcode, message.data)]
        self.closes_sent = 1
        self._outbox_size = len(self._outbox[0])
        if not self._writing:
            self._keep_begun()
        self._deferred = self._latest = self._close_message = None
        self._deferred_size = 0
        self._dirty = True
        if self._room is not None:
            self._room.notify_all()

    def give_up(self, message: CloseControlMessage) -> None:
        """Throw away what waits, and send ``message`` instead, behind what is already half written."""
        with self._lock:
            self._give_up(message)

    def reply_to_close(self) -> bool:
        """Send the Close that the end of reading calls for: an echo of the peer's, or the error's. At most one is
        sent. Tell whether there is something to write.
        """
        reply = self.stream.error
        if reply is None and self.stream.closing is not None:
            reply = CloseControlMessage(self.stream.closing.code)
        with self._lock:
            if self._sending == SENDING or self._close_message is not None:
                reply, self._close_message = self._close_message or reply, None
                if reply is not None:
                    self._append(self.stream.encode(FIN | reply.opcode, reply.data), False, True)
            self._sending = SENDING_ENDED
            self.unsettled = True
            if self._room is not None:
                self._room.notify_all()
            return bool(self._outbox or self._piece)

    # --- the manager's thread ----------------------------------------------------------------

    def _stalled(self) -> bool:
        """Tell whether callbacks have to wait until the peer has read something. The lock is held."""
        return self._outbox_size >= self.limits.max_outbox_size and self._sending != SENDING_ENDED

    @property
    def outbox_full(self) -> bool:
        """Whether so much waits to be written that nothing is read."""
        return self._outbox_size >= self.limits.max_outbox_size

    @property
    def outbox_size(self) -> int:
        """How many bytes wait to be written."""
        return self._outbox_size

    @property
    def buffered(self) -> int:
        """How many bytes were sent and are not with the transport yet. Any thread may ask."""
        with self._lock:
            size = self._outbox_size
            if self._writing and self._piece is not None:
                size += len(self._piece) - self._written
            return size

    @property
    def close_queued(self) -> bool:
        """Whether a Close was sent, or is to be sent."""
        return self._sending != SENDING

    @property
    def sent_all(self) -> bool:
        """Whether nothing is left to be written, and nothing more will be."""
        return self._sending == SENDING_ENDED and not (self._outbox or self._piece or self.transport.blocked)

    def take_output(self) -> bytes | memoryview | None:
        """Return what is to be written, as one piece, None for nothing; :meth:`output_taken` or :meth:`output_left`
        must follow before the next.

        A connection may have been marked dirty twice: nothing is returned while something is being written.
        """
        lock = self._lock
        lock.acquire()
        try:
            self._dirty = False
            if self._writing:
                return None
            piece = self._piece
            if piece is not None:
                self._writing = True
                self._outbox_size -= len(piece) - self._written
                return memoryview(piece)[self._written :]
            frames = self._outbox
            if not frames:
                return b"" if self.transport.blocked else None
            if self._outbox_size - self._deferred_size > WRITE_SIZE and len(frames) > 1:
                piece = self._join_some(frames)
            else:
                piece = frames[0] if len(frames) == 1 else b"".join(frames)
                self._outbox = None
            self._piece = piece
            self._writing = True
            self._outbox_size -= len(piece)
            return piece
        finally:
            lock.release()

    def _join_some(self, frames: list[bytes] | deque[bytes]) -> bytes:
        """Take as many frames as are worth one write from an outbox of more. The lock is held."""
        waiting = frames if isinstance(frames, deque) else deque(frames)
        taken: list[bytes] = []
        size = 0
        while waiting and size < WRITE_SIZE:
            taken.append(waiting.popleft())
            size += len(taken[-1])
        self._outbox = waiting or None
        return b"".join(taken)

    def output_taken(self, size: int) -> bool:
        """All of the ``size`` bytes of :meth:`take_output` was written. Tell whether there is more to write."""
        self.bytes_sent += size
        self._piece = None
        self._written = 0
        self._writing = self._given_up = False
        if self._latest is not None or self._room is not None:
            with self._lock:
                self._offer_room()
        return bool(self._outbox)

    def output_left(self, count: int) -> None:
        """Only ``count`` bytes of :meth:`take_output` were written; what is left is the next to be written."""
        with self._lock:
            self.bytes_sent += count
            self._writing = False
            if self._piece is not None:
                self._written += count
                if self._given_up:
                    self._keep_begun()
                else:
                    self._outbox_size += len(self._piece) - self._written
            self._given_up = False
            self._offer_room()

    def _keep_begun(self) -> None:
        """Of what is being written keep the frame that has begun only, for its other half must follow. The lock is
        held.
        """
        if self._piece is None:
            return
        end = frame_end(self._piece, self._written)
        if end == self._written:
            self._piece = None
            self._written = 0
        else:
            self._piece = self._piece[:end]
            self._outbox_size += end - self._written

    def _offer_room(self) -> None:
        """Let those who waited for room in the outbox have it. The lock is held."""
        if self._outbox_size < self.limits.max_outbox_size:
            if self._latest is not None and self._sending == SENDING:
                (frame, size), self._latest = self._latest, None
                self._append(frame, True, False, size)
            if self._room is not None:
                self._room.notify_all()

    def leave_output(self) -> None:
        """Be told anew when there is more to write: the transport takes nothing now."""
        self._dirty = False

    def discard_output(self) -> None:
        """Throw the outbox away: there is nobody to write to. Senders that wait are told."""
        with self._lock:
            self._sending = SENDING_ENDED
            self.unsettled = True
            self._outbox = self._piece = self._deferred = self._latest = self._close_message = None
            self._outbox_size = self._deferred_size = self._written = 0
            self._writing = self._given_up = False
            if self._room is not None:
                self._room.notify_all()

    # --- in a forked process ------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Start with an empty outbox and a free lock: what waits is written by the parent, where the lock's owner is,
        too. TLS is left alone altogether: its keys and its count of records are the parent's.
        """
        self._lock = self._make_lock()
        self._turn = self._make_lock()
        if self.transport.secure:
            self._sending = INHERITED
        if self._encoding is not None:
            self._encoding = self.stream.codec = None  # the context goes on in the parent
        self._room = self._latest = self._close_message = None
        self._outbox = self._piece = self._deferred = None
        self._outbox_size = self._deferred_size = self._written = 0
        self._dirty = self._fragmenting = self._writing = self._given_up = False

    def write_here(self) -> None:
        """Write the outbox on the calling thread, since no manager's thread does; one thread after the other.

        :raises ConnectionClosed: if that fails.
        """
        with self._turn:
            self._write_here()

    def _write_here(self) -> None:
        deadline = time.monotonic() + self.limits.send_timeout
        while (data := self.take_output()) is not None:
            try:
                count = self.transport.send(data)
            except OSError as error:
                self.discard_output()
                raise ConnectionClosed(f"The inherited socket can't be written: {error}") from error
            if count == len(data):
                self.output_taken(count)
            else:
                self.output_left(count)
            remaining = deadline - time.monotonic()
            if self.transport.blocked and (remaining <= 0 or not select.select([], [self.fd], [], remaining)[1]):
                self.discard_output()
                raise SlowConsumer(f"The peer did not read for {self.limits.send_timeout} seconds")
