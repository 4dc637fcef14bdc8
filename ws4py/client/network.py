"""Connecting: TCP, unix sockets and TLS, with deadlines, by the modules of threads or of gevent."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from ws4py.exc import HandshakeError
from ws4py.handshake import Response, ResponseParser

__all__ = ["Deadline", "Network", "UnconnectedSocket", "read_head"]

T = TypeVar("T")

MAX_CALLS: Final = 32
"""How many threads may do at once, for all clients, what can't be interrupted: look-ups of names, say."""


class Deadline:
    """A time that something must be done by.

    :param seconds: from now; None for no limit.
    """

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Return how many seconds are left, None for no limit.

        :raises TimeoutError: if none are.
        """
        if self._at is None:
            return None
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"Not done in {self.seconds} seconds")
        return left


class UnconnectedSocket:
    """What a client has for a socket before it connects. It keeps options and the timeout for the real one."""

    def __init__(self) -> None:
        self._options: list[tuple[Any, ...]] = []
        self._timeout: float | None = None

    def setsockopt(self, *arguments: Any) -> None:
        """Keep an option for the real socket."""
        self._options.append(arguments)

    def settimeout(self, timeout: float | None) -> None:
        """Keep the seconds that connecting and the handshake may take each, in the place of the client's own
        timeouts."""
        self._timeout = timeout

    def gettimeout(self) -> float | None:
        """Return what :meth:`settimeout` was given."""
        return self._timeout

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the real socket is blocking while it is connected."""

    def fileno(self) -> int:
        """Return -1: there is no descriptor."""
        return -1

    def getsockname(self) -> Any:
        """Raise OSError: there is no address yet."""
        raise OSError("The websocket is not connected")

    getpeername = getsockname

    def shutdown(self, how: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def apply(self, sock: Any) -> None:
        """Set what was asked for on a real socket."""
        for arguments in self._options:
            sock.setsockopt(*arguments)


class Network:
    """How threads connect. A subclass may name other modules, of the same interface, for something else than
    threads."""

    socket: Any = socket

    def call(self, function: Callable[[], T], deadline: Deadline, discard: Callable[[T], object]) -> T:
        """Call a function that blocks and knows no deadline. At the deadline it is left to itself.

        :param discard: is given what the function returns when nobody waits for it any more.
        :raises TimeoutError: at the deadline.
        :raises OSError: if there is no thread for it.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - whoever waits has it
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            else:
                if future.set_running_or_notify_cancel():
                    future.set_result(result)
                else:
                    discard(result)

        try:
            self.run_until(run, deadline.remaining())
        finally:
            late = future.cancel()
        if late:
            raise TimeoutError(f"Not done in {deadline.seconds} seconds")
        return future.result()

    def run_until(self, function: Callable[[], None], seconds: float | None) -> None:
        """Let something else call a function, and wait until it returns, at most for so long.

        There may be :data:`MAX_CALLS` such functions at once: one more does not begin.
        """
        if seconds is None:
            function()
            return
        until, turns = time.monotonic() + seconds, _turns
        if not turns.acquire(timeout=seconds):
            return

        def run() -> None:
            try:
                function()
            finally:
                turns.release()

        thread = threading.Thread(target=run, name="WebSocketClientCall", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            turns.release()
            raise OSError(errno.EAGAIN, str(error)) from error
        thread.join(max(0.0, until - time.monotonic()))

    def look_up(self, host: str, port: int, deadline: Deadline) -> list[Any]:
        """Return the addresses of a host, as getaddrinfo does.

        :raises OSError: if there are none: TimeoutError if that is not known in time.
        """

        def ask() -> list[Any]:
            addresses: list[Any] = self.socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
            return addresses

        try:
            ipaddress.ip_address(host)
        except ValueError:
            return self.call(ask, deadline, lambda _: None)
        return ask()

    def adopt(self, sock: socket.socket) -> Any:
        """Return the socket that such a library has made as one of this network."""
        return sock

    def connect_tcp(self, host: str, port: int, deadline: Deadline, prepare: Callable[[Any], None]) -> Any:
        """Return a socket that is connected to the first of a host's addresses that answers.

        Each address has its share of the time that is left.

        :param prepare: is called with each socket before it connects.
        :raises OSError: if none answers: TimeoutError if that was because of the deadline.
        """
        module = self.socket
        try:
            addresses = self.look_up(host, port, deadline)
        except TimeoutError as error:
            raise TimeoutError(f"No address of {host} in {deadline.seconds} seconds") from error
        failure: OSError | None = None
        for index, (family, kind, proto, _, address) in enumerate(addresses):
            try:
                remaining = deadline.remaining()
                sock = module.socket(family, kind, proto)
            except OSError as error:
                failure = failure or error
                continue
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                prepare(sock)
                sock.settimeout(None if remaining is None else remaining / (len(addresses) - index))
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        if isinstance(failure, TimeoutError):
            raise TimeoutError(f"No connection to {host} port {port} in {deadline.seconds} seconds") from failure
        raise failure or OSError(f"{host} has no address")

    def connect_unix(self, path: str, deadline: Deadline, prepare: Callable[[Any], None]) -> Any:
        """Return a socket that is connected to a unix socket; see :meth:`connect_tcp`."""
        sock = self.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            prepare(sock)
            sock.settimeout(deadline.remaining())
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return sock

    def start_tls(self, sock: Any, context: ssl.SSLContext, hostname: str, deadline: Deadline) -> Any:
        """Return ``sock`` with TLS on it, its handshake done. On an error it is closed.

        :raises OSError: if the handshake fails: ssl.SSLCertVerificationError, TimeoutError.
        """
        try:
            sock.settimeout(deadline.remaining())
            return self.wrap(sock, context, hostname)
        except TimeoutError as error:
            sock.close()
            raise TimeoutError(f"No TLS with {hostname} in {deadline.seconds} seconds") from error
        except BaseException:
            sock.close()
            raise

    def wrap(self, sock: Any, context: ssl.SSLContext, hostname: str) -> Any:
        """Do the handshake of TLS."""
        return context.wrap_socket(sock, server_hostname=hostname)


_turns = threading.BoundedSemaphore(MAX_CALLS)


def _after_fork_in_child() -> None:
    """The threads that had a turn are not in the child."""
    global _turns  # noqa: PLW0603
    _turns = threading.BoundedSemaphore(MAX_CALLS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def read_head(sock: Any, deadline: Deadline, who: str = "server") -> tuple[bytes, Response, bytes]:
    """Read the head of an HTTP response.

    :param who: answers.
    :returns: the head as it came, its meaning, and the bytes that came after it.
    :raises HandshakeError: if it is none, or too long, or does not come whole or in time.
    """
    parser = ResponseParser()
    came = "before"
    while True:
        try:
            sock.settimeout(deadline.remaining())
            data = sock.recv(16384)
        except TimeoutError:
            raise HandshakeError(f"The {who} did not answer in {deadline.seconds} seconds") from None
        except OSError as error:
            raise HandshakeError(f"The {who} broke the connection: {error}") from error
        if not data:
            raise HandshakeError(f"The {who} closed the connection {came} its answer")
        response = parser.receive(data)
        if response is not None:
            return parser.head, response, parser.rest
        came = "within"
