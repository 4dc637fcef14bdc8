"""WebSocket (RFC 6455) for threaded Python servers and clients."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ws4py.websocket import WebSocket

__version__ = "1.0.0.dev0"
__all__ = ["WS_KEY", "WS_VERSION", "configure_logger", "format_addresses"]

WS_KEY: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The GUID that a server appends to the client's key (RFC 6455, section 1.3)."""

WS_VERSION: Final = (8, 13)
"""The versions of the protocol that are spoken; their frames are the same."""


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
        handlers.append(RotatingFileHandler(filepath, maxBytes=10 * 1024 * 1024, backupCount=3))
    if stdout:
        handlers.append(logging.StreamHandler(sys.stdout))
    for handler in handlers:
        handler.setLevel(level)
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    return logger


def format_addresses(ws: WebSocket) -> str:
    """Return both addresses of a websocket for a log line; of either family, and of a unix socket."""
    local, peer = ws.local_address, ws.peer_address
    if isinstance(local, tuple) and isinstance(peer, tuple):
        return f"[Local => {local[0]}:{local[1]} | Remote => {peer[0]}:{peer[1]}]"
    return f"[Bound to {local!r}]"
