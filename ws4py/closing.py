"""How far a connection has come towards its end (RFC 6455, section 7)."""

from __future__ import annotations

import enum

__all__ = ["State"]


class State(enum.IntEnum):
    """How far a connection has come, by the names and numbers of the WebSocket API of browsers (``readyState``)."""

    CONNECTING = 0
    """The opening handshake is not done."""
    OPEN = 1
    """Messages go both ways."""
    CLOSING = 2
    """One side has sent a Close, or must: a rule was broken."""
    CLOSED = 3
    """The connection is at its end."""
