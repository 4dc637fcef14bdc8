"""A server of websockets that needs no HTTP server: threads, and nothing but the standard library.

.. code-block:: python

    from ws4py.server.threadedserver import WebSocketServer
    from ws4py.websocket import EchoWebSocket

    with WebSocketServer(('127.0.0.1', 9000), websocket_class=EchoWebSocket) as server:
        server.serve_forever()

One thread accepts, and waits for the heads of all requests at once. TLS, and functions of the application's, run on a
few workers, so that whoever takes time delays no other handshake. At its 101 a websocket goes to the manager. A
connection has one request.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from ws4py.around import Around
from ws4py.exc import ManagerError
from ws4py.extensions import Extension
from ws4py.manager import WebSocketManager
from ws4py.manager.process import shut_down
from ws4py.server.acceptor import Acceptor
from ws4py.server.endpoint import Endpoint, Request
from ws4py.server.forwarded import TrustedProxies
from ws4py.server.listening import Address, Listener
from ws4py.server.opening import Opening
from ws4py.server.responder import Answer, Application, ProcessRequest, Responder
from ws4py.websocket import WebSocket

__all__ = ["Answer", "Endpoint", "Request", "WebSocketServer"]

logger = logging.getLogger("ws4py")

WebSocketClass = Callable[..., WebSocket] | Endpoint

LEAST_HEAD: Final = 256


class WebSocketServer:
    """Serves websockets: a class on every path, or a mapping of paths to classes.

    It is a context manager: it starts with the block, and is shut down, and waited for, at its end.

    :ivar manager: who runs the websockets.
    :ivar server_address: where it listens: (host, port, ...) with the port that was chosen, or the path of a unix
        socket.
    :param address: (host, port), an empty host for all of IPv4 and port 0 for any that is free; the path of a unix
        socket; or a socket that is bound, which the server closes in the end.
    :param websocket_class: a class, called with (sock, protocols, extensions, environ), an
        :class:`~ws4py.server.endpoint.Endpoint`, or a mapping of paths to those. A path that ends with ``*`` stands for
        all that begin so. Other paths are answered with 404.
    :param manager: one's own. If it does not run, it is started, and stopped, with the server. By default one is made.
    :param ssl_context: for TLS, with a certificate.
    :param process_request: is called with each :class:`~ws4py.server.endpoint.Request`, and returns None to go on, or
        an :class:`Answer`, or (status, body, headers), of which the last ones may be left out: a health check, a
        refusal. It may raise :class:`~ws4py.exc.HandshakeError`. Several threads call it, and it may wait, but while as
        many calls wait as there are ``handshake_workers``, no other handshake with TLS or this goes on.
    :param applications: of WSGI, such as the statistics, by the paths that they are under. They are for a few pages:
        they run on those workers, get requests without a body only, and what they return is kept until it is written.
    :param handshake_timeout: for how many seconds a connection may be being opened, TLS included, before it is dropped.
    :param max_handshakes: how many connections may be being opened at once. With so many there, one that has waited for
        its client for a second makes room for a new one; if there is none such, the new ones wait.
    :param max_head_size: of a request, in bytes; past it the answer is 431.
    :param handshake_workers: how many threads there are at most for TLS, ``process_request`` and ``applications``.
    :param backlog: how many connections may wait until they are accepted; what the system allows by default.
    :param reuse_port: let several processes listen on this port.
    :param trusted_proxies: the addresses, or networks, of proxies that are believed when they say in
        ``X-Forwarded-For`` whose request it is; ``"unix"`` for whoever comes by a unix socket. See
        :mod:`ws4py.server.forwarded`.
    :param options: of the manager that is made here: limits by their names, ``workers`` and so on; see
        :class:`~ws4py.manager.WebSocketManager`. The others are those of an
        :class:`~ws4py.server.endpoint.Endpoint`, for all paths that have none of their own.
    :raises OSError: if the address can't be listened on.
    :raises TypeError: for options besides a manager, or with an unknown name.
    :raises ValueError: for a number out of range.
    """

    def __init__(
        self,
        address: Address,
        websocket_class: WebSocketClass | Mapping[str, WebSocketClass] = WebSocket,
        *,
        manager: WebSocketManager | None = None,
        protocols: Sequence[str] | None = None,
        extensions: Sequence[str | Extension] | None = None,
        origins: str | Iterable[str] | None = None,
        hosts: str | Iterable[str] | None = None,
        heartbeat_freq: float | None = None,
        compression: bool | Extension | None = None,
        keep_environ: bool | str | Collection[str] = True,
        around: Around | None = None,
        ssl_context: ssl.SSLContext | None = None,
        process_request: ProcessRequest | None = None,
        applications: Mapping[str, Application] | None = None,
        handshake_timeout: float = 10.0,
        max_handshakes: int = 1024,
        max_head_size: int = 16384,
        handshake_workers: int = 4,
        backlog: int | None = None,
        reuse_port: bool = False,
        trusted_proxies: str | Iterable[str] = (),
        **options: Any,
    ) -> None:
        if manager is not None and options:
            raise TypeError("Options are for a manager that is made here: give them to yours")
        if not (isinstance(handshake_timeout, (int, float)) and 0 < handshake_timeout < math.inf):
            raise ValueError(f"handshake_timeout must be a number of seconds above 0, not {handshake_timeout!r}")
        _check_number("max_handshakes", max_handshakes, 1)
        _check_number("max_head_size", max_head_size, LEAST_HEAD)
        _check_number("handshake_workers", handshake_workers, 1)
        proxies = TrustedProxies(trusted_proxies)
        self._timeout = handshake_timeout
        self._max_handshakes = max_handshakes
        self._max_head_size = max_head_size
        self._handshake_workers = handshake_workers
        self._context = ssl_context
        targets = websocket_class if isinstance(websocket_class, Mapping) else {"*": websocket_class}

        def endpoint(target: WebSocketClass) -> Endpoint:
            if isinstance(target, Endpoint):
                return target
            return Endpoint(
                protocols,
                extensions,
                target,
                origins=origins,
                hosts=hosts,
                heartbeat_freq=heartbeat_freq,
                compression=compression,
                keep_environ=keep_environ,
                around=around,
            )

        endpoints = {path: endpoint(target) for path, target in targets.items()}
        self.manager = WebSocketManager(**options) if manager is None else manager
        self._owns_manager = False
        self._listener = Listener(address, backlog, reuse_port)
        self.server_address: Any = self._listener.address
        name = ("localhost", "") if not isinstance(self.server_address, tuple) else map(str, self.server_address[:2])
        host, port = name
        self._responder = Responder(endpoints, self.manager, process_request, applications or {}, (host, port), proxies)
        self._acceptor: Acceptor | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._guard = threading.RLock()  # over the state; never held over a call that waits
        self._ended = False
        self._end_writer: socket.socket | None = None  # wakes who waits for the end and for signals

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Accept connections, in a thread of its own, from now on. A server that can't be started has ended.

        :raises RuntimeError: if it was started already, or has ended; if the system has no thread for it.
        :raises ManagerError: if the manager was told to stop, and has not ended.
        :raises OSError: if the system has no descriptors for it.
        """
        with self._guard:
            if self._ended or self._thread is not None:
                raise RuntimeError("This server has ended" if self._ended else "This server runs already")
            try:
                self._acceptor = Acceptor(
                    self._listener.sock,
                    self._make_opening,
                    timeout=self._timeout,
                    max_openings=self._max_handshakes,
                    max_workers=self._handshake_workers,
                )
                if self._ended:  # a signal handler has shut it down just now
                    raise RuntimeError("This server has ended")
                if not self.manager.running:
                    if not self.manager.is_alive():
                        self.manager.daemon = True  # the server stops it
                    if self.manager.on_failure is None:
                        self.manager.on_failure = self._fail
                    self.manager.start()
                    self._owns_manager = True
                thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
                thread.start()
            except BaseException:
                self._ended = True
                if self._acceptor is not None:
                    self._acceptor.close()
                self._listener.close()
                if self._owns_manager:
                    self.manager.stop()
                raise
            self._thread = thread

    def _make_opening(self, sock: socket.socket, address: Any) -> Opening:
        return Opening(sock, address, self._responder, self.manager.add, self._context, self._max_head_size)

    def _run(self) -> None:
        assert self._acceptor is not None, "it was made before this thread"
        try:
            self._acceptor.run()
        except BaseException as error:
            logger.critical("The server can't accept connections any more", exc_info=error)
            self._error = error
        finally:
            self._ended = True
            if self._end_writer is not None:
                with contextlib.suppress(OSError):
                    self._end_writer.send(b"\0")
            if self.manager.on_failure == self._fail:
                self.manager.on_failure = None
            if self._owns_manager:
                self.manager.stop()  # before the workers of handshakes are waited for
            self._acceptor.close()
            self._listener.remove_path()
            if self._owns_manager:
                shut_down(self.manager)

    def _fail(self) -> None:
        """The manager has failed, which is in the log: there is nothing to serve."""
        self._error = ManagerError("The manager of the websockets has failed")
        self.shutdown()

    def serve_forever(self) -> None:
        """Serve until :meth:`shutdown` is called, and return when all websockets are closed. It starts the server if
        that was not done.

        An exception in this thread, such as a KeyboardInterrupt, shuts the server down and goes on.

        :raises RuntimeError: if the server has ended before; if it, or a manager that it has started, has failed.
        """
        if self._thread is None:
            self.start()
        try:
            if threading.current_thread() is threading.main_thread() and os.name == "posix":
                self._wait_for_signals_too()
            self.join()
        finally:
            self.shutdown()
            self.join()
        if self._error is not None:
            raise RuntimeError("The server has failed") from self._error

    def _wait_for_signals_too(self) -> None:
        """Wait until the server begins to end. A signal that the system gives to another thread ends no wait for a lock
        here, and so its handler would not run.
        """
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)
            self._end_writer = writer
            before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                while not self._ended:
                    reader.recv(4096)
            finally:
                signal.set_wakeup_fd(before)

    def shutdown(self) -> None:
        """Accept no more, drop the handshakes that are under way, and close every websocket with 1001.

        It does not wait: see :meth:`join`. Any thread may call, a callback, and a signal handler; again, too. A manager
        that was running before the server is left as it is, with its websockets.
        """
        with self._guard:
            if self._acceptor is not None:
                self._acceptor.stop()
            else:
                self._ended = True
                self._listener.close()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the server, and its manager, have ended.

        :param timeout: for how many seconds at most; None for ever.
        """
        if self._thread is not None:
            self._thread.join(timeout)

    def __enter__(self) -> WebSocketServer:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Shut down, and wait for the end."""
        self.shutdown()
        self.join()


def _check_number(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
