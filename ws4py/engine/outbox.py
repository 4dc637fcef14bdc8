"""The outbox of a connection: frames that wait to be written, in their order."""

from __future__ import annotations

from typing import Final

from ws4py.framing import frame_end

__all__ = ["Outbox", "Piece"]

Piece = bytes | memoryview

WRITE_SIZE: Final = 1 << 18
"""Frames are joined up to about so many bytes for one write."""

KEPT: Final = 64
"""So many places of frames that were taken are kept, before the others are moved up."""


class Outbox:
    """Frames that wait for one writer.

    Any thread appends, and one takes; the connection's lock is held over every method.

    :ivar frames: that wait, behind those before the head.
    :ivar size: how many bytes wait, without those that are just being written.
    """

    __slots__ = ("_given_up", "_head", "_output", "_writing", "_written", "frames", "size")

    def __init__(self) -> None:
        self.size = 0
        self.frames: list[bytes] = []  # a deque would take ten times the memory of an outbox with one frame
        self._head = 0  # the frames before it are taken
        self._output: bytes | None = None  # whole frames that were taken, and are not all written
        self._written = 0  # so many bytes of them are
        self._writing = False  # the writer is just handing the others to the socket
        self._given_up = False  # what waited was thrown away meanwhile

    def append(self, frame: bytes) -> None:
        """Put a frame at the end."""
        size = len(frame)  # first: a signal handler that sends may come in at any call
        self.frames.append(frame)
        self.size += size

    @property
    def waiting(self) -> bool:
        """Whether something waits to be taken."""
        return self._head < len(self.frames) or (self._output is not None and not self._writing)

    @property
    def empty(self) -> bool:
        """Whether nothing waits, and nothing is being written."""
        return self._output is None and self._head == len(self.frames)

    def take(self) -> Piece | None:
        """Return what is to be written next, as one piece; None if nothing is, or something is being written.

        :meth:`taken` or :meth:`left` must follow before anything can be taken again.
        """
        if self._writing:
            return None
        output = self._output
        if output is not None:
            rest = memoryview(output)[self._written :]
            self._writing = True
            self.size -= len(rest)
            return rest
        frames, head = self.frames, self._head
        if head == len(frames):
            return None
        if not head and len(frames) == 1:  # the usual case
            output = frames.pop()
            self._output = output
            self._written = 0
            self._writing = True
            self.size -= len(output)
            return output
        if self.size <= WRITE_SIZE:
            stop = len(frames)
        else:
            size, stop = len(frames[head]), head + 1
            while size < WRITE_SIZE and stop < len(frames):
                size += len(frames[stop])
                stop += 1
        output = frames[head] if stop == head + 1 else b"".join(frames[head:stop])
        if stop == len(frames) or (stop > KEPT and 2 * stop > len(frames)):
            del frames[:stop]  # not clear(): a signal handler may have appended meanwhile
            stop = 0
        else:
            frames[head:stop] = [b""] * (stop - head)
        self._head = stop
        self._output = output
        self._written = 0
        self._writing = True
        self.size -= len(output)
        return output

    def taken(self) -> bool:
        """All that was taken is written. Tell whether more waits."""
        self._output = None
        self._writing = self._given_up = False
        return self._head < len(self.frames)

    def left(self, count: int) -> None:
        """Only ``count`` bytes of what was taken are written: the others wait again."""
        output = self._output
        if output is None:
            return  # it was cleared meanwhile
        self._written += count
        self._writing = False
        if self._given_up:
            self._given_up = False
            output = self._cut(output)
        if output is not None:
            self.size += len(output) - self._written

    def _cut(self, output: bytes) -> bytes | None:
        """Keep of what was taken only the end of a frame whose beginning is written; return what is left then."""
        end = frame_end(output, self._written)
        self._output = output[:end] if end > self._written else None
        return self._output

    def give_up(self, last: bytes) -> None:
        """Throw away what waits, but for the end of a frame whose beginning is written, and put a last frame in its
        place.
        """
        self.frames = [last]
        self._head = 0
        self.size = len(last)
        if self._writing:
            self._given_up = True
        elif self._output is not None:
            output = self._cut(self._output)
            self.size += 0 if output is None else len(output) - self._written

    def clear(self) -> None:
        """Throw everything away, what is being written too: its fate does not matter any more."""
        self.frames.clear()
        self._output = None
        self._head = self._written = self.size = 0
        self._writing = self._given_up = False
