"""WebSockets on servers of WSGI that know nothing of them: gunicorn, werkzeug, waitress, uWSGI, wsgiref, Django's.

The application answers the handshake on the connection itself, takes the connection away from under the server, and
returns at once: see :mod:`ws4py.server.standin`. The websocket runs under a manager, one for the process, which ends
with that.

A server is asked for nothing but the connection, and for what it has read behind the request.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from wsgiref.util import is_hop_by_hop

from ws4py.exc import HandshakeError
from ws4py.handshake import format_head
from ws4py.limits import Limits
from ws4py.server import rawsocket, standin
from ws4py.server.running import hand_over, stop_with_main_thread
from ws4py.server.serveradapter import SWITCHING, Headers, ServerAdapter, StartResponse, UnknownServer, refuse
from ws4py.websocket import WebSocket

__all__ = ["find_gunicorn", "find_uwsgi", "find_waitress", "find_werkzeug", "find_wsgiref"]

logger = logging.getLogger("ws4py")


class SocketServer(ServerAdapter):
    """A server the connection of which can be taken away.

    :param connection: an SSLSocket, or what has the ``fileno()`` of a plain socket.
    """

    def admit(self, address: str | None) -> None:
        """See :meth:`ServerAdapter.admit`. The manager of this process is made now, if no other is given."""
        try:
            if self.manager is None:
                self.manager = rawsocket.shared_manager(self.socket)
            if rawsocket.is_gevents(self.socket):
                standin.check_reserve(self.socket.fileno())
        except (OSError, RuntimeError) as error:  # the system has no descriptors, or no thread, for it
            raise self._too_many(error) from error
        super().admit(address)

    def upgrade(
        self, websocket: WebSocket, environ: dict[str, Any], start_response: StartResponse, headers: Headers
    ) -> Iterable[bytes]:
        """See :meth:`ServerAdapter.upgrade`.

        :raises HandshakeError: if a header would break out of its line; nothing was written then.
        """
        head = format_head(f"HTTP/1.1 {SWITCHING}", headers)
        # PEP 3333 forbids the headers of the connection, and some servers insist. The client has them already.
        others = [header for header in headers if not is_hop_by_hop(header[0])]
        if rawsocket.is_gevents(self.socket):
            self._upgrade_greenlet(websocket, environ, head)
            start_response(SWITCHING, others)
            return _Gone()
        try:
            sock, far = standin.take(self.socket)
        except OSError as error:
            websocket.sock = None
            self.refused(503)
            return refuse(self._too_many(error), start_response)
        websocket.sock, websocket.buf = sock, self.take_early(environ)
        if not self._run(websocket, head, environ.get("REMOTE_ADDR")):
            websocket.sock = None
            sock.close()
        self.answer(start_response, others)
        return _Body(far)

    def _upgrade_greenlet(self, websocket: WebSocket, environ: dict[str, Any], head: bytes) -> None:
        """Answer with ``head`` on a socket of gevent, which is the websocket's from then on.

        Its number can't be another socket's, since the hub's loop may watch it.
        """
        from ws4py.backends.greenlets import close_socket, take_socket

        websocket.buf = self.take_early(environ)
        websocket.sock = take_socket(self.socket)
        if not self._run(websocket, head, environ.get("REMOTE_ADDR")):
            taken, websocket.sock = websocket.sock, None
            close_socket(taken)

    def _run(self, websocket: WebSocket, head: bytes, address: str | None) -> bool:
        """Write the 101, and have the manager run the websocket; return False if the client is gone."""
        websocket.sock.settimeout(self.manager.limits.send_timeout)
        try:
            websocket.sock.sendall(head)
        except OSError as error:
            logger.debug("The client did not wait for the end of the handshake: %s", error)
            return False
        return hand_over(self.manager.add, websocket, address=address)

    def _too_many(self, error: Exception) -> HandshakeError:
        """Return the answer to a handshake for which the system has no room."""
        logger.warning("A websocket was refused with 503: %s", error)
        limits = Limits() if self.manager is None else self.manager.limits
        return HandshakeError("Too many connections", 503, limits.retry_headers)

    def answer(self, start_response: StartResponse, headers: Headers) -> None:
        """Have the server answer its request, which nobody hears; but it may log it."""
        start_response(SWITCHING, headers)

    def take_early(self, environ: Mapping[str, Any]) -> bytes:
        """Return what the server has read behind the request.

        Where it has a buffered reader, that meets the end of the stand-in: so nothing is waited for.
        """
        stream = environ.get("wsgi.input")
        if rawsocket.is_gevents(self.socket):
            return rawsocket.take_buffered(self.socket, stream)
        peek = getattr(stream, "peek", None)
        return b"" if peek is None else bytes(peek(1))


class _Body:
    """The empty body of a response that nobody hears. The server writes the response before it closes this."""

    def __init__(self, far: socket.socket) -> None:
        self._far = far

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        standin.close_far(self._far)


class _Gone:
    """The body of a response that can't be written, since the connection is another's: so a server learns that, which
    then logs its request, and forgets it.
    """

    def __iter__(self) -> Iterator[bytes]:
        raise BrokenPipeError(errno.EPIPE, "The connection of this request is a websocket's")


class Unsupported(UnknownServer):
    """A server that could do it on another system."""

    reason = "On Windows this server can't hand a websocket's connection over"


class GreenTLS(UnknownServer):
    """TLS of eventlet's, which goes on to watch the numbers of descriptors that are gone."""

    reason = "eventlet's TLS can't hand a websocket's connection over"


# --- gunicorn, werkzeug -----------------------------------------------------------------------------------------------


