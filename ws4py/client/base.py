"""What all clients have in common: :class:`WebSocketBaseClient`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ws4py.backends.ports import forks
from ws4py.client.inbox import Inbox
from ws4py.client.network import Network, UnconnectedSocket
from ws4py.client.opening import DialOptions, Opening, offered_protocols
from ws4py.client.proxy import basic
from ws4py.client.reconnect import Backoff, may_help, retry_after
from ws4py.client.url import host_header, parse_url
from ws4py.closing import State
from ws4py.computed import computed
from ws4py.exc import ConnectionClosed, HandshakeError
from ws4py.extensions import Extension
from ws4py.extensions.permessage_deflate import with_compression
from ws4py.handshake import WS_VERSION, build_request, check_response, generate_key, offer_extensions, parse_response
from ws4py.labels import printable
from ws4py.messaging import CloseControlMessage, Message
from ws4py.records import ConnectionRecord
from ws4py.runner import report
from ws4py.streaming import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE, Stream
from ws4py.websocket import WebSocket

__all__ = ["WebSocketBaseClient"]

logger = logging.getLogger("ws4py")

Self = TypeVar("Self", bound="WebSocketBaseClient")
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class WebSocketBaseClient(WebSocket):
    """A client's end of a websocket. Times are in seconds, sizes in bytes; None stands for no limit.

    :meth:`connect` opens it; then :meth:`run`, a manager, or iterating over it reads it. Before :meth:`connect` the
    attributes ``resource``, ``key``, ``protocols``, ``ssl_options`` and ``heartbeat_freq`` may be set, and options of
    ``sock``. After the end the same object can be connected again, by :meth:`connect` or by calling ``__init__`` again.

    :param url: ``ws://``, ``wss://``, ``ws+unix://`` or ``wss+unix://``; see :func:`ws4py.client.url.parse_url`. A name
        and a password in it are sent as basic authentication.
    :param protocols: the subprotocols to offer, the best first.
    :param extensions: of no effect.
    :param heartbeat_freq: send a Ping after so many seconds, always; None or 0 sends none.
    :param ssl_options: see :func:`ws4py.client.tls.make_context`; certificates are verified unless this says otherwise.
    :param headers: further headers, (name, value) each. One that the client would send itself is replaced.
    :param exclude_headers: names of headers that are not to be sent, such as ``["origin"]``.
    :param ssl_context: for TLS, in the place of ``ssl_options``.
    :param connect_timeout: for the look-up of the name, TCP, a proxy and TLS together. A look-up that takes longer is
        left to its thread, of which all clients have 32 at most.
    :param handshake_timeout: for the answer of the server.
    :param proxy: the URL of an HTTP proxy or, with the extra ``socks``, of a SOCKS proxy; True takes what the
        environment names; None connects directly.
    :param max_redirects: how many redirections to follow. From one to another scheme, host or port on, nothing of the
        user's is told: no login, ``headers``, ``protocols`` or client certificate of ``ssl_options``. Over TLS it is
        refused to a client with an ``ssl_context``, which may have a certificate.
    :param max_message_size: of a received message, past which the websocket is closed with 1009.
    :param max_fragments: frames of a received message, likewise.
    :param send_timeout: how long a send may wait for the peer to read.
    :param close_timeout: how long the peer's Close may take before the socket is dropped.
    :param ping_interval: how often a Ping is sent; None sends none.
    :param ping_timeout: how long nothing may come after a Ping before the peer counts as dead: ``closed(1006)``.
    :param message_timeout: how long a message may take to come, unless it comes faster than 1 KiB a second.
    :param reconnect: True, or a :class:`Backoff`: connect again when the connection is lost, until :meth:`close` is
        called. A first connection that fails is not tried again. Nor is one that the server ended with 1000, a code
        that tells of an error of this side, or one of the application (3000 to 4999). Not for a client under a manager.
    :param compression: True, or a :class:`~ws4py.extensions.permessage_deflate.PerMessageDeflate` of one's own: offer
        to compress messages.
    :raises ValueError: for a URL that is none.
    :raises TypeError: for a ``compression`` that is none.
    """

    _network: Network = Network()
    _client_pulled = True
    """Whether whoever asks for a message runs the websocket, if nobody else does."""

    def __init__(
        self,
        url: str,
        protocols: Sequence[str] | None = None,
        extensions: Sequence[str] | None = None,
        heartbeat_freq: float | None = None,
        ssl_options: Mapping[str, Any] | None = None,
        headers: Headers | None = None,
        exclude_headers: Iterable[str] | None = None,
        *,
        ssl_context: Any = None,
        connect_timeout: float | None = 10.0,
        handshake_timeout: float | None = 10.0,
        proxy: str | bool | None = True,
        max_redirects: int = 5,
        max_message_size: int | None = DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int | None = DEFAULT_MAX_FRAGMENTS,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        ping_interval: float | None = 30.0,
        ping_timeout: float | None = 30.0,
        message_timeout: float | None = 120.0,
        reconnect: bool | Backoff = False,
        compression: bool | Extension | None = None,
    ) -> None:
        self.url = url
        self._point_to(url)
        self.ssl_options = dict(ssl_options or {})
        self.ssl_context = ssl_context
        self.extra_headers = list(headers.items() if isinstance(headers, Mapping) else headers or ())
        self.exclude_headers = [name.lower() for name in exclude_headers or ()]
        offered = [protocols] if isinstance(protocols, str) else list(protocols or ())
        limits: dict[str, Any] = {
            "max_message_size": max_message_size,
            "max_fragments": max_fragments,
            "send_timeout": send_timeout,
            "close_timeout": close_timeout,
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "message_timeout": message_timeout,
        }
        self._client_extensions = with_compression(None, compression)
        self._client_dial = DialOptions(connect_timeout, handshake_timeout, proxy, max_redirects)
        self._client_backoff = Backoff() if reconnect is True else reconnect or None
        self._client_wishes = (offered, list(extensions or ()), limits)
        self._client_placeholder = UnconnectedSocket()
        self._client_stop = self._make_event()  # set when no connection is wished for any more
        self._client_inbox = self._make_inbox()
        self._client_fresh = True
        self._client_attempt = 0
        self._client_connected_at = 0.0
        self._renew(heartbeat_freq)
        self._prepare()

    def _renew(self, heartbeat_freq: float | None) -> None:
        """Be as good as new, and unconnected; what the user has set is kept."""
        protocols, extensions, limits = self._client_wishes
        WebSocket.__init__(self, self._client_placeholder, list(protocols), list(extensions), None, heartbeat_freq)
        self.stream = Stream(True, False, limits["max_message_size"], limits["max_fragments"])
        self._limits = limits
        self.key: bytes | str = generate_key().encode()
        self._client_connected = False
        self._client_offered: list[str] | None = None

    def _make_event(self) -> Any:
        return threading.Event()

    def _make_inbox(self) -> Any:
        return Inbox()

    # --- where to -----------------------------------------------------------------------------------------------------

    def _point_to(self, url: str) -> None:
        target = parse_url(url)
        self.scheme = target.scheme
        self.host = target.host
        self.port = target.port
        self.resource = target.resource
        self.unix_socket_path = target.unix_socket_path
        self._client_login = None if target.username is None else basic(target.username, target.password)

    @property
    def bind_addr(self) -> str | tuple[str, int | None]:
        """The address to connect to: (host, port), or the path of the unix socket."""
        return self.unix_socket_path or (self.host, self.port)

    @property
    def handshake_headers(self) -> list[tuple[str, str]]:
        """The headers of the request, (name, value) each. A subclass may return others."""
        host = host_header(self.scheme, self.host, self.port)
        headers = [
            ("Host", host),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Key", _text(self.key)),
            ("Sec-WebSocket-Version", str(max(WS_VERSION))),
        ]
        if self.protocols:
            headers.append(("Sec-WebSocket-Protocol", ", ".join(map(_text, self.protocols))))
        if self._client_extensions:
            headers.append(("Sec-WebSocket-Extensions", offer_extensions(self._client_extensions)))
        if self._client_login:
            headers.append(("Authorization", self._client_login))
        headers.append(("Origin", f"{'https' if self.scheme.startswith('wss') else 'http'}://{host}"))
        own = {name.lower() for name, _ in self.extra_headers}
        headers = [item for item in headers if item[0].lower() not in own]
        headers.extend(self.extra_headers)
        return [item for item in headers if item[0].lower() not in self.exclude_headers]

    @property
    def handshake_request(self) -> bytes:
        """The head of the request.

        :raises HandshakeError: if it can't be sent: a line feed in a header, say.
        """
        return build_request(self.resource, self.handshake_headers)

    # --- opening ------------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect, shake hands, and call :meth:`handshake_ok`.

        :raises HandshakeError: if the server, or a proxy, refuses or does not keep to the protocol. The socket is
            closed then.
        :raises OSError: if it can't be reached: ConnectionRefusedError, TimeoutError, socket.gaierror for the name,
            ssl.SSLCertVerificationError for a certificate.
        :raises ConnectionClosed: if it is connected already.
        """
        self._begin_connecting()
        self._connect()
        self.handshake_ok()

    def _begin_connecting(self) -> None:
        """Be ready to connect: for the first time, or again."""
        if self._client_connected and self.close_code is None:
            raise ConnectionClosed("This websocket is connected already")
        if self._client_fresh:
            self._client_wishes = (list(self.protocols or ()), *self._client_wishes[1:])
        else:
            self._renew(self.heartbeat_freq)
            self._client_inbox = self._make_inbox()
            self._prepare()
        self._client_fresh = False
        self._client_stop.clear()
        self._client_attempt = 0

    def _prepare(self) -> None:
        """Make what each connect() needs anew. Called in ``__init__`` too."""

    def _connect(self) -> None:
        """Connect and shake hands."""
        opening = Opening(self, self._network, self._client_dial, self._client_placeholder)
        sock, head, response, early = opening.open()
        try:
            line, _, headers = head.partition(b"\r\n")
            self.process_response_line(line)
            protocols, extensions = self.process_handshake_header(headers)
            sock.settimeout(None)
        except HandshakeError as error:
            sock.close()
            if error.status == response.status:
                error.headers = response.headers
            raise
        except BaseException:
            sock.close()
            raise
        self.sock, self.buf, self.protocols, self.extensions = sock, early, protocols, extensions
        self._forks = forks()  # those before the connection was there do not count
        self._connection = self._make_blocking_connection()
        self._client_connected = True
        self._client_connected_at = time.monotonic()

    def process_response_line(self, response_line: bytes) -> None:
        """Check the first line of the server's answer.

        :raises HandshakeError: if it is not that of a 101.
        """
        parsed = parse_response(response_line.strip() + b"\r\n\r\n")
        assert parsed is not None, "its end is there"
        if parsed[0].status != 101:
            check_response(parsed[0], "")

    def process_handshake_header(self, headers: bytes) -> tuple[list[bytes], list[bytes]]:
        """Check the headers of the server's answer.

        :param headers: without the first line.
        :returns: the subprotocol that was chosen, in a list that is empty if there is none; the extensions.
        :raises HandshakeError: if they break a rule (RFC 6455, section 4.1).
        """
        parsed = parse_response(b"HTTP/1.1 101 Switching Protocols\r\n" + headers.strip() + b"\r\n\r\n")
        assert parsed is not None, "their end is there"
        offered = self._client_offered
        if offered is None:  # nothing was asked yet
            offered = offered_protocols(self.handshake_headers)
        extensions = self._client_extensions
        acceptance = check_response(parsed[0], _text(self.key), protocols=offered, extensions=extensions)
        if acceptance.agreement is not None:
            self.stream.use(acceptance.agreement.codec())
        chosen = [] if acceptance.protocol is None else [acceptance.protocol.encode()]
        return chosen, [name.encode() for name in acceptance.extensions]

    def handshake_ok(self) -> None:
        """Called by :meth:`connect` when the websocket is open. A subclass may start what reads it: a manager, a
        thread.

        This one calls :meth:`opened`.
        """
        self._runner().call_opened()

    # --- closing ------------------------------------------------------------------------------------------------------

    def _writer(self) -> ConnectionRecord:
        if not self._client_connected:
            raise ConnectionClosed("This websocket is not connected")
        return super()._writer()

    def _close(self, message: CloseControlMessage) -> None:
        if self._client_connected:
            super()._close(message)

    def close(self, code: int = 1000, reason: str | bytes | None = "") -> None:
        """Send a Close, and connect no more; see :meth:`WebSocket.close`. Does nothing if the websocket is not
        connected."""
        message = CloseControlMessage(code, reason)
        self._client_stop.set()
        self._client_inbox.drain()
        self._close(message)

    def terminate(self) -> None:
        """See :meth:`WebSocket.terminate`."""
        inbox = self._client_inbox
        try:
            super().terminate()
        finally:
            if self.close_code is not None and not self._may_connect_again:
                inbox.end()

    # --- state --------------------------------------------------------------------------------------------------------

    @computed
    def state(self) -> State:
        """How far the websocket has come: CONNECTING before :meth:`connect`, and while it connects, again too."""
        if self._client_connected or self.close_code is not None:
            return super().state
        return State.CLOSED if self.terminated else State.CONNECTING

    @computed
    def subprotocol(self) -> str | None:
        """The subprotocol that the server has chosen; None if it chose none, or is not connected."""
        return super().subprotocol if self._client_connected else None  # before, protocols are those to offer

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read and call back until the end: of the connection or, with ``reconnect``, of the wish for one. Blocks.

        :raises ConnectionClosed: if it is not connected, or run already.
        """
        inbox = self._client_inbox
        try:
            super().run()
            while self._connect_again():
                super().run()
        except ConnectionClosed:
            raise  # somebody else runs it, perhaps
        except BaseException:
            inbox.end()  # nobody will put anything in
            raise

    @property
    def _may_connect_again(self) -> bool:
        return (
            self._client_backoff is not None
            and self._alone is not None
            and self.close_code is not None
            and not self._client_stop.is_set()
            and may_help(self.close_code)
        )

    def _connect_again(self) -> bool:
        """Wait, and connect again; tell whether that was done. If not, whatever was the reason, it is at its end."""
        backoff, inbox = self._client_backoff, self._client_inbox
        if backoff is None or not self._may_connect_again:
            return False
        connected = False
        try:
            connected = self._try_again(backoff)
        except Exception as error:
            logger.error("%r can't connect again", self, exc_info=error)
            report(self, error)
        finally:
            if not connected:
                self.client_terminated = self.server_terminated = True
                inbox.end()
        return connected

    def _try_again(self, backoff: Backoff) -> bool:
        """Try until it is connected, or given up, or not wished for any more; tell whether it is connected."""
        if time.monotonic() - self._client_connected_at >= backoff.stable:
            self._client_attempt = 0
        wished = 0.0
        where = f"{self.host} port {self.port}" if self.unix_socket_path is None else self.unix_socket_path
        while True:
            delay = backoff.delay(self._client_attempt, wished)
            if delay is None:
                logger.warning("Gave %s up after %d attempts", where, self._client_attempt)
                return False
            logger.info("Connecting to %s again in %.1f seconds", where, delay)
            if self._client_stop.wait(delay):
                return False
            self._client_attempt += 1
            wished = 0.0
            self._renew(self.heartbeat_freq)
            try:
                self._connect()
            except HandshakeError as error:
                logger.info("%s refused: %s", where, printable(str(error)))
                if not may_help(error):
                    report(self, error)
                    return False
                wished = retry_after(error)
            except OSError as error:
                logger.info("Can't connect to %s: %s", where, error)
            else:
                if not self._client_stop.is_set():
                    return True
                self.close_connection()  # close() was called meanwhile
                return False

    # --- taking messages out ------------------------------------------------------------------------------------------

    def received_message(self, message: Message) -> None:
        """Keep the message for :meth:`receive`. A subclass that overrides this has nothing to receive."""
        connection = self._alone
        self._client_inbox.put(message, connection is None or connection.pausing is None)

    def receive(self, block: bool = True, timeout: float | None = None) -> Message | None:
        """Return the next message, None at the end of the websocket. One thread at a time may call.

        If nobody else runs the websocket, this does: callbacks come on the calling thread.

        :param block: wait for a message; else there must be one.
        :param timeout: how long to wait at most; None for ever.
        :raises queue.Empty: if there is none now, or in time.
        :raises ConnectionClosed: if it was never connected.
        """
        connection = self._alone
        if self._client_pulled and connection is not None:
            if connection.mine and not connection.finishing:
                self._pull(block, timeout)
                block = False  # it has waited
        elif not self._client_connected and self._client_fresh:
            raise ConnectionClosed("This websocket is not connected")
        message: Message | None = self._client_inbox.get(block, timeout)
        return message

    def _pull(self, block: bool, timeout: float | None) -> None:
        """Run the websocket on the calling thread until there is a message to take out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        inbox = self._client_inbox
        while not len(inbox):
            left = 0.0 if not block else None if deadline is None else max(0.0, deadline - time.monotonic())
            runner = self._runner()
            begun = runner.connection.running
            try:
                going_on = runner.pull(lambda: len(inbox) > 0, left)
            except BaseException:
                self.close_connection()
                inbox.end()
                raise
            if going_on and begun and left == 0.0:
                return
            if not going_on and not self._connect_again():
                return

    def __iter__(self) -> Iterator[Message]:
        """Iterate over the messages as they come, until the end; see :meth:`receive`."""
        while True:
            message = self.receive()
            if message is None:
                return
            yield message

    def __enter__(self: Self) -> Self:
        """Connect, if that was not done.

        Messages are kept for :meth:`receive` and iteration; a peer whose messages are not taken has to wait.
        """
        self._client_inbox.want()
        if self._client_fresh or self.close_code is not None:
            self.connect()
            self._client_inbox.want()
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and wait for the end: at most ``close_timeout`` seconds for the peer's Close, and for what callbacks
        take."""
        self.close()
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        while self._client_connected and self.close_code is None:
            try:
                if self.receive() is None:
                    return
            except ConnectionClosed:
                return


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
