"""The two batch operations in which a pure engine does all its input and output: to read all that is ready, and to
write all that is dirty.

Beside a thread that computes the system calls keep the interpreter's lock: see :mod:`ws4py.engine.system`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from ws4py.engine.connection import Connection
from ws4py.engine.pollers import EPollPoller, Poller
from ws4py.engine.system import Contention, KeptLock, kept_lock
from ws4py.engine.transport import TLS_CHUNK

__all__ = ["BatchIO", "Received", "Sent"]

RECEIVE_SIZE: Final = 7 * TLS_CHUNK
"""The most bytes taken from one connection in a batch, so that none keeps the others waiting.

Whole records of TLS, or each read would leave half of one behind; and less than 128 KiB, from where on glibc's malloc
asks the system for pages of their own, which takes ten times as long as a small read.
"""

Received = bytes | None | BaseException
"""What came of a read: bytes, b"" at the end, None if there was nothing, or what was raised: an OSError is the end of
the connection, anything else a fault.
"""

Sent = int | BaseException
"""What came of a write: how many bytes were taken, or what was raised: an OSError is the end of the connection,
anything else a fault.
"""


STRIDE: Final = 4
"""After so many calls that give the interpreter's lock away it is looked whether that takes its time; then after twice
as many, and so on.
"""


class BatchIO:
    """Does the reads and writes of one engine, and asks what is ready. Used by one thread at a time."""

    def __init__(self) -> None:
        self._kept_lock = kept_lock(RECEIVE_SIZE)
        self._contention = Contention()

    def poll(self, poller: Poller, timeout: float | None) -> list[tuple[int, int]]:
        """Return what is ready, after at most ``timeout`` seconds; None is for ever.

        :raises Exception: what the poller raises.
        """
        if self._kept_lock is not None and self._contention.present and isinstance(poller, EPollPoller):
            ready = poller.look(self._kept_lock)
            if ready or timeout == 0.0:
                return ready
        return poller.poll(timeout)

    def receive(self, connections: Sequence[Connection], began: float) -> list[Received]:
        """Read once from each, and return what came, in the same order. Never blocks, never raises.

        :param began: the time now, of the monotonic clock.
        """
        results: list[Received] = []
        kept, contention = self._kept_lock, self._contention
        if kept is None:
            self._read(connections, results)
            return results
        if not contention.is_present(began):
            if len(connections) <= STRIDE:  # as the loop does, in fewer steps
                self._read(connections, results)
                contention.note(began)
                return results
            stride = STRIDE
            while len(results) < len(connections) and not contention.present:
                self._read(connections[len(results) : len(results) + stride], results)
                began = contention.note(began)
                stride *= 2
        self._read(connections[len(results) :], results, kept)
        return results

    def _read(self, connections: Sequence[Connection], results: list[Received], kept: KeptLock | None = None) -> None:
        for connection in connections:
            try:
                if kept is None or not connection.transport.by_number:
                    results.append(connection.transport.receive(RECEIVE_SIZE))
                else:
                    results.append(kept.receive(connection.fd))
            except (BlockingIOError, InterruptedError):
                results.append(None)
            except OSError as error:
                results.append(error.with_traceback(None))  # which would refer to the results
            except BaseException as error:  # noqa: BLE001 - one connection's, and the others are to be read too
                results.append(error)

    def send(self, jobs: Sequence[tuple[Connection, bytes | memoryview]]) -> list[Sent]:
        """Write once to each, and return how it went, in the same order. Never blocks, never raises."""
        results: list[Sent] = []
        kept, contention = self._kept_lock, self._contention
        if kept is None or (not contention.present and len(jobs) <= STRIDE):  # a few are the next read's affair
            self._write(jobs, results)
            return results
        if not contention.present:
            began, stride = time.monotonic(), STRIDE
            while len(results) < len(jobs) and not contention.present:
                self._write(jobs[len(results) : len(results) + stride], results)
                began = contention.note(began)
                stride *= 2
        self._write(jobs[len(results) :], results, kept)
        return results

    def _write(
        self, jobs: Sequence[tuple[Connection, bytes | memoryview]], results: list[Sent], kept: KeptLock | None = None
    ) -> None:
        for connection, data in jobs:
            try:
                if kept is None or not connection.transport.by_number:
                    results.append(connection.transport.send(data))
                else:
                    results.append(connection.transport.send(data, partial(kept.send, connection.fd)))
            except OSError as error:
                results.append(error.with_traceback(None))
            except BaseException as error:  # noqa: BLE001 - one connection's, and the others are to be written too
                results.append(error)
