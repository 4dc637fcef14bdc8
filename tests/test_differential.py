"""The same bytes given to others: to wsproto and to websockets for what follows the handshake, to h11 for its heads.

Where RFC 6455 leaves no choice all must say the same. Where it leaves one, or another is not strict, the difference
stands in a table here with its reason, and a test holds it to be there still.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import h11
import pytest
import wsproto.connection
import wsproto.events
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from ws4py.exc import HandshakeError
from ws4py.framing import build_frame
from ws4py.handshake import accept_key, build_request, negotiate, parse_response
from ws4py.messaging import CloseControlMessage, is_wire_code
from ws4py.streaming import Stream

KEY = b"\x37\xfa\x21\x3d"

reproducible = settings(deadline=None, derandomize=True, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
roles = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])


class Outcome(NamedTuple):
    """What one implementation makes of the bytes of a connection."""

    messages: list[tuple[str, bytes]]
    end: Literal["open", "closed", "failed"]
    code: int | None = None
    reason: bytes = b""


# --- what follows the handshake: the three implementations ------------------------------------------------------------


def run_ours(wire: bytes, is_server: bool) -> Outcome:
    stream = Stream(not is_server, is_server, None, None)
    kinds = {1: "text", 2: "binary", 9: "ping", 10: "pong"}
    messages = [(kinds[message.opcode], message.data) for message in stream.receive(wire) if message.opcode != 8]
    if stream.error is not None:
        return Outcome(messages, "failed", stream.error.code)
    if stream.closing is not None:
        return Outcome(messages, "closed", stream.closing.code, stream.closing.reason)
    return Outcome(messages, "open")


def run_wsproto(wire: bytes, is_server: bool) -> Outcome:
    role = wsproto.connection.ConnectionType.SERVER if is_server else wsproto.connection.ConnectionType.CLIENT
    connection = wsproto.connection.Connection(role)
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
        elif isinstance(event, wsproto.events.Ping):
            messages.append(("ping", bytes(event.payload)))
        elif isinstance(event, wsproto.events.Pong):
            messages.append(("pong", bytes(event.payload)))
        elif isinstance(event, wsproto.events.CloseConnection):
            if connection.state is wsproto.connection.ConnectionState.OPEN:  # so it was no Close that came
                return Outcome(messages, "failed", int(event.code))
            return Outcome(messages, "closed", int(event.code), (event.reason or "").encode())
    return Outcome(messages, "open")


def run_websockets(wire: bytes, is_server: bool) -> Outcome:
    """Its protocol leaves it to its caller to join fragments and to decode texts: done as its connections do it."""
    protocol = Protocol(Side.SERVER if is_server else Side.CLIENT, max_size=None)
    protocol.receive_data(wire)
    messages: list[tuple[str, bytes]] = []
    kind, begun = "", b""
    for frame in protocol.events_received():
        assert not isinstance(frame, Request)
        data = bytes(frame.data)  # type: ignore[union-attr]
        opcode = frame.opcode  # type: ignore[union-attr]
        if opcode in (Opcode.PING, Opcode.PONG):
            messages.append((opcode.name.lower(), data))
        elif opcode is not Opcode.CLOSE:
            kind, begun = (kind, begun + data) if opcode is Opcode.CONT else (opcode.name.lower(), data)
            if frame.fin:  # type: ignore[union-attr]
                try:
                    begun.decode() if kind == "text" else None
                except UnicodeDecodeError:
                    return Outcome(messages, "failed", 1007)
                messages.append((kind, begun))
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        return Outcome(messages, "failed", int(protocol.close_sent.code))
    if protocol.close_rcvd is not None:
        return Outcome(messages, "closed", int(protocol.close_rcvd.code), protocol.close_rcvd.reason.encode())
    return Outcome(messages, "open")


OTHERS: dict[str, Callable[[bytes, bool], Outcome]] = {"wsproto": run_wsproto, "websockets": run_websockets}

others = pytest.mark.parametrize("other", OTHERS)


# --- what follows the handshake: the same -----------------------------------------------------------------------------

Frame = tuple[int, bytes]

TEXTS = ["", "Hello", "Κόσμε ☃ 𝄞", "x" * 125, "é" * 63, "y" * 65536]
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535]
BAD_TEXTS = [b"\x80", b"\xff", b"ok\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"cut\xe2\x98", b"\xe0\x80\xaf"]

SAME: list[list[Frame]] = [
    *([(0x81, text.encode())] for text in TEXTS),
    *([(0x82, text.encode("utf-16"))] for text in TEXTS),
    *([(0x01, text.encode()[:1]), (0x00, b""), (0x80, text.encode()[1:])] for text in TEXTS),
    *([(0x89, b"x" * size), (0x8A, b"y" * size)] for size in (0, 1, 125)),
    [(0x01, b"a"), (0x89, b"p"), (0x00, b"b"), (0x8A, b"q"), (0x80, b"c"), (0x82, b"d")],
    [(0x02, b""), (0x80, b"")],
    # closing
    [(0x88, b"")],
    *([(0x81, b"before"), (0x88, code.to_bytes(2, "big") + "é".encode()), (0x81, b"after")] for code in CODES),
    *([(0x88, code.to_bytes(2, "big"))] for code in BAD_CODES),
    *([(0x88, b"\x03\xe8" + text)] for text in BAD_TEXTS),
    [(0x88, b"\x03")],
    # rules of frames
    *([(0x81, b"before"), (first, b"")] for first in range(256) if first & 0x70),
    *([(0x80 | opcode, b"")] for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *([(opcode, b"")] for opcode in (8, 9, 10)),
    *([(0x80 | opcode, b"x" * 126)] for opcode in (8, 9, 10)),
    # rules of messages
    *([(0x89, b""), (first, b"x")] for first in (0x00, 0x80)),
    *([(0x81, b"x"), (first, b"x")] for first in (0x00, 0x80)),
    *([(begun, b"x"), (first, b"x")] for begun in (1, 2) for first in (0x01, 0x02, 0x81, 0x82)),
    *([(0x89, b""), (0x81, text)] for text in BAD_TEXTS),
    *([(0x01, text), (0x80, b"")] for text in BAD_TEXTS),
    *([(0x82, text)] for text in BAD_TEXTS),
]


def to_wire(frames: list[Frame], is_server: bool) -> bytes:
    return b"".join(build_frame(first, payload, KEY if is_server else None) for first, payload in frames)


@roles
@others
def test_where_there_is_no_choice_the_same_follows(other: str, is_server: bool) -> None:
    for frames in SAME:
        wire = to_wire(frames, is_server)
        assert OTHERS[other](wire, is_server) == run_ours(wire, is_server), frames


@roles
def test_a_text_fails_where_it_fails_in_wsproto(is_server: bool) -> None:
    """By then a ping came, or not: so it is seen which byte it was."""
    for text in BAD_TEXTS:
        if text == b"\xed\xa0\x80":
            continue  # one of the differences
        for cut in range(len(text)):
            wire = to_wire([(0x01, text[: cut + 1]), (0x89, b""), (0x80, text[cut + 1 :])], is_server)
            assert run_wsproto(wire, is_server) == run_ours(wire, is_server), (text, cut)


@roles
@others
@pytest.mark.parametrize("first", [0x81, 0x82, 0x01, 0x88, 0x89, 0x8A])
def test_wrong_masking(other: str, is_server: bool, first: int) -> None:
    wire = to_wire([(0x81, b"good")], is_server) + to_wire([(first, b"")], not is_server)
    assert OTHERS[other](wire, is_server) == run_ours(wire, is_server) == Outcome([("text", b"good")], "failed", 1002)


@st.composite
def frames_of_a_peer(draw: st.DrawFn) -> list[Frame]:
    """Draw frames that mostly make sense, but for what the tables of differences have."""
    frames: list[Frame] = []
    begun = 0  # the opcode of a message that has not ended
    text = st.text(max_size=20).map(str.encode)
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["data", "data", "data", "control", "wild"]))
        if kind == "control":
            frames.append((draw(st.sampled_from([0x89, 0x8A])), draw(st.binary(max_size=125))))
        elif kind == "wild":
            first = draw(st.integers(0, 255).filter(lambda first: first & 0x0F != 8))
            frames.append((first, draw(text)))
            if not first & 0xF8 or first in (0x80, 0x81, 0x82):
                begun = 0 if first & 0x80 else begun or first
        else:
            opcode = 0 if begun else draw(st.sampled_from([1, 2]))
            final = draw(st.booleans())
            payload = draw(text) if (begun or opcode) == 1 else draw(st.binary(max_size=140))
            frames.append(((0x80 if final else 0) | opcode, payload))
            begun = 0 if final else begun or opcode
    if not begun and draw(st.booleans()):
        code = draw(st.sampled_from([*CODES, *BAD_CODES, None]))
        reason = draw(st.text(max_size=20)).encode()
        frames.append((0x88, b"" if code is None else code.to_bytes(2, "big") + reason))
    return frames


@roles
@others
@reproducible
@given(frames=frames_of_a_peer())
def test_the_same_follows(other: str, is_server: bool, frames: list[Frame]) -> None:
    wire = to_wire(frames, is_server)
    assert OTHERS[other](wire, is_server) == run_ours(wire, is_server)


@roles
@pytest.mark.parametrize("limit", [0, 1, 125, 126, 1000])
def test_the_same_is_too_big_for_websockets(is_server: bool, limit: int) -> None:
    messages = [
        [(0x82, bytes(limit))],
        [(0x02, bytes(limit)), (0x80, b"")],
        [(0x82, bytes(limit + 1))],
        [(0x02, bytes(limit)), (0x80, b"x")],
    ]
    for index, frames in enumerate(messages):
        wire = to_wire(frames, is_server)
        ours, theirs = Stream(not is_server, is_server, limit), Protocol(Side(int(not is_server)), max_size=limit)
        delivered = len(ours.receive(wire))
        theirs.receive_data(wire)
        if index < 2:
            assert (delivered, ours.error, theirs.parser_exc) == (1, None, None)
        else:
            assert ours.error is not None
            assert theirs.close_sent is not None
            assert (delivered, ours.error.code, int(theirs.close_sent.code)) == (0, 1009, 1009)


@roles
@reproducible
@given(text=st.text(max_size=100), code=st.sampled_from(CODES), reason=st.text(max_size=30))
def test_others_read_what_is_written_here(is_server: bool, text: str, code: int, reason: str) -> None:
    stream = Stream(always_mask=not is_server)
    data = text.encode()
    wire = stream.encode(0x01, data[:5]) + stream.ping(data[:125]) + stream.encode(0x80, data[5:])
    wire += stream.close(code, reason).single(stream.always_mask)
    expected = Outcome([("ping", data[:125]), ("text", data)], "closed", code, reason.encode())
    assert run_wsproto(wire, not is_server) == run_websockets(wire, not is_server) == expected


@reproducible
@given(text=st.text(max_size=100), data=st.binary(max_size=300), code=st.sampled_from(CODES))
def test_what_others_write_is_read_here(text: str, data: bytes, code: int) -> None:
    for is_server in (True, False):
        side = wsproto.connection.ConnectionType.CLIENT if is_server else wsproto.connection.ConnectionType.SERVER
        connection = wsproto.connection.Connection(side)
        wire = connection.send(wsproto.events.TextMessage(data=text))
        wire += connection.send(wsproto.events.BytesMessage(data=data))
        wire += connection.send(wsproto.events.CloseConnection(code=code, reason=text[:30]))
        protocol = Protocol(Side.CLIENT if is_server else Side.SERVER)
        protocol.send_text(text.encode())
        protocol.send_binary(data)
        protocol.send_close(code, text[:30])
        expected = Outcome([("text", text.encode()), ("binary", data)], "closed", code, text[:30].encode())
        assert run_ours(wire, is_server) == expected
        assert run_ours(b"".join(protocol.data_to_send()), is_server) == expected


# --- what follows the handshake: the differences ----------------------------------------------------------------------


class Difference(NamedTuple):
    other: str
    what: str
    reason: str
    wire: Callable[[bool], bytes]
    ours: tuple[str, int | None]
    theirs: tuple[str, int | None]


def frames(*frames: Frame) -> Callable[[bool], bytes]:
    return lambda is_server: to_wire(list(frames), is_server)


def header(first: int, *rest: int) -> Callable[[bool], bytes]:
    """Return a header alone, with the second byte and the extended length as they are given."""

    def to_bytes(is_server: bool) -> bytes:
        return bytes((first, rest[0] | 0x80 if is_server else rest[0], *rest[1:])) + (KEY if is_server else b"")

    return to_bytes


DIFFERENCES = [
    Difference(
        "wsproto",
        "code 1014",
        "It was registered with IANA after RFC 6455 (Bad Gateway), and wsproto does not have it.",
        frames((0x88, (1014).to_bytes(2, "big"))),
        ("closed", 1014),
        ("failed", 1002),
    ),
    Difference(
        "wsproto",
        "two of the three bytes of a surrogate",
        "Python's decoder, on which it relies, waits for the third; here section 8.1 is kept to the byte.",
        frames((0x01, b"\xed\xa0")),
        ("failed", 1007),
        ("open", None),
    ),
    Difference(
        "websockets",
        "a length not in its shortest form",
        "Section 5.2: the minimal number of bytes MUST be used. It does not check.",
        header(0x82, 126, 0, 0),
        ("failed", 1002),
        ("open", None),
    ),
    Difference(
        "websockets",
        "the most significant bit of a length",
        "Section 5.2: it MUST be 0. It does not check, and waits for the payload.",
        header(0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0),
        ("failed", 1002),
        ("open", None),
    ),
    Difference(
        "websockets",
        "a long control frame of which only the header came",
        "It checks a frame when it is whole; here the header is enough.",
        header(0x89, 126, 0, 126),
        ("failed", 1002),
        ("open", None),
    ),
    Difference(
        "websockets",
        "a reserved bit in a header without its payload",
        "It checks a frame when it is whole; here the header is enough.",
        header(0xC1, 5),
        ("failed", 1002),
        ("open", None),
    ),
    Difference(
        "websockets",
        "a text that is bad before it ends",
        "It decodes a text when it is whole; here, and by section 8.1, as soon as the bytes come.",
        frames((0x01, b"\xff")),
        ("failed", 1007),
        ("open", None),
    ),
    Difference(
        "websockets",
        "a text that is bad, and then a bad frame",
        "The same: here the first error counts.",
        frames((0x01, b"\xff"), (0xFF, b"")),
        ("failed", 1007),
        ("failed", 1002),
    ),
    Difference(
        "websockets",
        "a Close within a message",
        "Section 5.4 lets control frames come between fragments and excepts none; it fails the connection.",
        frames((0x01, b"a"), (0x88, b"\x03\xe8")),
        ("closed", 1000),
        ("failed", 1002),
    ),
    Difference(
        "websockets",
        "a Close with a bad code and a bad reason",
        "Both codes are right; it looks at the reason first.",
        frames((0x88, b"\0\0\xff")),
        ("failed", 1002),
        ("failed", 1007),
    ),
]


@roles
@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: f"{difference.other}: {difference.what}")
def test_the_differences_are_those_that_are_listed(difference: Difference, is_server: bool) -> None:
    wire = difference.wire(is_server)
    ours, theirs = run_ours(wire, is_server), OTHERS[difference.other](wire, is_server)
    assert (ours.end, ours.code) == difference.ours
    assert (theirs.end, theirs.code) == difference.theirs
    if difference.other == "websockets":
        assert run_wsproto(wire, is_server) == ours, "one other at least says the same"


@others
def test_1014_is_the_only_code_that_is_judged_differently(other: str) -> None:
    judged = {
        code: OTHERS[other](build_frame(0x88, code.to_bytes(2, "big")), False).end == "closed"
        for code in [*range(990, 1030), *range(1990, 2010), *range(2990, 3010), *range(4990, 5010), 0, 65535]
    }
    assert {code for code, good in judged.items() if good is not is_wire_code(code)} == (
        {1014} if other == "wsproto" else set()
    )


def test_a_close_that_wsproto_would_rewrite_is_refused_here() -> None:
    """It sends 1000 for 1006, and cuts a reason that is too long; here both are errors of the caller."""
    connection = wsproto.connection.Connection(wsproto.connection.ConnectionType.SERVER)
    assert connection.send(wsproto.events.CloseConnection(code=1006, reason="x")) == b"\x88\x03\x03\xe8x"
    with pytest.raises(ValueError, match="1006"):
        CloseControlMessage(1006, "x")


# --- the handshake: heads, as h11 reads them --------------------------------------------------------------------------


Head = tuple[int, bytes, list[tuple[bytes, bytes]], bytes]


def read_with_h11(data: bytes) -> Head | Literal["refused"] | None:
    """Read an answer to a request for an upgrade."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 17)
    wanted = [("Host", "a"), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
    connection.send(h11.Request(method="GET", target="/", headers=wanted))
    connection.send(h11.EndOfMessage())
    if not data:
        return None  # h11 would take it for the end
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return "refused"
    if event is h11.NEED_DATA:
        return None
    assert isinstance(event, (h11.InformationalResponse, h11.Response))
    return event.status_code, bytes(event.reason), list(event.headers), connection.trailing_data[0]


def read_here(data: bytes) -> Head | Literal["refused"] | None:
    try:
        parsed = parse_response(data)
    except HandshakeError:
        return "refused"
    if parsed is None:
        return None
    response, rest = parsed
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers]
    return response.status, response.reason.encode("latin-1"), headers, rest


