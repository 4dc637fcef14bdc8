"""WebSockets on servers that put the raw socket into the environ: gunicorn, and werkzeug's development server.

gunicorn's thread worker and its gevent worker both do. These servers close the connection when the application returns;
so the thread or the greenlet of the request stays, idle, until the websocket has ended, and with gunicorn's thread
worker there can be as many websockets as it has threads. The websocket itself runs under a manager, one for the
process.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from ws4py.handshake import format_head
from ws4py.manager import WebSocketManager
from ws4py.server.running import hand_over, shut_down
from ws4py.websocket import WebSocket

__all__ = ["serve", "shared_manager", "stop"]

_lock = threading.Lock()
_managers: dict[tuple[int, int], WebSocketManager] = {}  # by the process, and by the hub of gevent or 0


def _is_gevents(sock: Any) -> bool:
    return type(sock).__module__.startswith("gevent.")


def shared_manager(sock: Any) -> WebSocketManager:
    """Return the manager of this process for sockets like ``sock``, running."""
    hub: Any = None
    if _is_gevents(sock):
        from gevent import get_hub

        from ws4py.server.geventmanager import GreenletManager

        hub = get_hub()
    key = (os.getpid(), 0 if hub is None else id(hub))
    with _lock:
        manager = _managers.get(key)
        if manager is None:
            manager = _managers[key] = WebSocketManager() if hub is None else GreenletManager()
        if not manager.is_alive():
            manager.daemon = True
            manager.start()
    return manager


def stop() -> None:
    """Close this process's websockets of such servers with 1001, and wait for that; to be called where a worker ends.

    For gunicorn: ``def worker_exit(server, worker): ws4py.server.rawsocket.stop()`` in its configuration.
    """
    shut_down(*(manager for (process, _), manager in list(_managers.items()) if process == os.getpid()))


def serve(
    websocket: WebSocket,
    sock: Any,
    environ: dict[str, Any],
    headers: Sequence[tuple[str, str]],
    manager: WebSocketManager,
) -> NoReturn:
    """Write the 101 and run a websocket until it has ended. Blocks.

    :raises BrokenPipeError: in the end, always, since nothing else keeps these servers from answering on the
        connection.
    :raises HandshakeError: if a header would break out of its line; nothing was written then.
    :raises OSError: if the 101 can't be written.
    """
    head = format_head("HTTP/1.1 101 Switching Protocols", headers)
    early = take_early(sock, environ)
    sock.settimeout(manager.limits.send_timeout)
    sock.sendall(head)
    websocket.buf = early
    ended = threading.Event()
    websocket.sock = _taken(sock, ended)
    if not hand_over(manager.add, websocket, address=environ.get("REMOTE_ADDR")):
        taken, websocket.sock = websocket.sock, None
        getattr(taken, "__dict__", {}).pop("close", None)
        taken.close()
    else:
        connection: Any = websocket._connection
        greenlet = getattr(connection, "greenlet", None)
        if greenlet is not None:
            greenlet.join()
        else:
            ended.wait()
            getattr(sock, "__dict__", {}).pop("close", None)
    raise BrokenPipeError(errno.EPIPE, "The websocket of this request has ended")


def take_early(sock: Any, environ: dict[str, Any]) -> bytes:
    """Return what the server has read behind the request."""
    stream = environ.get("wsgi.input")
    unreader = getattr(getattr(stream, "reader", None), "unreader", None)  # gunicorn's
    if unreader is not None:
        data = bytes(unreader.buf.getvalue())
        unreader.buf.seek(0)
        unreader.buf.truncate()
        return data
    return take_buffered(sock, stream)


def take_buffered(sock: Any, rfile: Any) -> bytes:
    """Return what a buffered reader has read ahead of the application, without waiting for more.

    :param sock: that it reads from; it is left non-blocking.
    """
    peek = getattr(rfile, "peek", None)
    if peek is None:
        return b""
    sock.settimeout(0.0)
    try:
        return bytes(peek(1))
    except (OSError, ValueError):  # nothing was buffered, and a TLS object says so by an exception
        return b""


class _HeldSocket(socket.socket):
    """Tells when it is closed."""

    ended: threading.Event

    def close(self) -> None:
        """Give the descriptor back."""
        super().close()
        self.ended.set()


def _taken(sock: Any, ended: threading.Event) -> Any:
    """Return a socket for the connection of ``sock`` that the server can't close.

    :param ended: set when the socket is closed, but not if it is one of gevent's: there is the greenlet to wait for.
    """
    if _is_gevents(sock):
        from ws4py.backends.greenlets import take_socket

        return take_socket(sock)
    if isinstance(sock, ssl.SSLSocket):
        # It can't be duplicated. Its two directions are ended when this is called, and the server will close it.
        sock.close = ended.set  # type: ignore[method-assign]
        return sock
    held = _HeldSocket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    held.ended = ended
    return held


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()  # a thread of the parent's may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
