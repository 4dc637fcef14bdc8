"""What applications subclass: :class:`WebSocket`, one endpoint of one connection, in either role.

A websocket is run by a :class:`~ws4py.manager.WebSocketManager`, or by its own :meth:`WebSocket.run` in a thread or a
greenlet. Its callbacks (:mod:`ws4py.callbacks`) may block. What sends and closes may be called from any thread.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ws4py.around import Surroundings
from ws4py.backends.ports import forks
from ws4py.blocking import BlockingConnection, choose_port
from ws4py.callbacks import Callbacks
from ws4py.closing import State, outcome
from ws4py.computed import computed
from ws4py.exc import ConnectionClosed
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_PING, OPCODE_TEXT
from ws4py.labels import Address, packed_address, short_address, unpacked_address
from ws4py.logs import ConnectionFilter
from ws4py.messaging import CloseControlMessage, Message, Payload, PingControlMessage, encode_payload
from ws4py.packing import Requested
from ws4py.records import ConnectionRecord, TurnRecord
from ws4py.runner import Runner
from ws4py.streaming import DEFAULT_MAX_FRAGMENTS, DEFAULT_MAX_MESSAGE_SIZE, Stream
from ws4py.subscriptions import Subscribing

__all__ = ["EchoWebSocket", "Heartbeat", "WebSocket"]

logger = logging.getLogger("ws4py")

_transition = threading.RLock()
"""Held for a few assignments only, where of several threads one may be the first."""

_encode_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_WHOLE = (bytes, str, Message, bytearray, memoryview)
_BYTES = (bytes, bytearray, memoryview)
_TEXT = (str, *_BYTES)


class WebSocket(Callbacks, Requested, Subscribing):
    """One endpoint of a websocket. Its callbacks are to be overridden.

    :param sock: connected, its handshake done. A manager makes it non-blocking.
    :param protocols: the subprotocol that was negotiated, in a list.
    :param extensions: those that were negotiated, by name.
    :param environ: the WSGI environ of the request, or what stands for it.
    :param heartbeat_freq: after how many seconds a Ping is sent; None for the manager's default, 0 for none.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_client_terminated",
        "_connection",
        "_forks",
        "_kept_environ",
        "_last_turn",
        "_limits",
        "_local_address",
        "_peer_address",
        "_server_terminated",
        "_surroundings",
        "buf",
        "close_code",
        "close_reason",
        "extensions",
        "heartbeat_freq",
        "protocols",
        "sock",
        "stream",
    )

    reading_buffer_size: int = 65536
    """How many bytes :meth:`once` reads at most."""

    def __init__(
        self,
        sock: Any,
        protocols: list[Any] | None = None,
        extensions: list[Any] | None = None,
        environ: dict[str, Any] | None = None,
        heartbeat_freq: float | None = None,
    ) -> None:
        self.stream: Stream = Stream(always_mask=False)
        """The protocol's state; None after :meth:`closed` has returned."""
        self.protocols = protocols
        self.extensions = extensions
        self.sock = sock
        """The socket; None after :meth:`closed` has returned."""
        self.environ = environ
        self.heartbeat_freq = heartbeat_freq
        self._client_terminated = self._server_terminated = False  # what was assigned
        self.close_code: int | None = None
        """The code given to :meth:`closed`; None before."""
        self.close_reason: str | None = None
        """The reason given to :meth:`closed`, as text; None before."""
        self.buf: bytes = b""
        """Bytes that were read with the handshake and belong to the websocket."""
        self._connection: ConnectionRecord | None = None
        self._last_turn: TurnRecord | None = None  # of a manager that has let it go, while that turn may be running
        self._limits: dict[str, Any] | None = None  # what its endpoint has set
        self._surroundings: Surroundings | None = None  # this, too
        self._forks = forks()  # of this process, so far
        self._local_address: Address | None = None
        self._peer_address: Address | int | None = None  # packed

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(
        self,
        payload: Payload | Iterator[str | bytes | bytearray],
        binary: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Send a message. Any thread may call; messages never interleave.

        Under a manager it is put into the connection's outbox, and waits only if that is full; at most half of the
        workers wait so (see ``max_waiting_senders``).

        :param payload: a str, bytes, a bytearray, a memoryview or a message; or a generator, each item of which is
            sent as a fragment when it is made.
        :param binary: send bytes as a binary message, not as text.
        :param timeout: for how many seconds to wait at most, if the peer does not read; the limit ``send_timeout`` by
            default. 0 never waits.
        :raises ConnectionClosed: if the websocket is closing or closed; it says how the peer has closed.
        :raises SlowConsumer: a ConnectionClosed: the peer did not read in that time, and is given up. With a timeout of
            0 nothing is sent, and the websocket stays as it is; but for a generator that has begun, whose message can't
            be completed then: that closes the websocket with 1011.
        :raises TextFrameEncodingException: a ValueError: for bytes that are to be text and are not UTF-8.
        :raises TypeError: for a str that is to be binary.
        :raises ValueError: for a payload of another type.
        """
        if not isinstance(payload, _WHOLE) and isinstance(payload, Iterator):
            opcode = OPCODE_BINARY if binary else OPCODE_TEXT
            parts = (encode_payload(part, binary, True)[1] for part in payload)
            try:
                self._writer().send_fragments(opcode, parts, timeout)
            except ConnectionClosed as error:
                self._explain(error)
                raise
            return
        opcode, data = encode_payload(payload, binary)
        if opcode <= OPCODE_BINARY:
            try:
                (self._connection or self._writer()).send_message(opcode, data, timeout)
            except ConnectionClosed as error:
                self._explain(error)
                raise
        elif isinstance(payload, CloseControlMessage):
            self._close(payload)
        else:
            self._send_control(opcode, data, timeout)

    def send_text(self, text: str | bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send a text message; see :meth:`send`.

        :param text: a str, or its UTF-8.
        :raises TypeError: for anything else.
        """
        if not isinstance(text, _TEXT):
            raise TypeError(f"A text is a str, or bytes, not {type(text)}")
        self.send(text, False, timeout)

    def send_bytes(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send a binary message; see :meth:`send`.

        :raises TypeError: for data that is not bytes.
        """
        if not isinstance(data, _BYTES):
            raise TypeError(f"A binary message is bytes, not {type(data)}")
        self.send(data, True, timeout)

    def send_json(self, value: Any, timeout: float | None = None) -> None:
        """Send a value in JSON, as a text message; see :meth:`send`.

        :raises TypeError: for a value that has no JSON.
        :raises ValueError: for one that contains itself, or a number that JSON has not, such as NaN.
        """
        self.send(_encode_json(value), False, timeout)

    def ping(self, message: str | bytes | bytearray) -> None:
        """Send a Ping of at most 125 bytes; :meth:`ponged` gets its answer. Any thread may call.

        :raises ConnectionClosed: if the websocket is closing or closed.
        :raises FrameTooLargeException: if the message is too long.
        """
        self._send_control(OPCODE_PING, PingControlMessage(message).data)

    def _send_control(self, opcode: int, data: bytes, timeout: float | None = None) -> None:
        try:
            connection, stream = self._writer(), self.stream
            if stream is None:  # closed() has returned meanwhile
                raise ConnectionClosed("Cannot send on a terminated websocket")
            connection.send_control(stream.encode(FIN | opcode, data), timeout)
        except ConnectionClosed as error:
            self._explain(error)
            raise

    @property
    def buffered(self) -> int:
        """How many bytes were sent and wait to be written, for the peer has not read enough yet; 0 at the end."""
        connection = self._connection
        return 0 if connection is None else connection.buffered

    def close(self, code: int = 1000, reason: str | bytes | None = "") -> None:
        """Send a Close; the peer's answer ends the connection. Any thread may call, and again: only the first one
        counts.

        :param code: 1000-1003, 1007-1014 or 3000-4999.
        :param reason: at most 123 bytes of UTF-8.
        :raises InvalidCloseCode: a ValueError: for another code.
        :raises FrameTooLargeException: for a longer reason.
        """
        self._close(CloseControlMessage(code, reason))

    def _close(self, message: CloseControlMessage) -> None:
        if self.server_terminated or self.close_code is not None or self.sock is None:
            return
        self._writer().close(message)

    def _writer(self) -> ConnectionRecord:
        """Return who writes for this websocket."""
        connection = self._connection
        if connection is None:
            with _transition:  # of several threads that send first, one makes it
                connection = self._connection
                if connection is None:
                    if self.sock is None or self.close_code is not None:
                        raise ConnectionClosed("Cannot send on a terminated websocket")
                    made = self._make_blocking_connection()
                    connection = self._connection = self._connection or made  # of a signal handler that came between
        return connection

    def _make_blocking_connection(self) -> BlockingConnection:
        connection = BlockingConnection(self.sock, self.stream, self._own_limits())
        if self._forks != forks():  # it may have sent before that, in the parent process
            connection.after_fork_in_child()
        return connection

    def _own_limits(self) -> dict[str, Any]:
        """Return the limits for a connection of its own."""
        quiet = {"ping_interval": None} if self.heartbeat_freq == 0 else {}
        return {**(self._limits or {}), **quiet}

    @property
    def _alone(self) -> BlockingConnection | None:
        """Its own connection; None under a manager, and before there is one."""
        connection = self._connection
        return None if connection is None else connection.alone

    def _runner(self) -> Runner:
        """Return who runs it by itself.

        :raises ConnectionClosed: if it has ended, or is run by a manager.
        """
        connection = self._writer().alone
        if connection is None:
            raise ConnectionClosed("This websocket is run by a manager")
        return Runner(self, connection)

    def _limit(self, limits: Mapping[str, Any]) -> None:
        """Have the limits that an endpoint has set, by name, whoever runs this websocket."""
        if limits:
            self._limits = dict(limits)
            size = limits.get("max_message_size", DEFAULT_MAX_MESSAGE_SIZE)
            self.stream.limit(size, limits.get("max_fragments", DEFAULT_MAX_FRAGMENTS))

    # --- state --------------------------------------------------------------------------------------------------------
    # What is computed may be an application's own attribute, so nothing in this package asks for it.

    @computed
    def state(self) -> State:
        """How far the websocket has come; in :meth:`closed` it is CLOSED already."""
        stream = self.stream
        if self.close_code is not None or self.sock is None or stream is None:
            return State.CLOSED
        ending = self._client_terminated or self._server_terminated or stream.closing_handshake.state is not State.OPEN
        return State.CLOSING if ending else State.OPEN

    @computed
    def subprotocol(self) -> str | None:
        """The subprotocol that was negotiated; None if there is none."""
        chosen = self.protocols[0] if self.protocols else None
        return chosen.decode("latin-1") if isinstance(chosen, bytes) else chosen

    @computed
    def id(self) -> int | None:
        """The number that the manager has given to the connection, which statistics and log records show; None if no
        manager runs it.
        """
        number: int | None = getattr(getattr(self._connection, "owner", None), "id", None)
        return number

    @computed
    def latency(self) -> float | None:
        """How long the answer to the last Ping has taken that keepalive has sent, in seconds; None before the first
        one."""
        seconds: float | None = getattr(getattr(self._connection, "keepalive", None), "latency", None)
        return seconds

    def _explain(self, error: ConnectionClosed) -> None:
        """Have an exception say how the peer has closed, as far as that is known."""
        stream = self.stream
        close = None if stream is None else stream.closing
        if error.code is None and close is not None:
            error.code, error.reason = close.code, str(close)
        elif error.code is None:
            error.code, error.reason = self.close_code, self.close_reason

    @property
    def client_terminated(self) -> bool:
        """Whether the peer has sent its Close, or is gone."""
        stream = self.stream
        return self._client_terminated or (stream is not None and stream.closing_handshake.received is not None)

    @client_terminated.setter
    def client_terminated(self, flag: bool) -> None:
        self._client_terminated = flag

    @property
    def server_terminated(self) -> bool:
        """Whether this side has sent its Close, or the connection is gone."""
        stream = self.stream
        return self._server_terminated or (stream is not None and stream.closing_handshake.sent is not None)

    @server_terminated.setter
    def server_terminated(self, flag: bool) -> None:
        self._server_terminated = flag

    @property
    def terminated(self) -> bool:
        """Whether both sides have ended the websocket."""
        return self.client_terminated is True and self.server_terminated is True

    @property
    def connection(self) -> Any:
        """The socket, by another name of 0.6."""
        return self.sock

    @property
    def local_address(self) -> Address:
        """The address of this side: (host, port), or the path of a unix socket.

        :raises OSError: if the socket was gone before this was asked first.
        """
        if self._local_address is None:
            self._local_address = short_address(self.sock.getsockname())
        return self._local_address

    @property
    def peer_address(self) -> Address:
        """The address of the other side, likewise."""
        if self._peer_address is None:
            self._peer_address = packed_address(short_address(self.sock.getpeername()))
        return unpacked_address(self._peer_address)

    @property
    def _is_secure(self) -> bool:
        return hasattr(self.sock, "pending")

    # --- the end ------------------------------------------------------------------------------------------------------

    def close_connection(self) -> None:
        """Shut the socket down and close it; under a manager, have it dropped."""
        connection, sock = self._connection, self.sock
        if connection is None:
            self.sock = None
            if sock is not None:
                choose_port(sock).close()
        elif connection.alone is not None:
            self.sock = None
            connection.alone.close_socket()
        elif connection.finishing:
            self.sock = None  # the manager gives the descriptor back
        else:
            connection.terminate()

    def terminate(self) -> None:
        """End the websocket, once: call :meth:`closed` and give the socket back. Under a manager, a call of the
        application drops the connection, and :meth:`closed` comes in its turn.
        """
        connection = self._connection
        if connection is not None and not connection.finishing:
            connection.terminate()
            if not connection.finishing:
                return
        if self.close_code is not None:
            return
        stream = self.stream
        code, reason = outcome(stream.closing, stream.error)
        with _transition:
            if self.close_code is not None:
                return
            self.close_code = code
        self.close_reason = reason if isinstance(reason, str) else reason.decode()
        self.client_terminated = self.server_terminated = True
        try:
            self.closed(code, reason)
        finally:
            if self.stream is stream:
                if connection is None or connection.alone is not None:
                    self.close_connection()  # else the manager gives the descriptor back
                self.sock = self.stream = self.environ = None  # type: ignore[assignment]
            elif connection is not None and connection.alone is not None:
                connection.alone.close_socket()  # closed() has run __init__ again, to connect anew

    def _attach(self, connection: ConnectionRecord, before: ConnectionRecord | None) -> bool:
        """Let ``connection`` write for this websocket, in the place of ``before``; tell whether that was so still."""
        with _transition:
            if self._connection is not before:
                return False
            self._connection = connection
        return True

    def _detach(self, turn: TurnRecord | None) -> None:
        """Be written for by nobody: the websocket may run by itself again.

        :param turn: what may still be running its callbacks.
        """
        self._connection = None
        self._last_turn = turn
        if self.sock is not None:
            self.sock.setblocking(True)

    # --- running by itself --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read and call back until the connection ends. Blocks; to be called in a thread or a greenlet of its own.

        Exceptions of callbacks are logged, and given to :meth:`unhandled_error`. What is no :exc:`Exception`, such as
        KeyboardInterrupt, goes on to the caller when the connection has ended, with a Close of 1001.

        :raises ConnectionClosed: if the connection has ended already.
        :raises RuntimeError: if there is a heartbeat, and no thread to be had for it; the connection is closed.
        """
        self._runner().run()

    def once(self, timeout: float | None = None) -> bool:
        """Read once, and process what came; return False when the connection is at its end.

        :param timeout: how long to wait at most, in seconds; None waits for something to happen.
        """
        if self.terminated or self.sock is None:
            return False
        connection = self._writer().alone
        return connection is not None and Runner(self, connection).once(timeout)

    def _get_from_pending(self) -> bytes:
        """Return what a TLS object has decrypted already."""
        data = b""
        pending = self.sock.pending()
        while pending:
            data += self.sock.recv(pending)
            pending = self.sock.pending()
        return data

    def process(self, data: bytes) -> bool:
        """Take in bytes of the peer, any number of them, and call back; return False when the connection is at its end.

        For a websocket that is not under a manager.
        """
        if not data or self.stream is None or self.sock is None:
            return False
        connection = self._writer().alone
        return connection is not None and Runner(self, connection).process(bytes(data))


class EchoWebSocket(WebSocket):
    """Sends every message back."""

    __slots__ = ()

    def received_message(self, message: Message) -> None:
        """Send ``message`` back as what it is."""
        self.send(message.data, message.is_binary)


def _after_fork_in_child() -> None:
    global _transition  # noqa: PLW0603
    _transition = threading.RLock()  # a thread of the parent's may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

logger.addFilter(ConnectionFilter(WebSocket))


# --- names of 0.6 -----------------------------------------------------------------------------------------------------

from ws4py.exc import HandshakeError, StreamClosed  # noqa: E402, F401
from ws4py.handshake import WS_KEY, WS_VERSION  # noqa: E402, F401
from ws4py.messaging import PongControlMessage  # noqa: E402, F401
from ws4py.runner import Heartbeat  # noqa: E402
