"""permessage-deflate: messages are compressed, one by one or with what was sent before as context (RFC 7692, section
7).

.. code-block:: python

    PerMessageDeflate()                                    # small: no memory between messages
    PerMessageDeflate(server_no_context_takeover=False,    # dense: each side remembers what it has sent
                      client_no_context_takeover=False)

What a connection costs. Without context takeover an idle one has a codec of about 100 bytes; what compresses or
inflates a message is made when the message comes, and freed after it. With takeover the contexts are made on first use
and stay: about 2 ** (window bits + 2) + 2 ** (memory level + 9) bytes, 256 KiB by default, for sending, and 2 **
window bits + 10 KiB, 42 KiB by default, for receiving.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ws4py.exc import InvalidBytesError, MessageTooBigException
from ws4py.extensions import Extension, Parameters
from ws4py.framing import RSV1

if TYPE_CHECKING:
    from zlib import _Compress, _Decompress

__all__ = ["DeflateAgreement", "DeflateCodec", "PerMessageDeflate", "with_compression"]

NAME: Final = "permessage-deflate"
MIN_BITS: Final = 8
MAX_BITS: Final = 15

TAIL: Final = b"\x00\x00\xff\xff"
"""The end of an empty block without compression, which is left out on the wire (section 7.2.1)."""

LAST_BLOCK: Final = b"\x01\x00\x00\xff\xff"
"""An empty block that says it is the last one."""

PIECE: Final = 65536
"""The most bytes that are inflated at once."""

MAX_ENDS: Final = 64
"""How many blocks of a message may say that they are the last one. Each costs a new inflater."""

SERVER_TAKEOVER: Final = "server_no_context_takeover"
CLIENT_TAKEOVER: Final = "client_no_context_takeover"
SERVER_BITS: Final = "server_max_window_bits"
CLIENT_BITS: Final = "client_max_window_bits"
_BITS: Final = {str(bits): bits for bits in range(MIN_BITS, MAX_BITS + 1)}


@dataclass(frozen=True)
class PerMessageDeflate:
    """An endpoint's wishes, in either role. Whether a peer can fulfil them is settled in each handshake.

    A server compresses with no larger window than either side allows, and with no context takeover if either side does
    not want it. A client that may not be told what to do with its own window or context decides for itself; the server
    then remembers as much as that takes.

    :param server_no_context_takeover: the server compresses each message for itself.
    :param client_no_context_takeover: the client does. A server asks for it, and every client must comply.
    :param server_max_window_bits: how far back the server's compressor may refer, as a power of 2: 8 to 15.
    :param client_max_window_bits: likewise the client's; only a client that offers this can be asked.
    :param level: of compression, 0 to 9, or -1 for zlib's default. 3 takes half the time of zlib's default, 6, for
        about a tenth more bytes.
    :param memory_level: 1 to 9: how much memory compressing takes, and how fast it is.
    :param threshold: messages of fewer bytes are not compressed. With context takeover small messages gain too: then a
        lower one pays.
    :raises ValueError: for a parameter out of range.
    """

    server_no_context_takeover: bool = True
    client_no_context_takeover: bool = True
    server_max_window_bits: int = MAX_BITS
    client_max_window_bits: int = MAX_BITS
    level: int = 3
    memory_level: int = 8
    threshold: int = 1024

    name = NAME

    def __post_init__(self) -> None:
        for name, low, high in (
            (SERVER_BITS, MIN_BITS, MAX_BITS),
            (CLIENT_BITS, MIN_BITS, MAX_BITS),
            ("level", -1, 9),
            ("memory_level", 1, 9),
            ("threshold", 0, None),
        ):
            value = getattr(self, name)
            number = isinstance(value, int) and not isinstance(value, bool)
            if not number or value < low or (high is not None and value > high):
                allowed = f"at least {low}" if high is None else f"{low} to {high}"
                raise ValueError(f"{name} must be a whole number, {allowed}, not {value!r}")

    def offers(self) -> Sequence[Parameters]:
        """Return the one offer of a client. It always lets the server choose the client's window (section 7.1.2.2)."""
        offer: list[tuple[str, str | None]] = []
        if self.server_no_context_takeover:
            offer.append((SERVER_TAKEOVER, None))
        if self.client_no_context_takeover:
            offer.append((CLIENT_TAKEOVER, None))
        if self.server_max_window_bits < MAX_BITS:
            offer.append((SERVER_BITS, str(self.server_max_window_bits)))
        offer.append((CLIENT_BITS, _unless_most(self.client_max_window_bits)))
        return (tuple(offer),)

    def accept(self, offer: Parameters) -> tuple[Parameters, DeflateAgreement] | None:
        """Answer a client's offer as a server (section 7.1).

        One with a parameter that is unknown, twice there or out of range is declined, as section 7.1 has it.
        """
        wanted = _read(offer)
        if wanted is None or wanted.get(SERVER_BITS, 0) is None:
            return None
        answer: list[tuple[str, str | None]] = []
        server_forgets = self.server_no_context_takeover or SERVER_TAKEOVER in wanted
        client_forgets = self.client_no_context_takeover or CLIENT_TAKEOVER in wanted
        if server_forgets:
            answer.append((SERVER_TAKEOVER, None))
        if client_forgets:
            answer.append((CLIENT_TAKEOVER, None))
        server_bits = min(self.server_max_window_bits, wanted.get(SERVER_BITS) or MAX_BITS)
        if SERVER_BITS in wanted or server_bits < MAX_BITS:
            answer.append((SERVER_BITS, str(server_bits)))
        client_bits = MAX_BITS
        if CLIENT_BITS in wanted:  # else the client may not be told (section 7.1.2.2)
            client_bits = min(self.client_max_window_bits, wanted[CLIENT_BITS] or MAX_BITS)
            if client_bits < MAX_BITS:
                answer.append((CLIENT_BITS, str(client_bits)))
        return tuple(answer), self._agree(server_forgets, client_forgets, server_bits, client_bits)

    def check(self, answer: Parameters) -> DeflateAgreement:
        """Take in a server's answer as a client (section 7.1).

        :raises ValueError: if it has a parameter that is unknown, twice there or out of range, or does not grant what
            was asked for.
        """
        granted = _read(answer)
        if granted is None:
            raise ValueError("a parameter is unknown, repeated, or has a value that it may not have")
        if self.server_no_context_takeover and SERVER_TAKEOVER not in granted:
            raise ValueError(f"{SERVER_TAKEOVER} was asked for, and not granted")
        if SERVER_BITS not in granted and self.server_max_window_bits < MAX_BITS:
            raise ValueError(f"{SERVER_BITS} was asked for, and not granted")
        server_bits = granted.get(SERVER_BITS, MAX_BITS)
        client_bits = granted.get(CLIENT_BITS, self.client_max_window_bits)
        if server_bits is None or client_bits is None:
            raise ValueError("a number of window bits has no value")
        if server_bits > self.server_max_window_bits or client_bits > self.client_max_window_bits:
            raise ValueError("a window is larger than the one that was offered")
        forgets = self.client_no_context_takeover or CLIENT_TAKEOVER in granted
        return self._agree(forgets, SERVER_TAKEOVER in granted, client_bits, server_bits)

    def _agree(self, forgets: bool, peer_forgets: bool, bits: int, peer_bits: int) -> DeflateAgreement:
        return _agreement(forgets, peer_forgets, bits, peer_bits, self.level, self.memory_level, self.threshold)


