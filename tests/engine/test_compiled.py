"""The compiled engine: what it does while Python is kept from it, and that it does what the pure one does."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import os
import select
import socket
import struct
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import KEY, PATIENCE, Certificates, EchoRecorder, Peer, Recorder, Script, Stage, unix_pair, until
from ws4py.engine import Engine
from ws4py.engine.traffic import Traffic
from ws4py.framing import (
    FIN,
    OPCODE_BINARY,
    OPCODE_CLOSE,
    OPCODE_CONTINUATION,
    OPCODE_PING,
    OPCODE_PONG,
    OPCODE_TEXT,
    build_frame,
)
from ws4py.manager import WebSocketManager
from ws4py.messaging import Message
from ws4py.native import ENGINE, load
from ws4py.websocket import EchoWebSocket, WebSocket

if load(ENGINE) is None:
    pytest.skip("the engine is not compiled here, or is not to be", allow_module_level=True)

from ws4py.engine.compiled import CompiledConnection, CompiledEngine

DISPATCH = [{"workers": 0}, {"dispatch": "adaptive"}, {"dispatch": "pool"}]
PEERS = 100
MESSAGES = 10


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS4PY_ENGINE", "compiled")


def engine_of(manager: WebSocketManager) -> CompiledEngine:
    engine = manager._engine
    assert isinstance(engine, CompiledEngine)
    return engine


def is_compiled(websocket: WebSocket) -> bool:
    return isinstance(websocket._connection, CompiledConnection)


# --- while Python is kept from it -------------------------------------------------------------------------------------

CROWD = """
import os, select, socket, sys
from tests.helpers import PATIENCE, Peer

held, release = int(sys.argv[1]), int(sys.argv[2])
peers = [Peer(socket.socket(fileno=int(fd))) for fd in sys.argv[3:]]
holder, listener, others = peers[0], peers[1], peers[2:]
holder.send(holder.text("hold the lock"))
assert select.select([held], [], [], PATIENCE)[0], "the handler was not entered"
for peer in others:
    for number in range(10):
        peer.send(peer.text(f"message {number}"))
assert listener.receive_text() == "sent before the lock was taken"
for number in range(3):
    listener.sync()  # its Ping is answered
os.write(release, b"x")
assert holder.receive_text() == "hold the lock"
for peer in others:
    assert [peer.receive_text() for _ in range(10)] == [f"message {number}" for number in range(10)]
    assert peer.say_goodbye() == (1000, "")
print("all came")
"""


class PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


def hold_the_lock(fd: int) -> bool:
    """Keep the interpreter's lock until a descriptor can be read; return whether it could in time."""
    waits = PollFd(fd, select.POLLIN, 0)
    return bool(ctypes.PyDLL(None).poll(ctypes.byref(waits), 1, int(PATIENCE * 1000)))


@pytest.mark.parametrize("options", DISPATCH, ids=str)
def test_while_a_handler_holds_the_interpreters_lock(stage: Stage, options: dict[str, Any]) -> None:
    """Pings are answered, what was sent is written, and messages wait: none is lost, none comes twice."""
    told, held = os.pipe()
    wait, release = os.pipe()
    listener: list[WebSocket] = []
    let_go: list[bool] = []

    def hold(websocket: WebSocket, message: Message) -> None:
        listener[0].send("sent before the lock was taken")
        os.write(held, b"x")
        let_go.append(hold_the_lock(wait))
        websocket.send(message.data)

    manager = stage.manager(**options, ping_interval=None)
    pairs = [unix_pair() for _ in range(2 + PEERS)]
    websockets = [Script.of(message=hold)(pairs[0][0]), *(EchoRecorder(server) for server, _ in pairs[1:])]
    listener.append(websockets[1])
    for websocket in websockets:
        manager.add(websocket)
        assert is_compiled(websocket)
    fds = [client.fileno() for _, client in pairs]
    for fd in (told, release, *fds):
        os.set_inheritable(fd, True)
    command = [sys.executable, "-c", CROWD, *map(str, (told, release, *fds))]
    try:
        crowd = subprocess.run(command, close_fds=False, capture_output=True, timeout=2 * PATIENCE, check=False)
    finally:
        for fd in (told, held, wait, release):
            os.close(fd)
        for _, client in pairs:
            client.close()
    assert crowd.stdout == b"all came\n", crowd.stderr.decode()
    assert let_go == [True]
    for websocket in websockets[2:]:
        assert websocket.end() == (1000, b"")
        assert websocket.messages == [f"message {number}".encode() for number in range(MESSAGES)]
    assert engine_of(manager).core.reliefs > 0


