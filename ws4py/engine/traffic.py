"""What connections count of what they send and receive."""

from __future__ import annotations

__all__ = ["Traffic"]


class Traffic:
    """What one connection has sent and received, or several of them together.

    What is sent counts when it is put into the outbox, but for ``bytes_sent``. The thread that polls counts what is
    received and ``bytes_sent``; the others are counted under the connection's lock. Any thread may read.

    :ivar bytes_received: as they came from the sockets.
    :ivar texts_received: text messages, counted when they are whole.
    :ivar text_bytes_received: their payloads, decoded.
    :ivar binaries_received: binary messages, counted when they are whole.
    :ivar binary_bytes_received: their payloads, decoded.
    :ivar bytes_sent: as the sockets took them.
    :ivar texts_sent: text messages, counted when they are whole.
    :ivar text_bytes_sent: their payloads, before any codec.
    :ivar binaries_sent: binary messages, counted when they are whole.
    :ivar binary_bytes_sent: their payloads, before any codec.
    :ivar pings_sent: of the engine and of the application.
    :ivar pongs_sent: of the engine and of the application.
    :ivar closes_sent: Close frames.
    :ivar encoded_from: bytes of payload that codecs have encoded.
    :ivar encoded_to: what they made of them.
    :ivar decoded_from: bytes of payload that codecs have decoded.
    :ivar decoded_to: what they made of them.
    """

    __slots__ = (
        "binaries_received",
        "binaries_sent",
        "binary_bytes_received",
        "binary_bytes_sent",
        "bytes_received",
        "bytes_sent",
        "closes_sent",
        "decoded_from",
        "decoded_to",
        "encoded_from",
        "encoded_to",
        "pings_sent",
        "pongs_sent",
        "text_bytes_received",
        "text_bytes_sent",
        "texts_received",
        "texts_sent",
    )

    def __init__(self) -> None:
        self.bytes_received = self.texts_received = self.text_bytes_received = 0
        self.binaries_received = self.binary_bytes_received = 0
        self.bytes_sent = self.texts_sent = self.text_bytes_sent = 0
        self.binaries_sent = self.binary_bytes_sent = 0
        self.pings_sent = self.pongs_sent = self.closes_sent = 0
        self.encoded_from = self.encoded_to = self.decoded_from = self.decoded_to = 0

    @property
    def messages_received(self) -> int:
        """How many data messages have come."""
        return self.texts_received + self.binaries_received

    @property
    def messages_sent(self) -> int:
        """How many data messages were sent."""
        return self.texts_sent + self.binaries_sent

    def add(self, other: Traffic) -> None:
        """Add what another one has counted, which goes on meanwhile."""
        for name in Traffic.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def copy(self) -> Traffic:
        """Return these numbers, which count no further."""
        result = Traffic()
        result.add(self)
        return result
