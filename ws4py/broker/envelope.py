"""What a publication is on its way through Redis.

::

    version  opcode  sender   number   position  payload
    1 byte   1 byte  8 bytes  8 bytes

A position is there if the highest bit of the opcode is set: the epoch, a space, the offset in decimal, a newline.

A sender numbers its publications upward, so that who gets one a second time knows; 0 is no number. Where the version is
another one, nothing that follows is known: during an upgrade processes of several versions share a Redis.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ws4py.framing import OPCODE_BINARY, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT
from ws4py.subscriptions import Position

__all__ = ["POSITIONED", "SENDER_SIZE", "VERSION", "Envelope", "pack_head", "unpack"]

VERSION: Final = 1

SENDER_SIZE: Final = 8

POSITIONED: Final = 0x80
"""The bit beside the opcode which says that a position follows."""

_HEAD: Final = struct.Struct(f"!BB{SENDER_SIZE}sQ")
_KNOWN: Final = frozenset({OPCODE_TEXT, OPCODE_BINARY, OPCODE_PING, OPCODE_PONG})


class Envelope(NamedTuple):
    """A publication, but for its topic.

    :ivar sender: who has published it.
    :ivar number: which of its sender's it is.
    :ivar position: in the history of its topic, if that has one.
    """

    opcode: int
    sender: bytes
    number: int
    payload: bytes
    position: Position | None = None


def pack_head(opcode: int, sender: bytes, number: int) -> bytes:
    """Return what stands before the position and the payload."""
    return _HEAD.pack(VERSION, opcode, sender, number)


def unpack(data: bytes) -> Envelope | None:
    """Return what has come; None if it is of another version, or nothing of ours."""
    if len(data) < _HEAD.size:
        return None
    version, flags, sender, number = _HEAD.unpack_from(data)
    opcode = flags & ~POSITIONED
    if version != VERSION or opcode not in _KNOWN:
        return None
    if not flags & POSITIONED:
        return Envelope(opcode, sender, number, data[_HEAD.size :])
    position, newline, payload = data[_HEAD.size :].partition(b"\n")
    epoch, _, offset = position.partition(b" ")
    if not newline or not offset.isdigit():
        return None
    return Envelope(opcode, sender, number, payload, Position(epoch.decode("ascii", "replace"), int(offset)))
