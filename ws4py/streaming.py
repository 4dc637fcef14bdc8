"""Bytes in, messages out: the state machine of one websocket, in either role (RFC 6455, sections 5 to 8).

:class:`Stream` does no input and output. Whoever owns the connection feeds :meth:`Stream.receive` with what was read,
acts on the messages that it returns in their order, and then looks at :attr:`Stream.ended`: :attr:`Stream.closing` (the
peer's Close came) or :attr:`Stream.error` (the peer broke a rule: this Close is to be sent). After either, nothing more
is read. How much is decoded at a time can be limited, since few bytes may be many messages, or large ones:
:attr:`Stream.more` then tells that there is something to go on with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from ws4py.closing import Closing
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
    NO_LIMIT,
    OPCODE_BINARY,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    RSV1,
    FrameParser,
    Utf8Validator,
    build_frame,
    take_messages,
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
"""How many bytes of payload a received message has at most, if nothing else is said."""

DEFAULT_MAX_FRAGMENTS: Final = 4096
"""In how many frames it comes at most, likewise."""

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


class Stream:
    """The protocol's state of one connection. Not thread-safe: one thread reads, and one at a time writes.

    :param always_mask: mask what is sent: True for a client.
    :param expect_masking: refuse frames that are not masked; False refuses those that are: a client.
    :param max_message_size: in bytes of payload; a longer message fails the connection with 1009 before it is
        buffered. None for no limit.
    :param max_fragments: frames of one message, likewise.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_decoding",
        "_fin",
        "_frames",
        "_opcode",
        "_parser",
        "_pieces",
        "_validator",
        "_whole",
        "always_mask",
        "closing_handshake",
        "codec",
        "decoded_from",
        "decoded_to",
        "ended",
        "failure",
        "messages_begun",
        "more",
    )

    def __init__(
        self,
        always_mask: bool = False,
        expect_masking: bool = True,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
    ) -> None:
        self.always_mask = always_mask
        self.closing_handshake = Closing()
        """What is sent and received of it, and by whom."""
        self.failure: type[WebSocketException] | None = None
        """What kind of exception that is in :data:`_CLOSE_CODES`."""
        self.ended = False
        """Whether nothing more is read: either of these two is there, or :meth:`stop_reading` was called."""
        self.more = False
        """Whether :meth:`receive_some` has left something that it can go on with, whether more bytes come or not."""
        self.messages_begun = 0
        """How many messages have begun that came in more pieces than one."""
        self.codec: Codec | None = None
        """What the extension that was agreed on does to messages; see :meth:`use`."""
        self.decoded_from = 0
        """How many bytes of payload a codec has decoded."""
        self.decoded_to = 0
        """How many it made of them."""
        self._parser = FrameParser(expect_masking, max_message_size, max_fragments)
        self._frames: list[tuple[int, bytes]] | None = None  # that were parsed, and are still to be decoded
        self._broken: WebSocketException | None = None  # what is wrong with the frame behind those
        self._opcode = 0  # of the message whose fragments are being collected
        self._buffer: bytearray | None = None  # those fragments, decoded
        self._decoding = False  # whether they go through the codec
        self._fin = 0  # whether the newest fragment is the last
        self._pieces: Iterator[bytes] | None = None  # what the codec is still to make of it
        self._validator: Utf8Validator | None = None
        self._whole = True  # whether what it has seen ends where a character ends

    @property
    def closing(self) -> CloseControlMessage | None:
        """The Close that the peer sent; its code is 1005 if it had none."""
        return self.closing_handshake.received

    @property
    def error(self) -> CloseControlMessage | None:
        """The Close to send because of what the peer did. To set it ends reading."""
        return self.closing_handshake.due

    @error.setter
    def error(self, close: CloseControlMessage) -> None:
        self.closing_handshake.fail(close)
        self.ended = True

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

    @property
    def frames_received(self) -> int:
        """How many frames have begun that :meth:`receive_some` has parsed; those of control messages, too."""
        return self._parser.count

    @property
    def held_back(self) -> bool:
        """Whether frames have come that were not begun, because of a limit of their number."""
        return self._parser.more

    @property
    def unfinished(self) -> bool:
        """Whether a message, or a frame of any kind, has begun and not ended."""
        return not self.ended and (self._buffer is not None or self._parser.inside_message)

    @property
    def unfinished_size(self) -> int:
        """How many bytes are kept of a message that has not ended."""
        buffer = self._buffer  # any thread may ask
        return 0 if buffer is None else len(buffer)

    def take_message(self, data: bytes) -> Message | None:
        """Take in ``data`` if it is one whole message, and no more, as nearly all is that an interactive peer
        sends; return the message. Else return None: ``data`` is for :meth:`receive`.
        """
        if self.more or self.ended:
            return None
        return self._parser.take_message(data, TextMessage, BinaryMessage)

    def receive(self, data: bytes) -> list[Message]:
        """Take in bytes as they came from the peer; return the messages that they complete, in order.

        Control messages are returned like the others, a Close at last. Nothing is raised: see :attr:`error`. After a
        Close or an error the bytes are ignored.
        """
        message = self.take_message(data)
        return self.receive_some(data) if message is None else [message]

    def receive_some(
        self, data: bytes = b"", frames: int = NO_LIMIT, messages: int = NO_LIMIT, size: int = NO_LIMIT
    ) -> list[Message]:
        """Take in bytes like :meth:`receive`, and stop where a limit is reached. What is left is kept as it came, and
        :attr:`more` is true: it is gone on with by the next call, with further bytes or none.

        :param frames: how many frames to begin at most.
        :param messages: how many messages to return at most.
        :param size: of decoded payload, in bytes: nothing is begun when there is so much. What a codec decodes is told
            apart in pieces of at most 64 KiB.
        """
        found: list[Message] = []
        if self.ended:
            return found
        waiting = self._frames
        if waiting is None:
            waiting = self._frames = []
        if self._broken is None:
            try:
                self._parser.feed(data, waiting, max(0, frames - len(waiting)))
            except WebSocketException as error:
                self._broken = error.with_traceback(None)  # which would refer to this frame, and so to itself
        try:
            if len(data) <= size and len(waiting) <= messages and self._pieces is None and not self.more:
                # All of it is within the limits, as nearly always.
                del waiting[: take_messages(waiting, found, TextMessage, BinaryMessage)]
            if waiting or self._pieces is not None:
                self._decode_frames(waiting, found, messages, size)
        except WebSocketException as error:
            self._fail(error.with_traceback(None))
        if self.ended:
            self.stop_reading()
        elif not waiting and self._pieces is None:
            self._frames = None
            if self._broken is not None:
                self._fail(self._broken)
                self.stop_reading()
            else:
                self.more = self._parser.more
        else:
            self.more = True
        return found

    def _decode_frames(self, waiting: list[tuple[int, bytes]], found: list[Message], messages: int, size: int) -> None:
        """Make messages of the frames that wait, as far as the limits of :meth:`receive_some` allow."""
        made = 0
        if self._pieces is not None and messages > 0:
            made = self._decode(found, size)
            if self._pieces is not None:
                return
        taken = 0
        try:
            for frame in waiting:
                if made >= size or len(found) >= messages or self._pieces is not None:
                    return
                taken += 1
                first, payload = frame
                if first & 0x08:
                    found.append(self._receive_control(first & 0x0F, payload))
                    if self.ended:
                        return
                elif first == FIN | OPCODE_TEXT or first == FIN | OPCODE_BINARY:
                    take_messages([frame], found, TextMessage, BinaryMessage)
                    made += len(payload)
                else:
                    made += self._receive_fragment(first, payload, found, size - made)
        finally:
            del waiting[:taken]

    def _fail(self, failure: WebSocketException) -> None:
        self.failure = type(failure)
        self.error = CloseControlMessage(_CLOSE_CODES[self.failure], str(failure))

    def stop_reading(self) -> None:
        """Read nothing more, and keep nothing of what has come and is no message yet."""
        self.ended = True
        self._buffer = self._validator = self._frames = self._pieces = self._broken = None
        self.more = False

    def _receive_control(self, opcode: int, payload: bytes) -> Message:
        if opcode == OPCODE_PING:
            return PingControlMessage(payload)
        if opcode == OPCODE_PONG:
            return PongControlMessage(payload)
        close = _parse_close(payload)
        self.closing_handshake.receive(close)
        self.ended = True
        return close

    def _receive_fragment(self, first: int, payload: bytes, found: list[Message], size: int) -> int:
        """Collect a fragment; a text is checked as it comes, so that a bad one fails at once (section 8.1).

        :param size: how many bytes a codec may make of it now.
        :returns: how many bytes were collected.
        """
        opcode = first & 0x0F
        if opcode != OPCODE_CONTINUATION:
            self.messages_begun += 1
            self._opcode = opcode
            self._buffer = bytearray()
            self._validator = Utf8Validator() if opcode == OPCODE_TEXT else None
            self._decoding = first & RSV1 != 0
            self._whole = True
        buffer = self._buffer
        assert buffer is not None, "the parser lets no continuation pass that continues nothing"
        self._fin = first & FIN
        if self._decoding:
            codec, limit = self.codec, self._parser.max_message_size
            assert codec is not None, "the parser lets no RSV1 pass without one"
            self.decoded_from += len(payload)
            self._pieces = codec.decode(payload, self._fin != 0, None if limit is None else limit - len(buffer))
            return self._decode(found, size)
        self._collect(buffer, payload)
        if self._fin:
            self._finish_message(buffer, found)
        return len(payload)

    def _finish_message(self, buffer: bytearray, found: list[Message]) -> None:
        if not self._whole:
            raise TextFrameEncodingException("A text message must be UTF-8")
        found.append(TextMessage(buffer) if self._opcode == OPCODE_TEXT else BinaryMessage(buffer))
        self._buffer = self._validator = None

    def _collect(self, buffer: bytearray, payload: bytes) -> None:
        """Add to a message, which must be UTF-8 as far as it has come if it is a text."""
        buffer += payload
        if self._validator is None:
            return
        valid, self._whole, _, _ = self._validator.validate(payload)
        if not valid:
            raise TextFrameEncodingException("A text message must be UTF-8")

    def _decode(self, found: list[Message], size: int) -> int:
        """Add to a message what a codec makes of a fragment, about ``size`` bytes at most; the rest is for the next
        time. Nothing beyond the limit of a message is ever collected.

        :returns: how many bytes were collected.
        """
        buffer, pieces, limit = self._buffer, self._pieces, self._parser.max_message_size
        assert buffer is not None
        assert pieces is not None
        made = 0
        for piece in pieces:
            if limit is not None and len(buffer) + len(piece) > limit:
                self._collect(buffer, piece[: limit - len(buffer)])  # it may be no UTF-8 before it is too big
                raise MessageTooBigException(f"A message of over {limit} bytes when it is decoded")
            self.decoded_to += len(piece)
            self._collect(buffer, piece)
            made += len(piece)
            if made >= size:
                return made
        self._pieces = None
        if self._fin:
            self._finish_message(buffer, found)
        return made

    def reply(self, message: Message) -> tuple[int, bytes] | None:
        """Return what a message of the peer's calls for at once, as an opcode and a payload: a Ping for a Pong with the
        same payload (section 5.5.3); None for nothing. What a Close and what is wrong call for,
        :attr:`closing_handshake` says.
        """
        return (OPCODE_PONG, message.data) if message.opcode == OPCODE_PING else None

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
