"""Frames: bytes to frames and back (RFC 6455, section 5).

:class:`FrameParser` reads, :func:`build_frame` writes, :class:`Frame` is the one-frame object of 0.6. The first two,
:func:`apply_mask` and :func:`take_messages` run compiled where that could be built: :mod:`ws4py.native`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ws4py.exc import FrameTooLargeException, ProtocolException  # noqa: F401 - 0.6 had these names here
from ws4py.native import FRAMING, load
from ws4py.pureframing import (
    FIN,
    MAX_CONTROL_PAYLOAD,
    NO_LIMIT,
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    OPCODES,
    RSV1,
    Opcode,
)

__all__ = [
    "FIN",
    "MAX_CONTROL_PAYLOAD",
    "NO_LIMIT",
    "OPCODE_BINARY",
    "OPCODE_CLOSE",
    "OPCODE_CONTINUATION",
    "OPCODE_PING",
    "OPCODE_PONG",
    "OPCODE_TEXT",
    "RSV1",
    "Frame",
    "FrameParser",
    "Opcode",
    "Utf8Validator",
    "apply_mask",
    "build_frame",
    "fragments",
    "take_messages",
]


_compiled = load(FRAMING)
if TYPE_CHECKING or _compiled is None:
    from ws4py.pureframing import FrameParser, apply_mask, build_frame, take_messages
    from ws4py.utf8validator import Utf8Validator
else:
    FrameParser = _compiled.FrameParser
    Utf8Validator = _compiled.Utf8Validator
    apply_mask = _compiled.apply_mask
    build_frame = _compiled.build_frame
    take_messages = _compiled.take_messages


def payload_size(frame: bytes) -> int:
    """Return how many bytes of payload a whole frame has."""
    size = frame[1] & 0x7F
    if size < 126:
        return size
    return len(frame) - (4 if size == 126 else 10) - (4 if frame[1] & 0x80 else 0)


def frame_end(frames: bytes, position: int) -> int:
    """Return where the frame ends that ``position`` is in; ``position`` itself if that is between two.

    :param frames: whole ones.
    """
    end = 0
    while end < position:
        size = frames[end + 1] & 0x7F
        start = end + (2 if size < 126 else 4 if size == 126 else 10)
        if size >= 126:
            size = int.from_bytes(frames[end + 2 : start], "big")
        end = start + (4 if frames[end + 1] & 0x80 else 0) + size
    return end


def fragments(opcode: int, parts: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Return the frames of a message that is made in parts (section 5.4): each frame's first byte, and its payload.

    The last one has FIN, so a part is told when it is known whether another follows it. No part at all is an empty
    message.

    :param opcode: of the message.
    :raises Exception: whatever ``parts`` raises.
    """
    first, last = opcode, None
    for part in parts:
        if last is not None:
            yield first, last
            first = OPCODE_CONTINUATION
        last = part
    yield FIN | first, last or b""


# --- names of 0.6 -----------------------------------------------------------------------------------------------------


class Frame:
    """One frame with its fields, as in 0.6.

    :param opcode: one of the ``OPCODE_`` numbers.
    :param body: the payload.
    :param masking_key: 4 bytes to mask the payload with, or None.
    :param fin: 1 if the frame ends its message, else 0; likewise the reserved bits.
    """

    def __init__(
        self,
        opcode: int | None = None,
        body: bytes | bytearray = b"",
        masking_key: bytes | None = None,
        fin: int = 0,
        rsv1: int = 0,
        rsv2: int = 0,
        rsv3: int = 0,
    ) -> None:
        if not isinstance(body, (bytes, bytearray)):
            raise TypeError("The body must be bytes or a bytearray")
        self.opcode = opcode
        self.body = bytes(body)
        self.masking_key = masking_key
        self.fin = fin
        self.rsv1 = rsv1
        self.rsv2 = rsv2
        self.rsv3 = rsv3
        self.payload_length = len(body)

    def build(self) -> bytes:
        """Return the bytes of the frame.

        :raises ValueError: if FIN or the opcode is out of range.
        :raises FrameTooLargeException: if the body is too long.
        """
        if self.fin not in (0, 1):
            raise ValueError("FIN bit parameter must be 0 or 1")
        if self.opcode not in OPCODES:
            raise ValueError("Opcode cannot be a reserved opcode")
        first = self.fin << 7 | self.rsv1 << 6 | self.rsv2 << 5 | self.rsv3 << 4 | self.opcode
        return build_frame(first, self.body, self.masking_key or None)

    def mask(self, data: bytes | bytearray) -> bytes:
        """Mask ``data`` with the frame's key; without one it comes back as it is."""
        return apply_mask(bytes(data), self.masking_key) if self.masking_key else bytes(data)

    unmask = mask
