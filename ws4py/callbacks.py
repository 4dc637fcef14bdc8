"""What applications override: the callbacks of a websocket."""

from __future__ import annotations

from ws4py.messaging import Message

__all__ = ["Callbacks"]


class Callbacks:
    """The callbacks of a websocket. They never overlap, and come in order; each does nothing by default."""

    __slots__ = ()

    def opened(self) -> None:
        """Called first, once: the handshake is done. May send and close."""

    def received_message(self, message: Message) -> None:
        """Called for each message.

        :param message: a :class:`~ws4py.messaging.TextMessage` or a :class:`~ws4py.messaging.BinaryMessage`; its
            ``data`` is bytes.
        """

    def ponged(self, pong: Message) -> None:
        """Called for each Pong, but those that answer the Pings of keepalive.

        :param pong: a :class:`~ws4py.messaging.PongControlMessage`.
        """

    def closed(self, code: int, reason: str | bytes | None = None) -> None:
        """Called last, once: the connection has ended. ``sock``, ``stream`` and ``environ`` are still there.

        :param code: that the peer sent; 1005 if its Close had none, 1006 if no Close came.
        :param reason: the bytes that the peer sent, or a str with 1006. :attr:`close_reason` is the same as text.
        """

    def unhandled_error(self, error: BaseException) -> None:
        """Called with an exception of a callback, or an error of the socket. Both are in the log already."""