SAME_HEADS = [
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi",
    b"HTTP/1.1 101 \r\nA:b\r\nA: c\r\na:  d \t\r\nE:\r\n\r\n",
    b"HTTP/1.1 101\r\n\r\n",
    b"HTTP/1.1 101 Caf\xe9\r\nName: caf\xe9\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 403\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 101 OK\r\nUpgr",
    b"HTTP/1.1 101 OK",
    b"",
    b"\x81\x02hi\r\n\r\n",
    b"SSH-2.0\r\n\r\n",
    b"HTTP/1.1 1011 No\r\n\r\n",
    b"HTTP/1.1 abc No\r\n\r\n",
    b"HTTP/1.1 101 N\0o\r\n\r\n",
    b"HTTP/1.1 101 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 101 OK\r\n: v\r\n\r\n",
    b"HTTP/1.1 101 OK\r\nName : v\r\n\r\n",
    b"HTTP/1.1 101 OK\r\n Name: v\r\n\r\n",
    b"HTTP/1.1 101 OK\r\nName: a\0b\r\n\r\n",
    b"HTTP/1.1 101 OK\r\nName: a\x0bb\r\n\r\n",
]


@pytest.mark.parametrize("data", SAME_HEADS, ids=range(len(SAME_HEADS)))
def test_a_head_is_read_as_h11_reads_it(data: bytes) -> None:
    assert read_here(data) == read_with_h11(data)