def _unless_most(bits: int) -> str | None:
    return None if bits == MAX_BITS else str(bits)


def _read(parameters: Parameters) -> dict[str, int | None] | None:
    """Return the parameters by name, the window bits as numbers; None if one may not be there (section 7.1)."""
    result: dict[str, int | None] = {}
    for name, value in parameters:
        if name in result:
            return None
        if name in (SERVER_TAKEOVER, CLIENT_TAKEOVER):
            if value is not None:
                return None
            result[name] = None
        elif name in (SERVER_BITS, CLIENT_BITS) and (value is None or value in _BITS):
            result[name] = None if value is None else _BITS[value]
        else:
            return None
    return result


def with_compression(
    extensions: str | Sequence[str | Extension] | None, compression: bool | Extension | None
) -> list[str | Extension]:
    """Return extensions, and the one that the argument ``compression`` of servers and clients stands for.

    :param extensions: objects and names; a str has names between commas.
    :param compression: True for :class:`PerMessageDeflate` as it is by default, False or None for none, or an object.
    :raises TypeError: if it is something else.
    """
    all_of_them: list[str | Extension] = []
    if isinstance(extensions, str):
        all_of_them += [name for name in (part.strip() for part in extensions.split(",")) if name]
    else:
        all_of_them += extensions or ()
    if compression is True:
        all_of_them.append(_BY_DEFAULT)
    elif compression is not None and compression is not False:
        if not all(hasattr(compression, name) for name in ("name", "offers", "accept", "check")):
            raise TypeError(f"compression must be a bool or an extension like PerMessageDeflate, not {compression!r}")
        all_of_them.append(compression)
    return all_of_them


_BY_DEFAULT: Final = PerMessageDeflate()


@dataclass(frozen=True)
class DeflateAgreement:
    """What one side of a connection does, and what it knows of its peer.

    :param forgets: this side compresses each message for itself.
    :param peer_forgets: the peer does.
    :param bits: of this side's window.
    :param peer_bits: of the peer's.
    """

    forgets: bool
    peer_forgets: bool
    bits: int
    peer_bits: int
    level: int
    memory_level: int
    threshold: int

    def codec(self) -> DeflateCodec:
        """Return a new codec."""
        return DeflateCodec(self)

    def compressor(self) -> _Compress:
        """Return a new compressor."""
        if self.bits == MIN_BITS:
            # zlib has no raw stream with so small a window. But one that refers back no further than by one byte keeps
            # within any window.
            return zlib.compressobj(self.level, zlib.DEFLATED, -9, self.memory_level, zlib.Z_RLE)
        return zlib.compressobj(self.level, zlib.DEFLATED, -self.bits, self.memory_level)

    def inflater(self) -> _Decompress:
        """Return a new inflater."""
        # A zlib of before 2017 that was asked for 8 bits took 9.
        return zlib.decompressobj(-max(self.peer_bits, 9))


