"""Where a client keeps messages for who asks for them, instead of overriding ``received_message``."""

from __future__ import annotations

import logging
import threading
from collections import deque
from queue import Empty
from typing import Final

from ws4py.messaging import Message

__all__ = ["Inbox"]

logger = logging.getLogger("ws4py")

MAX_MESSAGES: Final = 64
MAX_SIZE: Final = 1 << 20


class Inbox:
    """A queue of messages with an end. Any thread may call.

    At 64 messages or 1 MiB it is full. Then, if somebody has begun to take messages out, :meth:`put` waits for them,
    and so the peer has to wait too; else nobody is likely to come, and the oldest message is dropped, with a warning
    for the first one.
    """

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._wanted = False
        self._draining = False
        self._ended = False
        self._lost = False

    def put(self, message: Message, wait: bool = True) -> None:
        """Add a message; after :meth:`end` it is dropped.

        :param wait: for room, if there is a taker. A taker that fills the queue itself must not.
        """
        with self._changed:
            while self._full and not self._ended:
                if not self._wanted:
                    self._size -= len(self._messages.popleft().data)
                    if not self._lost:
                        self._lost = True
                        logger.warning("Nobody takes the messages of a websocket: the oldest are dropped")
                elif self._draining:
                    return
                elif wait:
                    self._changed.wait()
                else:
                    break
            if not self._ended:
                self._messages.append(message)
                self._size += len(message.data)
                self._changed.notify_all()

    @property
    def _full(self) -> bool:
        return len(self._messages) >= MAX_MESSAGES or (self._size >= MAX_SIZE and bool(self._messages))

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._messages)

    def get(self, block: bool = True, timeout: float | None = None) -> Message | None:
        """Take the oldest message; None if there is none and will be none.

        :param block: wait for one; else there must be one.
        :param timeout: how long to wait at most, in seconds; None for ever.
        :raises queue.Empty: if there is none now.
        """
        with self._changed:
            self._wanted = True
            if block:
                self._changed.wait_for(lambda: self._messages or self._ended, timeout)
            if self._messages:
                message = self._messages.popleft()
                self._size -= len(message.data)
                self._changed.notify_all()
                return message
            if self._ended:
                return None
            raise Empty

    def want(self) -> None:
        """Let :meth:`put` wait for room from now on: somebody is going to take the messages."""
        with self._changed:
            self._wanted = True

    def drain(self) -> None:
        """Wait for takers no more: the websocket is being closed, and what finds no room now is dropped."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def end(self) -> None:
        """Let no more in. What is there can still be taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