printable = st.characters(
    min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f\x85\xa0", exclude_categories=["Cc"]
)
token = st.text("!#$%&'*+-.^_`|~0123456789abcxyzABCXYZ", min_size=1, max_size=12)
value = st.lists(st.text(printable, min_size=1, max_size=8), max_size=3).map(" \t".join)


@reproducible
@given(
    reason=value,
    headers=st.lists(st.tuples(token.map("X-".__add__), value), max_size=6),
    rest=st.binary(max_size=20),
    cut=st.integers(0, 40),
)
@example(reason="", headers=[], rest=b"\r\n\r\n", cut=0)
def test_any_good_head_is_read_as_h11_reads_it(
    reason: str, headers: list[tuple[str, str]], rest: bytes, cut: int
) -> None:
    lines = [f"HTTP/1.1 101 {reason}", *(f"{name}: {text}" for name, text in headers), "", ""]
    data = "\r\n".join(lines).encode("latin-1")
    assert read_here(data + rest) == read_with_h11(data + rest)
    assert read_here(data[: -1 - cut]) == read_with_h11(data[: -1 - cut])


HEAD_DIFFERENCES = {
    "lines that end in LF alone": (
        "RFC 9112, section 2.2, lets a recipient take them for lines; no server of websockets sends them.",
        b"HTTP/1.1 101 OK\nUpgrade: websocket\n\n",
        None,
        (101, b"OK", [(b"upgrade", b"websocket")], b""),
    ),
    "folded lines": (
        "RFC 9112, section 5.2, deprecates them; h11 unfolds them.",
        b"HTTP/1.1 101 OK\r\nA: b\r\n c\r\n\r\n",
        "refused",
        (101, b"OK", [(b"a", b"b c")], b""),
    ),
    "control characters in a value": (
        "RFC 9110, section 5.5, forbids them; h11 lets most pass, for cookies that have them.",
        b"HTTP/1.1 101 OK\r\nA: b\x01c\r\n\r\n",
        "refused",
        (101, b"OK", [(b"a", b"b\x01c")], b""),
    ),
    "control characters in the reason": (
        "The same; and it would end up in a log.",
        b"HTTP/1.1 101 O\x1bK\r\n\r\n",
        "refused",
        (101, b"O\x1bK", [], b""),
    ),
    "NEL in a value": (
        "It is obs-text like the bytes around it; h11 takes it for white space.",
        b"HTTP/1.1 101 OK\r\nA: b\x85c\r\n\r\n",
        (101, b"OK", [(b"a", b"b\x85c")], b""),
        (101, b"OK", [(b"a", b"b\x85c")], b""),
    ),
    "another version in the first line": (
        "Only HTTP/1.1 has the upgrade; h11 reads the line and leaves it to its caller.",
        b"HTTP/2.0 101 OK\r\n\r\n",
        "refused",
        (101, b"OK", [], b""),
    ),
    "a length that is none": (
        "The body of a refusal is not read here, so its length does not matter.",
        b"HTTP/1.1 403 No\r\nContent-Length: x\r\n\r\n",
        (403, b"No", [(b"content-length", b"x")], b""),
        "refused",
    ),
    "bytes that can't begin an answer": (
        "Here they are refused before a line is whole.",
        b"\x81\x02hi",
        "refused",
        None,
    ),
}


