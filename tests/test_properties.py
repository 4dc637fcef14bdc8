"""What must be true for every input: of good peers, of bad ones, and however the network cuts their bytes."""

from __future__ import annotations

import contextlib
import zlib
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ws4py.exc import (
    FrameTooLargeException,
    HandshakeError,
    InvalidCloseCode,
    TextFrameEncodingException,
    WebSocketException,
)
from ws4py.extensions.permessage_deflate import DeflateAgreement
from ws4py.framing import FrameParser, apply_mask, build_frame
from ws4py.handshake import Response, accept_key, build_request, check_response, negotiate, parse_response
from ws4py.messaging import CloseControlMessage, Message, is_wire_code
from ws4py.streaming import Stream, Utf8Validator

KEY = b"\x37\xfa\x21\x3d"
MAX_MESSAGE_SIZE = 400
MAX_FRAGMENTS = 6

reproducible = settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
roles = pytest.mark.parametrize("is_server", [True, False], ids=["server", "client"])

Frames = list[tuple[int, bytes]]


class Outcome(NamedTuple):
    """All that the owner of a stream can see of what came."""

    messages: list[tuple[int, bytes]]
    closing: bytes | None
    error: bytes | None


def make_stream(is_server: bool) -> Stream:
    return Stream(not is_server, is_server, MAX_MESSAGE_SIZE, MAX_FRAGMENTS)


