"""The two batch operations in which a manager does all its input and output.

A poll cycle receives from all that is ready in one call, and sends to all that is dirty in another. What comes between
the system calls of a batch is only here, so that an engine that releases the interpreter's lock once a batch can
replace this module's class and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ws4py.manager.transport import TLS_CHUNK, Transport

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
"""What came of a write: how many bytes were taken, or what was raised, likewise."""


class BatchIO:
    """Does the reads and writes of one manager. Used by its thread only."""

    def receive(self, transports: Sequence[Transport]) -> list[Received]:
        """Read once from each, and return what came, in the same order. Never blocks, never raises."""
        results: list[Received] = []
        for transport in transports:
            try:
                results.append(transport.receive(RECEIVE_SIZE))
            except (BlockingIOError, InterruptedError):
                results.append(None)
            except OSError as error:
                results.append(error.with_traceback(None))  # which would refer to the results
            except BaseException as error:  # noqa: BLE001 - one connection's, and the others are to be read too
                results.append(error)
        return results

    def send(self, jobs: Sequence[tuple[Transport, bytes | memoryview]]) -> list[Sent]:
        """Write once to each, and return how it went, in the same order. Never blocks, never raises."""
        results: list[Sent] = []
        for transport, data in jobs:
            try:
                results.append(transport.send(data))
            except OSError as error:
                results.append(error.with_traceback(None))
            except BaseException as error:  # noqa: BLE001 - as above
                results.append(error)
        return results
