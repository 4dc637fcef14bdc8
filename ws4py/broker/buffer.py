"""What waits to be sent, and has a limit."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final, Literal, NamedTuple, get_args

from ws4py.exc import BrokerError

__all__ = ["Buffer", "Kept", "Outgoing", "WhenFull"]

WhenFull = Literal["drop_oldest", "raise"]
"""What is done with one more publication: the oldest ones make room for it, or it is refused."""

OVERHEAD: Final = 200
"""What a publication takes beside its payload, in bytes."""


class Kept(NamedTuple):
    """How a publication is kept, or known by its key.

    :ivar keys: of Redis, that belong to its topic and its key.
    :ivar key_seconds: for how long its key is known; 0 without one.
    :ivar size: how many messages of its topic are kept; 0 for none.
    :ivar milliseconds: for how long.
    """

    keys: tuple[bytes, bytes, bytes]
    key_seconds: int
    size: int
    milliseconds: int


class Outgoing:
    """A publication that is to be sent.

    :param channel: where to.
    :param opcode: of the message.
    :param payload: of the message.
    :param urgent: whether it goes before the others, and takes no room.
    :param kept: what else the script that publishes it needs; None if a simple command does.
    :ivar number: which of its sender's it is; 0 until it is sent.
    :ivar sent_at: when Redis has confirmed it; None until then.
    """

    __slots__ = ("channel", "kept", "number", "opcode", "payload", "sent_at", "urgent")

    def __init__(
        self, channel: bytes, opcode: int, payload: bytes, urgent: bool = False, kept: Kept | None = None
    ) -> None:
        self.channel = channel
        self.opcode = opcode
        self.payload = payload
        self.urgent = urgent
        self.kept = kept
        self.number = 0
        self.sent_at: float | None = None

    @property
    def size(self) -> int:
        """What it takes, in bytes."""
        return len(self.channel) + len(self.payload) + OVERHEAD


class Buffer:
    """Publications in order. Any thread may put, a signal handler too; one thread takes.

    :param max_size: how many bytes there may be.
    :param when_full: see :data:`WhenFull`.
    :ivar size: how many bytes there are, those included that were taken and are not settled.
    :ivar put_count: how many were put.
    :ivar settled: of those, how many are not there any more.
    :ivar dropped: of those, how many have made room, or were given up.
    :raises ValueError: for a number or a word that can't be.
    """

    def __init__(self, max_size: int, when_full: WhenFull = "drop_oldest") -> None:
        if max_size <= 0:
            raise ValueError(f"A buffer has room for some bytes, not for {max_size!r}")
        if when_full not in get_args(WhenFull):
            raise ValueError(f"when_full must be one of {', '.join(get_args(WhenFull))}, not {when_full!r}")
        self._max_size = max_size
        self._when_full = when_full
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)
        self._arrived: deque[Outgoing] = deque()  # what a signal handler has put meanwhile
        self._waiting: deque[Outgoing] = deque()
        self._urgent: Outgoing | None = None
        self._closed = False
        self.size = 0
        self.put_count = 0
        self.settled = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Return how many are there, those included that were taken and are not settled."""
        return self.put_count - self.settled

    def put(self, outgoing: Outgoing) -> None:
        """Put one behind the others.

        :raises BrokerError: if there is no room, or the buffer is closed.
        """
        if self._closed:
            raise BrokerError("This broker is closed")
        if self._when_full == "raise" and self.size + outgoing.size > self._max_size:
            raise BrokerError(f"Redis does not take it, and {self.size} bytes wait already")
        self._arrived.append(outgoing)
        if self._lock._is_owned():  # type: ignore[attr-defined] # a signal handler has interrupted who takes it in
            return
        self._hand_on()

    def _hand_on(self) -> None:
        while self._arrived:
            with self._lock:
                self._take_in()
                self._filled.notify()

    def put_urgent(self, outgoing: Outgoing) -> None:
        """Put one that is urgent, in the place of the last such one. Nobody waits for it.

        :raises BrokerError: if the buffer is closed.
        """
        with self._lock:
            if self._closed:
                raise BrokerError("This broker is closed")
            self._urgent = outgoing
            self._filled.notify()

    def _take_in(self) -> None:
        while self._arrived:
            outgoing = self._arrived.popleft()
            self._waiting.append(outgoing)
            self.size += outgoing.size
            self.put_count += 1
        while self.size > self._max_size and len(self._waiting) > 1 and self._when_full == "drop_oldest":
            self._leave(self._waiting.popleft())
            self.dropped += 1

    def _leave(self, outgoing: Outgoing) -> None:
        self.size -= outgoing.size
        self.settled += 1
        self._emptied.notify_all()

    def take(self, number: int, size: int) -> list[Outgoing]:
        """Wait until something is there; return it in order, or nothing when the buffer is closed and empty.

        :param number: how many at most.
        :param size: about how many bytes at most.
        """
        taken: list[Outgoing] = []
        with self._lock:
            while not self._arrived and not self._waiting and self._urgent is None and not self._closed:
                self._filled.wait()
            self._take_in()
            if self._urgent is not None:
                taken.append(self._urgent)
                self._urgent = None
            while self._waiting and len(taken) < number and size > 0:
                taken.append(self._waiting.popleft())
                size -= taken[-1].size
        return taken

    def settle(self, batch: list[Outgoing], dropped: int = 0) -> None:
        """Those that were taken are done with.

        :param batch: them.
        :param dropped: how many of them were not sent.
        """
        with self._lock:
            for outgoing in batch:
                if not outgoing.urgent:
                    self._leave(outgoing)
            self.dropped += dropped

    def drop_all(self) -> None:
        """Give up what is there and was not taken."""
        with self._lock:
            self._take_in()
            self.dropped += len(self._waiting)
            while self._waiting:
                self._leave(self._waiting.popleft())

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put before is settled; tell whether it is.

        :param timeout: for how many seconds at most.
        """
        with self._lock:
            self._take_in()
            count = self.put_count
            settled = self._emptied.wait_for(lambda: self.settled >= count, timeout)
        self._hand_on()
        return settled

    def close(self) -> None:
        """Take no more in. What is there may still be taken."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()

    @property
    def closed(self) -> bool:
        """Whether it takes no more in."""
        return self._closed
