"""Sending where more is needed than to append to the outbox: to wait for room, messages in fragments, a codec that must
see the messages in their order, and broadcasts that wait for room.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from ws4py.closing import APPLICATION_FAILED, SLOW_CONSUMER
from ws4py.engine.core import Line
from ws4py.exc import ConnectionClosed, SlowConsumer, WebSocketException
from ws4py.framing import FIN, fragments
from ws4py.messaging import CloseControlMessage

__all__ = ["Sender", "Waiting"]

Waiting = tuple[bytes, int, int]
"""A frame, the opcode of its message, and the size of its payload."""


class Sender:
    """Sends for one connection. Any thread may call what has no other note.

    :param connection: whose outbox, stream and lock it uses.
    :param encoding: a lock, if the order in which messages are encoded must be that of the wire.
    :ivar users: how many calls use it just now that :meth:`Outgoing.take_sender` gave it to.
    :ivar fragmenting: whether a message is being sent in fragments.
    :ivar close: the Close that waits for its end.
    :ivar deferred_size: bytes of the whole messages that wait for its end.
    """

    __slots__ = (
        "_connection",
        "_deferred",
        "_kept",
        "_room",
        "close",
        "deferred_size",
        "encoding",
        "fragmenting",
        "users",
    )

    def __init__(self, connection: Line, encoding: Any = None) -> None:
        self._connection = connection
        # Held while a message is encoded and put into the outbox: never over a wait. Taken before the connection's
        # lock.
        self.encoding = encoding
        self._deferred: list[Waiting] = []  # whole messages that wait for the generator's end
        self._kept: dict[Hashable, Waiting] = {}  # the newest broadcasts that found no room
        self._room: Any = None  # the condition that senders wait on, over the connection's lock
        self.users = 0
        self.close: CloseControlMessage | None = None
        self.deferred_size = 0
        self.fragmenting = False

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *error: object) -> None:
        with self._connection.lock:
            self.users -= 1

    @property
    def ordered(self) -> bool:
        """Whether messages must be encoded in the order of the wire."""
        return self.encoding is not None

    @property
    def idle(self) -> bool:
        """Whether the connection can do without it. The lock is held."""
        return not (self.ordered or self.users or self._kept)

    @property
    def may_finish_fragments(self) -> bool:
        """Whether a message that was begun before the Close may go on: the Close waits for its end."""
        return self.fragmenting and self.close is not None

    # --- whole messages -----------------------------------------------------------------------------------------------

    def send_message(self, opcode: int, payload: bytes, timeout: float | None) -> None:
        """See :meth:`ws4py.engine.outgoing.Outgoing.send_message`; for a codec that must see messages in order."""
        connection = self._connection
        if connection.engine.holds(self.encoding):  # this is a signal handler, and the codec is at another message
            connection.engine.ask(lambda: self.send_message(opcode, payload, 0.0))
            return
        with connection.lock:
            self._check()
            if not self._has_room():
                self._wait_for_room(False, timeout)
        self.append_message(opcode, payload)

    def append_message(self, opcode: int, payload: bytes) -> None:
        """Put a message that the codec must see in its order into the outbox, however full that is.

        :raises ConnectionClosed: if the connection is closing or closed.
        """
        connection = self._connection
        with self.encoding:
            # While a generator is being sent the codec is the generator's: others wait for its end, not encoded.
            own = not self.fragmenting
            stream = connection.stream
            frame = stream.encode_message(opcode, payload) if own else stream.encode(FIN | opcode, payload)
            with connection.lock:
                self._check(own)
                dirty = self.append(frame, opcode, True, len(payload), own)
        if dirty:
            connection.engine.mark_dirty(connection)

    def put(
        self, frame: bytes, opcode: int, whole: bool, size: int, own: bool = False, timeout: float | None = None
    ) -> None:
        """Append a frame to the outbox as soon as there is room.

        :param opcode: of the message that it is, or is a part of.
        :param whole: it is, or it ends, a message.
        :param size: of its payload before a codec had it, in bytes.
        :param own: it may go between the fragments of a message that is being sent.
        :param timeout: how long to wait at most, in seconds; ``send_timeout`` by default.
        :raises ConnectionClosed: if the connection is closing or closed.
        :raises SlowConsumer: if there was no room in time.
        """
        connection = self._connection
        with connection.lock:
            self._check(own)
            if not self._has_room(own):
                self._wait_for_room(own, timeout)
            dirty = self.append(frame, opcode, whole, size, own)
        if dirty:
            connection.engine.mark_dirty(connection)

    def append(self, frame: bytes, opcode: int, whole: bool, size: int, own: bool = False) -> bool:
        """Append to the outbox, or let a whole message wait for the end of the one that is being sent in fragments;
        tell whether the engine has to be told. The lock is held.
        """
        if self.fragmenting and not own:
            self._deferred.append((frame, opcode, size))
            self.deferred_size += len(frame)
            return False
        return self._connection.append(frame, opcode, whole, size)

    def offer_in_order(self, opcode: int, payload: bytes, key: Hashable = None) -> bool | None:
        """Encode and send a broadcast if there is room, without ever waiting for it; return whether it was accepted,
        None if it was not encoded.

        :param key: what is kept of it is older, and thrown away.
        """
        connection = self._connection
        with self.encoding:
            with connection.lock:
                if not connection.may_append or self.fragmenting or not self._has_room():
                    return None
            frame = connection.stream.encode_message(opcode, payload)
            with connection.lock:
                if not connection.may_append and not self.may_finish_fragments:
                    return False
                self.supersede(key)
                dirty = connection.append(frame, opcode, True, len(payload))
        if dirty:
            connection.engine.mark_dirty(connection)
        return True

    def _may_append(self, own: bool) -> bool:
        """Tell whether something may be sent. The lock is held."""
        return self._connection.may_append or (own and self.may_finish_fragments)

    def _check(self, own: bool = False) -> None:
        """Raise ConnectionClosed if nothing may be sent. The lock is held."""
        if not self._may_append(own):
            raise ConnectionClosed("Cannot send on a terminated websocket")

    # --- room ---------------------------------------------------------------------------------------------------------

    def _has_room(self, own: bool = False) -> bool:
        """Tell whether the outbox may grow. What waits for a generator's end is not in that generator's way.

        The lock is held.
        """
        size, limit = self._connection.buffered, self._connection.limits.max_outbox_size
        return size < limit or (own and size - self.deferred_size < limit)

    @contextlib.contextmanager
    def _unlocked(self) -> Iterator[None]:
        """Let the lock go, which is held before and after: for what waits, or takes another lock. Of who has that one a
        signal handler may want this one.
        """
        lock = self._connection.lock
        lock.release()
        try:
            yield
        finally:
            lock.acquire()

    def _wait_for_room(self, own: bool, timeout: float | None) -> None:
        """Wait for room. The lock is held, but not while it waits."""
        connection = self._connection
        engine = connection.engine
        with self._unlocked():
            engine.count_limit("outbox")
        if timeout is None:
            timeout = connection.limits.send_timeout
        elif timeout <= 0.0:
            raise SlowConsumer("There is no room in the outbox")
        limit, reason = "send_timeout", f"The peer did not read for {timeout} seconds"
        if engine.in_own_thread():
            with self._unlocked():
                roomy: bool | None = engine.write_until(connection, time.monotonic() + timeout)
        else:
            roomy = self._wait(lambda: self._has_room(own) or not self._may_append(own), timeout)
            if roomy is None:
                limit, reason = "max_waiting_senders", "The peer does not read, and enough workers wait for such peers"
        self._check(own)
        if not roomy:
            connection.give_up_locked(SLOW_CONSUMER)
            with self._unlocked():
                engine.count_limit(limit)
                engine.mark_dirty(connection)
            raise SlowConsumer(reason)

    def _wait(self, ready: Callable[[], bool], timeout: float) -> bool | None:
        """Wait for who polls, or for another sender; tell whether ``ready()`` has come true in time.

        The lock is held, but not while it waits.

        :returns: None if the caller is a worker, and so many workers wait that it may not.
        """
        connection = self._connection
        if self._room is None:
            self._room = connection.engine.make_condition(connection.lock)
        room = self._room
        with self._unlocked():
            allowed = connection.engine.begin_wait()
        if not allowed:
            return True if ready() else None
        try:
            return bool(room.wait_for(ready, timeout))
        finally:
            connection.engine.end_wait()

    def offer_room(self) -> None:
        """Let those who wait for room have it. The lock is held."""
        connection = self._connection
        if self._kept and connection.may_append and self._has_room():
            kept, self._kept = self._kept, {}
            for frame, opcode, size in kept.values():
                self.append(frame, opcode, True, size)
        if self._has_room(True):
            self.tell_waiting()

    def tell_waiting(self) -> None:
        """Let those who wait look again. The lock is held."""
        if self._room is not None:
            self._room.notify_all()

    def keep(self, waiting: Waiting, key: Hashable) -> None:
        """Keep a broadcast until there is room, in the place of an earlier one of the same key. The lock is held."""
        self._kept.pop(key, None)
        self._kept[key] = waiting

    def supersede(self, key: Hashable) -> None:
        """Throw away what is kept of a key, for something newer is sent: it would come after that. The lock is
        held.
        """
        self._kept.pop(key, None)

    def end(self) -> None:
        """Nothing more is sent: throw away what waits, and tell those who wait. The lock is held."""
        self._kept.clear()
        self._deferred.clear()
        self.deferred_size = 0
        self.close = None
        self.tell_waiting()

    # --- a message in fragments ---------------------------------------------------------------------------------------

    def send_fragments(self, opcode: int, parts: Iterator[bytes], timeout: float | None) -> None:
        """See :meth:`ws4py.engine.outgoing.Outgoing.send_fragments`."""
        connection = self._connection
        self._begin_fragments(timeout)
        try:
            encode = connection.stream.begin_fragments()
            if self.encoding is not None:
                with self.encoding:
                    pass  # from here on others leave the codec alone: see send_message()
            for first, part in fragments(opcode, parts):
                self.put(encode(first, part), opcode, first & FIN != 0, len(part), own=True, timeout=timeout)
        except BaseException:
            connection.close(APPLICATION_FAILED)
            with connection.lock:  # there is no place for them behind half a message
                self._deferred.clear()
                self.deferred_size = 0
            raise
        finally:
            self._end_fragments()

    def _begin_fragments(self, timeout: float | None) -> None:
        connection = self._connection
        with connection.lock:
            if timeout is not None and timeout <= 0.0 and connection.may_append:
                # Before the first part is encoded: a codec can't take that back.
                if self.fragmenting or not self._has_room(True):
                    raise SlowConsumer("There is no room in the outbox")
            elif self.fragmenting:
                patience = connection.limits.send_timeout if timeout is None else timeout
                waited = self._wait(lambda: not self.fragmenting or not connection.may_append, patience)
                if waited is None:
                    with self._unlocked():
                        connection.engine.count_limit("max_waiting_senders")
                    raise SlowConsumer("Another message is being sent in fragments, and enough workers wait")
                if not waited:
                    raise WebSocketException("Another message is being sent in fragments, and does not end")
            self._check()
            self.fragmenting = True

    def _end_fragments(self) -> None:
        connection = self._connection
        with connection.lock:
            self.fragmenting = False
            deferred, self._deferred, self.deferred_size = self._deferred, [], 0
            message, self.close = self.close, None
            if not connection.send_ended:
                for frame, opcode, size in deferred:
                    connection.append(frame, opcode, True, size)
                if message is not None:
                    connection.append_close(message)
            self.tell_waiting()
            connection.dirty = True
        connection.engine.mark_dirty(connection)
