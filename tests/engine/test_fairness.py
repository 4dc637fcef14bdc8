"""The work that one connection causes in a cycle is bounded, whatever its peer sends or leaves unread."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.client_servers import Scripted, accept
from tests.helpers import (
    Certificates,
    EchoRecorder,
    Gate,
    Recorder,
    RestlessPoller,
    Stage,
    start_thread,
    tcp_pair,
    unix_pair,
    until,
    wait_for,
)
from ws4py.client import WebSocketBaseClient
from ws4py.client.threadedclient import WebSocketClient
from ws4py.engine.pollers import Event
from ws4py.extensions.permessage_deflate import PerMessageDeflate
from ws4py.framing import FIN, OPCODE_BINARY, OPCODE_CONTINUATION, RSV1
from ws4py.messaging import Message
from ws4py.websocket import WebSocket

RECORD = 15_000
"""Bytes in a record of TLS: many of them don't end where a read ends."""

MIB = 1 << 20


class Work:
    """Counts the calls of functions that threads make which are started while it is active: a manager's thread, say."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Work:
        threading.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        threading.setprofile(None)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.calls += 1


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed(base: type[Recorder]) -> type[Recorder]:
    """Return a subclass whose connections have agreed on compression."""

    class Compressed(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            agreed = PerMessageDeflate().accept(())
            assert agreed is not None
            self.stream.use(agreed[1].codec())

    return Compressed


# --- what is read -----------------------------------------------------------------------------------------------------


def send_much(sock: Any, data: bytes) -> None:
    """Send data again and again, as much as the kernel takes."""
    sock.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while True:
            sock.sendall(data)


@pytest.mark.parametrize("kind", ["ping", "pong", "fragment"])
@pytest.mark.parametrize("pair", ["tcp_pair", "ssl_pair", "openssl_pair"])
def test_a_flood_gives_way_to_others_after_its_share(
    stage: Stage, request: pytest.FixtureRequest, pair: str, kind: str
) -> None:
    """All of it is there before the other one's message; but that has its turn when little of it is taken in."""
    make = tcp_pair if pair == "tcp_pair" else getattr(request.getfixturevalue("certificates"), pair)
    manager = stage.manager(start=False, workers=0, ping_interval=None, max_fragments=None, max_outbox_size=1 << 30)
    seen: list[int] = []

    class Quiet(Recorder):
        def on_message(self, message: Message) -> None:
            seen.append(flooded.stream.frames_received)

    flooded, flooder = stage.connect(None, WebSocket, make)
    frame = {"ping": flooder.ping(), "pong": flooder.pong(), "fragment": flooder.frame(0)}[kind]
    if kind == "fragment":
        flooder.send(flooder.frame(OPCODE_BINARY))
    send_much(flooder.sock, frame * (RECORD // len(frame)))
    _, quiet = stage.connect(manager, Quiet)
    quiet.send(quiet.text("quiet"))
    manager.add(flooded)
    manager.start()
    until(lambda: seen)
    assert seen[0] < 1000
    until(lambda: flooded.stream.frames_received > 20_000)  # it has its share in each cycle, too


def test_many_records_are_not_read_at_once(certificates: Certificates) -> None:
    from ws4py.engine.transport import make_transport

    server, client = certificates.ssl_pair()
    transport = make_transport(server)
    for _ in range(1000):
        client.send(b"x")
    read = 0
    while read < 1000:
        data = until(lambda: _receive(transport))
        assert len(data) <= 100
        read += len(data)
    transport.close()
    client.close()


def _receive(transport: Any) -> bytes:
    try:
        data: bytes = transport.receive(1 << 16)
    except BlockingIOError:
        return b""
    return data


def test_every_message_of_a_flood_arrives_in_order(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(manager, Recorder, tcp_pair)
    texts = [str(number) for number in range(2000)]
    peer.send(*map(peer.text, texts), peer.goodbye())
    assert peer.receive_close()[0] == 1000
    assert websocket.end()[0] == 1000
    assert websocket.messages == [text.encode() for text in texts]


@pytest.mark.parametrize("kind", ["ping", "fragment", "text"])
def test_all_frames_count_for_the_rate(stage: Stage, kind: str) -> None:
    manager, clock = stage.timed_manager(max_messages_per_second=10, ping_interval=None)
    websocket, peer = stage.connect(manager, Recorder)
    stream = websocket.stream
    frame = {"ping": peer.ping(), "fragment": peer.frame(OPCODE_CONTINUATION), "text": peer.text("x")}[kind]
    if kind == "fragment":
        peer.send(peer.frame(OPCODE_BINARY))
        until(lambda: stream.frames_received)
        clock.advance(1.0)
    peer.send(frame * 10)
    until(lambda: stream.frames_received >= 10)
    clock.advance(1.0)
    peer.send(frame * 10_000)
    assert peer.receive_rest_until_close()[-1].payload[:2] == (1008).to_bytes(2, "big")
    assert stream.frames_received <= 21
    assert manager.stats().limits["max_messages_per_second"] == 1


# --- what is answered -------------------------------------------------------------------------------------------------


def test_the_outboxs_limit_holds_for_pongs(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None, max_outbox_size=10_000)
    _, peer = stage.connect(manager, Recorder, unix_pair, small=True)
    count = 20_000
    flood = start_thread(peer.sock.sendall, peer.ping(bytes(100)) * count)
    until(lambda: manager.stats().outbox.bytes >= 10_000)
    most = 0
    for _ in range(count):
        most = max(most, manager.stats().outbox.bytes)
        assert peer.receive().payload == bytes(100)
    flood.result()
    assert most < 10_000 + 131
    peer.sync()


def test_pongs_leave_together(stage: Stage) -> None:
    count = 20_000
    with Work() as work:
        manager = stage.manager(ping_interval=None)
        _, peer = stage.connect(manager, Recorder, tcp_pair)
        flood = start_thread(peer.sock.sendall, peer.ping() * count)
        for _ in range(count):
            peer.receive()
    flood.result()
    assert work.calls < 28 * count  # a write for each would take ten more


# --- what is decoded --------------------------------------------------------------------------------------------------


def test_compressed_messages_are_decoded_when_there_is_room_for_them(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None)
    websocket, peer = stage.connect(manager, compressed(Gate), tcp_pair)
    bomb = peer.frame(FIN | RSV1 | OPCODE_BINARY, deflated(bytes(700_000)))
    tracemalloc.start()
    try:
        flood = start_thread(peer.sock.sendall, bomb * 150)
        assert isinstance(websocket, Gate)
        websocket.wait_entered()
        until(lambda: manager.stats().inbox.largest_bytes >= MIB)  # behind the message that the handler has
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert manager.stats().limits["inbox"]
    inbox = manager.stats().inbox
    assert inbox.messages == 1
    assert inbox.largest_bytes <= MIB + (64 << 10)  # a piece of what is being decoded may be too much
    assert peak < 6 * MIB
    websocket.gate.set()
    for _ in range(150):
        peer.receive_message()
    flood.result()
    assert [len(message) for message in websocket.messages] == [700_000] * 150


def test_a_bomb_gives_way_to_others_after_its_share(stage: Stage) -> None:
    manager = stage.manager(start=False, workers=0, ping_interval=None, max_message_size=None)
    seen: list[int] = []

    class Quiet(Recorder):
        def on_message(self, message: Message) -> None:
            seen.append(bombed.stream.decoded_to)

    bombed, bomber = stage.connect(None, compressed(Recorder))
    bomber.send(bomber.frame(FIN | RSV1 | OPCODE_BINARY, deflated(bytes(32 * MIB))))
    _, quiet = stage.connect(manager, Quiet)
    quiet.send(quiet.text("quiet"))
    manager.add(bombed)
    manager.start()
    until(lambda: seen)
    assert seen[0] <= MIB
    until(lambda: bombed.messages)
    assert bombed.messages == [bytes(32 * MIB)]


def test_the_rate_is_looked_at_before_messages_are_decoded(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None, max_messages_per_second=5, max_inbox_size=100 * MIB)
    websocket, peer = stage.connect(manager, compressed(Recorder), tcp_pair)
    stream = websocket.stream
    peer.send(peer.frame(FIN | RSV1 | OPCODE_BINARY, deflated(bytes(MIB))) * 50)
    assert peer.receive_close()[0] == 1008
    assert stream.decoded_to <= 5 * MIB


def test_small_messages_are_decoded_when_there_is_room_for_them(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None, max_inbox_messages=8)
    websocket, peer = stage.connect(manager, Gate, tcp_pair)
    flood = start_thread(peer.sock.sendall, peer.text("") * 2000)
    websocket.wait_entered()
    until(lambda: manager.stats().inbox.messages >= 8)
    assert manager.stats().inbox.messages == 8
    websocket.gate.set()
    for _ in range(2000):
        assert peer.receive_text() == ""
    flood.result()


@pytest.mark.parametrize("kind", ["pulled", "threaded"])
def test_a_client_decodes_what_is_asked_for(kind: str) -> None:
    """64 KiB of a hostile server are 64 MiB."""
    bombs = 60
    answer = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"

    def script(sock: socket.socket) -> None:
        peer = accept(sock, b"", answer)
        peer.send(*[peer.frame(FIN | RSV1 | OPCODE_BINARY, payload)] * bombs)
        peer.receive_close()
        peer.send(peer.goodbye())

    payload = deflated(bytes(MIB))
    kinds: dict[str, Callable[..., Any]] = {"pulled": WebSocketBaseClient, "threaded": WebSocketClient}
    with Scripted(script) as server:
        client = kinds[kind](f"ws://{server.host}:{server.port}/", compression=True)
        tracemalloc.start()
        try:
            with client:
                for _ in range(bombs):
                    assert len(client.receive(timeout=20.0).data) == MIB
                peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 10 * MIB


def test_a_websocket_without_a_manager_decodes_what_it_handles(stage: Stage) -> None:
    websocket, peer = stage.connect(None, compressed(Counting))
    assert isinstance(websocket, Counting)
    tracemalloc.start()
    try:
        runner = start_thread(websocket.run)
        peer.send(peer.frame(FIN | RSV1 | OPCODE_BINARY, deflated(bytes(MIB))) * 50, peer.goodbye())
        assert peer.receive_close()[0] == 1000
        runner.result()
        assert tracemalloc.get_traced_memory()[1] < 6 * MIB
    finally:
        tracemalloc.stop()
    assert websocket.sizes == [MIB] * 50


class Counting(Recorder):
    """Keeps the sizes of messages, and not the messages."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sizes: list[int] = []

    def received_message(self, message: Message) -> None:
        self.sizes.append(len(message.data))


def test_a_client_gives_up_a_message_that_is_not_finished() -> None:
    said: list[tuple[int | None, str]] = []

    def script(sock: socket.socket) -> None:
        peer = accept(sock)
        peer.send(peer.text("whole"), peer.frame(OPCODE_BINARY, b"begun"))
        said.append(peer.receive_close())
        sock.close()

    with Scripted(script) as server:
        client = WebSocketClient(f"ws://{server.host}:{server.port}/", message_timeout=0.1)
        with client:
            assert [message.data for message in client] == [b"whole"]
        assert client.close_code == 1006
        assert client.close_reason == "A message was not finished in time"
        until(lambda: said == [(1008, "A message was not finished in time")])


# --- what TLS wants ---------------------------------------------------------------------------------------------------


class WatchfulPoller(RestlessPoller):
    """Keeps which descriptors it has shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[int] = []

    def poll(self, timeout: float | None = None) -> list[Event]:
        events = super().poll(timeout)
        self.shown += [fd for fd, _ in events]
        return events


def libssl() -> Any:
    try:
        lib = ctypes.CDLL("libssl.so.3")
    except OSError:
        pytest.skip("there is no libssl.so.3 to ask for new keys with")
    for name, result, arguments in (
        ("TLS_client_method", ctypes.c_void_p, []),
        ("SSL_CTX_new", ctypes.c_void_p, [ctypes.c_void_p]),
        ("SSL_new", ctypes.c_void_p, [ctypes.c_void_p]),
        ("SSL_set_fd", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
        ("SSL_connect", ctypes.c_int, [ctypes.c_void_p]),
        ("SSL_key_update", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int]),
        ("SSL_do_handshake", ctypes.c_int, [ctypes.c_void_p]),
        ("SSL_write", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]),
        ("SSL_free", None, [ctypes.c_void_p]),
        ("SSL_CTX_free", None, [ctypes.c_void_p]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


def test_tls_that_has_to_write_before_it_reads_waits_until_it_can(stage: Stage, certificates: Certificates) -> None:
    """A peer asks for new keys and reads no answer, until TLS can't read on before it has written."""
    lib = libssl()
    poller = WatchfulPoller()
    manager = stage.manager(poller=poller, ping_interval=None)
    server, client = unix_pair()
    stage.closers.append(client.close)
    client.setblocking(True)
    context = lib.SSL_CTX_new(lib.TLS_client_method())
    tls = lib.SSL_new(context)
    lib.SSL_set_fd(tls, client.fileno())
    handshake = start_thread(certificates.server.wrap_socket, server, True)
    assert lib.SSL_connect(tls) == 1
    secured: Any = handshake.result()
    websocket, stuck = stage.connect(manager, Recorder, lambda: (secured, client.dup()))
    _, peer = stage.connect(manager, EchoRecorder)
    wait_for(websocket.was_opened)
    client.setblocking(True)  # the peer's duplicate has a deadline, and the two are of one file
    pong = peer.pong()
    asked = 0

    def ask_on() -> None:
        """Ask for new keys until the other side ends TCP, with a Pong after 30 times: OpenSSL wants it so."""
        nonlocal asked
        while True:
            for _ in range(30):
                lib.SSL_key_update(tls, 1)
                if lib.SSL_do_handshake(tls) != 1:
                    return
            if lib.SSL_write(tls, pong, len(pong)) <= 0:
                return
            asked += 30

    flood = start_thread(ask_on)
    pause = threading.Event()
    seen = -1
    while seen != asked or not asked:  # until the other side reads no more
        seen = asked
        pause.wait(0.3)
    assert not websocket.was_closed.is_set()
    poller.shown.clear()
    for _ in range(50):
        peer.sync()
    assert poller.shown.count(secured.fileno()) < 10
    client.shutdown(socket.SHUT_RDWR)
    flood.result()
    client.close()
    stuck.close()
    assert websocket.end()[0] == 1006
    lib.SSL_free(tls)
    lib.SSL_CTX_free(context)


# --- what is written --------------------------------------------------------------------------------------------------


def test_many_small_messages_cost_no_more_for_being_read_in_small_pieces(stage: Stage) -> None:
    count = 60_000
    with Work() as work:
        manager = stage.manager(ping_interval=None)
        websocket, peer = stage.connect(manager, Recorder, unix_pair, small=True)
        for _ in range(count):
            websocket.send(b"12345678", binary=True)
        for _ in range(count):
            assert peer.receive_message() == b"12345678"
    assert work.calls < 5 * count
