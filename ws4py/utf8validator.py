"""Whether bytes that come in pieces are UTF-8 (RFC 6455, section 8.1)."""

from __future__ import annotations

import codecs

__all__ = ["Utf8Validator"]


class Utf8Validator:
    """Checks UTF-8 as it arrives, in pieces of any size.

    Its methods are those of 0.6, and a stream makes one by its name in :mod:`ws4py.streaming`, because accelerators
    replace it there.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._pending = b""  # the start of a character, accepted, but not yet decoded
        self._total = 0

    def validate(self, data: bytes | bytearray) -> tuple[bool, bool, int, int]:
        """Check the next piece of a text.

        :returns: whether all is valid so far, whether it ends where a character ends, the bytes accepted of this
            piece, and of all pieces.
        """
        held = len(self._pending)
        if not held and data.isascii():
            self._total += len(data)
            return True, True, len(data), self._total
        try:
            self._decode.decode(bytes(data))
        except UnicodeDecodeError as error:
            return self._refuse(error.start - held)
        self._pending = self._decode.getstate()[0]
        if self._pending[:1] == b"\xed" and self._pending[1:] >= b"\xa0":
            # A surrogate, which the decoder refuses only when it is whole.
            return self._refuse(len(data) - len(self._pending))
        self._total += len(data)
        return True, not self._pending, len(data), self._total

    def _refuse(self, accepted: int) -> tuple[bool, bool, int, int]:
        accepted = max(accepted, 0)  # less than none: the bad character began in an earlier piece
        self._total += accepted
        return False, False, accepted, self._total

    def reset(self) -> None:
        """Start with a new text."""
        self._decode.reset()
        self._pending = b""
        self._total = 0