def test_it_sleeps_while_nothing_happens(stage: Stage) -> None:
    manager = stage.manager(ping_interval=None)
    _, peer = stage.connect(manager, EchoRecorder)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"
    until(lambda: engine_of(manager).core.asleep)


def test_a_connection_that_has_ended_goes_without_the_garbage_collector(stage: Stage) -> None:
    def count() -> int:
        return sum(isinstance(item, CompiledConnection) for item in gc.get_objects())

    manager = stage.manager(ping_interval=None)
    before = count()
    gc.disable()
    try:
        for _ in range(10):
            server, client = unix_pair()
            manager.add(EchoWebSocket(server))
            peer = Peer(client)
            peer.send(peer.text("x"))
            assert peer.receive_text() == "x"
            assert peer.say_goodbye() == (1000, "")
            peer.close()
        until(lambda: count() <= before + 1)  # a worker may remember the last one
    finally:
        gc.enable()


# --- what it takes, and what it leaves --------------------------------------------------------------------------------


def test_a_plain_socket_is_its_own(stage: Stage) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder)
    assert is_compiled(websocket)
    assert peer.say_goodbye() == (1000, "")


@pytest.mark.parametrize("pair", ["ssl_pair", "openssl_pair"])
def test_tls_is_not(stage: Stage, certificates: Certificates, pair: str) -> None:
    manager = stage.manager()
    websocket, peer = stage.connect(manager, EchoRecorder, getattr(certificates, pair))
    other, peer_of_other = stage.connect(manager, EchoRecorder)
    assert not is_compiled(websocket)
    assert is_compiled(other)
    for one in (peer, peer_of_other):
        one.send(one.text("x"))
        assert one.receive_text() == "x"


def test_nor_is_a_rate(stage: Stage) -> None:
    manager = stage.manager(max_messages_per_second=1000)
    websocket, peer = stage.connect(manager, EchoRecorder)
    assert not is_compiled(websocket)
    peer.send(peer.text("x"))
    assert peer.receive_text() == "x"


def test_who_asks_for_another_clock_or_poller_has_the_pure_engine(stage: Stage) -> None:
    assert type(stage.manager(clock=lambda: 0.0, start=False)._engine) is Engine
    manager, _ = stage.timed_manager()
    assert type(manager._engine) is Engine


# --- it does what the pure one does -----------------------------------------------------------------------------------


def masked(first: int, payload: bytes) -> bytes:
    return build_frame(first, payload, KEY)


