"""Extensions that change what a message carries (RFC 6455, section 9; RFC 7692, sections 4 to 6).

Three small interfaces, so that there can be others beside :mod:`ws4py.extensions.permessage_deflate`:

- an :class:`Extension` is an endpoint's wish: it makes a client's offers, chooses from them as a server, and checks a
  server's answer as a client;
- an :class:`Agreement` is the outcome of a handshake;
- a :class:`Codec` is what one connection has because of it: it turns payloads into what is on the wire and back.

An extension of this kind marks the messages that it changed by RSV1 on their first frame. All of them do, so at most
one is in use on a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

__all__ = ["Agreement", "Codec", "Extension", "Parameters"]

Parameters = tuple[tuple[str, str | None], ...]
"""The parameters of an offer or an answer in their order, (name, value) each; None for one without a value."""


class Codec(Protocol):
    """An extension's part in one connection.

    One thread decodes; encoding is up to whoever sends: see :attr:`ordered`.
    """

    @property
    def ordered(self) -> bool:
        """Whether messages must be on the wire in the order in which :meth:`encode` had them.

        If so, one thread at a time may encode. Otherwise any may, at once.
        """

    @property
    def shareable(self) -> Hashable | None:
        """What is equal for codecs that encode a message alike, whatever came before; None if that matters."""

    def wants(self, payload: bytes) -> bool:
        """Tell whether a message is worth encoding. One that is not is sent as it is, in any order."""

    def encode(self, payload: bytes) -> tuple[int, bytes]:
        """Encode a message.

        :returns: the reserved bits for its first frame, as in that frame's first byte, 0 if it is not encoded after
            all; and the payload.
        """

    def encode_parts(self) -> Callable[[bytes, bool], bytes]:
        """Begin a message that is sent in fragments, all of which are encoded: its first frame has RSV1.

        :returns: a function of (a part, whether it is the last), for the parts in their order, which returns the
            payload of its frame.
        """

    def decode(self, payload: bytes, last: bool, room: int | None) -> Iterator[bytes]:
        """Decode the next piece of a message that has RSV1. What is yielded comes in pieces of limited size.

        :param last: whether the message ends with it.
        :param room: how many bytes the message may still have, None for no limit. When one byte more has been yielded
            there are no others to come: the caller is to fail the connection.
        :raises InvalidBytesError: if it can't be decoded.
        :raises MessageTooBigException: if decoding it would take unreasonably much.
        """


class Agreement(Protocol):
    """What the two sides of a connection agreed on. It may be shared by any number of them."""

    def codec(self) -> Codec:
        """Return a new codec, for one connection and the role that agreed."""


class Extension(Protocol):
    """What an endpoint wants of an extension. One object may serve any number of handshakes."""

    @property
    def name(self) -> str:
        """The registered name, a token."""

    def offers(self) -> Sequence[Parameters]:
        """Return the client's offers, the best first."""

    def accept(self, offer: Parameters) -> tuple[Parameters, Agreement] | None:
        """Answer a client's offer: with the parameters of the answer, or None to decline it."""

    def check(self, answer: Parameters) -> Agreement:
        """Take in a server's answer to :meth:`offers`.

        :raises ValueError: if it is none that may be given: the client fails the connection.
        """
