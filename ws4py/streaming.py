"""Bytes in, messages out: the state machine of one websocket, in either role (RFC 6455, sections 5 to 8).

:class:`Stream` does no input and output. Whoever owns the connection feeds :meth:`Stream.receive` with what was read,
acts on the messages that it returns in their order, and then looks at :attr:`Stream.closing` (the peer's Close came)
and
:attr:`Stream.error` (the peer broke a rule: this Close is to be sent). After either, nothing more is read.
"""

from __future__ import annotations

import codecs
import os
from typing import Final

from ws4py.exc import (
    MessageTooBigException,
    ProtocolException,
    TextFrameEncodingException,
    UnsupportedFrameTypeException,
    WebSocketException,
)
from ws4py.framing import (
    FIN,
    OPCODE_BINARY,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    FrameParser,
    build_frame,
)
from ws4py.messaging import (
    BinaryMessage,
    CloseCode,
    CloseControlMessage,
    Message,
    PingControlMessage,
    PongControlMessage,
    TextMessage,
    is_wire_code,
)

__all__ = ["DEFAULT_MAX_FRAGMENTS", "DEFAULT_MAX_MESSAGE_SIZE", "Stream", "Utf8Validator"]

DEFAULT_MAX_MESSAGE_SIZE: Final = 1 << 20
DEFAULT_MAX_FRAGMENTS: Final = 4096

_CLOSE_CODES: Final[dict[type[WebSocketException], CloseCode]] = {
    ProtocolException: CloseCode.PROTOCOL_ERROR,
    UnsupportedFrameTypeException: CloseCode.PROTOCOL_ERROR,
    TextFrameEncodingException: CloseCode.INVALID_PAYLOAD,
    MessageTooBigException: CloseCode.MESSAGE_TOO_BIG,
}
"""With which code a connection fails, by the exception that was met while reading."""