TEXTS = st.one_of(
    st.text(max_size=20).map(str.encode),
    st.text(min_size=100, max_size=200).map(str.encode),
    st.sampled_from([b"", b"a" * 125, b"a" * 126, "é".encode() * 300]),
    st.sampled_from([b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"]),
    st.binary(max_size=9),
)
DATA = st.one_of(st.binary(max_size=20), st.sampled_from([bytes(126), bytes(65535), bytes(65536), bytes(70000)]))
WHOLE = st.one_of(
    TEXTS.map(lambda payload: masked(FIN | OPCODE_TEXT, payload)),
    DATA.map(lambda payload: masked(FIN | OPCODE_BINARY, payload)),
    st.binary(max_size=125).map(lambda payload: masked(FIN | OPCODE_PING, payload)),
    st.binary(max_size=125).map(lambda payload: masked(FIN | OPCODE_PONG, payload)),
)
FRAGMENTS = st.lists(st.binary(max_size=10), min_size=1, max_size=4).map(
    lambda parts: b"".join(
        masked((OPCODE_CONTINUATION if place else OPCODE_BINARY) | (FIN if place == len(parts) - 1 else 0), part)
        for place, part in enumerate(parts)
    )
)
WRONG = st.one_of(
    st.sampled_from(
        [
            b"\x81\x01x",  # not masked
            masked(FIN | 0x03, b""),
            masked(FIN | 0x40 | OPCODE_TEXT, b"x"),
            masked(FIN, b"a continuation of nothing"),
            masked(OPCODE_PING, b"a fragment"),
            b"\x89\xfe\x00\x7e" + KEY + bytes(126),  # a long Ping
            b"\x82\xfe\x00\x7d" + KEY + bytes(125),  # not the shortest form
            b"\x82\xff" + bytes(6) + b"\xff\xff" + KEY,  # likewise
            b"\x82\xff\x80" + bytes(7) + KEY,
            masked(FIN | OPCODE_BINARY, bytes(200_000)),  # over the limit
            masked(FIN | OPCODE_CLOSE, struct.pack("!H", 1000) + b"bye"),
            masked(FIN | OPCODE_CLOSE, b""),
            masked(FIN | OPCODE_CLOSE, b"x"),
        ]
    ),
    st.binary(max_size=30),
)


class Player:
    """Plays what a peer sends to a manager."""

    def __init__(self, stage: Stage, manager: WebSocketManager) -> None:
        self._stage = stage
        self.manager = manager
        _, self._bystander = stage.connect(manager, EchoRecorder)

    def play(self, pieces: list[bytes]) -> tuple[Any, ...]:
        """Return what a peer that sends pieces is answered, what the callbacks were, and what was counted."""
        websocket, peer = self._stage.connect(self.manager, Recorder)
        connection: Any = websocket._connection
        for piece in pieces:
            with contextlib.suppress(OSError):
                peer.send(piece)
        # All that is to be done about that is done before the end comes, which ends it.
        size = sum(map(len, pieces))
        until(lambda: connection.read_ended or (connection.traffic or Traffic()).bytes_received == size)
        self._bystander.send(self._bystander.text("x"))
        assert self._bystander.receive_text() == "x"
        until(lambda: not connection.scheduled and connection.inbox is None and not connection.buffered)
        with contextlib.suppress(OSError):
            peer.sock.shutdown(socket.SHUT_WR)
        frames = [tuple(frame) for frame in peer.receive_rest()]
        websocket.end()
        assert websocket.errors == []
        assert websocket.faults == []
        traffic = connection.counted()
        counted = [getattr(traffic, name) for name in Traffic.__slots__ if name != "bytes_received"]
        return frames, websocket.events, counted


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.lists(st.one_of(WHOLE, WHOLE, FRAGMENTS), max_size=12),
    wrong=st.one_of(st.just(b""), WRONG),
    cuts=st.lists(st.integers(0, 100_000), max_size=4),
)
def test_both_engines_do_the_same(both: tuple[Player, Player], **given: Any) -> None:
    one, other = both
    data = b"".join(given["frames"]) + given["wrong"]
    cuts = sorted({cut % (len(data) + 1) for cut in given["cuts"]} | {0, len(data)})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(cuts)]
    assert one.play(pieces) == other.play(pieces)


@pytest.fixture(params=[{"workers": 0}, {}], ids=str)
def both(stage: Stage, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Player, Player]:
    """Managers with each of the engines."""
    options = {**request.param, "ping_interval": None, "max_message_size": 100_000}
    compiled = stage.manager(**options)
    monkeypatch.setenv("WS4PY_ENGINE", "pure")
    pure = stage.manager(**options)
    assert isinstance(compiled._engine, CompiledEngine)
    assert type(pure._engine) is Engine
    return Player(stage, compiled), Player(stage, pure)
