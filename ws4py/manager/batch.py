"""The two batch operations in which a manager does all its input and output.

A poll cycle receives from all that is ready in one call, and sends to all that is dirty in another. What comes between
the system calls of a batch is only here, so that an engine that releases the interpreter's lock once a batch can
replace this module's class and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ws4py.manager.transport import Transport

__all__ = ["BatchIO", "Received", "Sent"]

RECEIVE_SIZE: Final = 1 << 17
"""The most bytes taken from one connection in a batch, so that none keeps the others waiting."""

Received = bytes | None | OSError
"""What came of a read: bytes, b"" at the end, None if there was nothing, or the error that ended the connection."""

Sent = int | OSError
"""What came of a write: how many bytes were taken, or the error that ended the connection."""


class BatchIO:
    """Does the reads and writes of one manager. Used by its thread only."""

    def __init__(self) -> None:
        self._buffer = bytearray(RECEIVE_SIZE)
        self._view = memoryview(self._buffer)

    def receive(self, transports: Sequence[Transport]) -> list[Received]:
        """Read once from each, and return what came, in the same order. Never blocks, never raises."""
        buffer, view = self._buffer, self._view
        results: list[Received] = []
        for transport in transports:
            try:
                results.append(transport.receive_into(buffer, view))
            except OSError as error:
                results.append(error.with_traceback(None))  # which would refer to the results
        return results

    def send(self, jobs: Sequence[tuple[Transport, bytes | memoryview]]) -> list[Sent]:
        """Write once to each, and return how it went, in the same order. Never blocks, never raises."""
        results: list[Sent] = []
        for transport, data in jobs:
            try:
                results.append(transport.send(data))
            except OSError as error:
                results.append(error.with_traceback(None))
        return results