_agreement = functools.lru_cache(maxsize=256)(DeflateAgreement)
"""Makes agreements: connections that agreed alike share one."""


class DeflateCodec:
    """Compresses and inflates for one connection; see :class:`ws4py.extensions.Codec`."""

    __slots__ = ("_agreement", "_begun", "_compressor", "_ends", "_inflater")

    def __init__(self, agreement: DeflateAgreement) -> None:
        self._agreement = agreement
        self._compressor: _Compress | None = None  # kept between messages if they have a context
        self._inflater: _Decompress | None = None  # likewise, and within a message
        self._begun = False  # something of the message has come
        self._ends = 0  # blocks of the message that said they were the last

    @property
    def agreement(self) -> DeflateAgreement:
        """What was agreed on."""
        return self._agreement

    @property
    def ordered(self) -> bool:
        """Whether the order of encoding must be the order on the wire: with context takeover."""
        return not self._agreement.forgets

    @property
    def shareable(self) -> Hashable | None:
        """What a broadcast's encoding depends on; None with context takeover: on all that was sent before."""
        return self._agreement if self._agreement.forgets else None

    @property
    def holds_compressor(self) -> bool:
        """Whether there is memory for compressing now."""
        return self._compressor is not None

    @property
    def holds_inflater(self) -> bool:
        """Whether there is memory for inflating now."""
        return self._inflater is not None

    def wants(self, payload: bytes) -> bool:
        """Tell whether a message is at the threshold."""
        return len(payload) >= self._agreement.threshold and payload != b""

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        """Compress a message (section 7.2.1).

        Without context takeover one that would not get shorter is left as it is. With it that is too late: what was
        compressed is part of the context.
        """
        compressor = self._begin()
        data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if len(data) >= len(payload) + len(TAIL) and self._agreement.forgets:
            return 0, payload
        return RSV1, data[: -len(TAIL)]

    def encode_parts(self) -> Callable[[bytes, bool], bytes]:
        """Begin a message in fragments. Each can be inflated as far as it goes when it comes."""
        compressor = self._begin()
        held: bytes | None = None  # the tail of the last flush: inside a message it stays, at the end it goes

        def encode(part: bytes, last: bool) -> bytes:
            nonlocal held
            data = compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
            if data:  # zlib says nothing at all when there is nothing new to flush
                data, held = (held or b"") + data[: -len(TAIL)], TAIL
            elif last and held is None:
                data = b"\x00"  # an empty message with context takeover (section 7.2.3.6)
            return data

        return encode

    def _begin(self) -> _Compress:
        """Return the compressor for the next message."""
        if self._agreement.forgets:
            return self._agreement.compressor()
        if self._compressor is None:
            self._compressor = self._agreement.compressor()
        return self._compressor

    def decode(self, payload: bytes, last: bool, room: int | None) -> Iterator[bytes]:
        """Inflate the next piece of a message (section 7.2.2).

        :raises InvalidBytesError: if it is not what a compressor writes.
        :raises MessageTooBigException: if the message ends too often in itself.
        """
        self._begun = self._begun or payload != b""
        if last and self._begun:  # some peers mark an empty message, too, and send nothing for it
            payload += TAIL
        inflater = self._inflater or self._agreement.inflater()
        self._inflater = inflater
        left = room
        while payload:
            size = PIECE if left is None else min(PIECE, left + 1)
            try:
                piece = inflater.decompress(payload, size)
                payload = inflater.unconsumed_tail
                while piece:
                    yield piece
                    if left is not None:
                        left -= len(piece)
                        if left < 0:
                            return
                    # The inflater may hold more though it has taken in everything, if it had no room for it.
                    if payload or len(piece) < size:
                        break
                    size = PIECE if left is None else min(PIECE, left + 1)
                    piece = inflater.decompress(b"", size)
            except zlib.error as error:
                raise InvalidBytesError(f"A compressed message can't be inflated: {error}") from error
            if inflater.eof:
                payload = inflater.unused_data
                if last and payload == TAIL:
                    payload = b""  # the byte behind the last block that section 7.2.3.4 asks for is not there
                inflater = self._inflater = self._agreement.inflater()
                self._ends += 1
                if self._ends > MAX_ENDS:
                    raise MessageTooBigException(f"A compressed message of over {MAX_ENDS} ends")
        if last:
            if self._begun and not _is_between_blocks(inflater if self._agreement.peer_forgets else inflater.copy()):
                raise InvalidBytesError("A compressed message can't be inflated: it ends within a block")
            self._begun = False
            self._ends = 0
            if self._agreement.peer_forgets:
                self._inflater = None


def _is_between_blocks(inflater: _Decompress) -> bool:
    """Tell whether a block has just ended, by giving the inflater, which can't be used any more then, a last one."""
    try:
        return not inflater.decompress(LAST_BLOCK) and inflater.eof
    except zlib.error:
        return False
