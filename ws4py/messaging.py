"""Messages: what applications send and receive (RFC 6455, sections 5.5 and 5.6)."""

from __future__ import annotations

import enum
import json
import os
from typing import Any, Final

from ws4py.computed import computed
from ws4py.exc import FrameTooLargeException, InvalidCloseCode, TextFrameEncodingException
from ws4py.framing import (
    FIN,
    MAX_CONTROL_PAYLOAD,
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    build_frame,
)

__all__ = [
    "BinaryMessage",
    "CloseCode",
    "CloseControlMessage",
    "Message",
    "Payload",
    "PingControlMessage",
    "PongControlMessage",
    "TextMessage",
    "encode_payload",
]


class CloseCode(enum.IntEnum):
    """The status codes of a Close frame (RFC 6455, section 7.4.1, and the registry that it opens)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005  # never on the wire
    ABNORMAL_CLOSURE = 1006  # never on the wire
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015  # never on the wire


_WIRE_CODES: Final = frozenset(int(code) for code in CloseCode) - {1005, 1006, 1015}


def is_wire_code(code: int) -> bool:
    """Tell whether a Close frame may carry ``code``: 1000-1003, 1007-1014 and 3000-4999."""
    return code in _WIRE_CODES or 3000 <= code <= 4999


class Message:
    """What one or several frames carry.

    :param opcode: one of the ``OPCODE_`` numbers of :mod:`ws4py.framing`.
    :param data: the payload; a str is encoded.
    :param encoding: how a str is encoded; None if a str is refused.
    :raises TypeError: for data of another type, or a str without an encoding.
    """

    __slots__ = ("__dict__", "data")

    opcode: int
    encoding: str | None = "utf-8"
    completed: bool = True
    """Whether all of it has come: always, since it is not handed out before."""
    is_text = False
    is_binary = False

    def __init__(
        self, opcode: int, data: str | bytes | bytearray | memoryview = b"", encoding: str | None = "utf-8"
    ) -> None:
        self.opcode = opcode
        self.encoding = encoding
        self.data: bytes = self._to_bytes(data)

    def _to_bytes(self, data: str | bytes | bytearray | memoryview) -> bytes:
        if isinstance(data, str):
            if not self.encoding:
                raise TypeError("unicode data without an encoding")
            return data.encode(self.encoding)
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        raise TypeError(f"{type(data)} is not a supported data type")

    @computed
    def text(self) -> str:
        """The payload of a text message.

        :raises TypeError: for a binary message, as ``str()`` does: its ``data`` is bytes.
        """
        return str(self)

    def json(self) -> Any:
        """Return what the payload says in JSON: of a text message, or of a binary one, which must be UTF-8 then.

        :raises ValueError: if it is no JSON, or nested too deep.
        """
        try:
            return json.loads(self.data.decode())
        except RecursionError as error:
            raise ValueError("JSON that is nested too deep") from error

    def __len__(self) -> int:
        return len(str(self))

    def __str__(self) -> str:
        if not self.encoding:
            raise TypeError(f"a {type(self).__name__} has no encoding: use its data")
        return self.data.decode(self.encoding)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.data)} bytes>"

    # --- names of 0.6 ---

    def single(self, mask: bool = False) -> bytes:
        """Return the message as one frame, masked with a random key if ``mask``."""
        return build_frame(FIN | self.opcode, self.data, os.urandom(4) if mask else None)

    def fragment(self, first: bool = False, last: bool = False, mask: bool = False) -> bytes:
        """Return the message as one fragment of a larger one: the ``first``, the ``last``, both, or one between."""
        opcode = self.opcode if first else OPCODE_CONTINUATION
        return build_frame((FIN if last else 0) | opcode, self.data, os.urandom(4) if mask else None)

    def extend(self, data: str | bytes | bytearray) -> None:
        """Add ``data`` at the end of the payload."""
        self.data += self._to_bytes(data)

    def __unicode__(self) -> str:
        return str(self)


class TextMessage(Message):
    """A text message; ``data`` is its UTF-8. ``len()`` counts characters."""

    __slots__ = ()

    opcode = OPCODE_TEXT
    is_text = True

    def __init__(self, text: str | bytes | bytearray) -> None:
        self.data = self._to_bytes(text)


class BinaryMessage(Message):
    """A binary message. ``len()`` counts bytes."""

    __slots__ = ()

    opcode = OPCODE_BINARY
    encoding = None
    is_binary = True

    def __init__(self, bytes: bytes | bytearray | memoryview) -> None:  # noqa: A002 - the name that 0.6 gave it
        self.data = self._to_bytes(bytes)

    def __len__(self) -> int:
        return len(self.data)


class _ControlMessage(Message):
    __slots__ = ()

    def _check_size(self) -> None:
        if len(self.data) > MAX_CONTROL_PAYLOAD:
            raise FrameTooLargeException(
                f"A control frame may carry {MAX_CONTROL_PAYLOAD} bytes at most, not {len(self.data)}"
            )


class CloseControlMessage(_ControlMessage):
    """A Close frame.

    :param code: the status; 1005 or None stands for a frame without a status.
    :param reason: a text of at most 123 bytes in UTF-8; None is an empty one. ``reason`` keeps its bytes.
    :raises InvalidCloseCode: if the code may not be sent.
    :raises FrameTooLargeException: if the reason is too long.
    :raises TextFrameEncodingException: if the reason is not UTF-8, or a str that has no UTF-8.
    """

    __slots__ = ("code", "reason")

    def __init__(self, code: int | None = 1000, reason: str | bytes | bytearray | None = "") -> None:
        code = code or CloseCode.NO_STATUS_RECEIVED.value
        try:
            text = reason.encode() if isinstance(reason, str) else bytes(reason or b"")
            text.decode()
        except UnicodeError as error:
            raise TextFrameEncodingException("A close reason must be UTF-8") from error
        if code == CloseCode.NO_STATUS_RECEIVED:
            data = b""
        elif isinstance(code, int) and is_wire_code(code):
            data = int(code).to_bytes(2, "big") + text
        else:
            raise InvalidCloseCode(f"{code!r} is not a close code that may be sent (1000-1003, 1007-1014, 3000-4999)")
        super().__init__(OPCODE_CLOSE, data)
        self.code = code
        self.reason = text
        self._check_size()

    def __str__(self) -> str:
        return self.reason.decode()


class PingControlMessage(_ControlMessage):
    """A Ping frame with at most 125 bytes of payload, of the sender's choice."""

    __slots__ = ()

    def __init__(self, data: str | bytes | bytearray = b"") -> None:
        super().__init__(OPCODE_PING, b"" if data is None else data)
        self._check_size()