class GunicornServer(SocketServer):
    """gunicorn: its workers gthread and sync, and those for gevent and eventlet."""

    def admit(self, address: str | None) -> None:
        """See :meth:`ServerAdapter.admit`. A manager that is given ends with the worker."""
        super().admit(address)
        if not rawsocket.is_greenlets(self.socket):  # they can't wait for the main thread
            stop_with_main_thread(self.manager)

    def take_early(self, environ: Mapping[str, Any]) -> bytes:
        """See :meth:`SocketServer.take_early`."""
        unreader = getattr(getattr(environ.get("wsgi.input"), "reader", None), "unreader", None)
        if unreader is None:
            return b""
        data = bytes(unreader.buf.getvalue())
        unreader.buf.seek(0)
        unreader.buf.truncate()
        return data


def find_gunicorn(environ: Mapping[str, Any], connection: Any, manager: Any) -> ServerAdapter:
    """Return the adapter for a socket of gunicorn's."""
    eventlets = rawsocket.is_greenlets(connection) and not rawsocket.is_gevents(connection)
    if eventlets and isinstance(connection, ssl.SSLSocket):
        return GreenTLS(None, manager)
    return GunicornServer(connection, manager)


def find_werkzeug(environ: Mapping[str, Any], connection: Any, manager: Any) -> ServerAdapter:
    """Return the adapter for a socket of werkzeug's development server."""
    return _if_supported(SocketServer, connection, manager)


def _if_supported(adapter: type[SocketServer], connection: Any, manager: Any) -> ServerAdapter:
    return (adapter if standin.SUPPORTED else Unsupported)(connection, manager)


# --- wsgiref, Django's runserver --------------------------------------------------------------------------------------


class WsgirefServer(SocketServer):
    """The server of the standard library, and Django's ``runserver``, which is one."""

    def take_early(self, environ: Mapping[str, Any]) -> bytes:
        """See :meth:`SocketServer.take_early`."""
        return bytes(_file_of(environ).peek(1))


def _file_of(environ: Mapping[str, Any]) -> Any:
    """Return the file of a request's connection; Django's server has it in one that ends with the request."""
    stream = environ.get("wsgi.input")
    return getattr(getattr(stream, "_read", None), "__self__", stream)


def find_wsgiref(environ: Mapping[str, Any], manager: Any) -> ServerAdapter | None:
    """Return the adapter for a request of a server that is wsgiref's; None if it shows no socket."""
    if not environ.get("SERVER_SOFTWARE", "").startswith("WSGIServer/"):
        return None
    connection = getattr(getattr(_file_of(environ), "raw", None), "_sock", None)
    if not isinstance(connection, socket.socket):
        return None
    return _if_supported(WsgirefServer, connection, manager)


# --- waitress ---------------------------------------------------------------------------------------------------------


class WaitressServer(SocketServer):
    """waitress. Its main thread does not look at a connection while the request of that is being answered."""

    def __init__(self, channel: Any, manager: Any) -> None:
        super().__init__(channel.socket, manager)
        self._channel = channel

    def admit(self, address: str | None) -> None:
        """See :meth:`ServerAdapter.admit`.

        :raises HandshakeError: with 400, too, if what follows the request was taken for a request already.
        """
        channel = self._channel
        with channel.requests_lock:
            if len(channel.requests) > 1 or (channel.request is not None and channel.request.headers_finished):
                raise HandshakeError("A websocket can't be opened in the middle of requests")
        super().admit(address)

    def take_early(self, environ: Mapping[str, Any]) -> bytes:
        """See :meth:`SocketServer.take_early`."""
        channel = self._channel
        with channel.requests_lock:
            request, channel.request = channel.request, None
        return b"" if request is None else bytes(request.header_plus)


def find_waitress(environ: Mapping[str, Any], check: Any, manager: Any) -> ServerAdapter:
    """Return the adapter for a request of waitress, if its insides are what they are known to be.

    :param check: a method of the request's channel.
    """
    channel = getattr(check, "__self__", None)
    parser = getattr(channel, "parser_class", None)
    if (
        isinstance(getattr(channel, "socket", None), socket.socket)
        and isinstance(getattr(channel, "requests", None), list)
        and hasattr(channel, "requests_lock")
        and hasattr(channel, "request")
        and hasattr(parser, "header_plus")
        and hasattr(parser, "headers_finished")
        and getattr(getattr(channel, "adj", None), "channel_request_lookahead", None) == 0  # else it reads meanwhile
    ):
        return _if_supported(WaitressServer, channel, manager)
    return UnknownServer(None, manager)


# --- uWSGI ------------------------------------------------------------------------------------------------------------


class UWSGIServer(SocketServer):
    """uWSGI with threads: its own server for HTTP, and its router."""

    def answer(self, start_response: StartResponse, headers: Headers) -> None:
        """See :meth:`SocketServer.answer`. uWSGI would write the head when it has closed the body."""
        start_response(SWITCHING, headers)(b"")

    def take_early(self, environ: Mapping[str, Any]) -> bytes:
        """See :meth:`SocketServer.take_early`. There is no way to what uWSGI has read."""
        return b""


class _Descriptor:
    """A connection by the number of its descriptor."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


def find_uwsgi(environ: Mapping[str, Any], _version: Any, manager: Any) -> ServerAdapter:
    """Return the adapter for a request of uWSGI, unless that speaks TLS itself, or does not run requests by threads."""
    module = sys.modules.get("uwsgi")
    descriptor = getattr(module, "connection_fd", None)
    options = {name if isinstance(name, str) else name.decode() for name in getattr(module, "opt", ())}
    if descriptor is None or options & {"https-socket", "async", "gevent", "asyncio"}:
        return UnknownServer(None, manager)
    return _if_supported(UWSGIServer, _Descriptor(descriptor()), manager)
