"""Waking a thread that waits for sockets: a pipe whose reading end is among them."""

from __future__ import annotations

import os
import threading

__all__ = ["Wakeup"]


class Wakeup:
    """A pipe. :meth:`wake` may be called by any thread, in a signal handler too."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        # Over the descriptors, so that none is written to that is another's by now; a signal handler may come between.
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable; -1 after :meth:`release`."""
        return self._reader

    def after_fork_in_child(self) -> None:
        """Give the descriptors back, without the lock: its owner may be a thread of the parent's."""
        self._lock = threading.RLock()
        self.release()

    def wake(self) -> None:
        """Make it readable."""
        with self._lock:
            try:
                if self._writer >= 0:
                    os.write(self._writer, b"\0")
            except BlockingIOError:
                pass  # the pipe is full, and so wakes the sleeper

    def drain(self) -> None:
        """Make it unreadable."""
        try:
            while len(os.read(self._reader, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def release(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            reader, writer = self._reader, self._writer
            self._reader = self._writer = -1
        os.close(reader)
        os.close(writer)