class Utf8Validator:
    """Checks UTF-8 as it arrives, in pieces of any size.

    The name is assignable in this module, and its methods are those of 0.6, because accelerators replace it.
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


class Stream:
    """The protocol's state of one connection. Not thread-safe: one thread reads, and one at a time writes.

    :param always_mask: mask what is sent: True for a client.
    :param expect_masking: refuse frames that are not masked; False refuses those that are: a client.
    :param max_message_size: in bytes of payload; a longer message fails the connection with 1009 before it is
        buffered. None for no limit.
    :param max_fragments: frames of one message, likewise.
    """

    __slots__ = ("_buffer", "_opcode", "_parser", "_validator", "always_mask", "closing", "error")

    def __init__(
        self,
        always_mask: bool = False,
        expect_masking: bool = True,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
    ) -> None:
        self.always_mask = always_mask
        self.closing: CloseControlMessage | None = None
        """The Close that the peer sent; its code is 1005 if it had none."""
        self.error: CloseControlMessage | None = None
        """The Close to send because of what the peer did."""
        self._parser = FrameParser(expect_masking, max_message_size, max_fragments)
        self._opcode = 0  # of the message whose fragments are being collected
        self._buffer: bytearray | None = None  # those fragments
        self._validator: Utf8Validator | None = None

    @property
    def expect_masking(self) -> bool:
        """Whether received frames must be masked; else they may not be."""
        return self._parser.expect_masking

    @expect_masking.setter
    def expect_masking(self, expected: bool) -> None:
        self._parser.expect_masking = expected

    def limit(self, max_message_size: int | None, max_fragments: int | None) -> None:
        """Set the limits of a message. They are applied to each frame's header from now on."""
        self._parser.max_message_size = max_message_size
        self._parser.max_fragments = max_fragments

    def receive(self, data: bytes) -> list[Message]:
        """Take in bytes as they came from the peer; return the messages that they complete, in order.

        Control messages are returned like the others, a Close at last. Nothing is raised: see :attr:`error`. After a
        Close or an error the bytes are ignored.
        """
        messages: list[Message] = []
        if self.closing is not None or self.error is not None:
            return messages
        frames: list[tuple[int, bytes]] = []
        failure: WebSocketException | None = None
        new = object.__new__
        try:
            self._parser.feed(data, frames)
        except WebSocketException as error:
            failure = error
        try:
            for first, payload in frames:
                if first == FIN | OPCODE_TEXT:
                    if not payload.isascii():
                        _check_utf8(payload)
                    # What the parser found needs none of a constructor's conversions.
                    message: Message = new(TextMessage)
                    message.data = payload
                    messages.append(message)
                elif first == FIN | OPCODE_BINARY:
                    message = new(BinaryMessage)
                    message.data = payload
                    messages.append(message)
                elif first & 0x08:
                    messages.append(self._receive_control(first & 0x0F, payload))
                    if self.closing is not None:
                        return messages
                else:
                    self._receive_fragment(first, payload, messages)
        except WebSocketException as error:
            failure = error
        if failure is not None:
            self.error = CloseControlMessage(_CLOSE_CODES[type(failure)], str(failure))
            self._buffer = self._validator = None
        return messages

    def _receive_control(self, opcode: int, payload: bytes) -> Message:
        if opcode == OPCODE_PING:
            return PingControlMessage(payload)
        if opcode == OPCODE_PONG:
            return PongControlMessage(payload)
        self.closing = _parse_close(payload)
        self._buffer = self._validator = None
        return self.closing

    def _receive_fragment(self, first: int, payload: bytes, messages: list[Message]) -> None:
        """Collect a fragment; a text is checked as it comes, so that a bad one fails at once (section 8.1)."""
        opcode = first & 0x0F
        if opcode != OPCODE_CONTINUATION:
            self._opcode = opcode
            self._buffer = bytearray()
            self._validator = Utf8Validator() if opcode == OPCODE_TEXT else None
        buffer = self._buffer
        assert buffer is not None, "the parser lets no continuation pass that continues nothing"
        buffer += payload
        last = first & FIN
        if self._validator is not None:
            valid, whole, _, _ = self._validator.validate(payload)
            if not valid or (last and not whole):
                raise TextFrameEncodingException("A text message must be UTF-8")
        if last:
            messages.append(TextMessage(buffer) if self._opcode == OPCODE_TEXT else BinaryMessage(buffer))
            self._buffer = self._validator = None

    def encode(self, first: int, payload: bytes) -> bytes:
        """Return one frame, masked with a fresh random key if this side masks.

        :param first: the frame's first byte: FIN and the opcode.
        """
        return build_frame(first, payload, os.urandom(4) if self.always_mask else None)

    def text_message(self, text: str | bytes | bytearray) -> TextMessage:
        """Return a text message to send."""
        return TextMessage(text)

    def binary_message(self, bytes: bytes | bytearray) -> BinaryMessage:  # noqa: A002 - the name that 0.6 gave it
        """Return a binary message to send."""
        return BinaryMessage(bytes)

    def close(self, code: int | None = 1000, reason: str | bytes | bytearray | None = "") -> CloseControlMessage:
        """Return a Close to send; see :class:`~ws4py.messaging.CloseControlMessage` for what it raises."""
        return CloseControlMessage(code, reason)

    def ping(self, data: str | bytes | bytearray = b"") -> bytes:
        """Return the frame of a Ping."""
        return PingControlMessage(data).single(self.always_mask)

    def pong(self, data: str | bytes | bytearray = b"") -> bytes:
        """Return the frame of a Pong."""
        return PongControlMessage(data).single(self.always_mask)


def _check_utf8(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise TextFrameEncodingException("A text message must be UTF-8") from error


def _parse_close(payload: bytes) -> CloseControlMessage:
    """Read the payload of a Close frame (section 5.5.1).

    :raises ProtocolException: for half a code, or a code that may not be on the wire.
    :raises TextFrameEncodingException: for a reason that is not UTF-8.
    """
    if not payload:
        return CloseControlMessage(CloseCode.NO_STATUS_RECEIVED.value)
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not is_wire_code(code):
        raise ProtocolException("The close code is not one that may be sent")
    return CloseControlMessage(code, payload[2:])
