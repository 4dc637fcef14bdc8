"""The two batch operations in which a pure engine does all its input and output: to read all that is ready, and to
write all that is dirty.

Beside a thread that computes the system calls keep the interpreter's lock: see :mod:`ws4py.engine.system`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from ws4py.engine.connection import Connection
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


class BatchIO:
    """Does the reads and writes of one engine. Used by one thread at a time."""

    def __init__(self) -> None:
        self._kept_lock = kept_lock(RECEIVE_SIZE)
        self._contention = Contention()

    def receive(self, connections: Sequence[Connection], began: float) -> list[Received]:
        """Read once from each, and return what came, in the same order. Never blocks, never raises.

        :param began: the time now, of the monotonic clock.
        """
        results: list[Received] = []
        kept, contention = self._kept_lock, self._contention
        if kept is not None and not contention.is_present(began):
            # The first call shows how it is.
            self._read(connections[:1], results)
            connections = connections[1:]
            if not contention.note(began):
                kept = None
        if kept is None:
            self._read(connections, results)
        else:
            self._read_with(kept, connections, results)
        return results

    def _read(self, connections: Sequence[Connection], results: list[Received]) -> None:
        for connection in connections:
            try:
                results.append(connection.transport.receive(RECEIVE_SIZE))
            except (BlockingIOError, InterruptedError):
                results.append(None)
            except OSError as error:
                results.append(error.with_traceback(None))  # which would refer to the results
            except BaseException as error:  # noqa: BLE001 - one connection's, and the others are to be read too
                results.append(error)

    def _read_with(self, kept: KeptLock, connections: Sequence[Connection], results: list[Received]) -> None:
        for connection in connections:
            if not connection.transport.by_number:
                self._read([connection], results)
                continue
            try:
                results.append(kept.receive(connection.fd))
            except (BlockingIOError, InterruptedError):
                results.append(None)
            except OSError as error:
                results.append(error.with_traceback(None))

    def send(self, jobs: Sequence[tuple[Connection, bytes | memoryview]]) -> list[Sent]:
        """Write once to each, and return how it went, in the same order. Never blocks, never raises."""
        results: list[Sent] = []
        kept = self._kept_lock if self._contention.present else None
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
        return results