@pytest.mark.parametrize("what", HEAD_DIFFERENCES)
def test_heads_are_read_differently_where_it_is_listed(what: str) -> None:
    _, data, ours, theirs = HEAD_DIFFERENCES[what]
    assert read_here(data) == ours
    assert read_with_h11(data) == theirs


@reproducible
@given(
    path=st.text(st.characters(min_codepoint=0x21, exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=20),
    headers=st.lists(st.tuples(token.map("X-".__add__), value), max_size=6),
)
def test_h11_reads_the_request_that_is_written_here(path: str, headers: list[tuple[str, str]]) -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(build_request(f"/{path}", [("Host", "h"), *headers]))
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.http_version) == (b"GET", b"1.1")
    assert event.target.startswith(b"/")
    assert [(name.decode(), text.decode("latin-1")) for name, text in list(event.headers)[1:]] == [
        (name.lower(), text) for name, text in headers
    ]


# --- the handshake: who is let in -------------------------------------------------------------------------------------

NONCE = "dGhlIHNhbXBsZSBub25jZQ=="
GOOD_REQUEST = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": NONCE,
    "Sec-WebSocket-Version": "13",
}


def answer_of_websockets(headers: dict[str, str], method: str = "GET") -> tuple[int, str | None, str | None]:
    """Return the status of its answer, the accept key and the subprotocol."""
    # With subprotocols of its own it refuses a client that offers none.
    own = [Subprotocol("chat"), Subprotocol("superchat")] if "Sec-WebSocket-Protocol" in headers else None
    protocol = ServerProtocol(subprotocols=own)
    response = protocol.accept(Request("/", Headers(headers), method))
    found = response.headers
    return response.status_code, found.get("Sec-WebSocket-Accept"), found.get("Sec-WebSocket-Protocol")


