"""One message for many connections."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable

from ws4py.engine import Connection
from ws4py.extensions import Codec
from ws4py.framing import FIN, build_frame
from ws4py.limits import OverflowPolicy
from ws4py.streaming import Stream

__all__ = ["SharedMessage"]


class SharedMessage:
    """A message that is encoded once for all connections that it is the same for. To be used by one thread.

    :param opcode: of its frame.
    :param payload: of a whole message.
    """

    __slots__ = ("_encoded", "_opcode", "_payload", "_plain")

    def __init__(self, opcode: int, payload: bytes) -> None:
        self._opcode = opcode
        self._payload = payload
        self._plain = build_frame(FIN | opcode, payload)
        # By what a codec's encoding depends on: the first byte, the payload, and the frame without a mask.
        self._encoded: dict[Hashable, tuple[int, bytes, bytes]] = {}

    def offer(self, connection: Connection, overflow: OverflowPolicy, key: Hashable = None) -> bool:
        """Offer the message to a connection, without ever waiting for its peer; return whether it was accepted.

        :param overflow: what to do if there is no room.
        :param key: of those that find no room under ``latest``, the newest of each key is kept.
        """
        stream = connection.stream
        codec = stream.codec
        if codec is None or not codec.wants(self._payload):
            return connection.offer(self._frame_as_it_is(stream), self._opcode, len(self._payload), overflow, key)
        shareable = codec.shareable
        if shareable is None:
            return connection.offer_in_order(self._opcode, self._payload, self._frame_as_it_is(stream), overflow, key)
        first, payload, frame = self._encoded.get(shareable) or self._encode(codec, shareable)
        if stream.always_mask:
            frame = build_frame(first, payload, os.urandom(4))
        return connection.offer(frame, self._opcode, len(self._payload), overflow, key)

    def offer_to_all(self, connections: Iterable[Connection], overflow: OverflowPolicy | None = None) -> int:
        """Offer the message to connections, by default with the policy of each; return how many accepted it."""
        return sum(self.offer(connection, overflow or connection.limits.overflow) for connection in connections)

    def _frame_as_it_is(self, stream: Stream) -> bytes:
        return stream.encode(FIN | self._opcode, self._payload) if stream.always_mask else self._plain

    def _encode(self, codec: Codec, shareable: Hashable) -> tuple[int, bytes, bytes]:
        reserved, payload = codec.encode(self._payload)
        first = FIN | reserved | self._opcode
        encoded = self._encoded[shareable] = first, payload, build_frame(first, payload)
        return encoded
