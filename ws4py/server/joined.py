"""A process that is one of several: the channel between it and who started it.

A message is a JSON object in a line. The process says ``{"ready": SECONDS}`` once it serves, and within how many
seconds it ends when it is told to. The end of the channel ends it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

__all__ = ["ENVIRONMENT", "Channel", "JoinedProcess"]

ENVIRONMENT: Final = "WS4PY_PROCESS"
"""The environment variable by which a process knows that it is one of several: its number, and the descriptors of the
socket that listens and of the channel.
"""


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
            self.sock.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")

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

    def _read(self, shutdown: Callable[[], object]) -> None:
        with suppress(OSError):
            while True:
                for _ in self._channel.receive():
                    pass
        shutdown()

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