def answer_here(headers: dict[str, str], method: str = "GET") -> tuple[int, str | None, str | None]:
    try:
        accepted = negotiate(method, headers, protocols=["chat", "superchat"], versions=[13])
    except HandshakeError as error:
        return error.status, None, None
    found = dict(accepted.headers)
    return 101, found["Sec-WebSocket-Accept"], found.get("Sec-WebSocket-Protocol")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Upgrade": "WebSocket", "Connection": "keep-alive, UPGRADE"},
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Key": ""},
        {"Sec-WebSocket-Key": "x"},
        {"Sec-WebSocket-Key": "AAAA"},
        {"Sec-WebSocket-Key": NONCE[:-1]},
        {"Sec-WebSocket-Protocol": "superchat"},
        {"Sec-WebSocket-Protocol": "other,chat"},
        {"Sec-WebSocket-Protocol": "a b"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits, x-other; a=1"},
        {"Origin": "http://example.com"},
    ],
    ids=str,
)
def test_websockets_gives_the_same_answer(changes: dict[str, str]) -> None:
    headers = GOOD_REQUEST | changes
    assert answer_here(headers) == answer_of_websockets(headers)


@pytest.mark.parametrize("name", list(GOOD_REQUEST)[1:4])
def test_websockets_gives_the_same_answer_without(name: str) -> None:
    headers = {other: value for other, value in GOOD_REQUEST.items() if other != name}
    assert answer_here(headers) == answer_of_websockets(headers)


