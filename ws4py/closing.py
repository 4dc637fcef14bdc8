"""The closing handshake (RFC 6455, section 7): what is sent, once, and who ends TCP. All its rules are here.

Whoever owns a connection tells a :class:`Closing` what has happened, and asks it what may be sent; *when* that leaves
is the owner's affair: a reply goes behind the answers to the messages that came before the peer's Close, say.
"""

from __future__ import annotations

import enum
from typing import Final

from ws4py.messaging import CloseCode, CloseControlMessage

__all__ = [
    "APPLICATION_FAILED",
    "CLOSED",
    "CLOSING",
    "CONNECTING",
    "KEEPALIVE_TIMEOUT",
    "MESSAGE_TIMEOUT",
    "OPEN",
    "SLOW_CONSUMER",
    "Closing",
    "Event",
    "State",
    "outcome",
]


class State(enum.IntEnum):
    """How far a connection has come, by the names and numbers of the WebSocket API of browsers (``readyState``)."""

    CONNECTING = 0
    """The opening handshake is not done."""
    OPEN = 1
    """Messages go both ways."""
    CLOSING = 2
    """One side has sent a Close, or must: a rule was broken."""
    CLOSED = 3
    """TCP is at its end."""


class Event(enum.Enum):
    """What can happen to a connection."""

    OPENED = enum.auto()
    """The opening handshake is done."""
    SENT = enum.auto()
    """A Close of ours is on its way."""
    RECEIVED = enum.auto()
    """The peer's Close has come."""
    FAILED = enum.auto()
    """The peer has broken a rule, or a limit."""
    LOST = enum.auto()
    """TCP is at its end, in order or not."""


CONNECTING, OPEN, CLOSING, CLOSED = State  # names of the module are found faster than an enumeration's

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (CONNECTING, Event.OPENED): OPEN,
    (CONNECTING, Event.LOST): CLOSED,
    (OPEN, Event.SENT): CLOSING,
    (OPEN, Event.RECEIVED): CLOSING,
    (OPEN, Event.FAILED): CLOSING,
    (OPEN, Event.LOST): CLOSED,
    (CLOSING, Event.SENT): CLOSING,
    (CLOSING, Event.RECEIVED): CLOSING,
    (CLOSING, Event.FAILED): CLOSING,
    (CLOSING, Event.LOST): CLOSED,
}
"""What becomes of a state by an event. What is not here does not happen: the event is passed over."""


KEEPALIVE_TIMEOUT: Final = CloseControlMessage(CloseCode.INTERNAL_ERROR, "Keepalive ping timeout")
"""To a peer of whom nothing comes: see :mod:`ws4py.keepalive`."""
MESSAGE_TIMEOUT: Final = CloseControlMessage(CloseCode.POLICY_VIOLATION, "A message was not finished in time")
"""To a peer that does not finish a message: see :mod:`ws4py.deadline`."""
SLOW_CONSUMER: Final = CloseControlMessage(CloseCode.TRY_AGAIN_LATER, "Slow consumer")
"""To a peer that does not read."""
APPLICATION_FAILED: Final = CloseControlMessage(CloseCode.INTERNAL_ERROR)
"""When a callback, or a generator that is being sent, has raised. The peer is told no more of it."""


class Closing:
    """The closing handshake of one connection, in either role. Not thread-safe: one owner at a time.

    :param state: to begin with.
    :ivar state: how far the connection has come.
    :ivar sent: the Close that this side has sent.
    :ivar received: the Close that the peer has sent; its code is 1005 if it had none.
    :ivar due: the Close that is to be sent because of what the peer did.
    """

    __slots__ = ("due", "received", "sent", "state")

    def __init__(self, state: State = State.OPEN) -> None:
        self.state = state
        self.sent: CloseControlMessage | None = None
        self.received: CloseControlMessage | None = None
        self.due: CloseControlMessage | None = None

    def _happen(self, event: Event) -> bool:
        """Go on to the next state; return False if the event is passed over."""
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            return False
        self.state = state
        return True

    @property
    def may_send(self) -> bool:
        """Whether messages, Pings and Pongs may be sent: from the opening handshake to a Close (section 5.5.1)."""
        return self.sent is None and self.state in (OPEN, CLOSING)

    @property
    def read_ended(self) -> bool:
        """Whether what the peer sends is passed over: after its Close, or what was wrong (section 7.1.7)."""
        return self.received is not None or self.due is not None or self.state == CLOSED

    def send(self, close: CloseControlMessage) -> bool:
        """Begin the closing handshake; return whether ``close`` is to be sent: only the first one is."""
        if self.sent is not None or not self._happen(Event.SENT):
            return False
        self.sent = close
        return True

    def receive(self, close: CloseControlMessage) -> None:
        """Take in the peer's Close. It owes an answer if none was sent: :meth:`reply`."""
        if not self.read_ended and self._happen(Event.RECEIVED):
            self.received = close

    def fail(self, close: CloseControlMessage) -> None:
        """Fail the connection (section 7.1.7): the peer has broken a rule, which ``close`` names. :meth:`reply`
        returns it.
        """
        if not self.read_ended and self._happen(Event.FAILED):
            self.due = close

    def reply(self) -> CloseControlMessage | None:
        """Return the Close that is to be sent because reading has ended, once: what says what was wrong, or the echo of
        the peer's code (section 5.5.1); None if a Close was sent already, or none can be.
        """
        close = self.due
        if close is None and self.received is not None:
            close = CloseControlMessage(self.received.code)
        return close if close is not None and self.send(close) else None

    def lose(self) -> None:
        """TCP is at its end: nothing can be sent or read."""
        self._happen(Event.LOST)

    def ends_tcp(self, client: bool) -> bool:
        """Tell whether this side is to end TCP at once when all is written: a server does that after both Closes, a
        client leaves it to the server (section 7.1.1).

        Without the peer's Close only the own direction is ended, since to end both while the peer still sends could
        destroy the Close on its way to it.
        """
        return self.received is not None and not client

    @property
    def outcome(self) -> tuple[int, bytes | str]:
        """The code and the reason that the application is told at the end (sections 7.1.5 and 7.1.6).

        The code is the one of the peer's Close; 1006 without one, with a reason in our words, which is a str.
        """
        return outcome(self.received, self.due)


def outcome(received: CloseControlMessage | None, due: CloseControlMessage | None) -> tuple[int, bytes | str]:
    """See :attr:`Closing.outcome`.

    :param received: see :class:`Closing`, also for the other.
    """
    if received is not None:
        return received.code, received.reason
    return CloseCode.ABNORMAL_CLOSURE.value, "Going away" if due is None else str(due)
