"""A process that is one of several: the channel between it and who started it.

A message is a JSON object in a line. The process says ``{"ready": SECONDS}`` once it serves, and within how many
seconds it ends when it is told to. The end of the channel ends it.

With ``{"gather": ID, "question": ...}`` it asks all processes something, itself included. Each gets
``{"ask": ID, "question": ...}``, and says ``{"answer": ID, "found": ...}``; it gets
``{"gathered": ID, "found": {NUMBER: ..., ...}}``. Identifiers are those of who asks.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

__all__ = ["ENVIRONMENT", "PATIENCE", "Channel", "JoinedProcess", "encoded"]

ENVIRONMENT: Final = "WS4PY_PROCESS"
"""The environment variable by which a process knows that it is one of several: its number, and the descriptors of the
socket that listens and of the channel.
"""


PATIENCE: Final = 2.0
"""How long, in seconds, the answers of other processes are waited for."""

logger = logging.getLogger("ws4py")


def encoded(message: dict[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Channel:
    """One end of a channel. Any thread may send; one reads.

    :param sock: the socket, which blocks or not.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lock = threading.Lock()
        self._begun = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        :raises OSError: if the other end is gone, or takes nothing more.
        """
        with self._lock:
            self.sock.sendall(encoded(message))

    def receive(self) -> Iterator[dict[str, Any]]:
        """Read once, and yield the messages that are complete.

        :raises OSError: if the other end is gone.
        """
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionResetError("The other end of the channel is closed")
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


class JoinedProcess:
    """This process, as one of several. It is a context manager, which closes its sockets.

    :ivar number: counted from 1.
    :ivar listener: the socket that all of them accept connections from.
    """

    def __init__(self, number: int, listener: socket.socket, channel: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self._channel = Channel(channel)
        self._thread: threading.Thread | None = None
        self._ids = itertools.count()
        self._gathered: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self.answer: Callable[[Any], Any]
        """Answers a question; what comes and goes is fit for JSON. To be set before there are any. Any thread calls."""

    @classmethod
    def from_environment(cls) -> JoinedProcess | None:
        """Return this process, None if it was started by itself. Once: processes that this one starts are not meant."""
        found = os.environ.pop(ENVIRONMENT, None)
        if found is None:
            return None
        number, listener, channel = map(int, found.split())
        for fd in (listener, channel):
            os.set_inheritable(fd, False)
        return cls(number, socket.socket(fileno=listener), socket.socket(fileno=channel))

    def serve(self, patience: float, shutdown: Callable[[], object]) -> None:
        """Say that this process serves, and have it end with the one that has started it.

        :param patience: within how many seconds it ends.
        :param shutdown: begins the end; does not wait.
        """
        self._thread = threading.Thread(target=self._read, args=(shutdown,), name="WebSocketProcess", daemon=True)
        self._thread.start()
        with suppress(OSError):  # nobody is there: the thread that reads sees that, too
            self._channel.send({"ready": patience})

    def gather(self, question: Any) -> Mapping[str, Any]:
        """Ask all processes that serve; return their answers by their numbers. One that does not answer in
        :data:`PATIENCE` is left out, but not this one. Any thread may call, but for the one that answers.
        """
        number, answers = next(self._ids), queue.SimpleQueue[dict[str, Any]]()
        self._gathered[number] = answers
        found: dict[str, Any] = {}
        try:
            self._channel.send({"gather": number, "question": question})
            found = answers.get(timeout=2 * PATIENCE)
        except (OSError, queue.Empty) as error:
            logger.warning("The other processes could not be asked: %r", error)
        finally:
            del self._gathered[number]
        own = str(self.number)
        return found if own in found else {**found, own: self.answer(question)}

    def _read(self, shutdown: Callable[[], object]) -> None:
        with suppress(OSError):
            while True:
                for message in self._channel.receive():
                    if "ask" in message:
                        self._answer(message)
                    elif (answers := self._gathered.get(message["gathered"])) is not None:
                        answers.put(message["found"])
        shutdown()

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            found = self.answer(message["question"])
        except Exception:
            logger.exception("A question of another process could not be answered")
        else:
            self._channel.send({"answer": message["ask"], "found": found})

    def __enter__(self) -> JoinedProcess:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sockets."""
        with suppress(OSError):
            self._channel.sock.shutdown(socket.SHUT_RDWR)  # the thread's read returns
        if self._thread is not None:
            self._thread.join()
        self._channel.sock.close()
        self.listener.close()