def test_websockets_gives_the_same_answer_to_another_method() -> None:
    assert answer_here(GOOD_REQUEST, "POST") == answer_of_websockets(GOOD_REQUEST, "POST") == (405, None, None)


ANSWER_DIFFERENCES: dict[str, tuple[str, dict[str, str], int, int]] = {
    "an empty list of upgrades": (
        "Without a name it is no upgrade; there it is a header that can't be read.",
        {"Upgrade": ""},
        426,
        400,
    ),
    "an empty list of connection options": ("The same.", {"Connection": ","}, 426, 400),
    "no subprotocol in common": (
        "Section 4.2.2 lets a server choose none, and the client then decide; it refuses.",
        {"Sec-WebSocket-Protocol": "other"},
        101,
        400,
    ),
    "an origin of another host": (
        "It lets all in unless told; here only pages of this host are.",
        {"Origin": "http://evil.example"},
        403,
        101,
    ),
    "a version that is not spoken": (
        "Section 4.4 asks for a version header in the answer; 4.2.2 names 426 for the status.",
        {"Sec-WebSocket-Version": "14"},
        426,
        400,
    ),
    "several upgrades": (
        "Section 4.2.1 asks that websocket be among them; it takes one alone.",
        {"Upgrade": "h2c, websocket"},
        101,
        426,
    ),
    "an order of subprotocols": (
        "Here the first that the client names is granted, there the server's first; section 4.2.2 leaves it open.",
        {"Sec-WebSocket-Protocol": "superchat, chat"},
        101,
        101,
    ),
}


@pytest.mark.parametrize("what", ANSWER_DIFFERENCES)
def test_the_answer_differs_where_it_is_listed(what: str) -> None:
    _, changes, ours, theirs = ANSWER_DIFFERENCES[what]
    here, there = answer_here(GOOD_REQUEST | changes), answer_of_websockets(GOOD_REQUEST | changes)
    assert (here[0], there[0]) == (ours, theirs)
    assert here != there


def test_a_client_of_websockets_gets_the_answer_it_wants() -> None:
    client = ClientProtocol(parse_uri("ws://example.com/"), subprotocols=[Subprotocol("superchat")])
    request: Any = client.connect()
    accepted = negotiate("GET", dict(request.headers.raw_items()), protocols=["chat", "superchat"])
    assert accepted.protocol == "superchat"
    assert dict(accepted.headers)["Sec-WebSocket-Accept"] == accept_key(request.headers["Sec-WebSocket-Key"])
    client.send_request(request)
    head = "".join(f"{name}: {text}\r\n" for name, text in accepted.headers)
    client.receive_data(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n".encode())
    assert client.handshake_exc is None
    assert client.subprotocol == "superchat"
