"""The inbox of a connection: what waits for its callbacks, in order.

It is a list, None while nothing waits: messages, Pongs that the application wants to see, and two marks.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["END", "OPENED", "Item"]

Item = Any


class _Mark:
    """Something that an inbox holds and that is no message."""

    __slots__ = ("opcode",)

    def __init__(self) -> None:
        self.opcode = 0x10  # out of the range of the protocol's own


OPENED: Final = _Mark()
"""The first item of every inbox: ``opened()`` is due."""

END: Final = _Mark()
"""The last item of every inbox: ``closed()`` is due."""
