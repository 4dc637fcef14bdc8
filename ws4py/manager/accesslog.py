"""The access log: one line for each websocket, at its end. A server's own knows of the handshake only."""

from __future__ import annotations

import logging
from typing import Final

from ws4py.engine import Connection
from ws4py.manager.member import Member

__all__ = ["LOGGER", "log_end"]

LOGGER: Final = "ws4py.access"
"""The logger's name. Its level is INFO."""

logger = logging.getLogger(LOGGER)


def log_end(member: Member, connection: Connection, now: float) -> None:
    """Write the line of a websocket that has ended. Records have its figures as attributes, too: ``connection_id``,
    ``address``, ``path``, ``code``, ``duration`` in seconds, ``messages_received``, ``bytes_received``,
    ``messages_sent``, ``bytes_sent``; bytes are as the socket carried them.

    :param now: by the engine's clock.
    """
    code = member.websocket.close_code
    traffic = connection.counted()
    figures = {
        "connection_id": member.id,
        "address": member.address or None,
        "path": member.path or None,
        "code": 1006 if code is None else code,
        "duration": now - connection.opened_at,
        "messages_received": traffic.messages_received,
        "bytes_received": traffic.bytes_received,
        "messages_sent": traffic.messages_sent,
        "bytes_sent": traffic.bytes_sent,
    }
    logger.info(
        "%d %s %s %d %.3f s, received %d messages of %d bytes, sent %d of %d",
        *(("-" if value is None else value) for value in figures.values()),
        extra=figures,
    )
