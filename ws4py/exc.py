"""The exceptions of ws4py, each a subclass of :class:`WebSocketException`."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BrokerError",
    "ConnectionClosed",
    "FrameTooLargeException",
    "HandshakeError",
    "InvalidBytesError",
    "InvalidCloseCode",
    "ManagerError",
    "MessageTooBigException",
    "ProtocolException",
    "SlowConsumer",
    "StreamClosed",
    "TextFrameEncodingException",
    "TooManyFragmentsException",
    "TooManyTopics",
    "UnsupportedFrameTypeException",
    "WebSocketException",
]


class WebSocketException(Exception):
    """The base of every exception that this package raises on its own."""


class ProtocolException(WebSocketException):
    """A peer broke a rule of RFC 6455: the connection fails with 1002."""


class FrameTooLargeException(WebSocketException):
    """A frame can't be that long, such as a control frame over 125 bytes: it is not sent."""


class MessageTooBigException(WebSocketException):
    """A message is over ``max_message_size`` or ``max_fragments``: the connection fails with 1009."""


class TooManyFragmentsException(MessageTooBigException):
    """A message has over ``max_fragments`` frames: likewise."""


class UnsupportedFrameTypeException(WebSocketException):
    """A frame's opcode or reserved bits have no meaning here: the connection fails with 1002."""


class TextFrameEncodingException(WebSocketException, ValueError):
    """The bytes of a text message, or of a close reason, are not UTF-8: 1007 on the wire."""


class InvalidBytesError(WebSocketException):
    """Bytes that can't be read as what they should be, such as a compressed message: the connection fails with 1007."""


class InvalidCloseCode(ProtocolException, ValueError):
    """A close code that may not be sent (RFC 6455, section 7.4)."""


class ConnectionClosed(WebSocketException, RuntimeError):
    """The websocket is closing or closed, so nothing can be sent on it.

    It is a :class:`RuntimeError` because that is what 0.6 raised here.

    :param arguments: what was wrong, for people.
    :ivar code: that the peer's Close had, 1005 if it had none; 1006 if the connection has ended without one. None as
        long as neither has come.
    :ivar reason: that the peer's Close had, or why there is none, in our words; None with a code of None.
    """

    def __init__(self, *arguments: object, code: int | None = None, reason: str | None = None) -> None:
        super().__init__(*arguments)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        text = super().__str__()
        if self.code is None:
            return text
        told = f"closed with {self.code}" + (f": {self.reason!r}" if self.reason else "")
        return f"{text} ({told})" if text else told


class SlowConsumer(ConnectionClosed):
    """The peer did not read in time, or there is nobody left who may wait for it: its connection was given up.

    Of a ``send`` with a timeout of 0 it only says that there is no room now.
    """


class ManagerError(WebSocketException, RuntimeError):
    """A manager can't do that in its state: an ``add`` after ``stop``, any use after a fork."""


class BrokerError(WebSocketException):
    """A broker can't do that in its state."""


class TooManyTopics(WebSocketException):
    """A websocket is on ``max_topics`` topics already: it was not subscribed to another one."""


class HandshakeError(WebSocketException):
    """An opening handshake failed, on either side.

    :param msg: what was wrong, for people.
    :param status: the HTTP status with which a server answers, or the one that a client got.
    :param headers: further headers (name, value) for a server's answer.
    """

    def __init__(self, msg: str, status: int = 400, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(msg)
        self.msg = msg
        self.status = status
        self.headers = tuple(headers)

    def __str__(self) -> str:
        return self.msg


# --- names of 0.6 -----------------------------------------------------------------------------------------------------


class StreamClosed(WebSocketException):
    """A stream was used after its end; kept for programs written for 0.6."""
