"""Frames parsed, built and masked in pure Python (RFC 6455, section 5).

This is the specification, and what runs where nothing is compiled; :mod:`ws4py.native.framing` does the same.
Programs take the names from :mod:`ws4py.framing`, which has those that run. What is a rule about a frame's header, or
about the order of headers, is enforced here; what the payload of a fragment or of a control frame means is the business
of :mod:`ws4py.streaming`.
"""

from __future__ import annotations

import enum
import struct
import sys
from typing import Final, Protocol, TypeVar

from ws4py.exc import (
    FrameTooLargeException,
    MessageTooBigException,
    ProtocolException,
    TextFrameEncodingException,
    TooManyFragmentsException,
    UnsupportedFrameTypeException,
    WebSocketException,
)

__all__ = ["FrameParser", "Opcode", "apply_mask", "build_frame", "take_messages"]


class _Message(Protocol):
    """What a payload is put into."""

    data: bytes


_M = TypeVar("_M", bound=_Message)


class Opcode(enum.IntEnum):
    """What a frame carries (RFC 6455, section 11.8)."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


# Plain integers, as in 0.6: an enumeration's members cost a look-up in the hot paths.
OPCODE_CONTINUATION: Final = 0x0
OPCODE_TEXT: Final = 0x1
OPCODE_BINARY: Final = 0x2
OPCODE_CLOSE: Final = 0x8
OPCODE_PING: Final = 0x9
OPCODE_PONG: Final = 0xA

FIN: Final = 0x80
RSV1: Final = 0x40
MAX_CONTROL_PAYLOAD: Final = 125
MAX_PAYLOAD: Final = (1 << 63) - 1

OPCODES: Final = frozenset(int(opcode) for opcode in Opcode)
_PLAIN_FIRST_BYTES: Final = frozenset({0x00, 0x80, 0x01, 0x81, 0x02, 0x82, 0x88, 0x89, 0x8A})
_RSV1_FIRST_BYTES: Final = _PLAIN_FIRST_BYTES | {0x41, 0xC1, 0x42, 0xC2}
_WHOLE_MESSAGES: Final = frozenset({0x81, 0x82})  # by far the most frequent first bytes
NO_LIMIT: Final = sys.maxsize
_pack_medium = struct.Struct("!BBH").pack
_pack_long = struct.Struct("!BBQ").pack
_to_int = int.from_bytes


def apply_mask(data: bytes, key: bytes) -> bytes:
    """Mask or unmask ``data`` with a 4-byte ``key`` (RFC 6455, section 5.3): the two are the same operation.

    :raises ValueError: for a key of another length.
    """
    if len(key) != 4:
        raise ValueError("A masking key has 4 bytes")
    return _mask_short(data, key) if len(data) < _LONG_PAYLOAD else _mask_long(data, key)


def _mask_short(data: bytes, key: bytes) -> bytes:
    """One exclusive or of integers as long as the payload."""
    size = len(data)
    stream = (key * ((size + 3) >> 2))[:size]
    return (_to_int(data, "little") ^ _to_int(stream, "little")).to_bytes(size, "little")


def _mask_long(data: bytes, key: bytes) -> bytes:
    """Four translations, each of every fourth byte: half the time of the other way once the payload is long."""
    masked = bytearray(len(data))
    for lane in range(4):
        masked[lane::4] = data[lane::4].translate(_TRANSLATIONS[key[lane]])
    return bytes(masked)


_LONG_PAYLOAD: Final = 2048
_SHORT_SIZES: Final = 126  # payloads of fewer bytes have a header of two
_TRANSLATIONS: Final = tuple(_mask_short(bytes(range(256)), bytes((byte,)) * 4) for byte in range(256))


# Most frames that a server writes begin with one of these.
_SHORT_HEADERS: Final = {
    first: tuple(bytes((first, size)) for size in range(_SHORT_SIZES)) for first in _WHOLE_MESSAGES
}


def build_frame(first: int, payload: bytes, key: bytes | None = None) -> bytes:
    """Return the bytes of one frame.

    :param first: the frame's first byte: FIN, the reserved bits, the opcode.
    :param payload: at most 2**63 - 1 bytes.
    :param key: the 4 bytes to mask with, on the client's side.
    :raises FrameTooLargeException: if the payload is longer than that.
    :raises ValueError: for a key of another length, or a first byte that is none.
    """
    size = len(payload)
    if key is None:
        mask_bit = 0
        if size < _SHORT_SIZES and first in _SHORT_HEADERS:
            return _SHORT_HEADERS[first][size] + payload
    else:
        mask_bit = 0x80
    if size < _SHORT_SIZES:
        header = bytes((first, mask_bit | size))
    elif size < 65536:
        header = _pack_medium(first, mask_bit | 126, size)
    elif size <= MAX_PAYLOAD:
        header = _pack_long(first, mask_bit | 127, size)
    else:
        raise FrameTooLargeException(f"A frame of {size} bytes can't be written")
    if key is None:
        return header + payload
    return header + key + apply_mask(payload, key)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def take_messages(frames: list[tuple[int, bytes]], found: list[_M], text: type[_M], binary: type[_M]) -> int:
    """Make messages of frames up to the first one that is no whole message, or that an extension has touched.

    :param found: what they are appended to.
    :param text: the class of text messages.
    :param binary: likewise.
    :returns: of how many frames.
    :raises TextFrameEncodingException: for a text that is not UTF-8; ``found`` then has what came before.
    """
    new = object.__new__
    before = len(found)
    for first, payload in frames:
        if first == FIN | OPCODE_TEXT:
            if not payload.isascii() and not _is_utf8(payload):
                raise TextFrameEncodingException("A text message must be UTF-8")
            message = new(text)
        elif first == FIN | OPCODE_BINARY:
            message = new(binary)
        else:
            break
        message.data = payload  # it needs none of a constructor's conversions
        found.append(message)
    return len(found) - before


class _Frames(Protocol):
    """What frames are appended to."""

    def append(self, frame: tuple[int, bytes], /) -> None: ...


class FrameParser:
    """An incremental parser of one direction of a connection. Any split of the bytes gives the same frames.

    It enforces what can be said from the headers: known opcodes and reserved bits, whole and short control frames, the
    shortest form of a length, masking as the role demands, continuations where they belong, and the limits of a
    message. A data frame of which only a part has come is handed on as fragments, so no payload is buffered here but
    that of frames which :meth:`feed` was to leave. Not thread-safe.

    :param expect_masking: True on a server (every frame must be masked), False on a client (none may be).
    :param max_message_size: payload bytes in a message, None for no limit.
    :param max_fragments: frames in a message, None for no limit.
    """

    __slots__ = (
        "_expected_mask_bit",
        "_extra",
        "_fin",
        "_first_bytes",
        "_fragments",
        "_head",
        "_key",
        "_remaining",
        "_size",
        "count",
        "max_fragments",
        "max_message_size",
        "more",
    )

    def __init__(
        self,
        expect_masking: bool = True,
        max_message_size: int | None = None,
        max_fragments: int | None = None,
    ) -> None:
        self._expected_mask_bit = 0x80 if expect_masking else 0
        self.max_message_size = max_message_size
        self.max_fragments = max_fragments
        self.count = 0
        """How many frames have begun that :meth:`feed` has found."""
        self.more = False
        """Whether :meth:`feed` has left frames for the next time."""
        self._first_bytes = _PLAIN_FIRST_BYTES
        self._extra = 0  # what the current message may have on the wire beyond the limit
        self._head = b""  # what has come of a header, or of a control frame; what feed() has left
        self._remaining = 0  # payload bytes of the current data frame still to come
        self._key: bytes | None = None  # its masking key, turned to where the payload goes on
        self._fin = 0  # its FIN bit
        self._fragments = 0  # frames of the current message; 0 between messages
        self._size = 0  # payload bytes that those announced

    @property
    def expect_masking(self) -> bool:
        """Whether frames must be masked; else they may not be."""
        return self._expected_mask_bit != 0

    @expect_masking.setter
    def expect_masking(self, expected: bool) -> None:
        self._expected_mask_bit = 0x80 if expected else 0

    def allow_rsv1(self) -> None:
        """Let the first frame of a data message have RSV1 set: an extension gives it a meaning.

        Such a message may be somewhat larger on the wire than ``max_message_size``, since what can't be compressed gets
        longer by it: by a quarter and 1 KiB, which leaves room for any compressor's ways. To limit what it decodes to
        is the extension's business.
        """
        self._first_bytes = _RSV1_FIRST_BYTES

    def take_message(self, data: bytes, text: type[_M], binary: type[_M]) -> _M | None:
        """Return the message if ``data`` is one whole message of less than 64 KiB that no extension has touched, and no
        more: nearly all that is read of an interactive peer. Else return None, for :meth:`feed` to parse it.

        No rule is left out: what breaks one is not such a message.

        :param text: the class of a text message.
        :param binary: likewise.
        """
        start = 6 if self._expected_mask_bit else 2
        size = announced = len(data) - start
        if size >= _SHORT_SIZES:
            start += 2
            size -= 2
            announced = 126
            if not _SHORT_SIZES <= size < 65536 or _to_int(data[2:4], "big") != size:
                return None
        if (
            size < 0
            or data[1] != announced | self._expected_mask_bit
            or data[0] not in _WHOLE_MESSAGES
            or self._head
            or self._remaining
            or self._fragments
            or (self.max_message_size is not None and size > self.max_message_size)
        ):
            return None
        payload = data[start:]
        if self._expected_mask_bit:
            key = data[start - 4 : start]
            if size < _SHORT_SIZES:  # as _mask_short() does, without its call
                mask = _to_int((key * 32)[:size], "little")
                payload = (_to_int(payload, "little") ^ mask).to_bytes(size, "little")
            else:
                payload = apply_mask(payload, key)
        if data[0] == FIN | OPCODE_TEXT:
            if not payload.isascii() and not _is_utf8(payload):
                return None
            message = object.__new__(text)
        else:
            message = object.__new__(binary)
        message.data = payload  # it needs none of a constructor's conversions
        return message

    @property
    def inside_message(self) -> bool:
        """Whether a data message, or any frame, has begun and not ended."""
        return bool(self._remaining or self._fragments or self._head)

    @property
    def kept(self) -> int:
        """How many bytes are kept: of a header or a control frame that is not whole, and what :meth:`feed` has left."""
        return len(self._head)

    def feed(self, data: bytes, frames: _Frames, limit: int = NO_LIMIT) -> None:
        """Parse ``data``, and append a ``(first byte, unmasked payload)`` to ``frames`` for each frame in it.

        :param limit: how many frames to begin at most. What is left then is kept, and gone on with the next time,
            also with no ``data``.
        :raises WebSocketException: at the first header that breaks a rule; ``frames`` then has what came before.
        """
        if self._head:
            data = self._head + data
            self._head = b""
        end = len(data)
        position = self._continue_payload(data, frames) if self._remaining else 0
        expected_mask_bit = self._expected_mask_bit
        first_bytes = self._first_bytes
        max_size = MAX_PAYLOAD if self.max_message_size is None else self.max_message_size
        short = range(expected_mask_bit, expected_mask_bit + min(_SHORT_SIZES, max_size + 1))
        before_payload = 6 if expected_mask_bit else 2
        self.more = False
        for begun in range(limit):
            if end - position < 2:
                break
            first = data[position]
            second = data[position + 1]
            if second in short and first in _WHOLE_MESSAGES and not self._fragments:
                # Nearly all frames are such: as what follows does, which has nothing to add and takes half as long
                # again.
                start = position + before_payload
                size = second - expected_mask_bit
                stop = start + size
                if stop <= end:
                    payload = data[start:stop]
                    if expected_mask_bit:  # as _mask_short() does, without its call
                        stream = (data[start - 4 : start] * 32)[:size]
                        payload = (_to_int(payload, "little") ^ _to_int(stream, "little")).to_bytes(size, "little")
                    frames.append((first, payload))
                    position = stop
                    continue
            size = second & 0x7F
            start = position + 2
            if first not in first_bytes:
                raise _reserved(first)
            if second & 0x80 != expected_mask_bit:
                raise ProtocolException("A frame must be masked" if expected_mask_bit else "A frame may not be masked")
            if size > 125:
                if first & 0x08:
                    raise ProtocolException("A control frame may carry 125 bytes at most")
                start += 2 if size == 126 else 8
                if start > end:
                    break
                size = _extended_size(data, position + 2, start)
            if expected_mask_bit:
                start += 4
                if start > end:
                    break
                key: bytes | None = data[start - 4 : start]
            else:
                key = None
            stop = start + size
            if first & 0x08:
                if stop > end:
                    break
            else:
                if first not in _WHOLE_MESSAGES or self._fragments or size > max_size:
                    self._enter(first, size)
                if stop > end:
                    self._begin_payload(first, key, data[start:], size, frames)
                    self.count += begun + 1
                    return
            payload = data[start:stop]
            if key and size:
                payload = _mask_short(payload, key) if size < _LONG_PAYLOAD else _mask_long(payload, key)
            frames.append((first, payload))
            position = stop
        else:
            begun = limit
            self.more = end - position >= 2
        self.count += begun
        if position < end:
            self._head = data[position:]

    def _enter(self, first: int, size: int) -> None:
        """Apply the rules about a data frame's place in its message, and the limits of the message."""
        limit = self.max_message_size
        if first & 0x0F:
            if self._fragments:
                raise ProtocolException("A new message began before the last one had ended")
            fragments = 1
            self._extra = (limit >> 2) + 1024 if first & RSV1 and limit is not None else 0
        else:
            if not self._fragments:
                raise ProtocolException("There is no message to continue")
            fragments = self._fragments + 1
            size += self._size
        if limit is not None and size > limit + self._extra:
            raise MessageTooBigException(f"A message of over {limit} bytes")
        if first & FIN:
            self._fragments = self._size = 0
        else:
            if self.max_fragments is not None and fragments >= self.max_fragments:
                raise TooManyFragmentsException(f"A message of over {self.max_fragments} fragments")
            self._fragments = fragments
            self._size = size

    def _begin_payload(self, first: int, key: bytes | None, payload: bytes, size: int, frames: _Frames) -> None:
        """Hand on what has come of a data frame as a first fragment."""
        self._fin = first & FIN
        self._remaining = size - len(payload)
        if key:
            payload, key = apply_mask(payload, key), _turn(key, len(payload))
        self._key = key
        frames.append((first & ~FIN, payload))

    def _continue_payload(self, data: bytes, frames: _Frames) -> int:
        """Hand on what has come of the current frame's payload as a continuation; return where it ends in ``data``."""
        payload = data[: self._remaining]
        taken = len(payload)
        if self._key and taken:
            payload, self._key = apply_mask(payload, self._key), _turn(self._key, taken)
        self._remaining -= taken
        if taken:
            frames.append((OPCODE_CONTINUATION if self._remaining else OPCODE_CONTINUATION | self._fin, payload))
        return taken


def _reserved(first: int) -> WebSocketException:
    """Say what is wrong with a frame's first byte."""
    opcode = first & 0x0F
    if opcode not in OPCODES:
        return UnsupportedFrameTypeException(f"Opcode {opcode:#x} is reserved")
    if first & 0x70:
        return UnsupportedFrameTypeException("A reserved bit is set, and no extension gives it a meaning")
    return ProtocolException("A control frame may not be fragmented")


def _extended_size(data: bytes, start: int, stop: int) -> int:
    """Read an extended payload length of 2 or 8 bytes, which must have been needed (section 5.2)."""
    size = int.from_bytes(data[start:stop], "big")
    if size > MAX_PAYLOAD:
        raise ProtocolException("The most significant bit of a payload length must be 0")
    if size < (126 if stop - start == 2 else 65536):
        raise ProtocolException("A payload length must have its shortest form")
    return size


def _turn(key: bytes, count: int) -> bytes:
    """Return the key for the payload that follows the first ``count`` bytes."""
    count &= 3
    return key[count:] + key[:count]
