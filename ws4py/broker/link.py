"""A connection to Redis, as one thread uses it. How it is made, with TLS, passwords and sentinels, is redis-py's."""

from __future__ import annotations

import contextlib
import random
import select
import socket
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

__all__ = ["Backoff", "Broken", "Link", "ReadOnly", "Refused", "command", "wait"]

Refused = redis.ResponseError
"""What stands in the place of a reply, if Redis has refused a command."""

ReadOnly = redis.exceptions.ReadOnlyError
"""Likewise, since it is a replica."""

FAILURES: Final = (redis.RedisError, OSError)


class Broken(Exception):
    """The connection is lost, or can't be made."""


class Backoff:
    """How long to wait before each attempt, in seconds.

    :param initial: the first delay, which is doubled each time.
    :param maximum: the longest delay.
    """

    def __init__(self, initial: float = 0.05, maximum: float = 5.0) -> None:
        self._initial = initial
        self._maximum = maximum
        self._attempts = 0

    def reset(self) -> None:
        """Begin anew."""
        self._attempts = 0

    def next(self) -> float:
        """Return the next delay; half of it is left to chance, so that a crowd does not come back at once."""
        longest = min(self._maximum, self._initial * 2.0 ** min(self._attempts, 32))
        self._attempts += 1
        return longest * (1 + random.random()) / 2  # noqa: S311 - spreads, hides nothing


class Link:
    """A connection that can be made again and again. Used by one thread, but for :meth:`abort`.

    :param pool: of redis-py, which makes it.
    """

    def __init__(self, pool: Any) -> None:
        self._connection = pool.make_connection()
        self._connection.retry = Retry(NoBackoff(), 0)  # it is tried again here
        self.connected = False

    def connect(self) -> None:
        """Make the connection.

        :raises Broken: if it can't be made.
        """
        try:
            self._connection.connect()
        except FAILURES as error:
            self.disconnect()
            raise Broken(str(error)) from error
        self.connected = True

    def send(self, *parts: bytes) -> None:
        """Send commands.

        :param parts: as they are on the wire.
        :raises Broken: if the connection is.
        """
        try:
            self._connection.send_packed_command(parts, check_health=False)
        except FAILURES as error:
            raise Broken(str(error)) from error

    def receive(self) -> Any:
        """Return the next reply or message, or a :data:`Refused`.

        :raises Broken: if the connection is, or nothing comes in time.
        """
        try:
            return self._connection.read_response(disable_decoding=True, push_request=True)
        except Refused as error:
            return error
        except FAILURES as error:
            raise Broken(str(error)) from error

    def has_data(self) -> bool:
        """Tell whether something has come, without waiting.

        :raises Broken: if the connection is.
        """
        try:
            return bool(self._connection.can_read(0))
        except FAILURES as error:
            raise Broken(str(error)) from error

    def wait(self, other: Any, timeout: float | None) -> None:
        """Wait until something may have come, here or at another descriptor.

        :param timeout: for how many seconds at most; None for ever.
        :raises Broken: if the connection is.
        """
        sock = self._connection._sock
        if sock is None:
            raise Broken("The connection is closed")
        wait([sock.fileno(), other.fileno()], timeout)

    def abort(self) -> None:
        """Have the thread that uses it find it broken. Any thread may call."""
        with contextlib.suppress(OSError, AttributeError):
            # Not the method of a TLS socket, which would take the TLS object away from whoever is using it.
            socket.socket.shutdown(self._connection._sock, socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """End the connection, if there is one."""
        self.connected = False
        with contextlib.suppress(*FAILURES):
            self._connection.disconnect()


def command(*parts: bytes) -> bytes:
    """Return a command as it is on the wire: an array of bulk strings of RESP."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def wait(descriptors: list[int], timeout: float | None) -> None:
    """Wait until one of several descriptors can be read.

    :param timeout: for how many seconds at most; None for ever.
    """
    if hasattr(select, "poll"):
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        poller.poll(None if timeout is None else -int(-timeout * 1000 // 1))
    else:
        select.select(descriptors, [], [], timeout)
