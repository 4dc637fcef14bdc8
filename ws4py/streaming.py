"""Bytes in, messages out: the state machine of one websocket, in either role (RFC 6455, sections 5 to 8).

:class:`Stream` does no input and output. Whoever owns the connection feeds :meth:`Stream.receive` with what was read,
acts on the messages that it returns in their order, and then looks at :attr:`Stream.ended`: :attr:`Stream.closing` (the
peer's Close came) or :attr:`Stream.error` (the peer broke a rule: this Close is to be sent). After either, nothing more
is read.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from typing import Final

from ws4py.exc import (
    InvalidBytesError,
    MessageTooBigException,
    ProtocolException,
    TextFrameEncodingException,
    TooManyFragmentsException,
    UnsupportedFrameTypeException,
    WebSocketException,
)
from ws4py.extensions import Codec
from ws4py.framing import (
    FIN,
    OPCODE_BINARY,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    RSV1,
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
    # RFC 7692 names no code. The frames keep to the rules; it is the data that is not what RSV1 says it is, and "data
    # within a message that was not consistent with the type of the message" is 1007 (RFC 6455, section 7.4.1).
    InvalidBytesError: CloseCode.INVALID_PAYLOAD,
    MessageTooBigException: CloseCode.MESSAGE_TOO_BIG,
    TooManyFragmentsException: CloseCode.MESSAGE_TOO_BIG,
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


class Stream:
    """The protocol's state of one connection. Not thread-safe: one thread reads, and one at a time writes.

    :param always_mask: mask what is sent: True for a client.
    :param expect_masking: refuse frames that are not masked; False refuses those that are: a client.
    :param max_message_size: in bytes of payload; a longer message fails the connection with 1009 before it is
        buffered. None for no limit.
    :param max_fragments: frames of one message, likewise.
    """

    __slots__ = (
        "_buffer",
        "_decoding",
        "_opcode",
        "_parser",
        "_validator",
        "_whole",
        "always_mask",
        "closing",
        "codec",
        "decoded_from",
        "decoded_to",
        "ended",
        "error",
        "failure",
    )

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
        self.failure: type[WebSocketException] | None = None
        """What kind of exception that is in :data:`_CLOSE_CODES`."""
        self.ended = False
        """Whether nothing more is read: either of these two is there."""
        self.codec: Codec | None = None
        """What the extension that was agreed on does to messages; see :meth:`use`."""
        self.decoded_from = 0
        """How many bytes of payload a codec has decoded."""
        self.decoded_to = 0
        """How many it made of them."""
        self._parser = FrameParser(expect_masking, max_message_size, max_fragments)
        self._opcode = 0  # of the message whose fragments are being collected
        self._buffer: bytearray | None = None  # those fragments, decoded
        self._decoding = False  # whether they go through the codec
        self._validator: Utf8Validator | None = None
        self._whole = True  # whether what it has seen ends where a character ends

    @property
    def expect_masking(self) -> bool:
        """Whether received frames must be masked; else they may not be."""
        return self._parser.expect_masking

    @expect_masking.setter
    def expect_masking(self, expected: bool) -> None:
        self._parser.expect_masking = expected

    def use(self, codec: Codec) -> None:
        """Let a codec have the messages from now on: before the first of them."""
        self.codec = codec
        self._parser.allow_rsv1()

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
        if self.ended:
            return messages
        new = object.__new__
        whole = self._parser.take_whole(data)
        if whole is not None:
            binary = data[0] == FIN | OPCODE_BINARY
            if binary or whole.isascii():  # another text takes the long way, where it is checked
                message: Message = new(BinaryMessage if binary else TextMessage)
                message.data = whole
                messages.append(message)
                return messages
        frames: list[tuple[int, bytes]] = []
        failure: WebSocketException | None = None
        try:
            self._parser.feed(data, frames)
        except WebSocketException as error:
            failure = error.with_traceback(None)  # which would refer to this frame, and so to itself
        try:
            for first, payload in frames:
                if first == FIN | OPCODE_TEXT:
                    if not payload.isascii():
                        _check_utf8(payload)
                    # What the parser found needs none of a constructor's conversions.
                    message = new(TextMessage)
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
            failure = error.with_traceback(None)
        if failure is not None:
            self.failure = type(failure)
            self.error = CloseControlMessage(_CLOSE_CODES[self.failure], str(failure))
            self.ended = True
            self._buffer = self._validator = None
        return messages

    def _receive_control(self, opcode: int, payload: bytes) -> Message:
        if opcode == OPCODE_PING:
            return PingControlMessage(payload)
        if opcode == OPCODE_PONG:
            return PongControlMessage(payload)
        self.closing = _parse_close(payload)
        self.ended = True
        self._buffer = self._validator = None
        return self.closing

    def _receive_fragment(self, first: int, payload: bytes, messages: list[Message]) -> None:
        """Collect a fragment; a text is checked as it comes, so that a bad one fails at once (section 8.1)."""
        opcode = first & 0x0F
        if opcode != OPCODE_CONTINUATION:
            self._opcode = opcode
            self._buffer = bytearray()
            self._validator = Utf8Validator() if opcode == OPCODE_TEXT else None
            self._decoding = first & RSV1 != 0
            self._whole = True
        buffer = self._buffer
        assert buffer is not None, "the parser lets no continuation pass that continues nothing"
        last = first & FIN
        if self._decoding:
            self._decode(buffer, payload, last != 0)
        else:
            self._collect(buffer, payload)
        if last:
            if not self._whole:
                raise TextFrameEncodingException("A text message must be UTF-8")
            messages.append(TextMessage(buffer) if self._opcode == OPCODE_TEXT else BinaryMessage(buffer))
            self._buffer = self._validator = None

    def _collect(self, buffer: bytearray, payload: bytes) -> None:
        """Add to a message, which must be UTF-8 as far as it has come if it is a text."""
        buffer += payload
        if self._validator is None:
            return
        valid, self._whole, _, _ = self._validator.validate(payload)
        if not valid:
            raise TextFrameEncodingException("A text message must be UTF-8")

    def _decode(self, buffer: bytearray, payload: bytes, last: bool) -> None:
        """Add to a message what a codec makes of a payload; nothing beyond the limit is ever collected."""
        codec, limit = self.codec, self._parser.max_message_size
        assert codec is not None, "the parser lets no RSV1 pass without one"
        self.decoded_from += len(payload)
        for piece in codec.decode(payload, last, None if limit is None else limit - len(buffer)):
            if limit is not None and len(buffer) + len(piece) > limit:
                self._collect(buffer, piece[: limit - len(buffer)])  # it may be no UTF-8 before it is too big
                raise MessageTooBigException(f"A message of over {limit} bytes when it is decoded")
            self.decoded_to += len(piece)
            self._collect(buffer, piece)

    def encode(self, first: int, payload: bytes) -> bytes:
        """Return one frame, masked with a fresh random key if this side masks. No codec sees it.

        :param first: the frame's first byte: FIN and the opcode.
        """
        return build_frame(first, payload, os.urandom(4) if self.always_mask else None)

    def encode_message(self, opcode: int, payload: bytes) -> bytes:
        """Return a whole message as one frame, encoded by the codec if there is one that wants it.

        See :attr:`ws4py.extensions.Codec.ordered` for who may call.
        """
        first = FIN | opcode
        codec = self.codec
        if codec is not None and codec.wants(payload):
            reserved, payload = codec.encode(payload)
            first |= reserved
        if self.always_mask:
            return build_frame(first, payload, os.urandom(4))
        return build_frame(first, payload)

    def begin_fragments(self) -> Callable[[int, bytes], bytes]:
        """Begin a message that is sent in fragments.

        :returns: :meth:`encode`, or a function like it that has the codec encode them: for the frames of this message
            in their order.
        """
        if self.codec is None:
            return self.encode
        encode = self.codec.encode_parts()

        def encode_fragment(first: int, payload: bytes) -> bytes:
            if first & 0x0F:
                first |= RSV1
            return self.encode(first, encode(payload, first & FIN != 0))

        return encode_fragment

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


# --- names that 0.6 had here ------------------------------------------------------------------------------------------

from ws4py.exc import FrameTooLargeException, StreamClosed  # noqa: E402, F401
from ws4py.framing import OPCODE_CLOSE, Frame  # noqa: E402, F401

VALID_CLOSING_CODES: Final = [code.value for code in CloseCode if is_wire_code(code)]
"""The codes below 3000 that a Close may have; those from 3000 to 4999 may be sent, too."""
