"""Taking a socket over from cheroot, the HTTP server of CherryPy.

cheroot answers a request in a worker thread, and then either keeps the connection for the next request or closes it. A
websocket wants a third thing: the open socket, with the bytes of it that were read already, once the 101 is written,
and the server to forget the connection.

:func:`arm` is called when the head of the response has been written. It replaces the connection's two ways out:
:func:`close`, which cheroot calls if it does not keep the connection, and the ``rfile`` that it asks, if it does,
whether the next request is there already. Whichever comes first hands the socket over. Both come on the worker's
thread, after its last use of the connection.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cheroot.server import HTTPConnection

__all__ = ["arm", "current_connection"]

logger = logging.getLogger("ws4py")

Receiver = Callable[[Any, bytes], None]
"""Takes a socket, still blocking, and the bytes that were read from it already."""


def current_connection() -> HTTPConnection | None:
    """Return the connection whose request the calling thread answers; None if the thread is not one of cheroot's
    workers.
    """
    connection = getattr(threading.current_thread(), "conn", None)
    return connection if hasattr(connection, "communicate") and hasattr(connection, "rfile") else None


def arm(connection: HTTPConnection, receiver: Receiver) -> None:
    """Let ``receiver`` have the connection's socket as soon as cheroot is done with it.

    To be called by the worker that answers the request, after the head of the response has been written. An exception
    of ``receiver`` is logged, and closes the socket: cheroot would stop the whole server for it.
    """
    handover = _Handover(connection, receiver)
    connection.rfile = handover
    connection.communicate = handover.communicate  # type: ignore[method-assign]
    connection.close = handover.close  # type: ignore[method-assign]


class _Handover:
    """Stands in for a connection's ``rfile`` and its methods from the 101 on."""

    def __init__(self, connection: HTTPConnection, receiver: Receiver) -> None:
        self._connection: HTTPConnection | None = connection
        self._receiver = receiver
        self._rfile = connection.rfile
        self.bytes_read = getattr(connection.rfile, "bytes_read", 0)  # cheroot's statistics ask for it at the end

    @property
    def closed(self) -> bool:
        """Asked by a cheroot that can't wait for its workers to end: it shall not touch the connection any more."""
        return True

    def has_data(self) -> bool:
        """Asked by cheroot before it waits for the next request: hand over, and let it ask communicate() at once
        instead.
        """
        self.close()
        return True

    def communicate(self) -> bool:
        """Asked by cheroot to answer the next request: there is none, and the connection is not to be kept."""
        return False

    def close(self) -> None:
        """Hand the socket over. Called by cheroot, once or twice; must not raise."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        sock = connection.socket
        try:
            early = _take_buffered(self._rfile)
            # The files count as users of the socket, and would keep its descriptor open.
            self._rfile.close()
            if not _close_written(connection.wfile):
                sock.close()
                return
            connection.socket = None
            # Caches that make the connection refer to itself: without them it goes as soon as cheroot forgets it.
            for name in ("resolve_peer_creds", "get_peer_creds"):
                connection.__dict__.pop(name, None)
            self._receiver(sock, early)
        except Exception:
            logger.exception("A websocket could not be taken over")
            try:
                sock.close()
            except Exception:
                logger.debug("Its socket could not be closed", exc_info=True)
        finally:
            del self._rfile, self._receiver  # an idle worker of cheroot remembers its last connection


def _close_written(wfile: Any) -> bool:
    """Close a buffered writer; return False if it has something that can't be written: the client is gone."""
    try:
        wfile.close()
    except Exception as error:  # noqa: BLE001 - pyOpenSSL's errors are no OSErrors
        logger.debug("The client did not wait for the end of the handshake: %s", error)
        return False
    return True


def _take_buffered(rfile: Any) -> bytes:
    """Return what a buffered reader has read ahead, without reading on."""
    if not rfile.has_data():
        return b""
    buffered: bytes = rfile.peek(0)
    return bytes(rfile.read(len(buffered)))
