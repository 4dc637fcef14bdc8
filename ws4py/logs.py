"""Whose connection a log record is about: each record of the logger ``ws4py`` says so.

Records have three attributes more, for formatters and for structured logs. They are always there, so that
``%(connection_id)s`` in a format never fails:

``connection_id``
    the number that the manager has given to the connection, as :meth:`connection_stats()
    <ws4py.manager.WebSocketManager.connection_stats>` and the dashboard show it; None if no manager runs it, or if the
    record is about none.
``address``
    of the peer; None if that is unknown.
``path``
    of the request that the connection came from; None likewise. Its characters are printable, so that no client writes
    lines of a log, and it is cut where it is very long.

What is logged, and how loudly, is meant for many connections: a peer that vanishes, breaks a rule or is too slow is its
own affair, and is DEBUG (the statistics count it). An exception in a handler is ERROR, with its traceback. What ends a
manager is CRITICAL. Nothing is logged for a connection or a message that goes well.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Protocol

from ws4py.labels import path_of, printable, unpacked_address

__all__ = ["ATTRIBUTES", "ConnectionFilter", "Named", "configure_logger", "format_addresses"]

ATTRIBUTES: Final = ("connection_id", "address", "path")
"""What each record has, for formatters; None where it is about no connection."""


class Named:
    """What a record may name in a websocket's place: whose text is our own, and runs none of the application's code."""

    __slots__ = ()

    websocket: Any

    def __str__(self) -> str:
        """Say which one it is."""
        return f"connection {getattr(self, 'id', 0)} ({type(self.websocket).__name__})"


class ConnectionFilter(logging.Filter):
    """Adds the attributes, from the websocket that is among a record's arguments, or that one of them names. It lets
    every record pass.

    :param websocket_class: what a websocket is an instance of.
    """

    def __init__(self, websocket_class: type[Any]) -> None:
        super().__init__()
        self._websocket_class = websocket_class

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes, but those that the caller gave as ``extra``. Any thread may call."""
        arguments = record.args
        websocket = None
        if isinstance(arguments, tuple):
            candidates = (item.websocket if isinstance(item, Named) else item for item in arguments)
            websocket = next((item for item in candidates if isinstance(item, self._websocket_class)), None)
        for name, value in zip(ATTRIBUTES, _describe(websocket), strict=True):
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def _describe(websocket: Any) -> tuple[int | None, str | None, str | None]:
    """Return a websocket's connection, address and path. It may have ended, or be half made."""
    if websocket is None:
        return None, None, None
    member = getattr(getattr(websocket, "_connection", None), "owner", None)
    number: int | None = getattr(member, "id", None)
    address: Any = getattr(member, "address", None) or unpacked_address(getattr(websocket, "_peer_address", None) or "")
    if isinstance(address, tuple):
        address = address[0]
    path = getattr(member, "path", None)
    environ = getattr(websocket, "environ", None)
    if not path and isinstance(environ, dict):
        path = path_of(environ)
    return number, printable(str(address)) if address else None, path or None


class Addressed(Protocol):
    """What :func:`format_addresses` asks of a websocket."""

    @property
    def local_address(self) -> Any:
        """The address of this side."""

    @property
    def peer_address(self) -> Any:
        """The address of the other side."""


def configure_logger(stdout: bool = True, filepath: str | None = None, level: int = logging.INFO) -> logging.Logger:
    """Give the logger ``ws4py`` handlers, and return it.

    :param stdout: write to the standard output.
    :param filepath: also write to this file, of at most 10 MB, with 3 older ones.
    :param level: of the logger and its handlers.
    """
    logger = logging.getLogger("ws4py")
    logger.setLevel(level)
    formatter = logging.Formatter("[%(asctime)s] %(levelname)s %(message)s")
    handlers: list[logging.Handler] = []
    if filepath:
        from logging.handlers import RotatingFileHandler

        handlers.append(RotatingFileHandler(filepath, maxBytes=10 * 1024 * 1024, backupCount=3))
    if stdout:
        handlers.append(logging.StreamHandler(sys.stdout))
    for handler in handlers:
        handler.setLevel(level)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    return logger


def format_addresses(ws: Addressed) -> str:
    """Return both addresses of a websocket for a log line; of either family, and of a unix socket."""
    local, peer = ws.local_address, ws.peer_address
    if isinstance(local, tuple) and isinstance(peer, tuple):
        return f"[Local => {local[0]}:{local[1]} | Remote => {peer[0]}:{peer[1]}]"
    return f"[Bound to {local!r}]"