class PongControlMessage(_ControlMessage):
    """A Pong frame, which answers a Ping with the same payload, or comes unasked."""

    __slots__ = ()

    def __init__(self, data: str | bytes | bytearray = b"") -> None:
        super().__init__(OPCODE_PONG, b"" if data is None else data)
        self._check_size()


Payload = str | bytes | bytearray | memoryview | Message
"""What a websocket sends as one whole message."""


def encode_payload(payload: Any, binary: bool, fragment: bool = False) -> tuple[int, bytes]:
    """Return the opcode and the bytes of what an application sends.

    :param fragment: the bytes are a part of a text only, and may end within a character.
    :raises TextFrameEncodingException: for bytes that are to be text and are not UTF-8.
    :raises TypeError: for a str that is to be binary.
    :raises ValueError: for a payload of another type.
    """
    if type(payload) is bytes:
        data = payload
    elif isinstance(payload, str):
        if binary:
            raise TypeError("A str can't be sent as a binary message: encode it, or send it as text")
        return OPCODE_TEXT, payload.encode()
    elif isinstance(payload, Message):
        return payload.opcode, payload.data
    elif isinstance(payload, (bytes, bytearray, memoryview)):
        data = bytes(payload)
    else:
        raise ValueError(f"Unsupported type '{type(payload)}' passed to send()")
    if binary:
        return OPCODE_BINARY, data
    if not fragment and not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise TextFrameEncodingException("A text message must be UTF-8: is binary=True missing?") from error
    return OPCODE_TEXT, data


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.framing import Frame  # noqa: E402, F401