def receive(stream: Stream, pieces: list[bytes]) -> Outcome:
    messages: list[Message] = []
    for piece in pieces:
        messages += stream.receive(piece)
    return Outcome(
        [(message.opcode, message.data) for message in messages],
        None if stream.closing is None else stream.closing.data,
        None if stream.error is None else stream.error.data,
    )


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut ``data`` in pieces of these sizes, which are used again when there are too few; some may be empty."""
    pieces: list[bytes] = []
    position = index = 0
    while position < len(data):
        size = sizes[index % len(sizes)] if index < 10 * len(sizes) else len(data)
        pieces.append(data[position : position + size])
        position += size
        index += 1
    return pieces


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


sizes = st.lists(st.integers(0, 60), min_size=1, max_size=20)
short = st.binary(max_size=140)

# --- good peers -------------------------------------------------------------------------------------------------------


@st.composite
def good_frames(draw: st.DrawFn) -> tuple[Frames, Frames]:
    """Draw frames within every limit, and the messages that they carry, a Close at last or none."""
    frames: Frames = []
    messages: Frames = []
    controls = st.lists(st.tuples(st.sampled_from([0x89, 0x8A]), st.binary(max_size=125)), max_size=1)
    for _ in range(draw(st.integers(0, 5))):
        is_text = draw(st.booleans())
        payload = draw(st.text(max_size=60)).encode() if is_text else draw(st.binary(max_size=300))
        opcode = 1 if is_text else 2
        ends = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=MAX_FRAGMENTS - 1)))
        start = 0
        for index, end in enumerate([*ends, len(payload)]):
            frames.append(((0x80 if index == len(ends) else 0) | (0 if index else opcode), payload[start:end]))
            start = end
            if index < len(ends):
                for control in draw(controls):
                    frames.append(control)
                    messages.append((control[0] & 0xF, control[1]))
        messages.append((opcode, payload))
    if draw(st.booleans()):
        code = draw(st.integers(0, 4999).filter(is_wire_code) | st.none())
        close = CloseControlMessage(code, draw(st.text(max_size=30))).data
        frames.append((0x88, close))
        messages.append((8, close))
    return frames, messages


@roles
@reproducible
@given(drawn=good_frames(), sizes=sizes, key=st.binary(min_size=4, max_size=4))
def test_the_messages_of_a_good_peer_arrive(
    is_server: bool, drawn: tuple[Frames, Frames], sizes: list[int], key: bytes
) -> None:
    frames, messages = drawn
    wire = b"".join(build_frame(first, payload, key if is_server else None) for first, payload in frames)
    closing = messages[-1][1] if messages and messages[-1][0] == 8 else None
    for pieces in ([wire], one_by_one(wire), cut(wire, sizes)):
        assert receive(make_stream(is_server), pieces) == Outcome(messages, closing, None)


@roles
@reproducible
@given(text=st.text(max_size=90), data=st.binary(max_size=300), ping=st.binary(max_size=125), sizes=sizes)
def test_what_one_role_writes_the_other_reads(
    is_server: bool, text: str, data: bytes, ping: bytes, sizes: list[int]
) -> None:
    ours, theirs = make_stream(is_server), make_stream(not is_server)
    to_send = [ours.text_message(text), ours.binary_message(data), ours.close(4000, text[:30])]
    wire = ours.ping(ping) + ours.pong(ping) + b"".join(message.single(ours.always_mask) for message in to_send)
    received = receive(theirs, cut(wire, sizes))
    assert received.messages == [(9, ping), (10, ping)] + [(message.opcode, message.data) for message in to_send]
    assert received.error is None


# --- bad peers --------------------------------------------------------------------------------------------------------


@st.composite
def wild_frames(draw: st.DrawFn) -> bytes:
    """Draw frames that break rules, more often one or none than many."""
    wire = b""
    for _ in range(draw(st.integers(1, 8))):
        first = draw(
            st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8A])
            | st.sampled_from([0x88, 0x09, 0xC1, 0x83, 0x91])
            | st.integers(0, 255)
        )
        payload = draw(
            st.text(max_size=40).map(str.encode)
            | short
            | st.sampled_from([b"\xe2\x98", b"\x83", b"\xed", b"\xa0\x80", b"\xff", b"\x03\xe8", bytes(401)])
        )
        frame = build_frame(first, payload, draw(st.sampled_from([KEY, None, KEY])))
        size = len(payload)
        if draw(st.integers(0, 15)) == 0 and size < 126:  # a length in a longer form
            extended = draw(st.sampled_from([(126, 2), (127, 8)]))
            frame = bytes((frame[0], frame[1] & 0x80 | extended[0])) + size.to_bytes(extended[1], "big") + frame[2:]
        wire += frame
    return wire[: draw(st.sampled_from([len(wire), len(wire), max(len(wire) - 3, 0), len(wire) // 2]))]


@roles
@settings(reproducible, max_examples=200)
@given(wire=wild_frames() | short, sizes=sizes)
@example(wire=b"\x01\x02\xed\xa0\x83\x00", sizes=[2])
@example(wire=build_frame(0x01, b"\xe2\x98", KEY) + build_frame(0x80, b"", KEY), sizes=[1])
@example(wire=build_frame(0x81, b"\xff", KEY) + b"\xff\xff", sizes=[1])
@example(wire=build_frame(0x88, b"", KEY) + b"\xff\xff", sizes=[1])
def test_the_cuts_of_the_network_change_nothing(is_server: bool, wire: bytes, sizes: list[int]) -> None:
    """And nothing is raised, for any bytes."""
    whole = receive(make_stream(is_server), [wire])
    assert receive(make_stream(is_server), one_by_one(wire)) == whole
    assert receive(make_stream(is_server), cut(wire, sizes)) == whole


@roles
@reproducible
@given(wire=wild_frames() | short, more=wild_frames() | short)
def test_after_its_end_a_stream_is_deaf(is_server: bool, wire: bytes, more: bytes) -> None:
    stream = make_stream(is_server)
    first = receive(stream, [wire])
    assert first.closing is None or first.error is None
    if first.closing is not None:
        assert first.messages[-1] == (8, first.closing)
    if first.closing is not None or first.error is not None:
        assert receive(stream, [more]) == Outcome([], first.closing, first.error)
        assert (stream._buffer, stream._validator) == (None, None)


@roles
@reproducible
@given(wire=wild_frames() | short)
def test_an_error_is_a_close_that_may_be_sent(is_server: bool, wire: bytes) -> None:
    stream, peer = make_stream(is_server), make_stream(not is_server)
    stream.receive(wire)
    if stream.error is not None:
        assert stream.error.code in (1002, 1007, 1009)
        (received,) = peer.receive(stream.error.single(stream.always_mask))
        assert received is peer.closing
        assert (received.data, peer.error) == (stream.error.data, None)


@roles
@reproducible
@given(wire=wild_frames() | short)
def test_no_message_passes_a_limit(is_server: bool, wire: bytes) -> None:
    stream = make_stream(is_server)
    for piece in one_by_one(wire):
        assert all(len(message.data) <= MAX_MESSAGE_SIZE for message in stream.receive(piece))
        assert len(stream._buffer or b"") <= MAX_MESSAGE_SIZE


@roles
@reproducible
@given(wire=wild_frames() | short)
def test_a_parser_raises_only_what_is_documented_and_buffers_no_payload(is_server: bool, wire: bytes) -> None:
    parser = FrameParser(is_server, MAX_MESSAGE_SIZE, MAX_FRAGMENTS)
    frames: Frames = []
    with contextlib.suppress(WebSocketException):
        for piece in one_by_one(wire):
            parser.feed(piece, frames)
            assert parser.kept < 2 + 8 + 4 + 125
    assert sum(len(payload) for _, payload in frames) <= len(wire)


# --- compression ------------------------------------------------------------------------------------------------------


def make_deflating(is_server: bool, takeover: bool, limit: int = MAX_MESSAGE_SIZE) -> Stream:
    stream = Stream(not is_server, is_server, limit, MAX_FRAGMENTS)
    stream.use(DeflateAgreement(not takeover, not takeover, 15, 15, 6, 8, 0).codec())
    return stream


takeovers = pytest.mark.parametrize("takeover", [False, True], ids=["no takeover", "takeover"])
some_texts = st.lists(st.tuples(st.text(max_size=60).map(str.encode), st.integers(0, 60), st.booleans()), max_size=5)


@roles
@takeovers
@reproducible
@given(drawn=some_texts, sizes=sizes, ping=st.binary(max_size=125))
def test_what_one_role_compresses_the_other_inflates(
    is_server: bool, takeover: bool, drawn: list[tuple[bytes, int, bool]], sizes: list[int], ping: bytes
) -> None:
    ours, theirs = make_deflating(is_server, takeover), make_deflating(not is_server, takeover)
    wire, expected = b"", []
    for text, end, whole in drawn:
        if whole:
            wire += ours.encode_message(1, text)
        else:
            encode = ours.begin_fragments()
            wire += encode(1, text[:end]) + ours.ping(ping) + encode(0x80, text[end:])
            expected.append((9, ping))
        expected.append((1, text))
    for pieces in ([wire], one_by_one(wire), cut(wire, sizes)):
        if takeover and pieces != [wire]:
            theirs = make_deflating(not is_server, takeover)
        assert receive(theirs, pieces) == Outcome(expected, None, None)


@st.composite
def wild_compressed_frames(draw: st.DrawFn) -> bytes:
    """Draw compressed frames, about half of which something is wrong with."""
    wire = b""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    for _ in range(draw(st.integers(1, 5))):
        data = draw(st.text(max_size=40).map(str.encode) | st.binary(max_size=60) | st.just(b"x" * 401))
        payload = compressor.compress(data) + compressor.flush(
            draw(st.sampled_from([zlib.Z_SYNC_FLUSH] * 3 + [zlib.Z_FULL_FLUSH]))
        )
        payload = draw(st.sampled_from([payload[:-4]] * 4 + [payload, data, payload[:-5], b"", b"\x03\x00\x00"]))
        first = draw(st.sampled_from([0xC1, 0xC2, 0xC1, 0x41, 0x80, 0x42, 0x00, 0xC0, 0xC9, 0x81]))
        end = draw(st.integers(0, len(payload)))
        if draw(st.booleans()) and first & 0xC0 == 0xC0:
            wire += build_frame(first & 0x7F, payload[:end], KEY) + build_frame(0x80, payload[end:], KEY)
        else:
            wire += build_frame(first, payload, KEY)
    return wire


@takeovers
@settings(reproducible, max_examples=200)
@given(wire=wild_compressed_frames(), sizes=sizes)
def test_the_cuts_of_the_network_change_nothing_for_compressed_frames(
    takeover: bool, wire: bytes, sizes: list[int]
) -> None:
    """But for which of two faults counts that zlib meets at once."""
    whole = receive(make_deflating(True, takeover), [wire])
    for pieces in (one_by_one(wire), cut(wire, sizes)):
        other = receive(make_deflating(True, takeover), pieces)
        assert other[:2] == whole[:2]
        codes = {None if outcome.error is None else outcome.error[:2] for outcome in (whole, other)}
        assert len(codes) == 1 or codes == {b"\x03\xef", b"\x03\xf1"}  # 1007 and 1009


@takeovers
@reproducible
@given(wire=wild_compressed_frames())
def test_no_compressed_message_passes_a_limit(takeover: bool, wire: bytes) -> None:
    stream = make_deflating(True, takeover)
    for piece in one_by_one(wire):
        assert all(len(message.data) <= MAX_MESSAGE_SIZE for message in stream.receive(piece))
        assert len(stream._buffer or b"") <= MAX_MESSAGE_SIZE
    assert stream.error is None or stream.error.code in (1002, 1007, 1009)


# --- parts ------------------------------------------------------------------------------------------------------------


@reproducible
@given(data=st.binary(max_size=300) | st.binary(min_size=2040, max_size=2060), key=st.binary(min_size=4, max_size=4))
def test_masking_twice_is_not_masking(data: bytes, key: bytes) -> None:
    assert apply_mask(apply_mask(data, key), key) == data
    assert apply_mask(data, key) == bytes(octet ^ key[index & 3] for index, octet in enumerate(data))


@settings(reproducible, max_examples=250)
@given(
    data=st.lists(
        st.text(max_size=5).map(str.encode)
        | st.binary(max_size=3)
        | st.sampled_from([b"\xed", b"\xa0", b"\xf4", b"\x90", b"\xe2\x98"])
    ).map(b"".join),
    sizes=sizes,
)
@example(data=b"\xed\xa0", sizes=[1])
@example(data=b"a\xed\xbf\xbf", sizes=[2])
def test_the_validator_agrees_with_the_decoder(data: bytes, sizes: list[int]) -> None:
    valid_so_far = whole = True
    for end in range(len(data) + 1):
        validator = Utf8Validator()
        results = [validator.validate(piece) for piece in cut(data[:end], sizes)]
        valid_so_far = all(valid for valid, _, _, _ in results)
        whole = not results or results[-1][1]
        try:
            data[:end].decode()
        except UnicodeDecodeError as error:
            assert not (valid_so_far and whole)
            # Whatever may still follow, this is no text: no character begins with these bytes.
            begun = data[error.start : end]
            could_go_on = error.end == end and any(_begins_a_character(begun, length) for length in (2, 3, 4))
            assert valid_so_far is could_go_on
        else:
            assert valid_so_far
            assert whole
            assert validator.validate(b"")[3] == end
        for (_, _, accepted, _), piece in zip(results, cut(data[:end], sizes), strict=True):
            assert 0 <= accepted <= len(piece)
        if not valid_so_far:
            break


def _begins_a_character(begun: bytes, length: int) -> bool:
    """Tell whether a character of ``length`` bytes begins with ``begun``: the edges of every range are tried."""
    missing = length - len(begun)
    for filler in (b"\x80", b"\x90", b"\xa0", b"\x8f", b"\x9f", b"\xbf"):
        rest = (filler + b"\x80" * missing)[:missing]
        with contextlib.suppress(UnicodeDecodeError):
            (begun + rest).decode()
            return missing > 0
    return False


@reproducible
@given(
    code=st.integers(-10, 70000) | st.none() | st.integers(),
    reason=st.none() | st.binary(max_size=130) | st.text(st.characters(), max_size=70),
)
def test_a_close_is_made_or_refused_as_documented(code: int | None, reason: str | bytes | None) -> None:
    try:
        message = CloseControlMessage(code, reason)
    except (InvalidCloseCode, FrameTooLargeException, TextFrameEncodingException):
        return
    assert not message.data or is_wire_code(int.from_bytes(message.data[:2], "big"))
    received = receive(make_stream(is_server=False), [message.single()])
    assert received == Outcome([(8, message.data)], message.data, None)


# --- the handshake ----------------------------------------------------------------------------------------------------

header_text = st.text(max_size=30) | st.sampled_from(
    [
        "websocket",
        "Upgrade",
        "13",
        "8",
        "dGhlIHNhbXBsZSBub25jZQ==",
        "http://a",
        "https://a:1",
        "a",
        "a:1",
        "null",
        "[::1]",
    ]
)
NAMES = [
    *("Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version"),
    *("Origin", "Sec-WebSocket-Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"),
]
GOOD = dict(zip(NAMES, ["a", "websocket", "Upgrade", "dGhlIHNhbXBsZSBub25jZQ==", "13", "http://a"], strict=False))


@settings(reproducible, max_examples=250)
@given(
    method=st.sampled_from(["GET", "GET", "POST"]) | st.text(max_size=5),
    changes=st.dictionaries(st.sampled_from(NAMES), header_text, max_size=4),
    origins=st.none() | st.just("*") | st.lists(header_text, max_size=2),
    protocols=st.lists(st.sampled_from(["a", "13"]), max_size=2),
)
def test_a_server_accepts_or_refuses_with_a_status(
    method: str, changes: dict[str, str], origins: str | list[str] | None, protocols: list[str]
) -> None:
    headers = GOOD | changes
    try:
        accepted = negotiate(method, headers, origins=origins, protocols=protocols)
    except HandshakeError as error:
        status, answer, chosen = error.status, error.headers, None
    else:
        status, answer, chosen = 101, accepted.headers, accepted.protocol
    assert status in ((101, 400, 403, 426) if method == "GET" else (405,))
    assert chosen in (None, *protocols)
    for header in answer:
        # Nothing that a client sent breaks out of its line.
        assert all(part.isascii() and part.isprintable() for part in header)


good_head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"


@settings(reproducible, max_examples=200)
@given(
    data=st.binary(max_size=100)
    | st.lists(
        st.sampled_from(
            [b"HTTP/1.1 ", b"101", b" OK", b"\r\n", b"\n", b"\r\n\r\n", b"A: b", b" ", b":", b"\0", b"\xff"]
        )
    ).map(b"".join)
    | st.tuples(st.integers(0, len(good_head)), st.binary(max_size=3)).map(
        lambda change: good_head[: change[0]] + change[1] + good_head[change[0] :]
    )
)
def test_the_head_of_an_answer_is_the_same_however_it_comes(data: bytes) -> None:
    def parse(piece: bytes) -> tuple[Response, bytes] | str | None:
        try:
            return parse_response(piece)
        except HandshakeError:
            return "refused"

    whole = parse(data)
    first = next((result for end in range(len(data)) if (result := parse(data[:end])) is not None), whole)
    if isinstance(first, tuple):
        assert isinstance(whole, tuple)
        assert whole[0] == first[0]
        assert whole[1] == data[len(data) - len(whole[1]) :]
    else:
        assert whole == first
    if isinstance(whole, tuple):
        with contextlib.suppress(HandshakeError):
            check_response(whole[0], "dGhlIHNhbXBsZSBub25jZQ==", protocols=["a"], extensions=["b"])


@reproducible
@given(resource=st.text(max_size=20).map("/".__add__), name=st.text(max_size=6), value=st.text(max_size=20))
def test_a_request_keeps_to_its_lines(resource: str, name: str, value: str) -> None:
    try:
        head = build_request(resource, [("Host", "h"), (name, value)])
    except HandshakeError:
        return
    lines = head.split(b"\r\n")
    assert (len(lines), lines[3:]) == (5, [b"", b""])
    assert lines[0].split(b" ")[::2] == [b"GET", b"HTTP/1.1"]
    assert lines[0].isascii()
    assert lines[2] == f"{name}: {value}".encode("latin-1")
    assert not set(head.replace(b"\r\n", b"")) & {0, 10, 13}


@reproducible
@given(key=st.text(max_size=40).filter(lambda key: key.isascii()))
def test_the_answer_to_any_key_is_20_bytes_in_base64(key: str) -> None:
    assert len(accept_key(key)) == 28
