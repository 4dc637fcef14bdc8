"""What a publication is on its way through Redis.

::

    version  opcode  sender   number   payload
    1 byte   1 byte  8 bytes  8 bytes

A sender numbers its publications upward, so that who gets one a second time knows. Where the version is another one,
nothing that follows is known: during an upgrade processes of several versions share a Redis.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from ws4py.framing import OPCODE_BINARY, OPCODE_TEXT

__all__ = ["SENDER_SIZE", "VERSION", "Envelope", "pack_head", "unpack"]

VERSION: Final = 1

SENDER_SIZE: Final = 8

_HEAD: Final = struct.Struct(f"!BB{SENDER_SIZE}sQ")
_KNOWN: Final = frozenset((VERSION, opcode) for opcode in (OPCODE_TEXT, OPCODE_BINARY))


class Envelope(NamedTuple):
    """A publication, but for its topic.

    :ivar sender: who has published it.
    :ivar number: which of its sender's it is.
    """

    opcode: int
    sender: bytes
    number: int
    payload: bytes


def pack_head(opcode: int, sender: bytes, number: int) -> bytes:
    """Return what stands before the payload."""
    return _HEAD.pack(VERSION, opcode, sender, number)


def unpack(data: bytes) -> Envelope | None:
    """Return what has come; None if it is of another version, or nothing of ours."""
    if len(data) < _HEAD.size:
        return None
    version, opcode, sender, number = _HEAD.unpack_from(data)
    if (version, opcode) not in _KNOWN:
        return None
    return Envelope(opcode, sender, number, data[_HEAD.size :])
