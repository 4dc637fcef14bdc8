"""What a websocket asks of whoever writes for it, and of whoever has written for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ws4py.blocking import BlockingConnection
from ws4py.messaging import CloseControlMessage

__all__ = ["ConnectionRecord", "TurnRecord"]


class ConnectionRecord(Protocol):
    """What a websocket asks of whoever writes for it: a manager's connection, or one of its own."""

    @property
    def alone(self) -> BlockingConnection | None:
        """What else it asks of its own connection; None under a manager."""

    @property
    def finishing(self) -> bool:
        """Whether reading has ended, so that closed() is due."""

    @property
    def buffered(self) -> int:
        """How many bytes wait to be written."""

    @property
    def send_timeout(self) -> float:
        """How long, in seconds, a send waits at most."""

    def send_message(self, opcode: int, payload: bytes, timeout: float | None = None) -> None:
        """Send a whole message."""

    def send_fragments(self, opcode: int, parts: Iterator[bytes], timeout: float | None = None) -> None:
        """Send a message in fragments, as its parts are made."""

    def send_control(self, frame: bytes, timeout: float | None = None) -> None:
        """Send the frame of a Ping or a Pong."""

    def close(self, message: CloseControlMessage) -> None:
        """Send a Close, if none was sent."""

    def terminate(self) -> None:
        """Drop the connection; ``websocket.terminate()`` will be called again when closed() is due."""


class TurnRecord(Protocol):
    """What a websocket knows of callbacks that a manager has it run."""

    @property
    def in_turn(self) -> bool:
        """Whether callbacks are running, or about to."""
