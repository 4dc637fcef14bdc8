"""The same compressed bytes given to wsproto and to websockets; see :mod:`tests.test_differential`."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import NamedTuple

import pytest
import wsproto.connection
import wsproto.events
import wsproto.extensions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

from tests.test_differential import Frame, Outcome, others, roles, to_wire
from ws4py.extensions.permessage_deflate import DeflateAgreement
from ws4py.streaming import Stream

reproducible = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
takeovers = pytest.mark.parametrize("takeover", [False, True], ids=["no takeover", "takeover"])


def run_ours(wire: bytes, is_server: bool, takeover: bool) -> Outcome:
    stream = Stream(not is_server, is_server, None, None)
    stream.use(DeflateAgreement(not takeover, not takeover, 15, 15, 6, 8, 0).codec())
    kinds = {1: "text", 2: "binary", 9: "ping", 10: "pong"}
    messages = [(kinds[message.opcode], message.data) for message in stream.receive(wire)]
    return Outcome(messages, "open") if stream.error is None else Outcome(messages, "failed", stream.error.code)


def run_wsproto(wire: bytes, is_server: bool, takeover: bool) -> Outcome:
    role = wsproto.connection.ConnectionType.SERVER if is_server else wsproto.connection.ConnectionType.CLIENT
    extension = wsproto.extensions.PerMessageDeflate(
        client_no_context_takeover=not takeover, server_no_context_takeover=not takeover
    )
    extension._enabled = True
    connection = wsproto.connection.Connection(role, [extension])
    messages: list[tuple[str, bytes]] = []
    begun = b""
    connection.receive_data(wire)
    for event in connection.events():
        if isinstance(event, wsproto.events.Message):
            is_text = isinstance(event, wsproto.events.TextMessage)
            begun += event.data.encode() if is_text else bytes(event.data)
            if event.message_finished:
                messages.append(("text" if is_text else "binary", begun))
                begun = b""
        elif isinstance(event, (wsproto.events.Ping, wsproto.events.Pong)):
            messages.append((type(event).__name__.lower(), bytes(event.payload)))
        elif isinstance(event, wsproto.events.CloseConnection):
            return Outcome(messages, "failed", int(event.code))
    return Outcome(messages, "open")


def run_websockets(wire: bytes, is_server: bool, takeover: bool) -> Outcome:
    protocol = Protocol(Side.SERVER if is_server else Side.CLIENT, max_size=None)
    protocol.extensions = [PerMessageDeflate(not takeover, not takeover, 15, 15)]
    protocol.receive_data(wire)
    messages: list[tuple[str, bytes]] = []
    kind, begun = "", b""
    for frame in protocol.events_received():
        assert isinstance(frame, TheirFrame)
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            messages.append((frame.opcode.name.lower(), bytes(frame.data)))
            continue
        kind, begun = (kind, begun) if frame.opcode is Opcode.CONT else (frame.opcode.name.lower(), b"")
        begun += bytes(frame.data)
        if frame.fin:
            try:
                begun.decode() if kind == "text" else None
            except UnicodeDecodeError:
                return Outcome(messages, "failed", 1007)
            messages.append((kind, begun))
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        return Outcome(messages, "failed", int(protocol.close_sent.code))
    return Outcome(messages, "open")


OTHERS: dict[str, Callable[[bytes, bool, bool], Outcome]] = {"wsproto": run_wsproto, "websockets": run_websockets}

HELLO = bytes.fromhex("f248cdc9c90700")
NOISE = random.Random(5).randbytes(3000)


def deflate(payload: bytes, level: int = 6) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


SAME: list[list[Frame]] = [
    [(0xC1, HELLO)],
    [(0xC1, HELLO), (0x81, b"plain"), (0xC2, HELLO)],
    [(0x41, HELLO[:3]), (0x80, HELLO[3:])],
    [(0x41, b""), (0x00, HELLO), (0x80, b"")],
    [(0xC1, b"\x00"), (0xC1, HELLO)],
    [(0xC1, bytes.fromhex("000500faff48656c6c6f00"))],
    [(0xC1, bytes.fromhex("f24805000000ffffcac9c90700"))],
    [(0xC2, deflate(NOISE)), (0xC2, deflate(NOISE, 0)), (0xC2, deflate(NOISE * 50, 9))],
    [(0xC1, deflate("Κόσμε".encode())), (0xC1, deflate(b"bad\xff"))],
    *([(0x81, b"before"), (first, HELLO)] for first in (0xC0, 0x40, 0xC8, 0xC9, 0xCA, 0xE1, 0xD1, 0xF2, 0xC3)),
]


@roles
@others
@takeovers
def test_where_there_is_no_choice_the_same_follows(other: str, is_server: bool, takeover: bool) -> None:
    for frames in SAME:
        wire = to_wire(frames, is_server)
        assert OTHERS[other](wire, is_server, takeover) == run_ours(wire, is_server, takeover), frames


@roles
@others
@takeovers
@reproducible
@given(
    texts=st.lists(st.tuples(st.text(max_size=60), st.integers(0, 80), st.booleans()), max_size=6),
    bits=st.integers(9, 15),
    level=st.integers(0, 9),
)
def test_any_good_frames_are_read_alike(
    other: str, is_server: bool, takeover: bool, texts: list[tuple[str, int, bool]], bits: int, level: int
) -> None:
    frames: list[Frame] = []
    control: list[Frame] = [] if other == "wsproto" else [(0x8A, b"")]  # see the differences
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    for text, end, whole in texts:
        if not takeover:
            compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
        data = text.encode() or b" "
        payload = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        frames += [(0xC1, payload)] if whole else [(0x41, payload[:end]), *control, (0x80, payload[end:])]
    wire = to_wire(frames, is_server)
    ours = run_ours(wire, is_server, takeover)
    assert ours.end == "open"
    assert [data.decode() for kind, data in ours.messages if kind == "text"] == [text or " " for text, _, _ in texts]
    assert OTHERS[other](wire, is_server, takeover) == ours


class Difference(NamedTuple):
    other: str
    what: str
    reason: str
    frames: list[Frame]
    ours: Outcome
    theirs: Outcome


DIFFERENCES = [
    Difference(
        "wsproto",
        "a control frame between compressed fragments",
        "Section 6 leaves control frames alone; it forgets at one that the message is compressed.",
        [(0x42, HELLO[:3]), (0x89, b"p"), (0x80, HELLO[3:])],
        Outcome([("ping", b"p"), ("binary", b"Hello")], "open"),
        Outcome([("ping", b"p"), ("binary", b"He" + HELLO[3:])], "open"),
    ),
    Difference(
        "wsproto",
        "a compressed message within another",
        "Section 5.4 of RFC 6455 forbids it, and there the code is 1002; it goes on to inflate it, and finds no text.",
        [(0x41, deflate(b"one")), (0xC1, HELLO)],
        Outcome([], "failed", 1002),
        Outcome([], "failed", 1007),
    ),
    Difference(
        "websockets",
        "data that can't be inflated",
        "RFC 7692 names no code. Here and in wsproto it is 1007: the data is not what the frame says it is.",
        [(0xC1, b"\xff\xff")],
        Outcome([], "failed", 1007),
        Outcome([], "failed", 1002),
    ),
    *(
        Difference(
            other,
            "data that ends within a block",
            "They hand on what could be inflated; here a message that was cut off is none.",
            [(0xC2, HELLO[:3])],
            Outcome([], "failed", 1007),
            Outcome([("binary", got)], "open"),
        )
        for other, got in (("wsproto", b"Heh"), ("websockets", b"Heh"))
    ),
]


@roles
@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: f"{difference.other}: {difference.what}")
def test_the_differences_are_those_that_are_listed(difference: Difference, is_server: bool) -> None:
    wire = to_wire(difference.frames, is_server)
    assert run_ours(wire, is_server, False) == difference.ours
    assert OTHERS[difference.other](wire, is_server, False) == difference.theirs


def test_a_block_that_says_it_is_the_last_is_the_end_of_others() -> None:
    """Section 7.2.3.4 allows it. With context takeover they inflate nothing after it; here what follows is read."""
    final = bytes.fromhex("f348cdc9c9070000")
    wire = to_wire([(0xC1, final), (0xC1, HELLO)], True)
    assert run_ours(wire, True, True).messages == [("text", b"Hello"), ("text", b"Hello")]
    for other in OTHERS.values():
        assert other(wire, True, True).messages[:1] == [("text", b"Hello")]
        assert other(wire, True, True).messages[1:] != [("text", b"Hello")]


def test_the_same_is_too_big_for_websockets() -> None:
    for limit in (1000, 100_000):
        for size in (limit, limit + 1):
            wire = to_wire([(0xC2, deflate(bytes(size)))], True)
            stream = Stream(max_message_size=limit)
            stream.use(DeflateAgreement(True, True, 15, 15, 6, 8, 0).codec())
            protocol = Protocol(Side.SERVER, max_size=limit)
            protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
            delivered = len(stream.receive(wire))
            protocol.receive_data(wire)
            assert (delivered, stream.error is None) == ((1, True) if size == limit else (0, False))
            assert isinstance(protocol.parser_exc, PayloadTooBig) is (size > limit)
            if stream.error is not None:
                assert stream.error.code == 1009
